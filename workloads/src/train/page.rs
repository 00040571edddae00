//! The report of a training, or of a prediction: what there is to show, gathered.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rdist::prelude::*;
use serde_json::{Map, Value, json};

use super::checkpoint::Identity;
use super::error::JobError;
use super::prepare::Prepared;
use super::record::Record;
use super::test_set::TestSet;
use crate::data::table::Class;
use crate::metric::{Confusion, Seen};
use crate::pipeline::stage::Stage;
use crate::pipeline::{self, Predicted};
use crate::place;
use crate::report::page::pipeline as shown;
use crate::report::page::{Kind, Matrix, Page, Picture, count};
use crate::spec::Spec;

/// Its name in the output folder.
const FILE: &str = "report.html";
/// The name of a prediction's, where that one is of a training.
const PREDICTION_FILE: &str = "prediction.html";
/// Classes of a matrix that can still be seen.
const MOST_CLASSES: u32 = 100;
/// Mistakes that are shown.
const MISTAKES: usize = 18;
/// What a prediction has nothing to do with, among the settings.
const OF_TRAINING: [&str; 3] = ["model.", "augment.", "train."];
/// What it has, all the same.
const OF_BOTH: [&str; 2] = ["train.device", "train.replicas"];

/// What a job came to.
pub(super) struct Outcome<'a> {
    pub(super) spec: &'a Spec,
    pub(super) subject: Subject<'a>,
    /// Where its data came from.
    pub(super) source: &'a str,
    pub(super) classes: &'a [Class],
    pub(super) tests: &'a TestSet,
    /// Of the test images.
    pub(super) predicted: &'a Predicted,
    /// How the pipeline went that predicted them; `None`: they were known already.
    pub(super) pipeline: Option<&'a pipeline::Report>,
    pub(super) metrics: &'a Map<String, Value>,
}

/// What was done.
pub(super) enum Subject<'a> {
    /// A model with so many values was trained.
    Training { data: &'a Prepared, record: &'a Record, parameters: usize },
    /// A saved one of so many epochs predicted.
    Model { path: &'a Path, identity: &'a Identity, epochs: u64 },
}

