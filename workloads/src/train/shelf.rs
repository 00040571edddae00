//! The files of a training in the folder of its checkpoints: the newest checkpoint, older ones by
//! the names of their epochs, the best round's model. What an earlier training has left there is
//! moved away, so that no file of one is taken for the other's; a move that was cut short is done
//! to its end by whoever moves next.

use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::{self, BEST_FILE, CHECKPOINT_FILE, CheckpointError};
use crate::place;

/// Lies in a folder that files are being moved to.
const UNFINISHED: &str = "unfinished";

fn old_name(epoch: u64) -> String {
    format!("checkpoint-{epoch:05}.safetensors")
}

/// The epoch whose checkpoint has this name.
fn epoch_of(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoint-")?.strip_suffix(".safetensors")?.parse().ok()
}

fn names(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    match place::names(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(|source| CheckpointError::Read { path: folder.to_owned(), source }),
    }
}

/// Keeps the checkpoint that is there under the name of its epoch, and of those the `keep` newest.
///
/// # Errors
/// [`CheckpointError::Write`], [`CheckpointError::Read`].
pub fn retire(folder: &Path, epoch: u64, keep: u64) -> Result<(), CheckpointError> {
    if keep == 0 {
        return Ok(());
    }
    let newest = folder.join(CHECKPOINT_FILE);
    if !checkpoint::exists(&newest)? {
        return Ok(());
    }
    let failed = |source| CheckpointError::Write { path: folder.to_owned(), source };
    place::keep_as(&newest, &folder.join(old_name(epoch))).map_err(failed)?;
    let mut epochs: Vec<u64> = names(folder)?.iter().filter_map(|name| epoch_of(name)).collect();
    epochs.sort_unstable();
    let drop = epochs.len().saturating_sub(keep as usize);
    let mut dropped = epochs[..drop].iter();
    dropped.try_for_each(|epoch| place::remove(&folder.join(old_name(*epoch))).map_err(failed))
}

/// Moves what an earlier training has left to a folder below, whose name it returns; `None`:
/// nothing was there.
///
/// # Errors
/// [`CheckpointError::Write`], [`CheckpointError::Read`].
pub fn set_aside(folder: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    move_aside(folder, |name| {
        name == CHECKPOINT_FILE || name == BEST_FILE || epoch_of(name).is_some()
    })
}

/// The same with checkpoints after `epoch`: of a training that somebody went back in.
///
/// # Errors
/// [`CheckpointError::Write`], [`CheckpointError::Read`].
pub fn set_aside_after(folder: &Path, epoch: u64) -> Result<Option<PathBuf>, CheckpointError> {
    move_aside(folder, |name| epoch_of(name).is_some_and(|of| of > epoch))
}

/// Moves the files that `is_left` knows by their names to a new folder below, or to the one where
/// an earlier move ended halfway.
///
/// # Errors
/// [`CheckpointError::Write`], [`CheckpointError::Read`].
pub fn move_aside(
    folder: &Path,
    is_left: impl Fn(&str) -> bool,
) -> Result<Option<PathBuf>, CheckpointError> {
    let mut left = names(folder)?;
    left.retain(|name| is_left(name));
    let mut number = 1;
    let (aside, is_marked) = loop {
        let aside = folder.join(format!("earlier-{number}"));
        let there = names(&aside)?;
        let is_marked = there.iter().any(|name| name == UNFINISHED);
        if there.is_empty() || is_marked {
            break (aside, is_marked);
        }
        number += 1;
    };
    if left.is_empty() && !is_marked {
        return Ok(None);
    }
    let mark = aside.join(UNFINISHED);
    let failed = |path: &Path, source| CheckpointError::Write { path: path.to_owned(), source };
    place::replace(&mark, Vec::new()).map_err(|source| failed(&mark, source))?;
    // First of all the one that a restarted driver would go on from.
    left.sort_by_key(|name| name != CHECKPOINT_FILE);
    for name in &left {
        let path = folder.join(name);
        place::rename(&path, &aside.join(name)).map_err(|source| failed(&path, source))?;
    }
    place::remove(&mark).map_err(|source| failed(&mark, source))?;
    Ok(Some(aside))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::checkpoint::tests::saved;
    use super::super::checkpoint::{MODEL_FILE, Saved};
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let mut files = names(folder).unwrap();
        files.sort();
        files
    }

    #[test]
    fn an_earlier_training_is_moved_away_whole_and_each_one_for_itself() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(set_aside(&folder.join("none")).unwrap(), None);
        for number in 1..=2 {
            for name in [CHECKPOINT_FILE, BEST_FILE, &old_name(7), MODEL_FILE] {
                fs::write(folder.join(name), name).unwrap();
            }
            let aside = set_aside(folder).unwrap().unwrap();
            assert_eq!(aside, folder.join(format!("earlier-{number}")));
            assert_eq!(files(&aside), [BEST_FILE, &old_name(7), CHECKPOINT_FILE]);
        }
        assert_eq!(files(folder), ["earlier-1", "earlier-2", MODEL_FILE]);
        assert_eq!(set_aside(folder).unwrap(), None);
    }

    /// As a killed driver leaves it, after each file; in S3 that file may be at both places.
    #[test]
    fn a_move_that_was_cut_short_is_done_to_its_end_in_the_same_folder() {
        let names = [CHECKPOINT_FILE, BEST_FILE, &old_name(7)];
        for moved in 0..=names.len() {
            for copied in [false, true] {
                let folder = tempfile::tempdir().unwrap();
                let (folder, aside) = (folder.path(), folder.path().join("earlier-1"));
                fs::create_dir(&aside).unwrap();
                fs::write(aside.join(UNFINISHED), "").unwrap();
                for (index, name) in names.iter().enumerate() {
                    if index < moved {
                        fs::write(aside.join(name), name).unwrap();
                    }
                    if index >= moved || copied && index + 1 == moved {
                        fs::write(folder.join(name), name).unwrap();
                    }
                }
                assert_eq!(set_aside(folder).unwrap().as_ref(), Some(&aside));
                let mut expected = names.to_vec();
                expected.sort_unstable();
                assert_eq!(files(&aside), expected, "{moved} {copied}");
                assert_eq!(files(folder), ["earlier-1"]);
                // The next training's files go elsewhere.
                fs::write(folder.join(CHECKPOINT_FILE), "next").unwrap();
                assert_eq!(set_aside(folder).unwrap(), Some(folder.join("earlier-2")));
            }
        }
    }

    #[test]
    fn who_goes_back_keeps_what_was_after_that_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        for epoch in [3, 4, 5] {
            fs::write(folder.path().join(old_name(epoch)), "").unwrap();
        }
        let aside = set_aside_after(folder.path(), 4).unwrap().unwrap();
        assert_eq!(files(&aside), [old_name(5)]);
        assert_eq!(set_aside_after(folder.path(), 4).unwrap(), None);
    }

    #[test]
    fn the_last_few_checkpoints_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for epoch in 1..=5 {
            Saved { epochs: epoch, ..saved(false) }
                .write(&folder.path().join(CHECKPOINT_FILE))
                .unwrap();
            retire(folder.path(), epoch, 2).unwrap();
        }
        let mut files: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let expected = ["checkpoint-00004.safetensors", "checkpoint-00005.safetensors"];
        assert_eq!(files[..2], expected);
        assert_eq!(Saved::read(&folder.path().join(expected[0])).unwrap().epochs, 4);
        assert_eq!(files[2..], [CHECKPOINT_FILE]);
    }
}
