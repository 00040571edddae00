//! A training on a terminal: one bar for all its rounds, with the time left, and a line for each
//! replica with what it does now.
//!
//! It follows the events of training jobs: `training` (rounds, images in each), `step` (what a
//! replica did since it told last), `round`, `replica` (a replica's part of a round) and
//! `replica_lost`.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::output::Event;
use crate::units::show_number;

/// See the module.
pub(super) struct Training {
    state: State,
    bars: MultiProgress,
    total: ProgressBar,
    replicas: BTreeMap<u64, ProgressBar>,
}

impl Training {
    /// Of a training that begins with this event; `None`: it is another one.
    pub(super) fn begin(event: &Event) -> Option<Self> {
        let state = State::begin(event)?;
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = bars.add(ProgressBar::new(state.rounds * state.images));
        let template = "{bar:30} {percent:>3} %  {elapsed} (left: {eta})  {msg}";
        total.set_style(style(template, ProgressStyle::default_bar()));
        total.enable_steady_tick(Duration::from_millis(500));
        let mut training = Self { state, bars, total, replicas: BTreeMap::new() };
        training.draw();
        Some(training)
    }

    /// Shows an event; `false`: it is of something else.
    pub(super) fn event(&mut self, event: &Event) -> bool {
        let known = self.state.apply(event);
        if known {
            self.draw();
        }
        known
    }

    /// Runs `print` while nothing is in its way.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bars.suspend(print)
    }

    fn draw(&mut self) {
        self.total.set_position(self.state.position());
        self.total.set_message(self.state.message());
        let Self { state, bars, replicas, .. } = self;
        replicas.retain(|replica, bar| {
            let stays = state.replicas.contains_key(replica);
            if !stays {
                bars.remove(bar);
            }
            stays
        });
        for (replica, now) in &state.replicas {
            let bar = replicas.entry(*replica).or_insert_with(|| {
                let bar = bars.add(ProgressBar::no_length());
                bar.set_style(style("  {msg}", ProgressStyle::default_spinner()));
                bar
            });
            bar.set_message(now.line(*replica));
        }
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        self.replicas.values().for_each(ProgressBar::finish_and_clear);
        self.total.finish_and_clear();
    }
}

fn style(template: &str, otherwise: ProgressStyle) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or(otherwise)
}

/// What is known of it.
#[derive(Debug, Default)]
struct State {
    rounds: u64,
    /// In each round.
    images: u64,
    done: u64,
    /// Images of the round under way.
    shown: u64,
    /// Of the last round.
    figures: String,
    replicas: BTreeMap<u64, Replica>,
}

/// What a replica told last.
#[derive(Debug, Default)]
struct Replica {
    rate: f64,
    loss: Option<f64>,
    /// Where its time went in the last round.
    times: String,
}

impl Replica {
    fn line(&self, replica: u64) -> String {
        let loss = self.loss.map_or_else(String::new, |loss| format!("  loss {loss:.4}"));
        format!("replica {replica:<3} {:>7.0} images/s{loss}{}", self.rate, self.times)
    }
}

impl State {
    fn begin(event: &Event) -> Option<Self> {
        if event.get("event").and_then(Value::as_str) != Some("training") {
            return None;
        }
        let number = |name: &str| event.get(name).and_then(Value::as_u64);
        Some(Self { rounds: number("rounds")?, images: number("images")?, ..Self::default() })
    }

