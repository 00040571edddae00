//! Streams: tasks that yield values while they run, as their owner and their producer know them.
//!
//! ```text
//! producer ──Yielded 0, 1, ..──► owner ──Deliver of item n──► consumer
//!          ◄──Credit (when asked)──  ◄──Wanted n, Consumed──
//! ```
//! Item `n` is the `n`-th return of the task: an object as every other, which may be asked for
//! before it is there. Beyond the last one, whoever asks gets the reason why the stream ended:
//! [`Cause::EndOfStream`], or the task's error. The consumer refers to the stream itself by an
//! object that never has a value ([`TaskId::stream`]); when that is let go of, the task is
//! cancelled, and what nobody has taken is freed.
//!
//! Until the consumer has taken an item, the stream holds it (ST-1). How far the consumer is bounds
//! the producer, which asks when it has to wait, so that no answer can be lost with a try.
//!
//! A try that follows another begins where that ended, or at the first item that is lost: the
//! producer makes the ones before again, and keeps them to itself. A try that goes on, it may be
//! for ever, while somebody waits for a lost item is asked to end for that. A lost item of a stream
//! that has ended is made again by its task's record, as other lost values are.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{LocalAction, LocalCore, Step};
use crate::few::Few;
use crate::id::{ExecutorId, ObjectId, TaskId, WorkerId};
use crate::message::{CancelMode, PeerMessage};
use crate::object::{Tries, Value};
use crate::outcome::{Cause, Outcome, Returned, TaskError};
use crate::spec::{StreamPolicy, TaskSpec};
use crate::task::{TaskKey, TaskState};

/// One stream, at its owner.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Items that were there, whatever became of them.
    produced: u32,
    /// Items that the consumer has read: some of them, it may be, from what a try of the same task
    /// has left here for another owner, before they came.
    read: u32,
    /// Items that the consumer has taken, of those that came.
    consumed: u32,
    /// Whether a consumer refers to it.
    is_open: bool,
    /// Why there are no more; `None`: there may be.
    end: Option<Arc<TaskError>>,
    /// Items that somebody refers to and that are not there: to come, or lost.
    awaited: BTreeSet<u32>,
    /// Where the producer waits until that many items are taken.
    asks: Option<(WorkerId, u32)>,
}

impl Stream {
    /// Whether somebody waits for an item that was there.
    fn awaits_lost(&self) -> bool {
        self.awaited.first().is_some_and(|first| *first < self.produced)
    }

    /// Items that the stream holds, if the consumer will not drop it (ST-1).
    pub(super) fn held(&self, task: TaskId) -> impl Iterator<Item = ObjectId> {
        let items = if self.is_open { self.consumed..self.produced } else { 0..0 };
        items.map(move |index| task.object(index))
    }
}

impl LocalCore {
    /// A program here submits a task that yields. Its consumer begins at the first item, whatever
    /// an earlier try of the program has had of it.
    pub(super) fn stream_submitted(&mut self, by: ExecutorId, spec: Arc<TaskSpec>) {
        let task = spec.id;
        self.hold_made(by, task.stream());
        if let Some(before) = self.streams.remove(&task) {
            let held = before.held(task).map(Step::LetGo);
            self.steps.extend(held);
            for index in before.awaited {
                // Whoever asked for them asks for them still.
                self.steps.push_back(Step::Recover(task.object(index)));
            }
        }
        self.streams.insert(task, Stream { is_open: true, ..Stream::default() });
        let Some(key) = self.tasks.find(task, self.me) else {
            let key = self.insert_new(spec, by);
            return self.begin(key);
        };
        match self.tasks[key].state {
            TaskState::Running { .. } | TaskState::Placed { .. } => self.cancel_to_begin_anew(key),
            _ => {
                self.detach(key);
                self.begin(key);
            }
        }
    }

    /// A try ends so that another one begins, unless somebody wants the task ended meanwhile.
    fn cancel_to_begin_anew(&mut self, key: TaskKey) {
        self.cancel(key, CancelMode { force: false, children: true });
        self.tasks[key].extra().again = true;
    }

