//! Trainings on pictures, submitted as a person would: folders by class, Herbarium's metadata,
//! what is missing or damaged, tables, figures, predictions, plans.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, Finished, kill, number, wait_until};
use crate::training::{Training, metric, rounds, says};

/// A picture of class 0 is bright on its left, one of class 1 on its right.
fn picture(class: usize, index: usize) -> Vec<u8> {
    let side = 20;
    let pixels: Vec<u8> = (0..side * side)
        .flat_map(|at| {
            let (x, y) = (at % side, at / side);
            let bright = (x < side / 2) == (class == 0);
            // Each one a little different.
            let noise = ((x * 31 + y * 17 + index * 101) % 61) as u8;
            [if bright { 180 + noise } else { 20 + noise }; 3]
        })
        .collect();
    png_of(side, &pixels)
}

/// A square picture in colour.
fn png_of(side: usize, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side as u32, side as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// `workloads/NAME.toml` with the data in `root`, small and quick.
fn submit(cluster: &Cluster, name: &str, root: &Path, more: &[&str]) -> Finished {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workloads");
    let file = file.join(name).with_extension("toml");
    let output = format!("output.folder={}", root.join("output").display());
    let mut arguments = vec!["submit", "--json", file.to_str().unwrap()];
    arguments.extend(["--data", root.to_str().unwrap(), "--set", &output]);
    arguments.extend(more);
    cluster.run(&arguments)
}

fn lines(path: PathBuf) -> Vec<String> {
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn folders_by_class_train_and_what_is_damaged_is_named() {
    let root = tempfile::tempdir().unwrap();
    for class in 0..2 {
        for index in 0..40 {
            let path = root.path().join(format!("breast/{class}/{index}.png"));
            write(&path, &picture(class, index));
        }
    }
    write(&root.path().join("breast/1/damaged.png"), b"\x89PNG no picture");
    let cluster = Cluster::with_workers(&[1, 1]);
    let quick = ["data.size=20", "train.replicas=2", "augment.flip=none"];
    let quick: Vec<&str> = quick.iter().flat_map(|set| ["--set", *set]).collect();
    // The original's net, which needs no larger pictures.
    let set = [&quick[..], &["--set", "train.epochs=8", "--set", "model.name=breast_convnet"]];
    let set = set.concat();
    let finished = submit(&cluster, "breast_cancer", root.path(), &set);
    finished.assert_success();
    assert!(metric(&finished, "val_roc_auc") > 0.9, "{finished}");
    for name in ["val_f1", "val_precision", "val_recall", "test_accuracy"] {
        assert!(metric(&finished, name) > 0.5, "{name}: {finished}");
    }
    let data = finished.json_line("data");
    assert_eq!(data["skipped"], 1, "{finished}");
    assert!(data["skipped_files"][0]["file"].as_str().unwrap().ends_with("1/damaged.png"));
    let report = fs::read_to_string(root.path().join("output/report.html")).unwrap();
    assert!(report.contains("1 picture left out") && report.contains("1/damaged.png"));
    assert_eq!(rounds(&finished).len(), 8);

    let output = root.path().join("output");
    let table = lines(output.join("metrics/breast_cancer.csv"));
    assert_eq!(table.len(), 9);
    for column in
        ["train_loss", "val_accuracy", "val_precision", "val_recall", "val_f1", "val_roc_auc"]
    {
        assert!(table[0].split(',').any(|name| name == column), "{column}: {}", table[0]);
    }
    assert!(table[1..].iter().all(|line| line.split(',').all(|cell| !cell.is_empty())));
    assert!(fs::read_dir(output.join("metrics/tensorboard")).unwrap().count() > 0);
    let parts = ["train", "validation", "test"]
        .map(|part| lines(output.join(format!("tables/{part}.csv"))).len() - 1);
    assert_eq!(parts.iter().sum::<usize>(), 81);
    // A row for each test picture, whether it could be read or not.
    assert_eq!(lines(output.join("predictions.csv")).len() - 1, parts[2]);

    let model = format!("infer.model={}", output.join("model.safetensors").display());
    let again = submit(&cluster, "breast_cancer", root.path(), &["--set", &model]);
    again.assert_success();
    assert_eq!(metric(&again, "test_accuracy"), metric(&finished, "test_accuracy"), "{again}");
    // The training's own report is left as it is.
    let kept = fs::read_to_string(output.join("report.html")).unwrap();
    assert!(kept == report, "the report of the training is another one");
    let page = fs::read_to_string(output.join("prediction.html")).unwrap();
    for piece in ["Prediction report", "model.safetensors", "Confusion", "First test images"] {
        assert!(page.contains(piece), "{piece} is not in the report of the prediction");
    }
}

/// Herbarium's layout; one name is no UTF-8, one picture is missing.
pub(crate) fn herbarium(root: &Path) {
    let (mut images, mut annotations) = (String::new(), String::new());
    for index in 0..60 {
        let comma = if index == 0 { "" } else { "," };
        images += &format!("{comma}{{\"id\": {index}, \"file_name\": \"images/{index}.png\"}}");
        annotations +=
            &format!("{comma}{{\"image_id\": {index}, \"category_id\": {}}}", 7 + index % 2);
        if index != 5 {
            let path = root.join(format!("herbarium/train/images/{index}.png"));
            write(&path, &picture(index % 2, index));
        }
    }
    let before =
        format!("{{\"images\": [{images}], \"annotations\": [{annotations}], \"categories\": [");
    let classes = b"{\"id\": 7, \"name\": \"Caf\xe9\"}, {\"id\": 8, \"name\": \"Poa\"}]}";
    let metadata = [before.as_bytes(), classes].concat();
    write(&root.join("herbarium/train/metadata.json"), &metadata);
    herbarium_test(root, 10, |index| format!("{index}.png"));
    for index in 0..10 {
        write(&root.join(format!("herbarium/test/{index}.png")), &picture(index % 2, 99 + index));
    }
}

/// The metadata of so many test pictures, in these files.
fn herbarium_test(root: &Path, count: usize, file: impl Fn(usize) -> String) {
    let image = |index| format!("{{\"id\": 9{index}, \"file_name\": \"{}\"}}", file(index));
    let images: Vec<String> = (0..count).map(image).collect();
    let metadata = format!("{{\"images\": [{}]}}", images.join(", "));
    write(&root.join("herbarium/test/metadata.json"), metadata.as_bytes());
}

#[test]
fn herbarium_metadata_trains_and_every_test_picture_is_predicted() {
    let root = tempfile::tempdir().unwrap();
    herbarium(root.path());
    let cluster = Cluster::with_workers(&[1, 1]);
    let set = [
        "--set",
        "data.size=20",
        "--set",
        "data.validation=0.2",
        "--set",
        "train.epochs=6",
        "--set",
        "train.batch=4",
        "--set",
        "augment.flip=none",
        "--set",
        "output.keep=2",
        "--set",
        "output.checkpoint_steps=2",
    ];
    let finished = submit(&cluster, "herbarium", root.path(), &set);
    finished.assert_success();
    assert_eq!(finished.json_line("data")["skipped"], 1, "{finished}");
    assert!(metric(&finished, "val_accuracy") > 0.8, "{finished}");
    let output = root.path().join("output");
    let skipped = lines(output.join("tables/skipped.csv"));
    assert!(skipped[1].contains("images/5.png"), "{skipped:?}");
    let predictions = lines(output.join("predictions.csv"));
    assert_eq!((predictions.len(), predictions[0].as_str()), (11, "Id,Predicted"));
    let right = predictions[1..]
        .iter()
        .enumerate()
        .filter(|(index, line)| **line == format!("9{index},{}", 7 + index % 2));
    assert!(right.count() >= 8, "{predictions:?}");
    let kept = fs::read_dir(&output).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("checkpoint-")
    });
    assert_eq!(kept.count(), 2);
}

