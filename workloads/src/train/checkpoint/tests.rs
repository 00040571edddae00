use std::fs;

use super::*;

/// A training of a small net that stands in its third epoch.
pub(crate) fn saved(optimiser: bool) -> Saved {
    let class = |n: usize| Class { id: n.to_string(), name: format!("class \"{n}\"") };
    let identity = Identity {
        architecture: Architecture::Convnet,
        input: Input {
            shape: Shape { rows: 12, columns: 16, channels: 1 },
            classes: 4,
            dropout: 0.0,
        },
        normal: Normal::IMAGENET,
        classes: (0..4).map(class).collect(),
    };
    let layout = identity.architecture.build(&identity.input).layout().clone();
    let memory: Vec<f32> = (0..layout.trained()).map(|n| n as f32).collect();
    Saved {
        identity,
        epochs: 3,
        shown: 77,
        parameters: layout.initial(1),
        optimiser: optimiser
            .then(|| OptimiserState { steps: 9, memories: vec![memory.clone(), memory] }),
        best: optimiser.then_some((0.1 + 0.2, 2)),
        members: optimiser.then_some(5),
        memory: optimiser.then(|| "moments over steps".to_owned()),
        terms: [("train.batch".to_owned(), "64 \"images\"".to_owned())].into(),
        run: optimiser.then(|| "17-4".to_owned()),
    }
}

#[test]
fn running_statistics_are_saved_too() {
    let mut saved = saved(true);
    saved.identity.architecture = Architecture::HerbariumConvnet;
    saved.identity.input.shape = Shape { rows: 16, columns: 16, channels: 3 };
    let layout = saved.model().layout().clone();
    saved.parameters = (0..layout.len()).map(|n| n as f32).collect();
    saved.optimiser =
        Some(OptimiserState { steps: 1, memories: vec![vec![0.5; layout.trained()]] });
    assert!(layout.trained() < layout.len());
    let again = Saved::decode(&saved.encode().unwrap()).unwrap();
    assert!(again == saved);
}

#[test]
fn comes_back_as_it_was_saved_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/model.safetensors");
    for saved in [saved(true), saved(false)] {
        saved.write(&path).unwrap();
        assert!(Saved::read(&path).unwrap() == saved);
    }
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::create_dir(&path).unwrap();
    let error = saved(false).write(&path).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") && error.contains("output.folder"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(probe(&file.join("below")).is_err());
    probe(&folder.path().join("new")).unwrap();
}

#[test]
fn other_files_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let refused = |bytes: &[u8], piece: &str| {
        fs::write(&path, bytes).unwrap();
        let error = Saved::read(&path).unwrap_err().to_string();
        assert!(error.contains(piece), "{error}");
    };
    let whole = saved(false).encode().unwrap();
    refused(b"hello", "no model");
    refused(b"hello", "model.weights takes");
    refused(&whole[..whole.len() - 4], "no model");
    let text = String::from_utf8_lossy(&whole[8..]).into_owned();
    assert!(text.contains("convnet"));
    let other = |from: &str, to: &str| {
        let at = whole.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    refused(&other("convnet", "konvnet"), "konvnet");
    refused(&other("dense2.bias", "dense2.pias"), "dense2.bias");
    refused(&other("rdist.rows\":\"12", "rdist.rows\":\"28"), "shape");
    refused(&other("rdist.rows\":\"12", "rdist.rows\":\"02"), "rdist.rows");
    let missing = Saved::read(&folder.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("none") && missing.contains("s3://bucket/key"), "{missing}");
}

/// Python's own reader reads the file, where the machine has it.
#[test]
fn python_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    saved(true).write(&path).unwrap();
    let script = "import sys\nfrom safetensors.numpy import load_file\n\
                  t = load_file(sys.argv[1])\n\
                  print(t['conv1.weight'].shape, t['conv1.weight'].dtype, len(t))";
    let output = std::process::Command::new("python3").args(["-c", script]).arg(&path).output();
    let Ok(output) = output else {
        eprintln!("skipped: no python3");
        return;
    };
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if error.contains("ModuleNotFoundError") {
        eprintln!("skipped: python3 has no safetensors");
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), "(16, 1, 5, 5) float32 10", "{error}");
}