    /// A cancelled try of a task has ended whose submitter has come again, or that would have gone
    /// on without what was lost: it begins anew.
    pub(super) fn begins_anew(&mut self, key: TaskKey) -> bool {
        let entry = &mut self.tasks[key];
        let Some(extra) = entry.extra.as_mut().filter(|extra| extra.again) else { return false };
        (extra.again, extra.timed_out) = (false, false);
        extra.spared += 1;
        entry.attempt += 1;
        (entry.assigned, entry.cancelled) = (false, false);
        // What was to be said again to whoever had the cancelled try.
        self.stop_timer(key);
        self.begin(key);
        true
    }

    /// A try of a task that yields is about to be placed: it learns where to begin.
    pub(super) fn set_stream_start(&mut self, key: TaskKey) {
        let entry = &mut self.tasks[key];
        let Some(before) = entry.spec.stream().copied() else { return };
        // Without a consumer only what is lost is of interest.
        let lost = || Stream { produced: u32::MAX, ..Stream::default() };
        let stream = self.streams.entry(entry.spec.id).or_insert_with(lost);
        stream.asks = None;
        let is_live = stream.is_open && stream.end.is_none();
        let first = stream.awaited.first().copied().unwrap_or(stream.produced);
        let start = first.min(stream.produced);
        let consumed = if is_live { stream.consumed } else { u32::MAX };
        let now = StreamPolicy { start, consumed, ..before };
        if now != before {
            set_policy(&mut entry.spec, now);
        }
    }

    /// Somebody refers to a value that is not there and that a stream here yields, or should
    /// have: whether it comes, or has failed now.
    pub(super) fn awaits_item(&mut self, object: ObjectId) -> bool {
        let (task, index) = (object.task, object.index());
        let Some(stream) = self.streams.get_mut(&task) else { return false };
        if object.is_put() || object.is_stream() {
            return object.is_stream();
        }
        if index >= stream.produced
            && let Some(error) = stream.end.clone()
        {
            self.set_failed(object, &error);
            return true;
        }
        stream.awaited.insert(index);
        let is_lost = index < stream.produced;
        let is_live = stream.is_open && stream.end.is_none();
        if is_lost && let Some((worker, _)) = stream.asks.take() {
            self.tell_credit(task, worker, u32::MAX);
        }
        let Some(key) = self.tasks.find(task, self.me) else { return !is_lost };
        let entry = &mut self.tasks[key];
        let has_begun = matches!(entry.state, TaskState::Running { .. } | TaskState::Placed { .. });
        if let Some(before) = entry.spec.stream().copied()
            && !has_begun
            && index < before.start
        {
            set_policy(&mut entry.spec, StreamPolicy { start: index, ..before });
        }
        // One that runs already may have passed it. Where its end is not near, or never comes, it
        // makes room for a try that begins there; else its end brings that.
        let waits_for_end = entry.extra.as_ref().is_some_and(|extra| extra.again);
        if has_begun && is_lost && is_live && !waits_for_end && !entry.cancelled {
            self.cancel_to_begin_anew(key);
        }
        true
    }

    /// A task that runs here yields a value.
    pub(super) fn yielded(
        &mut self,
        executor: ExecutorId,
        (task, attempt): (TaskId, u32),
        index: u32,
        value: Returned,
    ) {
        let key = self.tasks.find_running(task, executor).filter(|key| {
            let entry = &self.tasks[*key];
            let is_current =
                matches!(entry.state, TaskState::Running { attempt: of, .. } if of == attempt);
            is_current && entry.spec.stream().is_some()
        });
        let Some(key) = key else {
            return self.discard_value(task.object(index), value.inline, self.me);
        };
        // The owner may have numbered this try anew.
        let (owner, attempt) = (self.tasks[key].owner, self.tasks[key].attempt);
        if owner == self.me {
            self.take_item(task, index, value, owner);
        } else {
            self.report_item(owner, (task, attempt), index, value);
        }
    }

    fn report_item(
        &mut self,
        owner: WorkerId,
        (task, attempt): (TaskId, u32),
        index: u32,
        value: Returned,
    ) {
        let object = task.object(index);
        if self.is_dead(owner) {
            return self.discard_value(object, value.inline, self.me);
        }
        let mut free = SmallVec::new();
        self.keep_for_owner(owner, object, &value, &mut free);
        self.hold_until_settled(owner, (task, attempt), value.contains.clone());
        let message = PeerMessage::Yielded { task, attempt, index, value };
        self.send_settled(owner, message, free);
    }

