//! Which image is where, and who is to do what next. It calls nobody, knows no clock and no
//! objects (`O` stands for them): calls go out of [`next_call`](Flow::next_call), what became of
//! them comes back in.
//!
//! ```text
//! rows to read -> Read -> queue -> Decode -> queue -> Normalise -> queue -> Predict -> done
//!      ^                                                                      |
//!      +---------- what was lost with the machine that held it <--------------+
//! ```
//! - `ONE-PLACE`: a row is to be read, in one queue, in one call, failed, or predicted; in one of
//!   these only. So each row is predicted once, whatever is lost on the way.
//! - `CREDIT`: a stage is called only while the queue behind it has room for what comes out of it
//!   and of the calls under way, so that no queue grows beyond its limit but by what a lost actor
//!   gives back.
//! - `REACH`: what an actor was at when it was lost is tried again in calls of half as many images,
//!   down to one. So there is progress also where actors do not live as long as a whole batch
//!   takes, and an image that kills whoever touches it is alone in the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::queue::Queue;
use super::stage::{Costs, Each, Stage};
pub use super::work::{Block, Call, Done, Failure, Made, Work};

/// How much at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pictures that are read and decoded with one call.
    pub block: usize,
    /// Most images of a batch.
    pub batch: usize,
    /// Images in a queue between two stages.
    pub queue: usize,
    /// How long an image may wait for a batch to be full.
    pub wait: Duration,
}

/// Calls that an actor has at a time: one runs, one waits, so that it is never idle meanwhile.
const CALLS: usize = 2;
/// How often a row is tried alone before the pipeline gives up.
const MAX_TRIES: u32 = 5;
/// Calls by which a stage's cost is known, at least.
const KNOWN: u32 = 2;

#[derive(Debug)]
struct Actor {
    stage: Stage,
    calls: usize,
    /// Whether it sees the files.
    reads: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Failed,
    Predicted,
}

/// See the module.
#[derive(Debug)]
pub struct Flow<O> {
    limits: Limits,
    unread: VecDeque<u32>,
    /// Images that were in memory from the start, in the order of their rows.
    given: Vec<Block<O>>,
    decode: Queue<O>,
    normalise: Queue<O>,
    predict: Queue<O>,
    /// When the first image came that waits for a batch.
    since: Option<Duration>,
    running: BTreeMap<u64, (u32, Work<O>)>,
    /// Calls that actors were at when they were lost; others only waited for their turn.
    blamed: BTreeSet<u64>,
    /// Most images of a call: less after losses, more with each call that ends well.
    reach: Each<usize>,
    /// Images in the calls of each stage.
    under_way: Each<usize>,
    actors: BTreeMap<u32, Actor>,
    fates: Vec<Fate>,
    /// In how many calls each row was lost.
    tries: Vec<u32>,
    open: usize,
    next_id: u64,
    done: Each<Done>,
}

impl<O: Clone> Flow<O> {
    /// Of pictures in files: rows `0..rows`.
    pub fn of_files(limits: Limits, rows: u32) -> Self {
        Self::of(limits, (0..rows).collect(), Vec::new(), rows as usize)
    }

    /// Of images that are pixels already; rows are counted through the blocks from 0.
    pub fn of_images(limits: Limits, given: Vec<Block<O>>) -> Self {
        let rows = given.iter().map(|block| block.rows.len()).sum();
        let mut flow = Self::of(limits, VecDeque::new(), given.clone(), rows);
        given.into_iter().for_each(|block| flow.normalise.push(block, false));
        flow.since = Some(Duration::ZERO);
        flow
    }

    fn of(limits: Limits, unread: VecDeque<u32>, given: Vec<Block<O>>, rows: usize) -> Self {
        let block = limits.block.max(1);
        let batch = limits.batch.max(1);
        // A queue must hold a batch that waits for its last block.
        let queue = limits.queue.max(batch + block);
        Self {
            limits: Limits { block, batch, queue, wait: limits.wait },
            unread,
            given,
            decode: Queue::default(),
            normalise: Queue::default(),
            predict: Queue::default(),
            since: None,
            running: BTreeMap::new(),
            blamed: BTreeSet::new(),
            reach: [block, block, batch, batch],
            under_way: [0; 4],
            actors: BTreeMap::new(),
            fates: vec![Fate::Open; rows],
            tries: vec![0; rows],
            open: rows,
            next_id: 0,
            done: Default::default(),
        }
    }

    /// An actor is there.
    pub fn join(&mut self, actor: u32, stage: Stage, reads: bool) {
        self.actors.insert(actor, Actor { stage, calls: 0, reads });
    }