#[test]
fn a_dry_run_tells_the_plan_without_a_cluster() {
    let root = tempfile::tempdir().unwrap();
    herbarium(root.path());
    let cluster = Cluster::new();
    let told = submit(&cluster, "herbarium", root.path(), &["--dry-run"]);
    told.assert_success();
    let plan = told.json_line("plan");
    assert_eq!((&plan["train_images"], &plan["test_images"]), (&54.into(), &10.into()), "{told}");
    assert_eq!(plan["strategy"], "gradient_master");
    assert!(plan["replica_bytes"].as_u64() > plan["model_bytes"].as_u64());
    let missing = submit(&cluster, "breast_cancer", root.path(), &["--dry-run"]);
    missing.assert_failure("no folder breast");
}

/// Every family of the zoo has a plan; two of them are trained, tested and compared, and one is
/// tested again from its checkpoint.
#[test]
fn models_of_the_zoo_are_planned_trained_and_compared() {
    let root = tempfile::tempdir().unwrap();
    herbarium(root.path());
    let cluster = Cluster::with_workers(&[1, 1]);
    for (model, size, parameters) in [
        ("alexnet", 224, 57_012_034),
        ("densenet", 224, 6_955_906),
        ("inception", 299, 21_789_666),
        ("resnet18", 224, 11_177_538),
        ("resnet34", 224, 21_285_698),
        ("resnet50", 224, 23_512_130),
        ("squeezenet", 224, 736_450),
        ("vgg", 224, 128_780_034),
    ] {
        let set = [format!("model.name={model}"), format!("data.size={size}")];
        let told = submit(
            &cluster,
            "herbarium_zoo",
            root.path(),
            &["--dry-run", "--set", &set[0], "--set", &set[1]],
        );
        told.assert_success();
        let plan = told.json_line("plan");
        assert_eq!((&plan["model"], &plan["parameters"]), (&model.into(), &parameters.into()));
        assert_eq!(plan["strategy"], "allreduce");
    }

    // Few processes: each of them starts libtorch.
    let small = ["data.size=32", "data.limit=32", "train.epochs=1", "train.batch=8"];
    let small = [&small[..], &["train.replicas=1", "infer.predictors=1"]].concat();
    let small: Vec<&str> = small.iter().flat_map(|set| ["--set", *set]).collect();
    let models = ["--set", "model.name=squeezenet", "--set", "model.compare=resnet18"];
    let finished = submit(&cluster, "herbarium_zoo", root.path(), &[&small[..], &models].concat());
    finished.assert_success();
    let decoded = finished.json_lines().into_iter().filter(|line| line["event"] == "data");
    assert_eq!(decoded.count(), 1, "decoded once for both: {finished}");
    let output = root.path().join("output");
    let table = lines(output.join("results.csv"));
    assert_eq!(table.len(), 3, "{table:?}");
    for (row, model) in table[1..].iter().zip(["squeezenet", "resnet18"]) {
        assert!(row.starts_with(&format!("{model},1,")), "{table:?}");
        assert!(metric(&finished, &format!("{model}_val_accuracy")) >= 0.0, "{finished}");
        let predicted = lines(output.join(model).join("predictions.csv"));
        assert_eq!(predicted.len(), 11, "{predicted:?}");
        // Each folder says what its model was trained on.
        assert_eq!(lines(output.join(model).join("tables/train.csv")).len(), 33);
        let page = fs::read_to_string(output.join(model).join("report.html")).unwrap();
        assert!(page.contains(model), "the report of {model} names another model");
    }

    let checkpoint = output.join("resnet18/checkpoint.safetensors");
    let model = format!("infer.model={}", checkpoint.display());
    let again = ["--set", &model, "--set", "infer.predictors=1"];
    let again = submit(&cluster, "herbarium_zoo", root.path(), &again);
    again.assert_success();
    assert!(again.stdout.iter().any(|line| line.contains("resnet18")), "{again}");
    assert_eq!(predictions(root.path(), 10).len(), 10);
    // What is known of it while it runs, and after it.
    let told = again.json_lines().into_iter().filter(|line| line["event"] == "prediction");
    let told: Vec<_> = told.map(|line| line["progress"].clone()).collect();
    assert_eq!((&told[0]["done"], &told[0]["total"]), (&0.into(), &10.into()), "{again}");
    assert_eq!(told.last().unwrap()["done"], 10, "{again}");
    let report = again.json_line("report");
    assert_eq!(report["path"].as_str(), output.join("report.html").to_str(), "{again}");
    let page = fs::read_to_string(output.join("report.html")).unwrap();
    for piece in ["Prediction report", "resnet18", "<th>decode</th>", "<th>predict</th>"] {
        assert!(page.contains(piece), "{piece} is not in the report");
    }
    assert!(!page.contains("<th>strategy</th>"), "nothing was trained");
}