    fn apply(&mut self, event: &Event) -> bool {
        let whole = |name: &str| event.get(name).and_then(Value::as_u64);
        let measured = |name: &str| event.get(name).and_then(Value::as_f64);
        let replica = whole("replica").unwrap_or_default();
        match event.get("event").and_then(Value::as_str) {
            Some("step") => {
                let now = self.replicas.entry(replica).or_default();
                now.rate = measured("images_per_second").unwrap_or_default();
                now.loss = measured("train_loss");
                let epoch = whole("epoch").unwrap_or_default();
                // Of a round that is over, its own event has told already.
                if epoch > self.done {
                    self.shown = self.images.min(self.shown + whole("images").unwrap_or_default());
                }
            }
            Some("replica") => {
                let now = self.replicas.entry(replica).or_default();
                now.loss = measured("train_loss").or(now.loss);
                now.times = times(&measured);
            }
            Some("replica_lost") => drop(self.replicas.remove(&replica)),
            Some("round") => {
                (self.done, self.shown) = (whole("round").unwrap_or(self.done + 1), 0);
                let shown = |(name, words): (&str, &str)| {
                    Some(format!("{words} {}", show_number(measured(name)?)))
                };
                let figures = [
                    ("train_loss", "loss"),
                    ("test_accuracy", "accuracy"),
                    ("val_accuracy", "accuracy"),
                    ("val_roc_auc", "ROC-AUC"),
                ];
                let figures: Vec<String> = figures.into_iter().filter_map(shown).collect();
                self.figures = figures.join(", ");
            }
            _ => return false,
        }
        true
    }

    fn position(&self) -> u64 {
        self.done * self.images + self.shown
    }

    fn message(&self) -> String {
        let rate: f64 = self.replicas.values().map(|replica| replica.rate).sum();
        let round = (self.done + 1).min(self.rounds);
        let mut message = format!("round {round}/{}", self.rounds);
        if rate > 0.0 {
            message += &format!("  {rate:.0} images/s");
        }
        if !self.figures.is_empty() {
            message += &format!("  round {}: {}", self.done, self.figures);
        }
        message
    }
}

/// The shares of a replica's time in a round.
fn times(measured: &impl Fn(&str) -> Option<f64>) -> String {
    let names = ["compute", "data", "merge", "wait"];
    let seconds = names.map(|name| measured(&format!("{name}_seconds")).unwrap_or_default());
    let total: f64 = seconds.iter().sum();
    if total <= 0.0 {
        return String::new();
    }
    let share = |(name, seconds): (&str, f64)| format!("{name} {:.0} %", 100.0 * seconds / total);
    let shares: Vec<String> = names.into_iter().zip(seconds).map(share).collect();
    format!("  {}", shares.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(state: &mut State, event: &Value) -> bool {
        state.apply(event.as_object().unwrap())
    }

    #[test]
    fn steps_add_up_to_rounds_and_rounds_to_the_whole() {
        let begin = json!({"event": "training", "rounds": 3, "images": 1_000, "replicas": 2});
        let mut state = State::begin(begin.as_object().unwrap()).unwrap();
        assert_eq!((state.position(), state.message().as_str()), (0, "round 1/3"));
        for replica in [1, 2] {
            let step = json!({"event": "step", "replica": replica, "epoch": 1, "images": 300,
                              "train_loss": 0.5, "images_per_second": 150.0});
            assert!(apply(&mut state, &step));
        }
        assert_eq!(state.position(), 600);
        assert_eq!(state.message(), "round 1/3  300 images/s");
        assert_eq!(state.replicas[&1].line(1), "replica 1       150 images/s  loss 0.5000");

        let round = json!({"event": "round", "round": 1, "train_loss": 0.25, "val_accuracy": 0.5});
        assert!(apply(&mut state, &round));
        let late = json!({"event": "step", "replica": 2, "epoch": 1, "images": 90});
        assert!(apply(&mut state, &late));
        assert_eq!(state.position(), 1_000);
        assert!(state.message().contains("round 1: loss 0.2500, accuracy 0.5000"));

        let part = json!({"event": "replica", "replica": 1, "compute_seconds": 3.0,
                          "data_seconds": 0.5, "merge_seconds": 0.25, "wait_seconds": 0.25});
        assert!(apply(&mut state, &part));
        assert!(
            state.replicas[&1].line(1).ends_with("compute 75 %, data 12 %, merge 6 %, wait 6 %")
        );
        assert!(apply(&mut state, &json!({"event": "replica_lost", "replica": 1})));
        assert!(!state.replicas.contains_key(&1));
        assert!(!apply(&mut state, &json!({"event": "confusion"})));
    }
}
