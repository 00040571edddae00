//! The report of a training: what there is to show, gathered.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::error::JobError;
use super::prepare::Prepared;
use super::record::Record;
use crate::metric::{Confusion, Seen};
use crate::pipeline::Predicted;
use crate::place;
use crate::report::page::{Matrix, Page, Picture, count};
use crate::spec::Spec;

/// Its name in the output folder.
const FILE: &str = "report.html";
/// Classes of a matrix that can still be seen.
const MOST_CLASSES: u32 = 100;
/// Mistakes that are shown.
const MISTAKES: usize = 18;

/// What a training came to.
pub(super) struct Outcome<'a> {
    pub(super) spec: &'a Spec,
    pub(super) data: &'a Prepared,
    pub(super) record: &'a Record,
    /// Of the test images.
    pub(super) predicted: &'a Predicted,
    pub(super) metrics: &'a Map<String, Value>,
    /// Values of the model.
    pub(super) parameters: usize,
}

impl Outcome<'_> {
    /// Writes the report; returns where it is.
    pub(super) fn write(&self) -> Result<PathBuf, JobError> {
        let path = self.spec.output.folder.join(FILE);
        let failed = |source| JobError::Output { path: path.clone(), source };
        let page = Page {
            job: self.spec.name.clone(),
            about: self.about(),
            figures: self.figures(),
            rounds: self.record.rounds().map_err(failed)?,
            confusion: self.confusion(),
            pictures: self.pictures(),
            skipped: self.skipped(),
            times: self.record.times(),
            settings: self.spec.settings.clone(),
            environment: self.environment(),
        };
        place::replace(&path, page.html().into_bytes()).map_err(failed)?;
        Ok(path)
    }

    fn about(&self) -> String {
        let Self { spec, data, parameters, .. } = self;
        format!(
            "{} ({} parameters) on {} images of {} classes with {}, {} epochs",
            spec.model.architecture.name(),
            count(*parameters),
            count(data.train_labels.len()),
            data.classes.len(),
            spec.train.strategy.name(),
            spec.train.epochs,
        )
    }

    fn figures(&self) -> Vec<(String, String)> {
        let shown = |name: &str, label: &str, show: fn(f64) -> String| {
            let value = self.metrics.get(name)?.as_f64()?;
            Some((label.to_owned(), show(value)))
        };
        let (share, whole) = (|n: f64| format!("{n:.4}"), |n: f64| count(n.round() as usize));
        [
            shown("test_accuracy", "test accuracy", share),
            shown("test_macro_f1", "test macro F1", share),
            shown("test_roc_auc", "test ROC-AUC", share),
            shown("val_accuracy", "validation accuracy", share),
            shown("val_roc_auc", "validation ROC-AUC", share),
            shown("train_images_per_second", "images per second", whole),
            shown("train_seconds", "training", duration),
            shown("speed_up", "speed-up", |n| format!("{n:.2}")),
            shown("efficiency", "efficiency", |n| format!("{:.0} %", 100.0 * n)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn confusion(&self) -> Option<Matrix> {
        let classes = self.data.classes.len() as u32;
        let seen = Seen::new(&self.predicted.answers, &self.labels(), classes);
        if seen.pairs.is_empty() || classes > MOST_CLASSES {
            return None;
        }
        let names = self.data.classes.iter().map(|class| class.name.clone()).collect();
        Some(Matrix { classes: names, rows: Confusion::of(&seen).rows(classes) })
    }

    fn pictures(&self) -> Vec<(String, Vec<Picture>)> {
        let (answers, labels) = (&self.predicted.answers, self.labels());
        let first = answers.classes.len().min(self.spec.infer.samples as usize);
        let is_wrong = |index: &usize| {
            let label = labels[*index];
            (label as usize) < self.data.classes.len() && answers.classes[*index] != label
        };
        let mut wrong: Vec<usize> = (0..answers.classes.len()).filter(is_wrong).collect();
        wrong.sort_by(|a, b| answers.certainty[*b].total_cmp(&answers.certainty[*a]));
        let most = if self.spec.infer.samples == 0 { 0 } else { MISTAKES };
        vec![
            ("First test images".to_owned(), (0..first).map(|at| self.picture(at)).collect()),
            (
                "Surest mistakes".to_owned(),
                wrong.into_iter().take(most).map(|at| self.picture(at)).collect(),
            ),
        ]
    }

    /// Pictures of no use, of those to train with and of those to test with.
    fn skipped(&self) -> Vec<(String, String)> {
        let tested = self.data.tests.skipped(&self.predicted.failed);
        let all = self.data.skipped.iter().cloned().chain(tested);
        all.map(|skipped| (skipped.file, skipped.reason)).collect()
    }

    /// Of the images that were predicted.
    fn labels(&self) -> Vec<u32> {
        let all = self.data.tests.labels();
        self.predicted.rows.iter().map(|row| all[*row as usize]).collect()
    }

    fn picture(&self, index: usize) -> Picture {
        let (row, answers) = (self.predicted.rows[index], &self.predicted.answers);
        let name = |class: u32| Some(self.data.classes.get(class as usize)?.name.clone());
        Picture {
            pixels: self.data.tests.pixels(row).unwrap_or_else(|| vec![0; self.data.shape.len()]),
            shape: self.data.shape,
            predicted: name(answers.classes[index]).unwrap_or_default(),
            label: name(self.labels()[index]),
            certainty: answers.certainty[index],
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpu = field(&read("/proc/cpuinfo"), "model name").unwrap_or_default();
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let memory = memory.split(' ').next().and_then(|kib| kib.parse::<f64>().ok());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let host = read("/proc/sys/kernel/hostname");
        let data = self.data;
        let sizes = format!(
            "{} to train on, {} to judge rounds by, {} to test with",
            count(data.train_labels.len()),
            count(data.watch_labels.len()),
            count(data.tests.len())
        );
        let about = |label: &str, value: String| (label.to_owned(), value);
        vec![
            about("finished", utc(since.as_secs())),
            about("data", data.source.clone()),
            about("images", sizes),
            about("driver's machine", host.trim().to_owned()),
            about("CPU", format!("{cpus} x {cpu}")),
            about(
                "memory",
                memory.map_or_else(String::new, |n| format!("{:.1} GiB", n / 1048576.)),
            ),
            about("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
            about("rdist", env!("CARGO_PKG_VERSION").to_owned()),
        ]
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3_600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02} h", whole / 3_600, whole % 3_600 / 60),
    }
}

/// Seconds since 1970 as a date and time (Hinnant's `civil_from_days`).
fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * shifted + 2) / 5 + 1, shifted + 3);
    let (month, more) = if month > 12 { (month - 12, 1) } else { (month, 0) };
    let year = era * 400 + year + more;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", time / 3_600, time % 3_600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_do() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(utc(1_767_225_599), "2025-12-31 23:59 UTC");
        assert_eq!([5.04, 61.0, 7_260.0].map(duration), ["5.0 s", "1:01 min", "2:01 h"]);
    }
}