    /// An actor is gone; its calls come back one by one as [`failed`](Self::failed).
    pub fn leave(&mut self, actor: u32) -> Option<Stage> {
        let left = self.actors.remove(&actor)?;
        let at = self.running.iter().find(|(_, (of, _))| *of == actor);
        self.blamed.extend(at.map(|(id, _)| *id));
        Some(left.stage)
    }

    /// Whether every row is predicted or failed.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    /// Whether images pass this stage at all.
    pub fn needs(&self, stage: Stage) -> bool {
        stage >= Stage::Normalise || self.given.is_empty()
    }

    /// Rows that are through.
    pub fn through(&self) -> usize {
        self.fates.len() - self.open
    }

    /// All rows.
    pub fn rows(&self) -> usize {
        self.fates.len()
    }

    /// Images that wait for each stage.
    pub fn waiting(&self) -> Each<usize> {
        let Self { unread, decode, normalise, predict, .. } = self;
        [unread.len(), decode.images, normalise.images, predict.images]
    }

    /// Actors in each stage.
    pub fn sizes(&self) -> Each<u32> {
        let mut sizes = [0; 4];
        self.actors.values().for_each(|actor| sizes[actor.stage as usize] += 1);
        sizes
    }

    /// What each stage has done.
    pub fn done(&self) -> &Each<Done> {
        &self.done
    }

    /// What an image costs each stage, as its latest calls show. A stage that no image passes
    /// costs nothing.
    pub fn costs(&self) -> Costs {
        let mut costs = self.done.map(|done| (done.calls >= KNOWN).then_some(done.recent));
        if !self.given.is_empty() {
            costs[Stage::Read as usize] = Some(0.0);
            costs[Stage::Decode as usize] = Some(0.0);
        }
        costs
    }

    /// Gives an actor of `from` to `to`; its calls under way are the last of its old stage. `None`:
    /// none may go.
    pub fn reassign(&mut self, from: Stage, to: Stage) -> Option<u32> {
        let may = |actor: &&mut Actor| actor.stage == from && (actor.reads || to != Stage::Read);
        let mut actors = self.actors.iter_mut().map(|(number, actor)| (*number, actor));
        // The last that came: those that see the files came first.
        let (number, actor) = actors.rfind(|(_, actor)| may(actor))?;
        actor.stage = to;
        Some(number)
    }

    /// Whether [`reassign`](Self::reassign) would find one.
    pub fn may_move(&self, from: Stage, to: Stage) -> bool {
        self.actors.values().any(|a| a.stage == from && (a.reads || to != Stage::Read))
    }

    /// The next call to be made; `None`: there is none at the moment.
    pub fn next_call(&mut self, now: Duration) -> Option<Call<O>> {
        // From behind: what is nearly through makes room for the rest.
        for stage in Stage::ALL.into_iter().rev() {
            let Some(actor) = self.free_actor(stage) else { continue };
            let Some(work) = self.take_work(stage, now) else { continue };
            let (id, images) = (self.next_id, work.rows().len());
            self.next_id += 1;
            self.under_way[stage as usize] += images;
            if let Some(actor) = self.actors.get_mut(&actor) {
                actor.calls += 1;
            }
            self.running.insert(id, (actor, work.clone()));
            return Some(Call { id, actor, work });
        }
        None
    }

    /// When to ask for calls again though nothing has ended: a batch has waited long enough.
    pub fn deadline(&self) -> Option<Duration> {
        self.free_actor(Stage::Normalise)?;
        self.since.filter(|_| self.normalise.images > 0).map(|since| since + self.limits.wait)
    }

    /// A call has ended well. Gives back its rows when they are predicted now.
    pub fn finished(&mut self, id: u64, now: Duration, made: Made<O>) -> Vec<u32> {
        let Some(work) = self.end(id) else { return Vec::new() };
        let (stage, rows) = (work.stage(), work.rows());
        let done = &mut self.done[stage as usize];
        done.calls += 1;
        done.images += rows.len() as u64;
        done.busy += made.busy;
        let cost = made.busy.as_secs_f64() / rows.len().max(1) as f64;
        // The first call of an actor makes its model; by the third that is forgotten.
        done.recent = if done.calls == 1 { cost } else { 0.6 * done.recent + 0.4 * cost };
        let most = self.most(stage);
        let reach = &mut self.reach[stage as usize];
        if rows.len() >= *reach {
            *reach = most.min(*reach * 2);
        }
        for row in &made.failed {
            self.settle(*row, Fate::Failed);
        }
        if stage == Stage::Predict {
            rows.iter().for_each(|row| self.settle(*row, Fate::Predicted));
            return rows;
        }
        if let Some(mut block) = made.block {
            if stage == Stage::Normalise {
                block.rows = rows;
            }
            self.queue_behind(stage, block, now, false);
        }
        Vec::new()
    }

