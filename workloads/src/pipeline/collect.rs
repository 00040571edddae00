//! The end of the pipeline: every image's prediction, once, and the table of answers that is
//! written while they come.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::metric::Answers;
use crate::train::error::JobError;

/// What was predicted.
#[derive(Debug, Clone, Default)]
pub struct Predicted {
    /// Rows that were predicted, ascending.
    pub rows: Vec<u32>,
    /// What the model says of each of them.
    pub answers: Answers,
    /// Rows that were of no use, and why.
    pub failed: Vec<(u32, String)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Collect {
    /// Class, certainty, and as many scores as the answers have of each image.
    said: BTreeMap<u32, (u32, f32, Vec<f32>)>,
    failed: BTreeMap<u32, String>,
    loss: f64,
    table: Option<Table>,
}

impl Collect {
    /// Without a table.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a table.
    pub fn into_table(table: Table) -> Self {
        Self { table: Some(table), ..Self::default() }
    }

    /// Takes what the model says of `rows`, in their order.
    ///
    /// # Errors
    /// The table's.
    ///
    /// # Panics
    /// When a row comes for the second time.
    pub fn take(&mut self, rows: &[u32], answers: &Answers) -> Result<(), JobError> {
        let width = answers.scores.len() / rows.len().max(1);
        for (at, row) in rows.iter().enumerate() {
            let class = answers.classes.get(at).copied().unwrap_or_default();
            let certainty = answers.certainty.get(at).copied().unwrap_or_default();
            let scores = answers.scores.chunks(width.max(1)).nth(at).unwrap_or_default();
            let said = (class, certainty, scores.to_vec());
            assert!(self.said.insert(*row, said).is_none(), "row {row} is predicted twice");
            if let Some(table) = &mut self.table {
                table.take(*row, Some(class))?;
            }
        }
        self.loss += answers.loss;
        Ok(())
    }

    /// Takes a row that is of no use.
    ///
    /// # Errors
    /// The table's.
    pub fn fail(&mut self, row: u32, reason: String) -> Result<(), JobError> {
        self.failed.insert(row, reason);
        self.table.as_mut().map_or(Ok(()), |table| table.take(row, None))
    }

    /// All there is, in the order of the rows.
    ///
    /// # Errors
    /// The table's.
    pub fn finish(self) -> Result<Predicted, JobError> {
        let mut answers = Answers { loss: self.loss, ..Answers::default() };
        let mut rows = Vec::with_capacity(self.said.len());
        for (row, (class, certainty, scores)) in self.said {
            rows.push(row);
            answers.classes.push(class);
            answers.certainty.push(certainty);
            answers.scores.extend(scores);
        }
        if let Some(table) = self.table {
            table.finish()?;
        }
        Ok(Predicted { rows, answers, failed: self.failed.into_iter().collect() })
    }
}

/// The challenge's table, `Id,Predicted`, which grows as predictions come. It has its name when it
/// is complete.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    /// Of each row.
    ids: Vec<String>,
    /// What classes are called.
    classes: Vec<String>,
    /// The class of pictures that are of no use.
    fallback: u32,
    /// Whether rows come out in their order.
    ordered: bool,
    /// The next row of the order, and those that came before their turn.
    next: u32,
    early: BTreeMap<u32, u32>,
}

