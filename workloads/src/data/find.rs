//! Where the folder of a data set is.

use std::path::{Path, PathBuf};

/// It is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no folder {name}; looked for {}; name it with data.path in the TOML, or its parent \
     with --data or RDIST_DATA",
    tried.join(", ")
)]
pub struct NotFound {
    /// What was looked for.
    pub name: String,
    /// Where.
    pub tried: Vec<String>,
}

/// A folder by its path: as it is, else below `RDIST_DATA`, else below `../shared/data`, both seen
/// from where the job was submitted.
///
/// # Errors
/// [`NotFound`].
pub fn folder(path: &Path) -> Result<PathBuf, NotFound> {
    let data = std::env::var_os("RDIST_DATA").filter(|value| !value.is_empty()).map(PathBuf::from);
    below(path, [data, Some("../shared/data".into())].into_iter().flatten())
}

fn below(path: &Path, parents: impl Iterator<Item = PathBuf>) -> Result<PathBuf, NotFound> {
    let candidates: Vec<PathBuf> =
        std::iter::once(path.to_owned()).chain(parents.map(|parent| parent.join(path))).collect();
    let tried = || candidates.iter().map(|each| each.display().to_string()).collect();
    let found = candidates.iter().find(|candidate| candidate.is_dir());
    let missing = || NotFound { name: path.display().to_string(), tried: tried() };
    found.cloned().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_there_wins_and_none_names_all() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        std::fs::create_dir_all(b.join("breast")).unwrap();
        let parents = || [a.clone(), b.clone()].into_iter();
        assert_eq!(below(Path::new("breast"), parents()), Ok(b.join("breast")));
        std::fs::create_dir_all(a.join("breast")).unwrap();
        assert_eq!(below(Path::new("breast"), parents()), Ok(a.join("breast")));
        let error = below(Path::new("heart"), parents()).unwrap_err().to_string();
        assert!(error.contains("a/heart") && error.contains("b/heart"), "{error}");
    }
}