    /// A call has come to nothing: its rows go back to where they are still there.
    ///
    /// # Errors
    /// A row that was tried too often.
    pub fn failed(&mut self, id: u64, now: Duration, failure: Failure) -> Result<(), u32> {
        let blamed = self.blamed.contains(&id);
        let Some(work) = self.end(id) else { return Ok(()) };
        let (stage, rows) = (work.stage(), work.rows());
        if blamed {
            let reach = &mut self.reach[stage as usize];
            *reach = (*reach).min(rows.len() / 2).max(1);
        }
        if blamed || failure == Failure::Input {
            self.count_tries(&rows)?;
        }
        match (work, failure) {
            (Work::Read(rows), _) => self.unread_again(&rows),
            (Work::Decode(block), Failure::Actor) => {
                self.queue_behind(Stage::Read, block, now, true);
            }
            (Work::Normalise(blocks), Failure::Actor) => {
                for block in blocks.into_iter().rev() {
                    self.queue_behind(Stage::Decode, block, now, true);
                }
            }
            (Work::Predict(block), Failure::Actor) => {
                self.queue_behind(Stage::Normalise, block, now, true);
            }
            (_, Failure::Input) => self.restart(&rows, now),
        }
        Ok(())
    }

    /// Counts a call that rows were lost in. A row is alone after as many as batches can be halved.
    fn count_tries(&mut self, rows: &[u32]) -> Result<(), u32> {
        let halves = self.limits.batch.max(self.limits.block).ilog2() + 1;
        for row in rows {
            let tries = &mut self.tries[*row as usize];
            *tries += 1;
            if *tries >= halves + MAX_TRIES {
                return Err(*row);
            }
        }
        Ok(())
    }

    /// Most images of a call where nothing is lost.
    fn most(&self, stage: Stage) -> usize {
        match stage {
            Stage::Read | Stage::Decode => self.limits.block,
            Stage::Normalise | Stage::Predict => self.limits.batch,
        }
    }

