//! A training's figures by round, as a CSV that grows with each round.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::metric::{Metric, Tally};

/// What is known of a round when it is over.
#[derive(Debug, Clone)]
pub struct Round {
    /// From 1.
    pub round: u64,
    /// How many the training has.
    pub rounds: u64,
    /// How many replicas there are at its end.
    pub replicas: usize,
    /// What training took, judgement apart.
    pub seconds: f64,
    /// What was counted in training.
    pub train: Tally,
    /// What it was judged by: `val` or `test`.
    pub split: &'static str,
    /// The judgement: every metric, in the order of [`Metric::ALL`].
    pub figures: Vec<(Metric, Option<f64>)>,
}

impl Round {
    /// Images shown in training by the second.
    pub fn images_per_second(&self) -> f64 {
        self.train.images as f64 / self.seconds.max(1e-9)
    }

    /// A figure of the judgement.
    pub fn figure(&self, metric: Metric) -> Option<f64> {
        self.figures.iter().find(|(each, _)| *each == metric).and_then(|(_, value)| *value)
    }

    /// Everything by name, in the order of the table; what means nothing is `None`.
    pub fn columns(&self) -> Vec<(String, Option<f64>)> {
        let mut columns: Vec<(String, Option<f64>)> = [
            ("round", Some(self.round as f64)),
            ("seconds", Some(self.seconds)),
            ("images_per_second", Some(self.images_per_second())),
            ("replicas", Some(self.replicas as f64)),
            ("train_loss", self.train.mean_loss()),
            ("train_accuracy", self.train.accuracy()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let figure = |(metric, value): &(Metric, Option<f64>)| {
            (format!("{}_{}", self.split, metric.name), *value)
        };
        columns.extend(self.figures.iter().map(figure));
        columns
    }

    /// As an event of the job.
    pub fn event(&self) -> Value {
        let mut event = Map::new();
        event.insert("event".to_owned(), json!("round"));
        for (name, value) in self.columns() {
            let whole = ["round", "replicas"].contains(&name.as_str());
            let value = match value {
                Some(value) if whole => json!(value as u64),
                value => json!(value),
            };
            event.insert(name, value);
        }
        event.insert("rounds".to_owned(), json!(self.rounds));
        Value::Object(event)
    }
}

/// A table as it is read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// Of the columns; the first is the round.
    pub names: Vec<String>,
    /// A cell for each column; what means nothing is `None`.
    pub rows: Vec<Vec<Option<f64>>>,
}

/// The table on disk.
pub struct Table {
    path: PathBuf,
}

impl Table {
    /// Begins a table, or with `resumed` goes on with the one that is there, without its rounds
    /// after `done`: they are trained again.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(path: &Path, resumed: bool, done: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let old = match resumed.then(|| fs::read_to_string(path)) {
            Some(Ok(text)) => text,
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => String::new(),
        };
        let round = |line: &str| line.split(',').next().and_then(|cell| cell.parse::<u64>().ok());
        let kept = old.lines().filter(|line| round(line).is_none_or(|round| round <= done));
        let text: String = kept.flat_map(|line| [line, "\n"]).collect();
        fs::write(path, text)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Adds a round.
    ///
    /// # Errors
    /// The file system's.
    pub fn add(&self, round: &Round) -> io::Result<()> {
        let mut file: File = OpenOptions::new().append(true).create(true).open(&self.path)?;
        let columns = round.columns();
        let mut line = String::new();
        if file.metadata()?.len() == 0 {
            let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            line = names.join(",") + "\n";
        }
        let cell = |value: &Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let cells: Vec<String> = columns.iter().map(|(_, value)| cell(value)).collect();
        line += &(cells.join(",") + "\n");
        file.write_all(line.as_bytes())
    }

    /// All of it.
    ///
    /// # Errors
    /// The file system's.
    pub fn read(&self) -> io::Result<Rows> {
        let text = fs::read_to_string(&self.path)?;
        let mut lines = text.lines();
        let names = lines.next().unwrap_or_default().split(',').map(str::to_owned).collect();
        let row = |line: &str| line.split(',').map(|cell| cell.parse().ok()).collect();
        Ok(Rows { names, rows: lines.map(row).collect() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn round(number: u64) -> Round {
        let figures = Metric::ALL.map(|metric| (metric, (metric.name != "roc_auc").then_some(0.5)));
        Round {
            round: number,
            rounds: 9,
            replicas: 2,
            seconds: 2.0,
            train: Tally { images: 100, correct: 50, loss: 25.0 },
            split: "val",
            figures: figures.into(),
        }
    }

    #[test]
    fn rounds_are_lines_under_one_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics/job.csv");
        let table = Table::open(&path, false, 0).unwrap();
        for number in 1..=3 {
            table.add(&round(number)).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("round,seconds,images_per_second,replicas,train_loss,"));
        assert!(lines[0].ends_with("val_f1,val_macro_f1,val_roc_auc"));
        assert_eq!(lines[1], "1,2,50,2,0.25,0.5,0.5,0.5,0.5,0.5,0.5,0.5,");
        assert_eq!(lines.len(), 4);

        let Rows { names, rows } = table.read().unwrap();
        assert_eq!((names[0].as_str(), rows.len(), names.len()), ("round", 3, rows[0].len()));
        assert_eq!((rows[2][0], rows[2].last()), (Some(3.0), Some(&None)));

        // Going on after round 2: round 3 is trained again.
        let table = Table::open(&path, true, 2).unwrap();
        table.add(&round(3)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        drop(Table::open(&path, false, 0).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn an_event_has_every_figure_by_name() {
        let event = round(4).event();
        assert_eq!(
            (&event["event"], &event["round"], &event["rounds"]),
            (&json!("round"), &json!(4), &json!(9))
        );
        assert_eq!((&event["val_f1"], &event["val_roc_auc"]), (&json!(0.5), &Value::Null));
    }
}
