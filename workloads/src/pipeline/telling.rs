//! What a pipeline tells while it runs, so that somebody can watch: how far it is, and who goes
//! where.

use std::time::{Duration, Instant};

use rdist::prelude::*;
use serde_json::{Map, Value, json};

use super::flow::Flow;
use super::stage::{Each, Stage};

/// Between two times that it says how far it is.
const EVERY: Duration = Duration::from_secs(1);

/// An actor that went from one stage to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// When, in seconds after the pipeline began.
    pub seconds: f64,
    /// Which one.
    pub actor: u32,
    /// The stage that it left.
    pub from: Stage,
    /// The stage that it works for.
    pub to: Stage,
    /// Why, in words.
    pub why: String,
}

/// See the module.
pub(super) struct Telling {
    cx: Driver,
    /// When it said last how far it was, and how far that was.
    last: Option<(Instant, usize)>,
    moves: Vec<Moved>,
}

impl Telling {
    pub(super) fn new(cx: Driver) -> Self {
        Self { cx, last: None, moves: Vec::new() }
    }

    /// Actors that have moved.
    pub(super) fn into_moves(self) -> Vec<Moved> {
        self.moves
    }

    /// Says how far it is, if that is due: at the beginning, at the end, and now and then.
    pub(super) fn progress<O: Clone>(&mut self, flow: &Flow<O>) {
        let (now, done) = (Instant::now(), flow.through());
        let since = self.last.map(|(at, before)| (now.duration_since(at), before));
        let is_due = match since {
            None => true,
            Some((_, before)) if before == done => false,
            Some((passed, _)) => passed >= EVERY || flow.is_done(),
        };
        if !is_due {
            return;
        }
        self.last = Some((now, done));
        let rate =
            since.map(|(passed, before)| (done - before) as f64 / passed.as_secs_f64().max(1e-9));
        let (sizes, waiting) = (flow.sizes(), flow.waiting());
        let mut detail = rate.map_or_else(String::new, |rate| format!("{rate:.0} images/s, "));
        let stages = Stage::ALL.into_iter().filter(|stage| flow.needs(*stage));
        let stages = stages.map(|stage| format!("{} {}", stage.name(), sizes[stage as usize]));
        detail += &stages.collect::<Vec<_>>().join(", ");
        self.cx.emit(&json!({
            "event": "prediction", "images_per_second": rate,
            "actors": by_stage(sizes), "waiting": by_stage(waiting),
            "progress": {
                "what": "predicting", "done": done, "total": flow.rows(), "unit": "images",
                "detail": detail,
            },
        }));
    }

    /// Says that an actor works for another stage from now on.
    pub(super) fn moved<O: Clone>(&mut self, flow: &Flow<O>, moved: Moved) {
        let Moved { seconds, actor, from, to, why } = &moved;
        println!("balance: actor {actor} goes from {} to {}: {why}", from.name(), to.name());
        self.cx.emit(&json!({
            "event": "balance", "actor": actor, "from": from.name(), "to": to.name(), "why": why,
            "seconds": seconds, "done": flow.through(), "actors": by_stage(flow.sizes()),
        }));
        self.moves.push(moved);
    }
}

fn by_stage<T: Into<Value> + Copy>(each: Each<T>) -> Map<String, Value> {
    let named = |stage: Stage| (stage.name().to_owned(), each[stage as usize].into());
    Stage::ALL.map(named).into_iter().collect()
}