    /// How many of `rows` one call may be about: at least one, if there is one.
    fn within_reach<'a>(&self, stage: Stage, rows: impl IntoIterator<Item = &'a u32>) -> usize {
        let (mut count, mut reach) = (0, self.reach[stage as usize]);
        for row in rows {
            let halved = self.most(stage).checked_shr(self.tries[*row as usize]);
            reach = reach.min(halved.unwrap_or_default()).max(1);
            if count >= reach {
                break;
            }
            count += 1;
        }
        count
    }

    fn free_actor(&self, stage: Stage) -> Option<u32> {
        let of = self.actors.iter().filter(|(_, a)| a.stage == stage && a.calls < CALLS);
        of.min_by_key(|(_, actor)| actor.calls).map(|(number, _)| *number)
    }

    /// Images that wait for a stage, or will when calls have ended.
    fn ahead_of(&self, stage: Stage) -> usize {
        match stage {
            Stage::Read => 0,
            Stage::Decode => self.decode.images + self.under_way[0],
            Stage::Normalise => self.normalise.images + self.under_way[1],
            Stage::Predict => self.predict.images + self.under_way[2],
        }
    }

    fn has_room(&self, stage: Stage, images: usize) -> bool {
        let ahead = self.ahead_of(stage);
        ahead == 0 || ahead + images <= self.limits.queue
    }

    fn take_work(&mut self, stage: Stage, now: Duration) -> Option<Work<O>> {
        match stage {
            Stage::Read => {
                let count = self.within_reach(stage, self.unread.iter().take(self.limits.block));
                let go = count > 0 && self.has_room(Stage::Decode, count);
                go.then(|| Work::Read(self.unread.drain(..count).collect()))
            }
            Stage::Decode => {
                let count = self.within_reach(stage, &self.decode.blocks.front()?.rows);
                let go = self.has_room(Stage::Normalise, count);
                go.then(|| self.decode.pop_some(count)).flatten().map(Work::Decode)
            }
            Stage::Normalise => self.take_batch(now).map(Work::Normalise),
            Stage::Predict => {
                let count = self.within_reach(stage, &self.predict.blocks.front()?.rows);
                self.predict.pop_some(count).map(Work::Predict)
            }
        }
    }

    /// As much as a batch takes; less when an image has waited long enough or none is to come.
    fn take_batch(&mut self, now: Duration) -> Option<Vec<Block<O>>> {
        let (there, behind) = (self.normalise.images, self.upstream());
        let batch = self.batch_of(there + behind);
        let rows = self.normalise.blocks.iter().flat_map(|block| &block.rows);
        let mut room = self.within_reach(Stage::Normalise, rows.take(batch));
        let waited = self.since.is_some_and(|since| since + self.limits.wait <= now);
        let go = there > 0 && (there >= batch || room < there || behind == 0 || waited);
        if !go || !self.has_room(Stage::Predict, room) {
            return None;
        }
        let mut blocks = Vec::new();
        while room > 0 {
            let Some(block) = self.normalise.pop_some(room) else { break };
            room -= block.rows.len();
            blocks.push(block);
        }
        self.since = (self.normalise.images > 0).then_some(now);
        Some(blocks)
    }

    /// Images that are still to come to the batches.
    fn upstream(&self) -> usize {
        self.unread.len() + self.decode.images + self.under_way[0] + self.under_way[1]
    }

    /// Towards the end batches get smaller, so that all predictors end at about the same time.
    fn batch_of(&self, left: usize) -> usize {
        let predictors = self.sizes()[Stage::Predict as usize].max(1) as usize;
        let least = (self.limits.batch / 4).max(1);
        left.div_ceil(predictors).clamp(least, self.limits.batch)
    }

    fn end(&mut self, id: u64) -> Option<Work<O>> {
        let (actor, work) = self.running.remove(&id)?;
        self.blamed.remove(&id);
        self.under_way[work.stage() as usize] -= work.rows().len();
        if let Some(actor) = self.actors.get_mut(&actor) {
            actor.calls -= 1;
        }
        Some(work)
    }

    fn queue_behind(&mut self, stage: Stage, block: Block<O>, now: Duration, in_front: bool) {
        let queue = match stage {
            Stage::Read => &mut self.decode,
            Stage::Decode => &mut self.normalise,
            Stage::Normalise | Stage::Predict => &mut self.predict,
        };
        queue.push(block, in_front);
        let (next, waiting) = (stage as usize + 1, queue.images);
        if let Some(done) = self.done.get_mut(next) {
            done.most_waiting = done.most_waiting.max(waiting);
        }
        if stage == Stage::Decode {
            self.since.get_or_insert(now);
        }
    }

    fn unread_again(&mut self, rows: &[u32]) {
        rows.iter().rev().for_each(|row| self.unread.push_front(*row));
    }

    /// From the files again, or from the images that were given.
    fn restart(&mut self, rows: &[u32], now: Duration) {
        if self.given.is_empty() {
            return self.unread_again(rows);
        }
        for row in rows {
            let holds = |block: &&Block<O>| block.rows.contains(row);
            let Some(block) = self.given.iter().find(holds) else { continue };
            let at = block.rows.iter().position(|each| each == row).unwrap_or_default();
            let (object, first) = (block.object.clone(), block.first + at as u32);
            let block = Block { rows: vec![*row], object, first, ends: Vec::new() };
            self.queue_behind(Stage::Decode, block, now, true);
        }
    }

    fn settle(&mut self, row: u32, fate: Fate) {
        let own = &mut self.fates[row as usize];
        assert!(*own == Fate::Open, "ONE-PLACE: row {row} is {own:?} and becomes {fate:?}");
        *own = fate;
        self.open -= 1;
    }

    /// Panics where an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self, given_back: usize) {
        let mut places = vec![0_u32; self.fates.len()];
        self.unread.iter().for_each(|row| places[*row as usize] += 1);
        for queue in [&self.decode, &self.normalise, &self.predict] {
            let rows = queue.blocks.iter().flat_map(|block| &block.rows);
            rows.for_each(|row| places[*row as usize] += 1);
            let images: usize = queue.blocks.iter().map(|block| block.rows.len()).sum();
            assert_eq!(images, queue.images);
        }
        for (_, work) in self.running.values() {
            work.rows().iter().for_each(|row| places[*row as usize] += 1);
        }
        for (row, place) in places.iter().enumerate() {
            let expected = u32::from(self.fates[row] == Fate::Open);
            assert_eq!(*place, expected, "ONE-PLACE: row {row}");
        }
        let limit = self.limits.queue + given_back;
        for stage in [Stage::Decode, Stage::Predict] {
            assert!(self.ahead_of(stage) <= limit, "CREDIT: {}", stage.name());
        }
        if self.given.is_empty() {
            assert!(self.ahead_of(Stage::Normalise) <= limit, "CREDIT: normalise");
        }
    }
}
