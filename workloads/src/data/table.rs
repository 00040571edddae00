//! Tables of picture files: what a data set on disk holds before a single picture was decoded.
//! Sampling and splitting work on tables, by class, and their outcome is written as CSV, so that
//! it can be read and checked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::random::Random;
use crate::place;

/// A class of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// What the data set calls it in its answers: a number (Herbarium) or a folder's name.
    pub id: String,
    /// For people.
    pub name: String,
}

/// A picture file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What answers call it.
    pub id: String,
    /// Where it is.
    pub file: PathBuf,
    /// The index of its class; `None` where nobody says.
    pub label: Option<u32>,
}

/// A picture that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file, or what stands for it in the data set's own table.
    pub file: String,
    /// In words.
    pub reason: String,
}

/// A data set on disk, split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// In the order of their index.
    pub classes: Vec<Class>,
    /// To train on; all have a label.
    pub train: Vec<Sample>,
    /// To choose by while training; all have a label.
    pub validation: Vec<Sample>,
    /// To test with at the end; may have no labels.
    pub test: Vec<Sample>,
    /// What was left out already.
    pub skipped: Vec<Skipped>,
}

/// Takes a share of each class out of `samples`, at random by the seed; the order of what is left
/// and of what is taken is kept. A class of two or more keeps at least one and, where the share is
/// above zero, gives at least one.
pub fn split(samples: Vec<Sample>, share: f64, seed: u64) -> (Vec<Sample>, Vec<Sample>) {
    let labels: Vec<u32> = samples.iter().map(|sample| sample.label.unwrap_or(u32::MAX)).collect();
    let taken = chosen(&labels, share, seed);
    let mut index = 0;
    let (taken, kept) = samples.into_iter().partition(|_| {
        index += 1;
        taken[index - 1]
    });
    (kept, taken)
}

/// Which of `labels` are taken by a [`split`].
pub fn chosen(labels: &[u32], share: f64, seed: u64) -> Vec<bool> {
    let mut taken = vec![false; labels.len()];
    if share <= 0.0 {
        return taken;
    }
    for (label, mut members) in by_class(labels) {
        let len = members.len();
        let wanted = (len as f64 * share).round() as usize;
        let wanted = if len < 2 { 0 } else { wanted.clamp(1, len - 1) };
        Random::new(&[seed, SPLIT, u64::from(label)]).shuffle(&mut members);
        members[..wanted].iter().for_each(|member| taken[*member] = true);
    }
    taken
}

/// At most `limit` samples, of every class the same share as near as can be; the order is kept.
pub fn limit(samples: Vec<Sample>, limit: usize, seed: u64) -> Vec<Sample> {
    if samples.len() <= limit {
        return samples;
    }
    let labels: Vec<u32> = samples.iter().map(|sample| sample.label.unwrap_or(u32::MAX)).collect();
    let kept = within(&labels, limit, seed);
    let mut index = 0;
    let mut samples = samples;
    samples.retain(|_| {
        index += 1;
        kept[index - 1]
    });
    samples
}

/// Which of `labels` are kept by a [`limit`].
pub fn within(labels: &[u32], limit: usize, seed: u64) -> Vec<bool> {
    let mut classes = Vec::new();
    for (label, mut members) in by_class(labels) {
        Random::new(&[seed, LIMIT, u64::from(label)]).shuffle(&mut members);
        classes.push(members);
    }
    // Positions in their class, as shares: taken in this order, all classes fill up alike.
    let mut all: Vec<(f64, usize)> = Vec::with_capacity(labels.len());
    for members in &classes {
        let len = members.len() as f64;
        let shares = members.iter().enumerate();
        all.extend(shares.map(|(at, member)| ((at as f64 + 0.5) / len, *member)));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut kept = vec![false; labels.len()];
    all.iter().take(limit).for_each(|(_, member)| kept[*member] = true);
    kept
}

const SPLIT: u64 = 0x5b117;
const LIMIT: u64 = 0x11317;

fn by_class(labels: &[u32]) -> BTreeMap<u32, Vec<usize>> {
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, label) in labels.iter().enumerate() {
        classes.entry(*label).or_default().push(index);
    }
    classes
}