/// Weights that were learnt of other pictures and classes: all but the last layer is taken, and a
/// rate at which nothing else is learnt shows it.
#[test]
fn a_model_learns_from_anothers_weights() {
    let root = tempfile::tempdir().unwrap();
    herbarium(root.path());
    let cluster = Cluster::with_workers(&[1]);
    let digits = Training::of(&["data.size=20", "data.colour=true", "data.limit=1000"]);
    let learnt = digits.run(&cluster, &["train.epochs=2"]);
    assert!(metric(&learnt, "test_accuracy") > 0.5, "{learnt}");
    let weights = format!("model.weights={}", digits.model().display());
    let set = ["model.name=mlp", "data.size=20", "augment.flip=none", "train.replicas=1", &weights];
    let set: Vec<&str> = set.iter().flat_map(|set| ["--set", *set]).collect();
    let more = |more: [&'static str; 2]| [&set[..], &["--set", more[0], "--set", more[1]]].concat();
    let trained =
        submit(&cluster, "herbarium", root.path(), &more(["train.epochs=6", "train.batch=8"]));
    trained.assert_success();
    assert!(says(&trained, "for other classes and begun anew"), "{trained}");
    assert!(metric(&trained, "val_accuracy") > 0.8, "{trained}");

    let still = more(["train.epochs=1", "train.learning_rate=1e-12"]);
    submit(&cluster, "herbarium", root.path(), &still).assert_success();
    let file = |path: &Path| fs::read(path).unwrap();
    let taken = first_layer(&file(&root.path().join("output/model.safetensors")));
    let given = first_layer(&file(&digits.model()));
    assert_eq!((taken.len(), given.len()), (128 * 20 * 20 * 3, 128 * 20 * 20 * 3));
    assert!(taken.iter().zip(&given).all(|(a, b)| (a - b).abs() < 1e-5), "not those weights");

    let other = ["model.name=convnet", "data.size=20", &weights];
    let other: Vec<&str> = other.iter().flat_map(|set| ["--set", *set]).collect();
    let refused = submit(&cluster, "herbarium", root.path(), &other);
    refused.assert_failure("model.name must be the model that the weights are of");
}

/// The weights of a model's first layer.
fn first_layer(safetensors: &[u8]) -> Vec<f32> {
    let header = u64::from_le_bytes(safetensors[..8].try_into().unwrap()) as usize;
    let (header, data) = safetensors[8..].split_at(header);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let range = &header["dense1.weight"]["data_offsets"];
    let [from, to] = [0, 1].map(|end| range[end].as_u64().unwrap() as usize);
    let values = data[from..to].chunks_exact(4);
    values.map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
}

/// Digits in the shape that a well-known model wants, to the end and again from its file.
#[test]
fn digits_go_with_the_zoo() {
    let cluster = Cluster::with_workers(&[1]);
    let training = Training::of(&["model.name=resnet18", "data.limit=64", "train.batch=16"]);
    let small = training.start(&cluster, &[]).finish();
    small.assert_failure("data.size = 32 makes them larger");
    let set = ["data.size=32", "data.colour=true", "train.epochs=1", "train.monitor=roc_auc"];
    let trained = training.run(&cluster, &[&set[..], &["train.select=best"]].concat());
    assert!(metric(&trained, "test_roc_auc") > 0.0, "{trained}");
    let model = format!("infer.model={}", training.model().display());
    let predicted = training.run(&cluster, &[&model]);
    let accuracies = [&trained, &predicted].map(|job| metric(job, "test_accuracy"));
    assert!((accuracies[0] - accuracies[1]).abs() < 1e-9, "{accuracies:?}");
}

/// The numbers of `predictions.csv`, which has every test picture once and in its order.
fn predictions(root: &Path, count: usize) -> Vec<usize> {
    let lines = lines(root.join("output/predictions.csv"));
    assert_eq!((lines.len(), lines[0].as_str()), (count + 1, "Id,Predicted"));
    let row = |(index, line): (usize, &String)| {
        let (id, class) = line.split_once(',').unwrap();
        assert_eq!(id, format!("9{index}"));
        class.parse().unwrap()
    };
    lines[1..].iter().enumerate().map(row).collect()
}

/// Prediction from a checkpoint, through actors that are killed while they work.
#[test]
fn every_test_picture_is_predicted_once_though_actors_are_killed() {
    const PICTURES: usize = 3_000;
    let root = tempfile::tempdir().unwrap();
    herbarium(root.path());
    herbarium_test(root.path(), PICTURES, |index| format!("{index}.png"));
    for index in 0..PICTURES {
        let bytes = picture(index % 2, 99 + index);
        // One of them is no picture.
        let bytes = if index == 77 { b"damaged".to_vec() } else { bytes };
        write(&root.path().join(format!("herbarium/test/{index}.png")), &bytes);
    }
    let cluster = Cluster::with_workers(&[]);
    let worker = cluster.join(&["--cpus", "2"]);
    let train = ["data.size=20", "data.limit=60", "train.epochs=2", "augment.flip=none"];
    let train: Vec<&str> = train.iter().flat_map(|set| ["--set", *set]).collect();
    submit(&cluster, "herbarium", root.path(), &train).assert_success();

    let checkpoint = root.path().join("output/checkpoint.safetensors");
    let model = format!("infer.model={}", checkpoint.display());
    let infer = [model.as_str(), "infer.batch=8", "infer.block=4", "infer.queue=24"];
    let infer: Vec<&str> = infer.iter().flat_map(|set| ["--set", *set]).collect();
    let whole = submit(&cluster, "herbarium", root.path(), &infer);
    whole.assert_success();
    let expected = predictions(root.path(), PICTURES);
    let told = whole.json_line("pipeline");
    assert_eq!((&told["images"], &told["failed"]), (&(PICTURES - 1).into(), &1.into()), "{whole}");
    let skipped = lines(root.path().join("output/tables/skipped.csv"));
    assert!(skipped.iter().any(|line| line.contains("77.png,it is neither")), "{skipped:?}");

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workloads/herbarium.toml");
    let output = format!("output.folder={}", root.path().join("output").display());
    let mut arguments = vec!["submit", "--json", file.to_str().unwrap()];
    arguments.extend(["--data", root.path().to_str().unwrap(), "--set", &output]);
    arguments.extend(&infer);
    let job = cluster.start(&arguments);
    let partial = root.path().join("output/predictions.csv.partial");
    wait_until("a part of the predictions", || match fs::metadata(&partial) {
        Ok(file) if file.len() > 4_096 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The driver's process is an executor too, and is left alone: it was the first.
    let mut executors = cluster.executors(number(&worker, "pid"));
    executors.sort_unstable();
    assert!(executors.len() >= 3, "{:#?}", cluster.processes());
    executors[1..].iter().copied().for_each(kill);
    let finished = job.finish();
    finished.assert_success();
    let told = finished.json_line("pipeline");
    // Of this run alone.
    let skipped = lines(root.path().join("output/tables/skipped.csv"));
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    // Those that prepare pictures share a process; each predictor has its own.
    assert!(told["actors_lost"].as_u64().unwrap() >= 4, "{finished}");
    assert_eq!((&told["images"], &told["failed"]), (&(PICTURES - 1).into(), &1.into()));
    assert!(predictions(root.path(), PICTURES) == expected, "other predictions after losses");
}

#[test]
fn actors_go_where_they_are_needed() {
    let root = tempfile::tempdir().unwrap();
    herbarium(root.path());
    // A large picture, many times, and a small model: all wait for the decoder.
    write(&root.path().join("herbarium/test/large.png"), &large_picture());
    herbarium_test(root.path(), 3_000, |_| "large.png".to_owned());
    let cluster = Cluster::with_workers(&[2]);
    let set = ["data.size=20", "train.epochs=1", "model.name=mlp", "infer.predictors=2"];
    let set: Vec<&str> = set.iter().flat_map(|set| ["--set", *set]).collect();
    let finished = submit(&cluster, "herbarium", root.path(), &set);
    finished.assert_success();
    // When it joins, or later.
    let moved = finished.json_line("balance");
    assert_eq!((&moved["from"], &moved["to"]), (&"predict".into(), &"decode".into()), "{finished}");
    assert_eq!(moved["actors"]["decode"], 2);
    let why = moved["why"].as_str().unwrap();
    assert!(why.contains("decode takes"), "{moved}");
    let page = fs::read_to_string(root.path().join("output/report.html")).unwrap();
    let actor = format!("actor {}: predict &#8594; decode<small>{why}", moved["actor"]);
    assert!(page.contains(&actor), "{actor} is not in the report");
    assert_eq!(predictions(root.path(), 3_000).len(), 3_000);

    let off = [&set[..], &["--set", "infer.balance=off"]].concat();
    let finished = submit(&cluster, "herbarium", root.path(), &off);
    finished.assert_success();
    assert_eq!(finished.json_line("pipeline")["actors_moved"], 0);
}

/// A picture that takes milliseconds to decode.
fn large_picture() -> Vec<u8> {
    let side = 400_usize;
    let pixels: Vec<u8> = (0..side * side * 3)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8 ^ at as u8)
        .collect();
    png_of(side, &pixels)
}

#[test]
fn a_profile_times_every_activity_and_recommends_actors() {
    let root = tempfile::tempdir().unwrap();
    herbarium(root.path());
    let cluster = Cluster::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workloads/herbarium.toml");
    let data = root.path().to_str().unwrap();
    let profile = ["profile", file.to_str().unwrap(), "--data", data, "--images", "6"];
    let told = cluster.run(&[&profile[..], &["--cpus", "4", "--json"]].concat());
    told.assert_success();
    let told = told.json_line("profile");
    let names: Vec<_> =
        told["timings"].as_array().unwrap().iter().map(|t| &t["activity"]).collect();
    assert_eq!(names, ["read", "decode", "resize", "normalise", "predict", "collect"]);
    assert_eq!((&told["images"], &told["cpus"]), (&6.into(), &4.into()));
    assert!(told["recommended"]["predictors"].as_u64().unwrap() >= 2, "{told}");
    let table = cluster.run(&profile);
    table.assert_success();
    assert!(table.stdout.iter().any(|line| line.starts_with("predictors = ")), "{table}");
    cluster.run(&["profile", "README.md"]).assert_failure("no workload");
}