    /// A worker says that a task of this one has yielded a value there.
    pub(super) fn peer_yielded(
        &mut self,
        from: WorkerId,
        (task, attempt): (TaskId, u32),
        index: u32,
        value: Returned,
    ) {
        let has_references = !value.contains.is_empty();
        let is_current = self.tasks.find(task, self.me).is_some_and(|key| {
            let entry = &self.tasks[key];
            entry.attempt == attempt
                && entry.spec.stream().is_some()
                && matches!(entry.state, TaskState::Spilled { .. } | TaskState::Placed { .. })
        });
        if is_current {
            self.take_item(task, index, value, from);
        } else {
            self.discard_value(task.object(index), value.inline, from);
        }
        if has_references {
            self.send_settled(from, PeerMessage::Settled { task, attempt }, SmallVec::new());
        }
    }

    /// An item of an own stream, made by `runner`; one that is there already is dropped.
    fn take_item(&mut self, task: TaskId, index: u32, value: Returned, runner: WorkerId) {
        let object = task.object(index);
        let me = self.me;
        if let Some(stream) = self.streams.get_mut(&task) {
            stream.awaited.remove(&index);
            let is_new = index == stream.produced && stream.end.is_none();
            stream.produced += u32::from(is_new);
            // What another owner left here is in the table in the stead of what was made here now.
            if is_new && stream.is_open && self.hold_own(object) && runner != me {
                self.drop_leftover(object);
            }
        }
        self.count_read(task);
        let is_wanted = self
            .objects
            .get(&object)
            .is_some_and(|entry| entry.is_owned() && matches!(entry.value, Value::Absent));
        if !is_wanted {
            return self.discard_value(object, value.inline, runner);
        }
        let made = if value.inline {
            Value::Inline
        } else {
            Value::Arena { size: value.size, copies: Few::One(runner) }
        };
        debug_assert!(runner == me || !self.is_dead(runner), "a dead worker says nothing");
        self.set_value(object, made, &value.contains);
    }

    /// The consumer has taken the first `count` items.
    pub(super) fn consumed(&mut self, task: TaskId, owner: WorkerId, count: u32) {
        if owner != self.me {
            return self.send(owner, PeerMessage::Consumed { task, count });
        }
        if let Some(stream) = self.streams.get_mut(&task) {
            stream.read = stream.read.max(count);
            self.count_read(task);
        }
    }

    /// What the consumer has read counts as taken once it has come.
    fn count_read(&mut self, task: TaskId) {
        let Some(stream) = self.streams.get_mut(&task) else { return };
        let count = stream.read.min(stream.produced);
        if !stream.is_open || count <= stream.consumed {
            return;
        }
        let taken = core::mem::replace(&mut stream.consumed, count)..count;
        self.steps.extend(taken.map(|index| Step::LetGo(task.object(index))));
        if let Some((worker, wanted)) = stream.asks
            && count >= wanted
        {
            stream.asks = None;
            self.tell_credit(task, worker, count);
        }
    }

    /// A task that runs here waits until so many of its items are taken.
    pub(super) fn credit_wanted(&mut self, executor: ExecutorId, task: TaskId, wanted: u32) {
        let Some(key) = self.tasks.find_running(task, executor) else { return };
        let (owner, attempt) = (self.tasks[key].owner, self.tasks[key].attempt);
        if owner == self.me {
            self.producer_asks(owner, (task, attempt), wanted);
        } else {
            self.send(owner, PeerMessage::CreditWanted { task, attempt, wanted });
        }
    }

    /// The producer of an own stream waits, on that worker.
    pub(super) fn producer_asks(
        &mut self,
        worker: WorkerId,
        (task, attempt): (TaskId, u32),
        wanted: u32,
    ) {
        let key = self.tasks.find(task, self.me);
        if key.is_none_or(|key| self.tasks[key].attempt != attempt) {
            return;
        }
        match self.streams.get_mut(&task) {
            // While an item is awaited that was lost, the consumer takes none: the try, if it does
            // not listen, goes on to its end, which brings another one that begins there.
            Some(stream) if stream.is_open && stream.end.is_none() && !stream.awaits_lost() => {
                if stream.consumed < wanted {
                    stream.asks = Some((worker, wanted));
                    return;
                }
                let consumed = stream.consumed;
                self.tell_credit(task, worker, consumed);
            }
            // Nobody holds it back.
            _ => self.tell_credit(task, worker, u32::MAX),
        }
    }

