//! The flow under random orders of events, losses and moves. The world here holds the objects: an
//! object is what its rows are, so that a batch of the wrong images would be seen.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::flow::{Block, Call, Failure, Flow, Limits, Made, Work};
use super::stage::Stage;
use crate::data::random::Random;

/// Rows that lie in an object, in their order.
type Object = Vec<u32>;

struct World {
    flow: Flow<Object>,
    random: Random,
    now: Duration,
    calls: BTreeMap<u64, Call<Object>>,
    next_actor: u32,
    predicted: Vec<u32>,
    failed: Vec<u32>,
    /// Images that losses gave back to queues that may have been full.
    given_back: usize,
    batches: Vec<usize>,
    events: u32,
    /// Images of the largest call that ends before its actor is lost.
    fits: usize,
}

fn limits(random: &mut Random) -> Limits {
    let count = |random: &mut Random, most: u64| 1 + random.below(most) as usize;
    let (block, batch, queue) = (count(random, 9), count(random, 16), count(random, 40));
    Limits { block, batch, queue, wait: Duration::from_millis(random.below(50)) }
}

impl World {
    fn new(seed: u64, rows: u32) -> Self {
        let mut random = Random::new(&[seed]);
        let limits = limits(&mut random);
        let flow = match random.below(3) {
            0 => {
                let half = rows / 2;
                let block = |rows: Vec<u32>| {
                    let object = rows.clone();
                    Block { rows, object, first: 0, ends: Vec::new() }
                };
                let mut blocks = vec![block((0..half).collect()), block((half..rows).collect())];
                blocks.retain(|block| !block.rows.is_empty());
                Flow::of_images(limits, blocks)
            }
            _ => Flow::of_files(limits, rows),
        };
        let mut world = Self {
            flow,
            random,
            now: Duration::ZERO,
            calls: BTreeMap::new(),
            next_actor: 0,
            predicted: Vec::new(),
            failed: Vec::new(),
            given_back: 0,
            batches: Vec::new(),
            events: 0,
            fits: usize::MAX,
        };
        for stage in Stage::ALL {
            (0..=world.random.below(3)).for_each(|_| world.join(stage));
        }
        world
    }

    fn join(&mut self, stage: Stage) {
        self.flow.join(self.next_actor, stage, true);
        self.next_actor += 1;
    }

    fn run(mut self, losses: u64) -> Self {
        while !self.flow.is_done() {
            self.events += 1;
            assert!(self.events < 100_000, "it goes on for ever");
            while let Some(call) = self.flow.next_call(self.now) {
                if let Work::Normalise(blocks) = &call.work {
                    self.batches.push(blocks.iter().map(|block| block.rows.len()).sum());
                }
                self.calls.insert(call.id, call);
                self.flow.check(self.given_back);
            }
            self.step(losses);
            self.flow.check(self.given_back);
        }
        assert!(self.calls.is_empty());
        self
    }

    fn step(&mut self, losses: u64) {
        self.now += Duration::from_millis(1 + self.random.below(9));
        if self.calls.is_empty() {
            let deadline = self.flow.deadline().expect("nothing runs and nothing is waited for");
            self.now = self.now.max(deadline);
            return;
        }
        let at = self.random.below(self.calls.len() as u64) as usize;
        let id = *self.calls.keys().nth(at).unwrap();
        // An actor is at the first of its calls.
        let actor = self.calls[&id].actor;
        let at = self.calls.values().find(|call| call.actor == actor).unwrap();
        if at.work.rows().len() > self.fits {
            return self.kill(id);
        }
        match self.random.below(100) {
            dice if dice < losses => self.kill(id),
            dice if dice < 2 * losses => self.fail(id, Failure::Input),
            dice if dice >= 95 => {
                let pick = |random: &mut Random| Stage::ALL[random.below(4) as usize];
                let (from, to) = (pick(&mut self.random), pick(&mut self.random));
                if self.flow.sizes()[from as usize] > 1 {
                    self.flow.reassign(from, to);
                }
            }
            _ => self.finish(id),
        }
    }

    /// The actor of a call dies with all of its calls; another one comes for its stage.
    fn kill(&mut self, id: u64) {
        let actor = self.calls[&id].actor;
        let stage = self.flow.leave(actor).unwrap();
        let lost: Vec<u64> =
            self.calls.values().filter(|call| call.actor == actor).map(|call| call.id).collect();
        lost.into_iter().for_each(|id| self.fail(id, Failure::Actor));
        self.join(stage);
    }

    fn fail(&mut self, id: u64, failure: Failure) {
        let call = self.calls.remove(&id).unwrap();
        self.given_back += call.work.rows().len();
        // Too many tries are another test's matter: the losses here are few.
        self.flow.failed(id, self.now, failure).unwrap();
    }

    fn finish(&mut self, id: u64) {
        let call = self.calls.remove(&id).unwrap();
        let rows = call.work.rows();
        let stage = call.work.stage();
        // Every seventh file is damaged.
        let bad = |row: &u32| stage == Stage::Decode && row % 7 == 3;
        let failed: Vec<u32> = rows.iter().copied().filter(bad).collect();
        let good: Vec<u32> = rows.iter().copied().filter(|row| !bad(row)).collect();
        let found: Object = match &call.work {
            Work::Read(rows) => rows.clone(),
            Work::Normalise(blocks) => blocks.iter().flat_map(|block| self.seen(block)).collect(),
            Work::Decode(block) | Work::Predict(block) => self.seen(block),
        };
        assert_eq!(found, rows, "{stage:?}: other images than it was told");
        // A file is a byte long.
        let count = rows.len() as u32;
        let ends = if stage == Stage::Read { (1..=count).collect() } else { Vec::new() };
        let block = Block { rows: good.clone(), object: good.clone(), first: 0, ends };
        let block = (!good.is_empty() && stage != Stage::Predict).then_some(block);
        self.failed.extend(&failed);
        let busy = Duration::from_millis(3);
        let predicted = self.flow.finished(id, self.now, Made { block, failed, busy });
        self.predicted.extend(predicted);
    }