/// A table as CSV: `id,file,label,class`.
pub fn csv(samples: &[Sample], classes: &[Class]) -> String {
    let mut text = String::from("id,file,label,class\n");
    for Sample { id, file, label } in samples {
        let file = file.to_string_lossy();
        let class = label.and_then(|label| classes.get(label as usize));
        let (label, name) =
            class.map_or(("", ""), |class| (class.id.as_str(), class.name.as_str()));
        let cells = [id.as_str(), &file, label, name].map(quoted);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", cells.join(","));
    }
    text
}

/// One cell of a CSV (RFC 4180).
pub fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

impl Tables {
    /// Writes `train.csv`, `validation.csv` and `test.csv` into a folder, which is made; a table
    /// without rows is left out, and an older one of its name removed.
    ///
    /// # Errors
    /// The file system's, with the file's name.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for (name, samples) in
            [("train", &self.train), ("validation", &self.validation), ("test", &self.test)]
        {
            let path = folder.join(format!("{name}.csv"));
            match samples.is_empty() {
                true => place::remove(&path)?,
                false => std::fs::write(path, csv(samples, &self.classes))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(labels: &[u32]) -> Vec<Sample> {
        let sample = |(index, label): (usize, &u32)| Sample {
            id: index.to_string(),
            file: format!("{index}.png").into(),
            label: Some(*label),
        };
        labels.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn a_part_that_is_gone_leaves_no_table_of_an_older_run() {
        let folder = tempfile::tempdir().unwrap();
        let class = |id: &str| Class { id: id.to_owned(), name: id.to_owned() };
        let mut tables = Tables { train: samples(&[0, 1]), ..Tables::default() };
        tables.classes = vec![class("a"), class("b")];
        tables.validation = samples(&[1]);
        tables.write(folder.path()).unwrap();
        tables.validation.clear();
        tables.write(folder.path()).unwrap();
        let files = std::fs::read_dir(folder.path()).unwrap();
        let names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["train.csv"]);
    }

    fn count(samples: &[Sample], label: u32) -> usize {
        samples.iter().filter(|sample| sample.label == Some(label)).count()
    }

    proptest! {
        #[test]
        fn a_split_takes_its_share_of_each_class(labels in prop::collection::vec(0..4_u32, 0..200),
                                                 share in 0.0..0.9_f64, seed: u64) {
            let all = samples(&labels);
            let (kept, taken) = split(all.clone(), share, seed);
            let mut both = [kept.clone(), taken.clone()].concat();
            both.sort_by_key(|sample| sample.id.parse::<usize>().unwrap_or(0));
            prop_assert_eq!(both, all.clone());
            for label in 0..4 {
                let (whole, part) = (count(&all, label), count(&taken, label));
                prop_assert!((part as f64 - whole as f64 * share).abs() <= 1.0);
                prop_assert!(whole == 0 || part < whole);
            }
            prop_assert_eq!(split(all, share, seed), (kept, taken));
        }

        #[test]
        fn a_limit_keeps_the_classes_shares(labels in prop::collection::vec(0..4_u32, 1..200),
                                            most in 1..200_usize, seed: u64) {
            let all = samples(&labels);
            let some = limit(all.clone(), most, seed);
            prop_assert_eq!(some.len(), most.min(all.len()));
            let share = some.len() as f64 / all.len() as f64;
            for label in 0..4 {
                let expected = count(&all, label) as f64 * share;
                prop_assert!((count(&some, label) as f64 - expected).abs() <= 2.0);
            }
        }
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let classes = [Class { id: "7".into(), name: "Poa, \"annua\"".into() }];
        let mut rows = samples(&[0]);
        rows.push(Sample { id: "b".into(), file: "b.jpg".into(), label: None });
        let text = "id,file,label,class\n0,0.png,7,\"Poa, \"\"annua\"\"\"\nb,b.jpg,,\n";
        assert_eq!(csv(&rows, &classes), text);
    }
}