    fn tell_credit(&mut self, task: TaskId, worker: WorkerId, consumed: u32) {
        if worker == self.me {
            self.credit(worker, task, consumed);
        } else {
            self.send(worker, PeerMessage::Credit { task, consumed });
        }
    }

    /// The owner says how far the consumer of a task that runs here is.
    pub(super) fn credit(&mut self, owner: WorkerId, task: TaskId, consumed: u32) {
        let Some(key) = self.tasks.find(task, owner) else { return };
        if let TaskState::Running { executor, .. } = self.tasks[key].state {
            self.act(LocalAction::Credit { executor, task, consumed });
        }
    }

    /// Whether a try of an own task says that it has yielded more than has come.
    pub(super) fn misses_items(&self, task: TaskId, count: u32) -> bool {
        self.streams
            .get(&task)
            .is_some_and(|stream| stream.is_open && stream.end.is_none() && count > stream.produced)
    }

    /// A try of an own task that yields has ended, and no other one follows.
    pub(super) fn stream_ended(&mut self, spec: &Arc<TaskSpec>, tries: Tries, outcome: Outcome) {
        let task = spec.id;
        let (count, error) = match outcome {
            Outcome::Streamed(count) => (count, TaskError { task, cause: Cause::EndOfStream }),
            Outcome::Failed(error) | Outcome::Retryable(error) => (0, error),
            Outcome::Returned(_) => {
                let reason = "it returned instead of yielding".to_owned();
                (0, TaskError { task, cause: Cause::Refused { reason } })
            }
        };
        let has_failed = error.cause != Cause::EndOfStream;
        let Some(mut stream) = self.streams.remove(&task) else { return };
        let awaited = core::mem::take(&mut stream.awaited);
        stream.asks = None;
        let error = Arc::new(error);
        if stream.end.is_none() {
            stream.end = Some(Arc::clone(&error));
        }
        let produced = stream.produced;
        if stream.is_open {
            self.streams.insert(task, stream);
        }
        if !has_failed {
            self.record_items(spec, tries, count, &awaited);
        }
        for index in awaited {
            if has_failed || index >= produced {
                self.set_failed(task.object(index), &error);
            } else {
                self.steps.push_back(Step::Recover(task.object(index)));
            }
        }
    }

    /// Keeps what is needed to make items again that lie in arenas, or did until they were lost.
    fn record_items(
        &mut self,
        spec: &Arc<TaskSpec>,
        tries: Tries,
        count: u32,
        awaited: &BTreeSet<u32>,
    ) {
        let is_worth_it = |index: &u32| {
            let entry = self.objects.get(&spec.id.object(*index));
            entry.filter(|entry| entry.is_owned()).is_some_and(|entry| match entry.value {
                Value::Arena { .. } => true,
                Value::Absent => awaited.contains(index),
                Value::Inline | Value::Failed(_) => false,
            })
        };
        let items: Vec<ObjectId> =
            (0..count).filter(is_worth_it).map(|index| spec.id.object(index)).collect();
        if !items.is_empty() {
            self.record(spec, tries, &items, &[]);
        }
    }

    /// Nobody refers to the stream any longer.
    pub(super) fn stream_dropped(&mut self, task: TaskId) {
        let Some(stream) = self.streams.get_mut(&task) else { return };
        let held: Vec<ObjectId> = stream.held(task).collect();
        stream.is_open = false;
        let is_over = stream.end.is_some();
        self.steps.extend(held.into_iter().map(Step::LetGo));
        match self.tasks.find(task, self.me) {
            // It makes lost items again, for those who refer to them.
            Some(_) if is_over => {}
            Some(key) => self.cancel(key, CancelMode { force: false, children: true }),
            None => drop(self.streams.remove(&task)),
        }
    }
}

fn set_policy(spec: &mut Arc<TaskSpec>, stream: StreamPolicy) {
    if let Some(policy) = &mut Arc::make_mut(spec).policy {
        policy.stream = Some(stream);
    }
}
