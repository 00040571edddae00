//! Trainings on pictures, submitted as a person would: folders by class, Herbarium's metadata,
//! what is missing or damaged, tables, figures, predictions, plans.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, Finished};
use crate::training::{metric, rounds};

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
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side as u32, side as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
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
    let set = [&quick[..], &["--set", "train.epochs=8", "--set", "train.batch=4"]].concat();
    let finished = submit(&cluster, "breast_cancer", root.path(), &set);
    finished.assert_success();
    assert!(metric(&finished, "val_roc_auc") > 0.9, "{finished}");
    for name in ["val_f1", "val_precision", "val_recall", "test_accuracy"] {
        assert!(metric(&finished, name) > 0.5, "{name}: {finished}");
    }
    let data = finished.json_line("data");
    assert_eq!(data["skipped"], 1, "{finished}");
    assert!(data["skipped_files"][0]["file"].as_str().unwrap().ends_with("1/damaged.png"));
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
}

/// Herbarium's layout; one name is no UTF-8, one picture is missing.
fn herbarium(root: &Path) {
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
    let mut images = String::new();
    for index in 0..10 {
        let comma = if index == 0 { "" } else { "," };
        images += &format!("{comma}{{\"id\": 9{index}, \"file_name\": \"{index}.png\"}}");
        write(&root.join(format!("herbarium/test/{index}.png")), &picture(index % 2, 99 + index));
    }
    let metadata = format!("{{\"images\": [{images}]}}");
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
