//! Data-parallel training step by step (workload 5): every replica computes the gradient of its
//! share of the batch, and applies the mean of all gradients, which it reads from the object store
//! in the same order as the others. So parameters stay equal to the bit, and n replicas with batch
//! b train as one with batch n x b.
//!
//! One call a step: it applies the gradients of the step before and computes the next ones.
//!
//! When a replica is lost, the survivors are brought to the highest version among them, and the
//! step that is not whole is done again by those that are left. Replicas that become ready join
//! between two steps: they go on from the state of one that is there, and from then on steps are
//! divided among all, and are as much larger.

use std::ops::Range;

use rdist::prelude::*;

use super::error::{JobError, Loss, loss};
use super::fleet::Fleet;
use super::replica::{Product, Replica, State, Update};
use super::trainer::Work;
use super::{Course, Progress, Scheme, Standing};
use crate::metric::Tally;

/// See the module.
#[derive(Default)]
pub(super) struct Allreduce {
    /// Optimiser steps so far.
    version: u64,
}

/// Gradients that are computed, but not applied.
#[derive(Default)]
struct Pending {
    gradients: Vec<ObjectRef<Vec<f32>>>,
    /// The positions that they are of.
    range: Range<u64>,
    tally: Tally,
}

/// How a call to all replicas ended.
enum Round<T> {
    Whole(Vec<T>),
    /// Some were lost, or an input was.
    Broken,
}

impl Scheme for Allreduce {
    async fn train(
        &mut self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
        positions: Range<u64>,
    ) -> Result<Option<Progress>, JobError> {
        let Round::Whole(_) = self.sync(fleet, standing).await? else { return Ok(None) };
        let (mut pending, mut tally) = (Pending::default(), Tally::default());
        let mut from = positions.start;
        while from < positions.end {
            let welcomed = self.welcome(fleet).await?;
            let range = from..positions.end.min(from + course.batch * fleet.len() as u64);
            let round = match welcomed {
                Round::Whole(_) => self.step(fleet, course, standing, &pending, &range).await?,
                Round::Broken => Round::Broken,
            };
            match round {
                Round::Whole(products) => {
                    self.applied(fleet, &mut pending, &mut tally);
                    from = range.end;
                    pending = Pending::of(products, range);
                }
                Round::Broken => match self.recover(fleet, &pending).await? {
                    None => return Ok(None),
                    Some(true) => {
                        self.applied(fleet, &mut pending, &mut tally);
                        pending = Pending::default();
                    }
                    Some(false) => {
                        from = pending.range.start;
                        pending = Pending::default();
                    }
                },
            }
        }
        let update = self.update(&pending, course, standing);
        let round = all(fleet, |_, replica| replica.settle(&update).submit());
        let Round::Whole(digests) = round.await? else { return Ok(None) };
        self.applied(fleet, &mut pending, &mut tally);
        if digests.iter().any(|digest| *digest != digests[0]) {
            return Err(JobError::Diverged { epoch: standing.epochs + 1, digests });
        }
        self.result(fleet, tally).await
    }
}

/// Each replica's part of a step, and what scales its gradient so that the plain mean of all
/// gradients is the mean over all images, also where the last parts differ by one.
fn steps(range: &Range<u64>, replicas: usize, course: &Course, order: u64) -> Vec<(Work, f32)> {
    let total = range.end - range.start;
    let works = course.works(order, range.clone(), replicas).into_iter();
    works
        .map(|work| {
            let scale = (work.to - work.from) as f64 * replicas as f64 / total as f64;
            (work, scale as f32)
        })
        .collect()
}

impl Pending {
    fn of(products: Vec<Product>, range: Range<u64>) -> Self {
        let tally = products.iter().map(|product| product.tally).sum();
        let gradients = products.into_iter().map(|product| product.values).collect();
        Self { gradients, range, tally }
    }
}

impl Allreduce {
    /// What applies `pending`.
    fn update(&self, pending: &Pending, course: &Course, standing: &Standing) -> Update {
        let rate = course.rates.at(standing.epochs, course.within(pending.range.start));
        Update { version: self.version, gradients: pending.gradients.clone(), rate }
    }

    /// Has all replicas apply what is pending, and compute the gradient of `range`.
    async fn step(
        &self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
        pending: &Pending,
        range: &Range<u64>,
    ) -> Result<Round<Product>, JobError> {
        let calls = steps(range, fleet.len(), course, standing.epochs);
        let update = self.update(pending, course, standing);
        let step = |index: usize, replica: &ActorHandle<Replica>| {
            let (work, scale) = &calls[index];
            replica.step(&update, work, *scale).submit()
        };
        all(fleet, step).await
    }

    /// All replicas have applied what was pending.
    fn applied(&mut self, fleet: &mut Fleet, pending: &mut Pending, tally: &mut Tally) {
        if !pending.gradients.is_empty() {
            self.version += 1;
            fleet.got_on();
            *tally += std::mem::take(&mut pending.tally);
        }
    }

