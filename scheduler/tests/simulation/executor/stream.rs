//! Programs that yield, and programs that take what others yield.

use rdist_scheduler::hash::FastMap;
use rdist_scheduler::id::{ExecutorId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::Returned;
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::{Reference, StreamPolicy, TaskKind, TaskSpec};

use super::{At, Stored};
use crate::cluster::{Faults, Simulation};
use crate::network::mix;
use crate::workload::{Child, ENDLESS, Ending};

/// Within that time a producer hears that nobody wants more.
const SOON: u64 = 40_000_000;

/// A stream that a run reads.
#[derive(Debug)]
pub struct Reading {
    /// The object that stands for it.
    whole: Reference,
    /// Items that it has, and how many of them are wanted.
    items: u32,
    take: u32,
    keep: bool,
    next: u32,
    /// The next one was asked for, and so read when nothing is wanted any longer.
    asked: bool,
    ending: Ending,
}

/// Streams that were left before they ended.
#[derive(Debug, Default)]
pub struct Streams {
    /// Their consumer let go of them; had asked for one more item.
    pub left: u64,
    pub asked: u64,
    /// Their consumer had them cancelled, and read that they were.
    pub cancelled: u64,
    /// Producers that ended because of that.
    pub stopped: u64,
    /// Since when nobody wants more of a stream.
    over: FastMap<TaskId, u64>,
}

impl Streams {
    pub fn add(&mut self, more: &Self) {
        self.left += more.left;
        self.asked += more.asked;
        self.cancelled += more.cancelled;
        self.stopped += more.stopped;
    }
}

impl Reading {
    /// What the run refers to on account of it.
    pub(super) fn held(&self) -> impl Iterator<Item = ObjectId> {
        let task = self.whole.object.task;
        let item = self.asked.then(|| task.object(self.next));
        [Some(self.whole.object), item].into_iter().flatten()
    }
}

impl Simulation {
    pub(super) fn open_stream(
        &mut self,
        at: At,
        child: &Child,
        (take, keep): (u32, bool),
        ending: Ending,
    ) {
        let strategy = self.strategy(at, child.place);
        let Some(run) = self.running(at) else { return };
        let id = run.root().child(run.children);
        run.children += 1;
        let whole = Reference { object: id.stream(), owner: at.worker };
        let items = child.items;
        run.stream = Some(Reading { whole, items, take, keep, next: 0, asked: false, ending });
        let window = 1 + (child.seed % 4) as u32;
        let mut policy = self.policy(child.trouble);
        policy.stream = Some(StreamPolicy::new(window));
        let spec = TaskSpec {
            request: Resources::cpus(child.cpus),
            returns: 0,
            strategy,
            policy: Some(Box::new(policy)),
            ..self.spec(id, at, TaskKind::Plain, child.body())
        };
        if child.trouble.hangs == ENDLESS {
            self.endless_streams.insert(id);
        }
        self.streams.over.remove(&id);
        self.oracle.stream(id, child);
        self.submitted += 1;
        self.hold(at, whole, false);
        self.submit_spec(at, spec);
    }

    /// Takes the item that was read, and asks for the next one, or drops the stream.
    pub(super) fn read_on(&mut self, at: At) {
        let Some(run) = self.running(at) else { return };
        let Some(reading) = &mut run.stream else { return };
        let (task, owner) = (reading.whole.object.task, reading.whole.owner);
        if core::mem::take(&mut reading.asked) {
            let taken = Reference { object: task.object(reading.next), owner };
            reading.next += 1;
            let (count, keep) = (reading.next, reading.keep);
            if keep {
                run.slots.push(taken);
            } else {
                self.let_go(at, taken.object);
            }
            let consumed = LocalEvent::Consumed { task, owner, count };
            self.say(at.worker, at.executor, consumed, Vec::new());
        }
        self.cancel_stream(at);
        let Some(run) = self.running(at) else { return };
        let Some(reading) = &mut run.stream else { return };
        let reference = Reference { object: task.object(reading.next), owner };
        if reading.next >= reading.take {
            return self.leave_stream(at, reference);
        }
        reading.asked = true;
        run.wants.push_back(reference);
        run.inner = false;
        self.hold(at, reference, false);
    }

    /// Has the producer end, if that is due, and reads on.
    fn cancel_stream(&mut self, at: At) {
        let now = self.now;
        let Some(run) = self.running(at) else { return };
        let Some(reading) = &mut run.stream else { return };
        let Reference { object: whole, owner } = reading.whole;
        let next = reading.next;
        let Some((_, mode)) = reading.ending.cancel.take_if(|(count, _)| *count <= next) else {
            return;
        };
        self.cancelled.insert(whole.task);
        self.streams.over.insert(whole.task, now);
        let event = LocalEvent::CancelRequested { task: whole.task, owner, mode };
        self.say(at.worker, at.executor, event, Vec::new());
    }

    /// The consumer has had enough, though it may have asked for the `next` item.
    fn leave_stream(&mut self, at: At, next: Reference) {
        let now = self.now;
        let Some(run) = self.running(at) else { return };
        let Some(reading) = run.stream.take() else { return };
        let whole = reading.whole.object;
        let goes_on = reading.next < reading.items || self.endless_streams.contains(&whole.task);
        self.streams.left += u64::from(goes_on);
        if reading.ending.asks {
            self.streams.asked += u64::from(goes_on);
            self.hold(at, next, false);
            let wanted = LocalEvent::Wanted { by: at.executor, reference: next };
            self.say(at.worker, at.executor, wanted, Vec::new());
            self.let_go(at, next.object);
        }
        self.streams.over.insert(whole.task, now);
        self.let_go(at, whole);
    }

    /// Where nothing goes wrong, whoever yields for nobody has ended soon.
    pub(super) fn check_streams(&self) {
        if self.options.faults != Faults::default() {
            return;
        }
        let processes = self.workers.values().flat_map(|worker| worker.processes.values());
        for task in processes.flat_map(|process| process.runs.values()).map(|run| run.spec.id) {
            let since = self.streams.over.get(&task).map_or(self.now, |over| *over);
            assert!(self.now - since < SOON, "{task:?} yields for nobody");
        }
    }

    /// There is no further item: the stream has ended, or failed.
    pub(super) fn stop_reading(&mut self, at: At, object: ObjectId, is_end: bool) {
        self.let_go(at, object);
        let Some(run) = self.running(at) else { return };
        let Some(reading) = &run.stream else { return };
        if is_end {
            let (next, items) = (reading.next, reading.items);
            assert_eq!(next, items, "{:?} ends after {next} items", object.task);
            let is_endless = self.endless_streams.contains(&object.task);
            assert!(!is_endless, "{:?} ends, although it has no end", object.task);
        } else if self.cancelled.contains(&object.task) {
            self.streams.cancelled += 1;
        }
        let Some(run) = self.running(at) else { return };
        let Some(mut reading) = run.stream.take() else { return };
        // Slots of items that will never come are of a failed one.
        while reading.keep && reading.next < reading.take {
            let failed = Reference { object: object.task.object(reading.next), ..reading.whole };
            reading.next += 1;
            run.slots.push(failed);
        }
        let whole = reading.whole.object;
        self.let_go(at, whole);
    }

    /// Yields a value; false if it has to wait.
    pub(super) fn yield_item(
        &mut self,
        at: At,
        seed: u64,
        inline: bool,
        contains: &[usize],
    ) -> bool {
        let Some(run) = self.running(at) else { return false };
        let (task, attempt, index) = (run.spec.id, run.attempt, run.yielded);
        let Some(stream) = run.spec.stream().copied() else { panic!("{task:?} does not yield") };
        if attempt < u32::from(run.spec.body[11]) && index >= u32::from(run.spec.body[10]) / 2 {
            run.next = run.program.ops.len();
            self.finish(at);
            return false;
        }
        run.yielded += 1;
        if index < stream.start {
            return true;
        }
        if index - run.taken.min(index) >= stream.window {
            run.yielded -= 1;
            run.next -= 1;
            let wanted = index - stream.window / 2;
            run.credit = Some(wanted);
            run.blocked = true;
            let executor = at.executor;
            let blocked = LocalEvent::Blocked { executor, task, attempt };
            self.say(at.worker, executor, blocked, Vec::new());
            let event = LocalEvent::CreditWanted { executor, task, wanted };
            self.say(at.worker, executor, event, Vec::new());
            return false;
        }
        let contains: Vec<Reference> = contains.iter().map(|slot| run.slots[*slot]).collect();
        contains.iter().for_each(|inner| self.pass_on(at, inner.object));
        let size = if inline { 100 } else { 1 << 20 };
        let value = Returned { size, inline, contains: contains.clone() };
        let stored = Stored { value: mix(seed, 2), inline, contains };
        let executor = at.executor;
        let event = LocalEvent::Yielded { executor, task, attempt, index, value };
        self.say(at.worker, executor, event, vec![(task.object(index), stored)]);
        true
    }

    pub(super) fn credit(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        task: TaskId,
        taken: u32,
    ) {
        let Some(process) = self.process(worker, executor) else { return };
        let Some((number, run)) = process.runs.iter_mut().find(|(_, run)| run.spec.id == task)
        else {
            return;
        };
        run.taken = run.taken.max(taken);
        if run.credit.is_some_and(|wanted| wanted <= run.taken) {
            run.credit = None;
            let at = At { worker, executor, run: *number };
            self.goes_on(at);
        }
    }
}
