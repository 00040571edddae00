//! Herbarium 2021 Half-Earth: `train/metadata.json` and `test/metadata.json` in the schema of the
//! challenge. The real files are not always valid UTF-8 and have been read as ISO-8859-1; what
//! does not fit together in them is skipped and named.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::table::{Class, Sample, Skipped, Tables};

/// Why there is no data set.
#[derive(Debug, thiserror::Error)]
pub enum HerbariumError {
    /// A file is missing.
    #[error(
        "cannot read {path}: {source}; name the folder that holds train/ and test/ with data.path \
         in the TOML, or its parent with --data or RDIST_DATA"
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It has another schema.
    #[error(
        "{path} is no metadata of Herbarium 2021: {reason}; fetch it again, or name another folder \
         with data.path, or take pictures in folders by class (data.set = \"folders\")"
    )]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Metadata {
    images: Vec<Image>,
    #[serde(default)]
    annotations: Vec<Annotation>,
    #[serde(default)]
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    category_id: u64,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

/// Reads both parts. Where `test/labels.csv` has the answers (`Id,Predicted`), the test samples
/// have labels too. Validation is left to the caller.
///
/// # Errors
/// [`HerbariumError`].
pub fn read(folder: &Path) -> Result<Tables, HerbariumError> {
    let (train, test) = (folder.join("train"), folder.join("test"));
    let metadata = parse(&train.join("metadata.json"))?;
    let ids: BTreeMap<u64, String> =
        metadata.categories.into_iter().map(|category| (category.id, category.name)).collect();
    let mut tables = Tables::default();
    let mut index = HashMap::new();
    for (label, (id, name)) in ids.into_iter().enumerate() {
        index.insert(id, label as u32);
        tables.classes.push(Class { id: id.to_string(), name });
    }
    let labels: HashMap<u64, u64> = metadata
        .annotations
        .iter()
        .map(|annotation| (annotation.image_id, annotation.category_id))
        .collect();
    for Image { id, file_name } in metadata.images {
        let mut skip = |reason: String| {
            tables.skipped.push(Skipped { file: file_name.clone(), reason });
        };
        let Some(file) = inside(&train, &file_name) else {
            skip("its path leads out of the data set".to_owned());
            continue;
        };
        match labels.get(&id).map(|category| (category, index.get(category))) {
            Some((_, Some(label))) => {
                tables.train.push(Sample { id: id.to_string(), file, label: Some(*label) });
            }
            Some((category, None)) => skip(format!("its category {category} is not listed")),
            None => skip("it has no annotation".to_owned()),
        }
    }
    if tables.train.is_empty() {
        let path = train.join("metadata.json");
        return Err(HerbariumError::Content { path, reason: "no image has a label".to_owned() });
    }
    if test.join("metadata.json").is_file() {
        let answers = answers(&test.join("labels.csv"), &index)?;
        for Image { id, file_name } in parse(&test.join("metadata.json"))?.images {
            // A prediction is owed for it whatever its path is: it fails where it is read.
            let file = inside(&test, &file_name).unwrap_or_default();
            let label = answers.get(&id).copied();
            tables.test.push(Sample { id: id.to_string(), file, label });
        }
    }
    Ok(tables)
}

/// `folder/name`, if it lies in the folder.
fn inside(folder: &Path, name: &str) -> Option<PathBuf> {
    use std::path::Component;
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !name.is_empty()).then(|| folder.join(name))
}

fn parse(path: &Path) -> Result<Metadata, HerbariumError> {
    let failed = |source| HerbariumError::Read { path: path.to_owned(), source };
    let text = text_of(fs::read(path).map_err(failed)?);
    serde_json::from_str(&text).map_err(|error| HerbariumError::Content {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// As UTF-8, else as ISO-8859-1, in which every byte is the character of its number.
fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| error.as_bytes().iter().map(|byte| char::from(*byte)).collect())
}

/// The answers by image, where there are any.
fn answers(path: &Path, index: &HashMap<u64, u32>) -> Result<HashMap<u64, u32>, HerbariumError> {
    let text = match fs::read(path) {
        Ok(bytes) => text_of(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(source) => return Err(HerbariumError::Read { path: path.to_owned(), source }),
    };
    let mut answers = HashMap::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        let row = line.split_once(',').and_then(|(id, category)| {
            let label = index.get(&category.trim().parse().ok()?)?;
            Some((id.trim().parse().ok()?, *label))
        });
        let Some((id, label)) = row else {
            let reason = format!("line {} is no image and listed category", number + 1);
            return Err(HerbariumError::Content { path: path.to_owned(), reason });
        };
        answers.insert(id, label);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(train: &[u8]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for part in ["train", "test"] {
            fs::create_dir(root.path().join(part)).unwrap();
        }
        fs::write(root.path().join("train/metadata.json"), train).unwrap();
        let test = br#"{"images": [{"id": 9, "file_name": "images/9.jpg", "width": 1}]}"#;
        fs::write(root.path().join("test/metadata.json"), test).unwrap();
        root
    }

    fn train(name: &[u8]) -> Vec<u8> {
        let before = br#"{"images": [{"id": 1, "file_name": "images/1.jpg"},
            {"id": 2, "file_name": "images/2.jpg"}, {"id": 3, "file_name": "images/3.jpg"},
            {"id": 4, "file_name": "../../4.jpg"}],
            "annotations": [{"id": 7, "image_id": 1, "category_id": 30, "institution_id": 0},
            {"image_id": 2, "category_id": 99}, {"image_id": 4, "category_id": 30}],
            "categories": [{"id": 30, "name": ""#;
        let after = br#"", "family": "x"}, {"id": 4, "name": "Poa"}], "licenses": []}"#;
        [before, name, after].concat()
    }

    #[test]
    fn what_does_not_fit_together_is_skipped_and_named() {
        let root = folder(&train("Bellis".as_bytes()));
        let tables = read(root.path()).unwrap();
        let ids: Vec<&str> = tables.classes.iter().map(|class| class.id.as_str()).collect();
        assert_eq!(ids, ["4", "30"]);
        assert_eq!(tables.train.len(), 1);
        assert_eq!((tables.train[0].id.as_str(), tables.train[0].label), ("1", Some(1)));
        let reasons: Vec<&str> = tables.skipped.iter().map(|each| each.reason.as_str()).collect();
        assert!(reasons[0].contains("99") && reasons[1].contains("annotation"), "{reasons:?}");
        assert!(reasons[2].contains("out of"), "{reasons:?}");
        assert_eq!((tables.test.len(), tables.test[0].label), (1, None));
    }

    #[test]
    fn metadata_need_not_be_utf8() {
        let root = folder(&train(b"Caf\xe9"));
        assert_eq!(read(root.path()).unwrap().classes[1].name, "Café");
    }

    #[test]
    fn answers_become_labels() {
        let root = folder(&train(b"Bellis"));
        let labels = root.path().join("test/labels.csv");
        fs::write(&labels, "Id,Predicted\n9,30\n").unwrap();
        assert_eq!(read(root.path()).unwrap().test[0].label, Some(1));
        fs::write(&labels, "Id,Predicted\n9,31\n").unwrap();
        let error = read(root.path()).unwrap_err().to_string();
        assert!(error.contains("labels.csv") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let root = folder(b"{\"images\": [{\"id\": \"x\"}]}");
        let error = read(root.path()).unwrap_err().to_string();
        assert!(error.contains("train/metadata.json") && error.contains("line 1"), "{error}");
        fs::remove_file(root.path().join("train/metadata.json")).unwrap();
        assert!(read(root.path()).unwrap_err().to_string().contains("data.path"));
    }
}
