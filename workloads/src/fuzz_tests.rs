//! Damaged files of all kinds that jobs read: they are refused, or read, and nothing else; what a
//! file promises costs no memory. `cargo xtask fuzz` tries more of them; `FUZZ_SEED=7` replays one.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::data::random::Random;
use crate::data::{Images, herbarium, idx, synthetic};
use crate::model::pickled;
use crate::model::weights::read_safetensors;
use crate::spec::Spec;
use crate::train::checkpoint::{Saved, tests::saved};

/// So many inputs, and as many again until the time is over.
const RUNS: u64 = 1_000;

/// What is read: parts of it are damaged, each by itself.
type Parts = Vec<Vec<u8>>;

/// A kind of file: whole ones, and what reads them; true when it was something.
struct Kind {
    name: &'static str,
    whole: Vec<Parts>,
    read: fn(&[Vec<u8>], &Path) -> bool,
}

fn kinds(folder: &Path) -> Vec<Kind> {
    let tomls = [
        include_str!("../mnist.toml"),
        include_str!("../mnist_s3.toml"),
        include_str!("../herbarium.toml"),
        include_str!("../herbarium_zoo.toml"),
        include_str!("../breast_cancer.toml"),
    ];
    let tomls = tomls.map(|text| vec![text.as_bytes().to_vec(), b"train.epochs=2".to_vec()]);
    vec![
        Kind {
            name: "idx",
            whole: vec![digits(folder), zipped(&digits(folder))],
            read: read_digits,
        },
        Kind {
            name: "checkpoint",
            whole: vec![split(&saved(true).encode().unwrap())],
            read: |p, _| Saved::decode(&joined(p)).is_ok_and(|saved| !saved.parameters.is_empty()),
        },
        Kind {
            name: "weights",
            whole: vec![split(&saved(true).encode().unwrap())],
            read: |p, _| read_safetensors(&joined(p)).is_ok_and(|tensors| !tensors.is_empty()),
        },
        Kind {
            name: "state dict",
            whole: vec![state_dict()],
            // The archive is damaged by itself: else few pickles would be looked into.
            read: |p, _| {
                let by_pickle = pickled::tensors(&state_dict()[0], &p[1]).is_ok();
                pickled::read(&p[0]).is_ok() && by_pickle
            },
        },
        Kind {
            name: "toml",
            whole: tomls.to_vec(),
            read: |parts, _| {
                let [text, set] = [0, 1].map(|at| String::from_utf8_lossy(&parts[at]).into_owned());
                Spec::parse("job.toml", &text, &[set]).is_ok()
            },
        },
        Kind { name: "herbarium", whole: vec![metadata()], read: read_metadata },
    ]
}

/// PyTorch's file, and the pickle in it.
fn state_dict() -> Parts {
    let file = include_bytes!("model/state_dict.pt");
    vec![file.to_vec(), pickled::pickle(file).unwrap().to_vec()]
}

/// Images and labels.
fn digits(folder: &Path) -> Parts {
    let paths = ["images", "labels"].map(|name| folder.join(name));
    idx::write(&synthetic::draw(3, 1), &paths[0], &paths[1]).unwrap();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn zipped(parts: &Parts) -> Parts {
    let zip = |part: &Vec<u8>| {
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut zip, part).unwrap();
        zip.finish().unwrap()
    };
    parts.iter().map(zip).collect()
}

fn read_digits(parts: &[Vec<u8>], _: &Path) -> bool {
    let [images, labels] = ["images", "labels"].map(Path::new);
    let Ok(set) = idx::of_bytes((images, &parts[0]), (labels, &parts[1]), 10) else { return false };
    (0..set.count()).all(|at| set.image(at).len() == set.shape().len() && set.label(at) < 10)
}

/// The header of a safetensors file, without its length, and the tensors behind it.
fn split(file: &[u8]) -> Parts {
    let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    vec![file[8..8 + len].to_vec(), file[8 + len..].to_vec()]
}

/// The file again; most headers have the length that it says, so that they are looked into.
fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    let len = parts[0].len() as u64 + u64::from(parts[0].len() % 16 == 3);
    [&len.to_le_bytes()[..], &parts[0], &parts[1]].concat()
}

/// `train/metadata.json`, `test/metadata.json`, `test/labels.csv`.
fn metadata() -> Parts {
    let train = r#"{"images": [{"id": 1, "file_name": "images/0/a.jpg"},
        {"id": 2, "file_name": "images/1/b.jpg"}], "annotations": [{"image_id": 1,
        "category_id": 7}, {"image_id": 2, "category_id": 9}], "categories": [{"id": 7,
        "name": "Rosa"}, {"id": 9, "name": "Salix"}]}"#;
    let test = r#"{"images": [{"id": 5, "file_name": "images/c.jpg"}]}"#;
    [train, test, "Id,Predicted\n5,7\n"].map(|text| text.as_bytes().to_vec()).to_vec()
}

