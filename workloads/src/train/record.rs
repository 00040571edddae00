//! Everything that a training tells while it runs: lines, events, the table, TensorBoard's file.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rdist::prelude::*;
use serde_json::json;

use super::error::JobError;
use super::shelf;
use super::spent::Spent;
use crate::metric::{Metric, Seen, accuracy, roc_auc};
use crate::report::page::Times;
use crate::report::rounds::{Round, Rows, Table};
use crate::report::tensorboard::{self, Board};

/// See the module.
pub(super) struct Record {
    table: Table,
    board: Board,
    /// Of each replica: where its time went until the training began, and until now.
    spent: BTreeMap<u32, (Spent, Spent)>,
}

impl Record {
    /// In `metrics/` of the output folder; goes on with what is there where the training is
    /// `resumed` after `done` rounds.
    pub(super) fn open(
        output: &Path,
        job: &str,
        resumed: bool,
        done: u64,
    ) -> Result<Self, JobError> {
        let folder = output.join("metrics");
        let failed = |source: io::Error| JobError::Output { path: folder.clone(), source };
        let table = Table::open(&folder.join(format!("{job}.csv")), resumed, done);
        let events = folder.join("tensorboard");
        if !resumed {
            // TensorBoard shows the files of a folder as one curve.
            shelf::move_aside(&events, |name| name.starts_with(tensorboard::PREFIX))?;
        }
        let board = Board::create(&events);
        let spent = BTreeMap::new();
        Ok(Self { table: table.map_err(failed)?, board: board.map_err(failed)?, spent })
    }

    /// Tells that training begins; what replicas did before does not count.
    pub(super) fn begin(&mut self, cx: &Driver, rounds: u64, images: u64, spent: &[(u32, Spent)]) {
        self.spent = spent.iter().map(|(number, spent)| (*number, (*spent, *spent))).collect();
        cx.emit(&json!({
            "event": "training", "rounds": rounds, "images": images, "replicas": spent.len(),
        }));
    }

    /// Tells what each replica did in a round.
    pub(super) fn replicas(&mut self, cx: &Driver, round: &Round, spent: &[(u32, Spent)]) {
        for (number, now) in spent {
            let (_, before) = self.spent.entry(*number).or_default();
            cx.emit(&now.since(before).event(round.round, *number, round.seconds));
            *before = *now;
        }
    }

    /// Where each replica's time went, in order of their numbers.
    pub(super) fn times(&self) -> Vec<(u32, Times)> {
        let times = |(first, last): &(Spent, Spent)| {
            let spent = last.since(first);
            let Spent { compute, data, merge, .. } = spent;
            Times { compute, data, merge, wait: spent.wait() }
        };
        self.spent.iter().map(|(number, spent)| (*number, times(spent))).collect()
    }

    /// The table, also of rounds before the training was resumed.
    pub(super) fn rounds(&self) -> io::Result<Rows> {
        self.table.read()
    }

    /// Tells of a round.
    pub(super) fn round(&mut self, cx: &Driver, round: &Round) -> Result<(), JobError> {
        let mut line = format!(
            "round {}/{}: loss {:.4}, {} accuracy {:.4}",
            round.round,
            round.rounds,
            round.train.mean_loss().unwrap_or_default(),
            round.split,
            round.figure(accuracy::ACCURACY).unwrap_or_default(),
        );
        if let Some(area) = round.figure(roc_auc::ROC_AUC) {
            line += &format!(", ROC-AUC {area:.4}");
        }
        let (rate, replicas) = (round.images_per_second(), round.replicas);
        println!("{line}, {rate:.0} images/s, {replicas} replicas");
        cx.emit(&round.event());
        let failed = |source| JobError::Output { path: self.table.path().to_owned(), source };
        self.table.add(round).map_err(failed)?;
        let columns = round.columns();
        let scalars = columns.iter().skip(1);
        let scalars = scalars.filter_map(|(name, value)| Some((name.as_str(), (*value)?)));
        self.board.add(round.round, scalars).map_err(failed)
    }
}

/// Every metric of what was seen.
pub(super) fn figures(seen: &Seen) -> Vec<(Metric, Option<f64>)> {
    Metric::ALL.into_iter().map(|metric| (metric, (metric.of)(seen))).collect()
}
