//! Progress of a job: a bar on a terminal, a line now and then elsewhere.
//!
//! A driver reports progress with an event that has an object `progress`:
//! `{"event": ..., "progress": {"what": "reading", "done": 300, "total": 1000, "unit": "images"}}`,
//! or, as training jobs do, with the numbers `round` and `rounds`. Of a round a training job also
//! says a line on its output, so that without a terminal nothing more is shown. On one, trainings
//! that tell more have lines of their own.

mod training;

use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use self::training::Training;
use crate::output::Event;
use crate::units::show_number;

/// Between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far something is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// What advances.
    what: String,
    /// How far.
    done: u64,
    /// Of how much, where that is known.
    total: Option<u64>,
    /// In what.
    unit: String,
    /// More about it, in words.
    detail: String,
    /// The driver's own output says it too.
    also_printed: bool,
}

impl Step {
    /// The progress that an event reports.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        if let Some(round) = Self::of_round(event) {
            return Some(round);
        }
        let progress = event.get("progress")?.as_object()?;
        let text =
            |name: &str| progress.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self {
            what: text("what"),
            done: progress.get("done").and_then(Value::as_u64)?,
            total: progress.get("total").and_then(Value::as_u64),
            unit: text("unit"),
            detail: text("detail"),
            also_printed: false,
        })
    }

    fn of_round(event: &Event) -> Option<Self> {
        let number = |name: &str| event.get(name).and_then(Value::as_u64);
        let measured = |name: &str, words: &str| {
            let value = event.get(name).and_then(Value::as_f64)?;
            Some(format!("{words} {}", show_number(value)))
        };
        let detail: Vec<String> = [
            ("train_loss", "loss"),
            ("test_accuracy", "accuracy"),
            ("val_accuracy", "accuracy"),
            ("val_roc_auc", "ROC-AUC"),
            ("images_per_second", "images/s"),
        ]
        .into_iter()
        .filter_map(|(name, words)| measured(name, words))
        .collect();
        Some(Self {
            what: "rounds".to_owned(),
            done: number("round")?,
            total: Some(number("rounds")?),
            unit: String::new(),
            detail: detail.join(", "),
            also_printed: true,
        })
    }

    fn line(&self) -> String {
        let total = self.total.map(|total| format!("/{total}")).unwrap_or_default();
        let words = [
            self.what.as_str(),
            &format!("{}{total}", self.done),
            self.unit.as_str(),
            self.detail.as_str(),
        ];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// Shows steps.
pub(crate) struct Progress {
    terminal: bool,
    bar: Option<ProgressBar>,
    training: Option<Training>,
    what: String,
    last_line: Option<Instant>,
}

impl Progress {
    /// With bars, if there is a terminal.
    pub(crate) fn new(terminal: bool) -> Self {
        Self { terminal, bar: None, training: None, what: String::new(), last_line: None }
    }

    /// Shows what a training tells, if there is a terminal; `false`: it is to be shown otherwise.
    pub(crate) fn training(&mut self, event: &Event) -> bool {
        if !self.terminal {
            return false;
        }
        if let Some(begun) = Training::begin(event) {
            self.clear();
            self.training = Some(begun);
            return true;
        }
        self.training.as_mut().is_some_and(|training| training.event(event))
    }

    /// Shows a step on the bar, or returns a line to print for it.
    pub(crate) fn step(&mut self, step: &Step) -> Option<String> {
        let other = self.what != step.what;
        if other {
            self.what.clone_from(&step.what);
        }
        if !self.terminal {
            if step.also_printed {
                return None;
            }
            let ended = step.total.is_some_and(|total| step.done >= total);
            let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
            if !(other || ended || due) {
                return None;
            }
            self.last_line = Some(Instant::now());
            return Some(step.line());
        }
        // What a training told last is over, too, when something else advances.
        if other || self.training.is_some() {
            self.clear();
        }
        let bar = self.bar.get_or_insert_with(|| new_bar(step));
        bar.set_message(step.detail.clone());
        bar.set_position(step.done);
        None
    }

    /// Runs `print` while no bar is in its way.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match (&self.bar, &self.training) {
            (Some(bar), _) => bar.suspend(print),
            (None, Some(training)) => training.aside(print),
            (None, None) => print(),
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(&mut self) {
        self.training = None;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn new_bar(step: &Step) -> ProgressBar {
    let bar = match step.total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let template = match step.total {
        Some(_) => "{prefix} {bar:30} {pos}/{len} {elapsed} (left: {eta}) {msg}",
        None => "{prefix} {spinner} {pos} {elapsed} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(step.what.clone());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(done: u64) -> Step {
        let event = json!({
            "event": "training",
            "progress": {"what": "round 1", "done": done, "total": 10, "unit": "batches"},
        });
        Step::of(event.as_object().unwrap()).unwrap()
    }

    #[test]
    fn without_a_terminal_the_first_and_the_last_step_get_a_line() {
        let mut progress = Progress::new(false);
        let lines: Vec<String> = (0..=10).filter_map(|n| progress.step(&step(n))).collect();
        assert_eq!(lines, ["round 1 0/10 batches", "round 1 10/10 batches"]);
    }

    #[test]
    fn an_event_without_progress_is_none() {
        for event in [json!({}), json!({"progress": 3}), json!({"progress": {"total": 3}})] {
            assert_eq!(Step::of(event.as_object().unwrap()), None);
        }
    }

    #[test]
    fn a_test_takes_the_place_of_each_training_before_it() {
        let mut terminal = Progress::new(true);
        for _ in 0..2 {
            let begun = json!({"event": "training", "rounds": 3, "images": 1_000});
            assert!(terminal.training(begun.as_object().unwrap()));
            assert!(terminal.bar.is_none());
            assert_eq!(terminal.step(&step(4)), None);
            assert!(terminal.bar.is_some() && terminal.training.is_none());
        }
    }

    #[test]
    fn a_round_of_training_is_a_step() {
        let event = json!({"event": "round", "round": 2, "rounds": 9, "train_loss": 0.25});
        let step = Step::of(event.as_object().unwrap()).unwrap();
        assert_eq!(step.line(), "rounds 2/9 loss 0.2500");
        assert_eq!(Progress::new(false).step(&step), None);
        let mut terminal = Progress::new(true);
        assert_eq!(terminal.step(&step), None);
        assert_eq!(terminal.bar.as_ref().map(|bar| bar.position()), Some(2));
    }
}
