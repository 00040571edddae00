//! Pictures in folders by class: `0/`, `1/`, or names. With `train/` and `test/` (and
//! `validation/`, or `val/`) above them, the split is theirs; else it is made here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::table::{Class, Sample, Tables};

/// Extensions that are taken for pictures; everything else in a folder is left alone.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Why a folder is no data set.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be read.
    #[error(
        "cannot read the folder {folder}: {source}; data.path in the TOML names the data set's \
         folder, which must be readable where the driver runs"
    )]
    Read {
        /// Which folder.
        folder: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// There are no two classes in it.
    #[error(
        "{folder} has {found} folders with .jpg or .png files, expected one for each class and at \
         least two; name their parent with data.path in the TOML"
    )]
    Classes {
        /// Which folder.
        folder: PathBuf,
        /// Class folders in it.
        found: usize,
    },
    /// A part has a class that the training part lacks.
    #[error(
        "{folder} has a class `{class}` that the training pictures do not have; remove that \
         folder, or add pictures of the class to those to train on"
    )]
    Class {
        /// Which folder.
        folder: PathBuf,
        /// The class.
        class: String,
    },
}

/// Lists a folder. Everything is in `train` unless the folder itself is split.
///
/// # Errors
/// [`FolderError`].
pub fn read(folder: &Path) -> Result<Tables, FolderError> {
    let part = |names: &[&str]| {
        let folders = names.iter().map(|name| folder.join(name));
        folders.into_iter().find(|folder| folder.is_dir())
    };
    let Some(train) = part(&["train"]) else {
        let (classes, train) = classes(folder)?;
        return Ok(Tables { classes, train, ..Tables::default() });
    };
    let (classes, samples) = classes(&train)?;
    let mut tables = Tables { classes, train: samples, ..Tables::default() };
    if let Some(folder) = part(&["validation", "val"]) {
        tables.validation = of_classes(&folder, &tables.classes)?;
    }
    if let Some(folder) = part(&["test"]) {
        tables.test = of_classes(&folder, &tables.classes)?;
    }
    Ok(tables)
}

/// The classes of a folder in the order of their names (of their numbers, where all are numbers),
/// and their pictures.
fn classes(folder: &Path) -> Result<(Vec<Class>, Vec<Sample>), FolderError> {
    let mut found = Vec::new();
    for (name, path, directory) in entries(folder)? {
        if directory {
            let pictures = pictures(&path)?;
            if !pictures.is_empty() {
                found.push((name, pictures));
            }
        }
    }
    if found.len() < 2 {
        return Err(FolderError::Classes { folder: folder.to_owned(), found: found.len() });
    }
    if found.iter().all(|(name, _)| name.parse::<u64>().is_ok()) {
        found.sort_by_key(|(name, _)| name.parse::<u64>().unwrap_or_default());
    }
    let (mut classes, mut samples) = (Vec::new(), Vec::new());
    for (label, (name, files)) in found.into_iter().enumerate() {
        samples.extend(files.into_iter().map(|file| sample(&name, file, label as u32)));
        classes.push(Class { id: name.clone(), name });
    }
    Ok((classes, samples))
}

/// The pictures of classes that are known already.
fn of_classes(folder: &Path, classes: &[Class]) -> Result<Vec<Sample>, FolderError> {
    let mut samples = Vec::new();
    for (name, path, directory) in entries(folder)? {
        let files = if directory { pictures(&path)? } else { Vec::new() };
        if files.is_empty() {
            continue;
        }
        let Some(label) = classes.iter().position(|class| class.id == name) else {
            return Err(FolderError::Class { folder: folder.to_owned(), class: name });
        };
        samples.extend(files.into_iter().map(|file| sample(&name, file, label as u32)));
    }
    Ok(samples)
}

fn sample(class: &str, file: PathBuf, label: u32) -> Sample {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Sample { id: format!("{class}/{name}"), file: file.clone(), label: Some(label) }
}

fn pictures(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let picture = |path: &Path| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        EXTENSIONS.contains(&extension.as_str())
    };
    let files = entries(folder)?.into_iter().filter(|(_, path, _)| picture(path));
    Ok(files.map(|(_, path, _)| path).collect())
}

/// Names, paths and whether they are folders, sorted: another file system lists in another order.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf, bool)>, FolderError> {
    let failed = |source| FolderError::Read { folder: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        entries.push((
            entry.file_name().to_string_lossy().into_owned(),
            path.clone(),
            path.is_dir(),
        ));
    }
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    fn ids(samples: &[Sample]) -> Vec<(&str, u32)> {
        samples.iter().map(|sample| (sample.id.as_str(), sample.label.unwrap())).collect()
    }

    #[test]
    fn folders_are_classes_in_the_order_of_their_numbers() {
        let root =
            folder_with(&["10/a.png", "9/b.JPG", "9/notes.txt", "readme.txt", "empty/x.txt"]);
        let tables = read(root.path()).unwrap();
        assert_eq!(ids(&tables.train), [("9/b.JPG", 0), ("10/a.png", 1)]);
        assert!(tables.validation.is_empty() && tables.test.is_empty());
    }

    #[test]
    fn a_folder_that_is_split_stays_so() {
        let root = folder_with(&["train/cat/a.png", "train/dog/b.png", "test/dog/c.png"]);
        let tables = read(root.path()).unwrap();
        assert_eq!(ids(&tables.train), [("cat/a.png", 0), ("dog/b.png", 1)]);
        assert_eq!(ids(&tables.test), [("dog/c.png", 1)]);
        fs::create_dir_all(root.path().join("val/cow")).unwrap();
        fs::write(root.path().join("val/cow/d.png"), "").unwrap();
        assert!(read(root.path()).unwrap_err().to_string().contains("`cow`"));
    }

    #[test]
    fn says_what_is_missing() {
        let root = folder_with(&["0/a.png"]);
        let error = read(root.path()).unwrap_err().to_string();
        assert!(error.contains("has 1 folders") && error.contains("data.path"), "{error}");
        let error = read(&root.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }
}