impl Table {
    /// At `path`, whose folder is made; with the rows' ids and the classes' ones. A picture of no
    /// use is given the class `fallback`.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(
        path: &Path,
        ids: Vec<String>,
        classes: Vec<String>,
        fallback: u32,
        ordered: bool,
    ) -> Result<Self, JobError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|source| unwritten(folder, source))?;
        }
        let partial = path.with_extension("csv.partial");
        let file = File::create(&partial).map(BufWriter::new).and_then(|mut file| {
            writeln!(file, "Id,Predicted")?;
            Ok(file)
        });
        let file = file.map_err(|source| unwritten(&partial, source))?;
        let (next, early) = (0, BTreeMap::new());
        let path = path.to_owned();
        Ok(Self { path, partial, file, ids, classes, fallback, ordered, next, early })
    }

    fn take(&mut self, row: u32, class: Option<u32>) -> Result<(), JobError> {
        let class = class.unwrap_or(self.fallback);
        if !self.ordered {
            return self.write(row, class);
        }
        self.early.insert(row, class);
        while let Some(class) = self.early.remove(&self.next) {
            self.write(self.next, class)?;
            self.next += 1;
        }
        Ok(())
    }

    fn write(&mut self, row: u32, class: u32) -> Result<(), JobError> {
        let name = |names: &[String], at: u32| names.get(at as usize).cloned().unwrap_or_default();
        let (id, class) = (name(&self.ids, row), name(&self.classes, class));
        let written = writeln!(self.file, "{},{class}", crate::data::table::quoted(&id));
        written.map_err(|source| unwritten(&self.partial, source))
    }

    fn finish(mut self) -> Result<(), JobError> {
        self.file.flush().map_err(|source| unwritten(&self.partial, source))?;
        fs::rename(&self.partial, &self.path).map_err(|source| unwritten(&self.path, source))
    }
}

fn unwritten(path: &Path, source: std::io::Error) -> JobError {
    JobError::Output { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(folder: &Path, ordered: bool) -> Collect {
        let ids = (0..5).map(|row| format!("p{row}")).collect();
        let classes = vec!["17".to_owned(), "23".to_owned()];
        let path = folder.join("out/predictions.csv");
        Collect::into_table(Table::create(&path, ids, classes, 1, ordered).unwrap())
    }

    fn answers(classes: &[u32]) -> Answers {
        let classes = classes.to_vec();
        let certainty = classes.iter().map(|class| 0.5 + *class as f32 / 4.0).collect();
        let scores = classes.iter().flat_map(|class| [*class as f32, 0.5]).collect();
        Answers { classes, certainty, scores, loss: 1.0 }
    }

    #[test]
    fn the_table_is_in_order_or_as_rows_come() {
        for (ordered, expected) in [
            (true, "p0,17\np1,23\np2,23\np3,17\np4,23\n"),
            (false, "p3,17\np4,23\np1,23\np0,17\np2,23\n"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut collect = collect(folder.path(), ordered);
            collect.take(&[3, 4], &answers(&[0, 1])).unwrap();
            collect.fail(1, "damaged".to_owned()).unwrap();
            collect.take(&[0, 2], &answers(&[0, 1])).unwrap();
            let path = folder.path().join("out/predictions.csv");
            assert!(!path.exists(), "it has its name when it is complete");
            let predicted = collect.finish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("Id,Predicted\n{expected}"));
            assert_eq!(predicted.rows, [0, 2, 3, 4]);
            assert_eq!(predicted.answers.classes, [0, 1, 0, 1]);
            assert_eq!(predicted.answers.scores, [0.0, 0.5, 1.0, 0.5, 0.0, 0.5, 1.0, 0.5]);
            assert_eq!(predicted.answers.loss, 2.0);
            assert_eq!(predicted.failed, [(1, "damaged".to_owned())]);
            assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_table_that_cannot_be_written_is_named_with_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("out"), "a file where the folder should be").unwrap();
        let path = folder.path().join("out/predictions.csv");
        let error = Table::create(&path, Vec::new(), Vec::new(), 0, true).unwrap_err().to_string();
        assert!(error.contains(&folder.path().join("out").display().to_string()), "{error}");
        assert!(error.contains("output.folder"), "{error}");
    }

    #[test]
    #[should_panic(expected = "row 3 is predicted twice")]
    fn nothing_is_predicted_twice() {
        let mut collect = Collect::new();
        collect.take(&[3], &answers(&[0])).unwrap();
        collect.take(&[3], &answers(&[0])).unwrap();
    }
}