fn read_metadata(parts: &[Vec<u8>], folder: &Path) -> bool {
    let names = ["train/metadata.json", "test/metadata.json", "test/labels.csv"];
    for (name, part) in names.into_iter().zip(parts) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, part).unwrap();
    }
    let Ok(tables) = herbarium::read(folder) else { return false };
    let classes = tables.classes.len() as u32;
    for sample in tables.train.iter().chain(&tables.test) {
        assert!(sample.label.is_none_or(|label| label < classes), "{sample:?}");
        let is_inside = sample.file.starts_with(folder) || sample.file.as_os_str().is_empty();
        assert!(is_inside, "{sample:?}");
    }
    true
}

/// What stands where a number stood.
const NUMBERS: [&[u8]; 8] = [
    b"0",
    b"-1",
    b"1e308",
    b"nan",
    b"4096",
    b"18446744073709551615",
    b"9223372036854775808",
    b"99999999999999999999",
];
/// What stands anywhere.
const PIECES: [&[u8]; 10] = [
    b"\"",
    b"[",
    b"}",
    b",",
    b"../",
    b"\n",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xe9",
    b"[data]\n",
];

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(5) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let end = (at + random.below(9) as usize).min(bytes.len());
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..(at + random.below(80) as usize).min(bytes.len())].to_vec();
                let to = random.below(bytes.len() as u64 + 1) as usize;
                drop(bytes.splice(to..to, part));
            }
            3 | 4 => {
                let digits = |byte: &u8| byte.is_ascii_digit();
                let Some(from) = bytes[at..].iter().position(digits).map(|n| at + n) else {
                    continue;
                };
                let len = bytes[from..].iter().take_while(|byte| digits(byte)).count();
                let number = NUMBERS[random.below(NUMBERS.len() as u64) as usize];
                drop(bytes.splice(from..from + len, number.iter().copied()));
            }
            5 | 6 => {
                let piece = PIECES[random.below(PIECES.len() as u64) as usize];
                drop(bytes.splice(at..end, piece.iter().copied()));
            }
            _ => bytes[at..end].iter_mut().for_each(|byte| *byte = random.bits() as u8),
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn damaged_files_are_refused_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = kinds(folder.path());
    for Kind { name, whole, read } in &kinds {
        assert!(whole.iter().all(|parts| read(parts, folder.path())), "{name}");
    }
    let end = Instant::now() + Duration::from_secs(setting("FUZZ_SECONDS").unwrap_or(0));
    let mut seeds = setting("FUZZ_SEED").map_or(0..RUNS, |seed| seed..seed + 1);
    let mut read_all_the_same = BTreeMap::new();
    loop {
        for seed in seeds.clone() {
            for Kind { name, whole, read } in &kinds {
                let mut random = Random::new(&[seed]);
                let mut parts = whole[random.below(whole.len() as u64) as usize].clone();
                parts.iter_mut().for_each(|part| damage(part, &mut random));
                let read = catch_unwind(AssertUnwindSafe(|| read(&parts, folder.path())));
                let read = read.unwrap_or_else(|_| panic!("{name} panics with FUZZ_SEED={seed}"));
                *read_all_the_same.entry(*name).or_insert(0) += u64::from(read);
            }
        }
        if Instant::now() >= end {
            break println!("{} inputs of each kind, read: {read_all_the_same:?}", seeds.end);
        }
        seeds = seeds.end..seeds.end + RUNS;
    }
}

/// A header costs nothing: the largest model that one can name would take 25 GB.
#[test]
fn a_checkpoint_that_promises_more_than_it_holds_is_refused() {
    let mut parts = split(&saved(true).encode().unwrap());
    let header = String::from_utf8(parts[0].clone()).unwrap();
    let number = |key: &str| format!("\"rdist.{key}\":\"");
    let mut large = header.clone();
    for key in ["rows", "columns"] {
        let from = large.find(&number(key)).unwrap() + number(key).len();
        let len = large[from..].find('"').unwrap();
        large.replace_range(from..from + len, "4096");
    }
    parts[0] = large.into_bytes();
    let len = parts[0].len().next_multiple_of(8);
    parts[0].resize(len, b' ');
    let error = Saved::decode(&joined(&parts)).unwrap_err();
    assert!(error.contains("expected F32 of shape"), "{error}");
}