    /// Brings every replica to the driver's state; those that hold it already keep it.
    async fn sync(
        &mut self,
        fleet: &mut Fleet,
        standing: &Standing,
    ) -> Result<Round<()>, JobError> {
        if fleet.members().iter().all(|member| member.synced) {
            return Ok(Round::Whole(Vec::new()));
        }
        let state = State {
            version: self.version,
            parameters: standing.parameters.get()?,
            optimiser: standing.optimiser.clone(),
        };
        let state = fleet.cx().put(&state)?;
        let round = all(fleet, |_, replica| replica.adopt(&state).submit()).await?;
        let whole = matches!(round, Round::Whole(_));
        fleet.members().iter_mut().for_each(|member| member.synced = whole);
        Ok(round)
    }

    /// Takes in replicas that have become ready. No replica has applied yet what is pending, so
    /// that a new one applies it with the others, once it stands where one of them does.
    async fn welcome(&mut self, fleet: &mut Fleet) -> Result<Round<()>, JobError> {
        let before = fleet.take_in().await?;
        let (old, new) = fleet.members().split_at(before);
        let (Some(donor), false) = (old.first(), new.is_empty()) else {
            return Ok(Round::Whole(Vec::new()));
        };
        let state = donor.handle.state().submit();
        let round = behind(fleet, before, |_, replica| replica.adopt(&state).submit()).await?;
        if matches!(round, Round::Whole(_)) {
            fleet.members().iter_mut().for_each(|member| member.synced = true);
        }
        Ok(round)
    }

    /// After a loss: all survivors at one version. `true`: at the one after `pending` was
    /// applied; `false`: at the one before, and `pending` is not whole any more. `None`: nobody
    /// is left to go on from.
    async fn recover(
        &mut self,
        fleet: &mut Fleet,
        pending: &Pending,
    ) -> Result<Option<bool>, JobError> {
        loop {
            let before = fleet.len();
            if let Some(highest) = level(fleet).await? {
                return Ok(Some(pending.gradients.is_empty() || highest > self.version));
            }
            // Further losses on the way leave fewer, but those can go on.
            if fleet.is_empty() || fleet.len() == before {
                return Ok(self.give_up(fleet));
            }
        }
    }

    /// The epoch starts again from the driver's state.
    fn give_up(&mut self, fleet: &mut Fleet) -> Option<bool> {
        fleet.members().iter_mut().for_each(|member| member.synced = false);
        None
    }

    /// The state after an epoch, from whichever replica can still give it.
    async fn result(
        &mut self,
        fleet: &mut Fleet,
        tally: Tally,
    ) -> Result<Option<Progress>, JobError> {
        while let Some(member) = fleet.members().first() {
            let (number, state) = (member.number, member.handle.state().call());
            match state.await {
                Ok(State { parameters, optimiser, .. }) => {
                    let parameters = fleet.cx().put(&parameters)?;
                    return Ok(Some(Progress { parameters, optimiser, tally }));
                }
                Err(error) => fleet.lose(number, &error)?,
            }
        }
        Ok(None)
    }
}

/// Brings all replicas to the highest version among them, and returns it; `None`: there was a
/// loss, or none of them stands anywhere.
async fn level(fleet: &mut Fleet) -> Result<Option<u64>, JobError> {
    let Round::Whole(versions) = all(fleet, |_, replica| replica.version().submit()).await? else {
        return Ok(None);
    };
    let highest = versions.iter().copied().max().flatten();
    if versions.iter().any(|version| *version != highest) {
        let ahead = versions.iter().position(|version| *version == highest).unwrap_or_default();
        let state = fleet.members()[ahead].handle.state().submit();
        let round = all(fleet, |_, replica| replica.adopt(&state).submit()).await?;
        if matches!(round, Round::Broken) {
            return Ok(None);
        }
    }
    fleet.members().iter_mut().for_each(|member| member.synced = true);
    Ok(highest)
}

/// Calls every replica at once.
async fn all<T: rdist::Value>(
    fleet: &mut Fleet,
    call: impl Fn(usize, &ActorHandle<Replica>) -> ObjectRef<T>,
) -> Result<Round<T>, JobError> {
    behind(fleet, 0, call).await
}

/// Calls every replica behind the first `skipped` ones at once.
async fn behind<T: rdist::Value>(
    fleet: &mut Fleet,
    skipped: usize,
    call: impl Fn(usize, &ActorHandle<Replica>) -> ObjectRef<T>,
) -> Result<Round<T>, JobError> {
    let members = fleet.members().iter().enumerate().skip(skipped);
    let calls: Vec<_> =
        members.map(|(index, member)| (member.number, call(index, &member.handle))).collect();
    let (mut results, mut whole) = (Vec::with_capacity(calls.len()), true);
    for (number, object) in calls {
        match object.await {
            Ok(result) => results.push(result),
            Err(error) => {
                whole = false;
                if loss(&error) != Some(Loss::Input) {
                    fleet.lose(number, &error)?;
                }
            }
        }
    }
    Ok(if whole && !results.is_empty() { Round::Whole(results) } else { Round::Broken })
}