    /// What lies in an object at the block's place.
    fn seen(&self, block: &Block<Object>) -> Vec<u32> {
        block.object[block.first as usize..][..block.rows.len()].to_vec()
    }
}

fn check(world: World, rows: u32) {
    let mut all = [world.predicted, world.failed].concat();
    all.sort_unstable();
    assert_eq!(all, (0..rows).collect::<Vec<_>>(), "each once");
}

proptest! {
    #[test]
    fn every_image_is_predicted_once(seed: u64, rows in 0..300_u32) {
        check(World::new(seed, rows).run(0), rows);
    }

    #[test]
    fn and_so_it_is_when_actors_and_objects_are_lost(seed: u64, rows in 0..300_u32) {
        check(World::new(seed, rows).run(1), rows);
    }
}

#[test]
fn calls_get_as_short_as_actors_live() {
    for seed in 0..60 {
        let rows = 200;
        let mut world = World::new(seed, rows);
        world.fits = 1 + seed as usize % 3;
        check(world.run(0), rows);
    }
}

/// What lies in the way of the rows before it and behind it is found, and found alone.
#[test]
fn a_row_that_kills_everybody_ends_it() {
    for (seed, killer) in [(1, 0), (2, 7), (3, 39), (4, 20)] {
        let mut world = World::new(seed, 0);
        world.flow = Flow::of_files(limits(&mut world.random), 40);
        Stage::ALL.into_iter().for_each(|stage| world.join(stage));
        let ended = loop {
            while let Some(call) = world.flow.next_call(world.now) {
                world.calls.insert(call.id, call);
            }
            let Some((&id, call)) = world.calls.iter().next() else {
                world.now = world.flow.deadline().unwrap();
                continue;
            };
            let rows = call.work.rows();
            if call.work.stage() != Stage::Predict || !rows.contains(&killer) {
                world.finish(id);
                continue;
            }
            let call = world.calls.remove(&id).unwrap();
            world.flow.leave(call.actor);
            let others: Vec<u64> =
                world.calls.values().filter(|c| c.actor == call.actor).map(|c| c.id).collect();
            if let Err(row) = world.flow.failed(id, world.now, Failure::Actor) {
                break (row, rows);
            }
            for id in others {
                world.calls.remove(&id);
                world.flow.failed(id, world.now, Failure::Actor).unwrap();
            }
            world.join(Stage::Predict);
        };
        assert_eq!(ended, (killer, vec![killer]));
    }
}

/// One actor for each stage, each call done as soon as it is made: which batches come of it.
fn batches(limits: Limits, rows: u32, predictors: u32) -> Vec<usize> {
    let mut world = World::new(1, 0);
    world.flow = Flow::of_files(limits, rows);
    for stage in Stage::ALL {
        let count = if stage == Stage::Predict { predictors } else { 1 };
        (0..count).for_each(|_| world.join(stage));
    }
    while !world.flow.is_done() {
        while let Some(call) = world.flow.next_call(world.now) {
            if let Work::Normalise(blocks) = &call.work {
                world.batches.push(blocks.iter().map(|block| block.rows.len()).sum());
            }
            world.calls.insert(call.id, call);
        }
        let first = *world.calls.keys().next().unwrap();
        world.finish(first);
    }
    world.batches
}

#[test]
fn batches_are_full_and_get_smaller_towards_the_end() {
    let wait = Duration::from_secs(1);
    let limits = Limits { block: 6, batch: 12, queue: 48, wait };
    let found = batches(limits, 100, 3);
    // A seventh of the files is damaged.
    assert_eq!(found.iter().sum::<usize>(), 86);
    assert!(found.iter().all(|batch| *batch <= 12), "{found:?}");
    assert_eq!(found[..3], [12, 12, 12], "{found:?}");
    assert!(*found.last().unwrap() < 12, "{found:?}");
}

#[test]
fn a_batch_that_has_waited_goes_as_it_is() {
    let limits = Limits { block: 2, batch: 8, queue: 48, wait: Duration::from_millis(20) };
    let mut flow: Flow<Object> = Flow::of_files(limits, 100);
    for (actor, stage) in Stage::ALL.into_iter().enumerate() {
        flow.join(actor as u32, stage, true);
    }
    let (start, late) = (Duration::from_millis(5), Duration::from_millis(25));
    let read = flow.next_call(start).unwrap();
    let block = |rows: Vec<u32>| Block { object: rows.clone(), rows, first: 0, ends: Vec::new() };
    let made = |rows| Made { block: Some(block(rows)), failed: Vec::new(), busy: start };
    flow.finished(read.id, start, made(vec![0, 1]));
    let decode = flow.next_call(start).unwrap();
    assert_eq!(decode.work.stage(), Stage::Decode);
    flow.finished(decode.id, start, made(vec![0, 1]));
    // Others are still to come, so it waits, and says how long.
    while let Some(call) = flow.next_call(start) {
        assert_eq!(call.work.stage(), Stage::Read);
    }
    assert_eq!(flow.deadline(), Some(late));
    assert_eq!(flow.next_call(late).unwrap().work, Work::Normalise(vec![block(vec![0, 1])]));
}