impl Outcome<'_> {
    /// Writes the report, and says where it is.
    pub(super) fn tell(&self, cx: &Driver) -> Result<(), JobError> {
        let path = self.write()?;
        println!("report in {}", path.display());
        cx.emit(&json!({ "event": "report", "path": path }));
        Ok(())
    }

    fn write(&self) -> Result<PathBuf, JobError> {
        let (kind, folder) = (self.kind(), &self.spec.output.folder);
        let path = folder.join(FILE);
        let other = std::fs::read_to_string(&path).unwrap_or_default();
        let path = match kind {
            // The curves of a training cannot be had again.
            Kind::Prediction if Kind::Training.is_of(&other) => folder.join(PREDICTION_FILE),
            Kind::Training | Kind::Prediction => path,
        };
        let failed = |source| JobError::Output { path: path.clone(), source };
        let (rounds, times) = match &self.subject {
            Subject::Training { record, .. } => (record.rounds().map_err(failed)?, record.times()),
            Subject::Model { .. } => Default::default(),
        };
        let page = Page {
            kind,
            job: self.spec.name.clone(),
            about: self.about(),
            figures: self.figures(),
            rounds,
            confusion: self.confusion(),
            pictures: self.pictures(),
            skipped: self.skipped(),
            times,
            pipeline: self.pipeline.map(stages),
            settings: self.settings(),
            environment: self.environment(),
        };
        place::replace(&path, page.html().into_bytes()).map_err(failed)?;
        Ok(path)
    }

    fn kind(&self) -> Kind {
        match self.subject {
            Subject::Training { .. } => Kind::Training,
            Subject::Model { .. } => Kind::Prediction,
        }
    }

    fn about(&self) -> String {
        let spec = self.spec;
        match &self.subject {
            Subject::Training { data, parameters, .. } => format!(
                "{} ({} parameters) on {} images of {} classes with {}, {} epochs",
                spec.model.architecture.name(),
                count(*parameters),
                count(data.train_labels.len()),
                self.classes.len(),
                spec.train.strategy.name(),
                spec.train.epochs,
            ),
            Subject::Model { path, identity, epochs } => {
                format!("{}: {identity} of {epochs} epochs", path.display())
            }
        }
    }

    fn settings(&self) -> Vec<(String, String, bool)> {
        let starts = |key: &str, with: &[&str]| with.iter().any(|start| key.starts_with(start));
        let says = |key: &str| starts(key, &OF_BOTH) || !starts(key, &OF_TRAINING);
        let all = self.spec.settings.iter();
        let own = all.filter(|(key, ..)| self.kind() == Kind::Training || says(key));
        own.cloned().collect()
    }

    fn figures(&self) -> Vec<(String, String)> {
        let shown = |name: &str, label: &str, show: fn(f64) -> String| {
            let value = self.metrics.get(name)?.as_f64()?;
            Some((label.to_owned(), show(value)))
        };
        let (share, whole) = (|n: f64| format!("{n:.4}"), |n: f64| count(n.round() as usize));
        let rate = match self.kind() {
            Kind::Training => "train_images_per_second",
            Kind::Prediction => "infer_images_per_second",
        };
        [
            shown("test_accuracy", "test accuracy", share),
            shown("test_macro_f1", "test macro F1", share),
            shown("test_roc_auc", "test ROC-AUC", share),
            shown("val_accuracy", "validation accuracy", share),
            shown("val_roc_auc", "validation ROC-AUC", share),
            shown(rate, "images per second", whole),
            shown("train_seconds", "training", duration),
            shown("speed_up", "speed-up", |n| format!("{n:.2}")),
            shown("efficiency", "efficiency", |n| format!("{:.0} %", 100.0 * n)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn confusion(&self) -> Option<Matrix> {
        let classes = self.classes.len() as u32;
        let seen = Seen::new(&self.predicted.answers, &self.labels(), classes);
        if seen.pairs.is_empty() || classes > MOST_CLASSES {
            return None;
        }
        let names = self.classes.iter().map(|class| class.name.clone()).collect();
        Some(Matrix { classes: names, rows: Confusion::of(&seen).rows(classes) })
    }

    fn pictures(&self) -> Vec<(String, Vec<Picture>)> {
        let (answers, labels) = (&self.predicted.answers, self.labels());
        let first = answers.classes.len().min(self.spec.infer.samples as usize);
        let is_wrong = |index: &usize| {
            let label = labels[*index];
            (label as usize) < self.classes.len() && answers.classes[*index] != label
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
        let tested = self.tests.skipped(&self.predicted.failed);
        let before = match &self.subject {
            Subject::Training { data, .. } => &data.skipped[..],
            Subject::Model { .. } => &[],
        };
        let all = before.iter().cloned().chain(tested);
        all.map(|skipped| (skipped.file, skipped.reason)).collect()
    }

    /// Of the images that were predicted.
    fn labels(&self) -> Vec<u32> {
        let all = self.tests.labels();
        self.predicted.rows.iter().map(|row| all[*row as usize]).collect()
    }

    fn picture(&self, index: usize) -> Picture {
        let (row, answers) = (self.predicted.rows[index], &self.predicted.answers);
        let name = |class: u32| Some(self.classes.get(class as usize)?.name.clone());
        Picture {
            pixels: self.tests.pixels(row).unwrap_or_else(|| vec![0; self.tests.shape().len()]),
            shape: self.tests.shape(),
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
        let tests = count(self.tests.len());
        let sizes = match &self.subject {
            Subject::Training { data, .. } => format!(
                "{} to train on, {} to judge rounds by, {tests} to test with",
                count(data.train_labels.len()),
                count(data.watch_labels.len()),
            ),
            Subject::Model { .. } => format!("{tests} to test with"),
        };
        let about = |label: &str, value: String| (label.to_owned(), value);
        vec![
            about("finished", utc(since.as_secs())),
            about("data", self.source.to_owned()),
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

/// How a prediction went, as a page shows it.
fn stages(report: &pipeline::Report) -> shown::Pipeline {
    let one = |stage: Stage| {
        let done = report.stages[stage as usize];
        shown::Stage {
            name: stage.name().to_owned(),
            actors: report.sizes[stage as usize],
            calls: done.calls,
            images: done.images,
            busy: done.busy.as_secs_f64(),
            share: report.busy(stage),
            most_waiting: done.most_waiting,
        }
    };
    let moved = |moved: &pipeline::Moved| shown::Move {
        seconds: moved.seconds,
        actor: moved.actor,
        from: moved.from.name().to_owned(),
        to: moved.to.name().to_owned(),
        why: moved.why.clone(),
    };
    // Images that are pixels already are neither read nor decoded.
    let passed = |stage: &Stage| report.stages[*stage as usize].calls > 0;
    shown::Pipeline {
        summary: report.summary(),
        stages: Stage::ALL.into_iter().filter(passed).map(one).collect(),
        moves: report.moves.iter().map(moved).collect(),
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
