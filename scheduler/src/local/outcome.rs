//! A task ends: its results reach who waits for them, or its error does.

use std::sync::Arc;

use smallvec::SmallVec;

use super::retry::is_loss;
use super::submit::only_worker;
use super::{LocalCore, Step};
use crate::few::Few;
use crate::id::{ActorId, ExecutorId, GroupId, ObjectId, TaskId, WorkerId};
use crate::message::{PeerMessage, ToHead};
use crate::object::{Borrow, ObjectEntry, Tries, Value};
use crate::outcome::{Cause, Outcome, Returned, TaskError};
use crate::spec::{Reference, TaskKind, TaskSpec};
use crate::task::{TaskEntry, TaskKey, TaskState};

impl LocalCore {
    /// An executor here says that a task has ended.
    pub(super) fn finished(
        &mut self,
        executor: ExecutorId,
        task: TaskId,
        attempt: u32,
        outcome: Outcome,
    ) {
        let key = self.tasks.find_running(task, executor).filter(|key| {
            matches!(self.tasks[*key].state,
                TaskState::Running { executor: at, attempt: of, .. }
                    if at == executor && of == attempt)
        });
        let Some(key) = key else { return self.ended_in_vain(executor, (task, attempt), &outcome) };
        let outcome = self.ruled(key, outcome);
        let spec = Arc::clone(&self.tasks[key].spec);
        match (&spec.kind, &outcome) {
            (TaskKind::ActorCreate(_), Outcome::Returned(_)) => {
                self.actor_lives_here(key, executor, !spec.is_alone());
            }
            (TaskKind::ActorCreate(_), _) => {
                self.stop_running(key);
                if spec.is_alone() {
                    self.stop_executor(executor, false);
                }
            }
            (TaskKind::Driver, _) => {
                self.stop_running(key);
                self.stop_executor(executor, false);
            }
            _ => self.stop_running(key),
        }
        self.conclude(key, outcome);
    }

    /// An attempt that this worker hosted, or decided about, has ended; what it held is free.
    pub(super) fn conclude(&mut self, key: TaskKey, outcome: Outcome) {
        let entry = &mut self.tasks[key];
        let (id, attempt, owner) = (entry.spec.id, entry.attempt, entry.owner);
        let lives = matches!(
            (&entry.spec.kind, &outcome),
            (TaskKind::ActorCreate(_), Outcome::Returned(_))
        );
        if entry.assigned && !lives {
            entry.assigned = false;
            self.head.ended.push((id, attempt));
        }
        self.caller_ended(id, &outcome);
        if owner == self.me {
            self.settle_outcome(key, outcome, owner);
            return;
        }
        self.drop_task(key);
        if owner == WorkerId::HEAD {
            self.discard_values(id, &outcome);
            self.driver_finished(id.job(), attempt, outcome);
        } else {
            if !lives {
                self.peer(owner).hosted.remove(&id);
            }
            self.report(owner, id, attempt, outcome);
        }
    }

    /// Forgets a task and lets go of what it refers to.
    pub(super) fn drop_task(&mut self, key: TaskKey) -> TaskEntry {
        self.leave_bundle(key);
        self.stop_timer(key);
        let entry = self.tasks.remove(key);
        for (rival, stamp) in self.tasks.rivals(entry.spec.id) {
            self.satisfied(rival, stamp);
        }
        let spec = &entry.spec;
        if !self.superseding.is_empty() && self.superseding.contains_key(&(spec.id, entry.owner)) {
            self.steps.push_back(Step::Supersede(spec.id, entry.owner));
        }
        if let Some(worker) = only_worker(spec)
            && entry.owner == self.me
            && let Some(pinned) = self.pinned.get_mut(&worker)
        {
            pinned.remove(&spec.id);
            if pinned.is_empty() {
                self.pinned.remove(&worker);
            }
        }
        let references = spec.dependencies.iter().chain(&spec.borrowed);
        self.steps.extend(references.map(|reference| Step::LetGo(reference.object)));
        let actor = ActorId(spec.id);
        if matches!(spec.kind, TaskKind::ActorCreate(_))
            && entry.owner != self.me
            && !self.hosted.contains_key(&actor)
        {
            self.forget_saved(actor, entry.owner);
        }
        entry
    }

    /// The outcome of an own task's current attempt, which ran on `runner`.
    pub(super) fn settle_outcome(&mut self, key: TaskKey, outcome: Outcome, runner: WorkerId) {
        let id = self.tasks[key].spec.id;
        // It may have ended again by then.
        if self.begins_anew(key) {
            return self.discard_values(id, &outcome);
        }
        let mut outcome = self.complete(key, outcome);
        let is_retryable = matches!(outcome, Outcome::Retryable(_));
        self.is_back(key);
        if let Outcome::Failed(error) | Outcome::Retryable(error) = &mut outcome {
            let attempt = self.tasks[key].attempt;
            let again = self.runs_again(key, error, is_retryable);
            // The error of another task, on which this one depends, is told of that one.
            if error.task == id {
                let when = (attempt, runner, self.now);
                self.history.trouble(id, when, &error.cause, again);
            }
            if again {
                return;
            }
            if self.tasks[key].cancelled && is_loss(&error.cause) {
                error.cause = Cause::Cancelled;
            }
        }
        let spec = Arc::clone(&self.tasks[key].spec);
        let tries = self.tasks[key].tries();
        let has_failed = matches!(outcome, Outcome::Failed(_) | Outcome::Retryable(_));
        match outcome {
            outcome if spec.stream().is_some() => self.stream_ended(&spec, tries, outcome),
            Outcome::Streamed(_) => self.store_results(&spec, tries, Vec::new(), runner),
            Outcome::Returned(values) => {
                self.history.ended(spec.id, tries.attempt, runner, self.now);
                self.store_results(&spec, tries, values, runner);
                if let TaskKind::ActorCreate(_) = spec.kind {
                    self.actor_made(ActorId(spec.id), tries.attempt, runner);
                }
            }
            Outcome::Failed(error) | Outcome::Retryable(error) => {
                let error = Arc::new(error);
                for index in 0..spec.returns {
                    self.set_failed(spec.id.object(index), &error);
                }
                match spec.kind {
                    TaskKind::ActorCreate(_) => {
                        self.actor_ends(ActorId(spec.id), Arc::clone(&error));
                    }
                    TaskKind::GroupCreate(_) => self.group_ends(GroupId(spec.id), &error.cause),
                    _ => {}
                }
            }
        }
        self.call_settled(&spec);
        self.remade(spec.id);
        // A program may have put a group, or an actor, into what ends with it: it is gone by now.
        if !has_failed || self.tasks.find(spec.id, self.me) == Some(key) {
            self.drop_task(key);
        }
    }

    /// The values of an own task exist now.
    fn store_results(
        &mut self,
        spec: &Arc<TaskSpec>,
        tries: Tries,
        values: Vec<Returned>,
        runner: WorkerId,
    ) {
        let count = values.len() as u32;
        let mut inside = self.made_with(spec, &values, runner);
        let mut in_arena: SmallVec<[ObjectId; 2]> = SmallVec::new();
        for (index, value) in (0..).zip(values) {
            let object = spec.id.object(index);
            // Nobody here waits for this owner's value, if there is none or another one's.
            let is_wanted = self.objects.get(&object).is_some_and(ObjectEntry::is_owned);
            if index >= spec.returns || !is_wanted {
                self.discard_value(object, value.inline, runner);
                continue;
            }
            let made = if value.inline {
                Value::Inline
            } else {
                in_arena.push(object);
                Value::Arena { size: value.size, copies: Few::One(runner) }
            };
            self.set_value(object, made, &value.contains);
        }
        if count < spec.returns {
            let reason = format!("it returned {count} values where {} are declared", spec.returns);
            let error = Arc::new(TaskError { task: spec.id, cause: Cause::Refused { reason } });
            for index in count..spec.returns {
                self.set_failed(spec.id.object(index), &error);
            }
        }
        inside.retain(|object| self.is_borrowed_from(*object, runner));
        if !(in_arena.is_empty() && inside.is_empty()) && matches!(spec.kind, TaskKind::Plain) {
            self.record(spec, tries, &in_arena, &inside);
        }
    }

    /// Keeps what is needed to make these values again, and what they refer to, if that is allowed.
    pub(super) fn record(
        &mut self,
        spec: &Arc<TaskSpec>,
        tries: Tries,
        in_arena: &[ObjectId],
        inside: &[ObjectId],
    ) {
        let mut fresh = 0;
        let is_known = self.lineage.contains(spec.id);
        if !is_known && tries.losses() >= spec.max_retries {
            return;
        }
        for object in in_arena {
            if let Some(entry) = self.objects.get_mut(object)
                && !(core::mem::replace(&mut entry.recorded, true) && is_known)
            {
                fresh += 1;
            }
        }
        if !is_known {
            self.makers.forget_task(spec.id);
        }
        for object in inside {
            fresh += u32::from(self.makers.insert(*object, spec.id));
        }
        if is_known {
            self.lineage.ran_again(spec.id, tries, fresh);
            return;
        }
        if fresh == 0 {
            return;
        }
        let mut holds: SmallVec<[ObjectId; 2]> = SmallVec::new();
        for dependency in &spec.dependencies {
            if let Some(entry) = self.objects.get_mut(&dependency.object)
                && entry.is_owned()
                && matches!(entry.value, Value::Inline)
            {
                entry.holders += 1;
                holds.push(dependency.object);
            }
        }
        let gone = self.lineage.insert(Arc::clone(spec), tries, fresh, holds);
        self.steps.extend(gone.into_iter().map(Step::LetGo));
    }

    /// The task failed before it ran, or while it waited: from any state.
    pub(super) fn fail(&mut self, key: TaskKey, error: TaskError) {
        self.detach(key);
        self.conclude(key, Outcome::Failed(error));
    }

    /// Takes a task out of whatever its state put it into.
    pub(super) fn detach(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        let (id, attempt) = (entry.spec.id, entry.attempt);
        match &entry.state {
            TaskState::Ready { .. } => self.leave_queue(key),
            TaskState::Starting { .. } => self.give_back(key),
            TaskState::Running { .. } => self.stop_running(key),
            // Only with its job, which has cleared its executors' lists.
            TaskState::Ahead { .. } => {}
            TaskState::Spilled { told: true, .. } => self.unspill(id, attempt, None),
            TaskState::Placed { .. } | TaskState::Called { .. } => self.is_back(key),
            TaskState::Lane => {
                if let TaskKind::ActorCall { actor, .. } = entry.spec.kind {
                    self.steps.push_back(Step::Lane(actor, entry.submitter));
                }
            }
            TaskState::Mailbox => {
                if let TaskKind::ActorCall { actor, .. } = entry.spec.kind {
                    self.steps.push_back(Step::Mailbox(actor, entry.owner));
                }
            }
            TaskState::Spilled { .. }
            | TaskState::Waiting { .. }
            | TaskState::Naming
            | TaskState::Grouping
            | TaskState::BackingOff { .. } => {}
        }
    }

    /// Tells another owner how its task ended here.
    fn report(&mut self, owner: WorkerId, task: TaskId, attempt: u32, outcome: Outcome) {
        if self.is_dead(owner) {
            return self.discard_values(task, &outcome);
        }
        let mut free: SmallVec<[ObjectId; 1]> = SmallVec::new();
        let mut inside = Vec::new();
        if let Outcome::Returned(values) = &outcome {
            for (index, value) in (0..).zip(values) {
                let object = task.object(index);
                self.keep_for_owner(owner, object, value, &mut free);
                inside.extend(value.contains.iter().copied());
            }
        }
        self.hold_until_settled(owner, (task, attempt), inside);
        self.send_settled(owner, PeerMessage::Finished { task, attempt, outcome }, free);
    }

    /// Keeps references inside a result alive until its owner counts them.
    pub(super) fn hold_until_settled(
        &mut self,
        owner: WorkerId,
        of: (TaskId, u32),
        inside: Vec<Reference>,
    ) {
        if inside.is_empty() {
            return;
        }
        for reference in &inside {
            self.hold(*reference);
        }
        let held = inside.into_iter().map(|reference| reference.object).collect();
        self.peer(owner).settling.entry(of).or_default().push(held);
    }

    /// A value that was made here for another owner: an arena value stays until the owner frees
    /// it, an inline one goes with the message unless somebody here refers to it.
    pub(super) fn keep_for_owner(
        &mut self,
        owner: WorkerId,
        object: ObjectId,
        value: &Returned,
        free: &mut SmallVec<[ObjectId; 1]>,
    ) {
        let me = self.me;
        if value.inline {
            free.push(object);
            match self.objects.get_mut(&object) {
                Some(entry) if entry.is_owned() => entry.leftover |= !entry.is_readable(me),
                Some(entry) if !entry.is_readable(me) => {
                    entry.value = Value::Inline;
                    self.announce(object);
                }
                _ => {}
            }
            return;
        }
        let new = || ObjectEntry::new(owner, Borrow::Unregistered);
        let (entry, _) = self.objects.get_or_insert_with(object, new);
        let is_new = !entry.is_in_table(me);
        entry.leftover |= is_new && entry.is_owned();
        if value.contains.is_empty() {
            self.lodge(object, value.size, owner);
        }
        let Some(entry) = self.objects.get_mut(&object) else { return };
        if !is_new || entry.is_owned() {
            return;
        }
        entry.value = Value::Arena { size: value.size, copies: Few::One(me) };
        entry.asked = false;
        let counted_by = entry.owner;
        self.peer(counted_by).borrowed.insert(object);
        if counted_by != owner {
            // Two workers own a task of that name; the one that is known here says when it goes.
            self.send(counted_by, PeerMessage::CopyMade { object });
        }
        self.announce(object);
    }

    /// A worker says how a task of this one ended there.
    pub(super) fn peer_finished(
        &mut self,
        from: WorkerId,
        task: TaskId,
        attempt: u32,
        outcome: Outcome,
    ) {
        let has_references = matches!(&outcome, Outcome::Returned(values)
            if values.iter().any(|value| !value.contains.is_empty()));
        let key = self.tasks.find(task, self.me).filter(|key| {
            let entry = &self.tasks[*key];
            entry.attempt == attempt
                && match entry.state {
                    TaskState::Called { worker, .. } => worker == from,
                    TaskState::Spilled { .. } | TaskState::Placed { .. } => true,
                    _ => false,
                }
        });
        self.unanswered.ended(task, attempt, from);
        match (key, &outcome) {
            (Some(key), _) => {
                if matches!(self.tasks[key].state, TaskState::Spilled { told: true, .. }) {
                    self.unspill(task, attempt, Some(from));
                }
                self.settle_outcome(key, outcome, from);
            }
            (None, Outcome::Returned(values)) => {
                for (index, value) in (0..).zip(values) {
                    self.discard_value(task.object(index), value.inline, from);
                }
            }
            (None, Outcome::Streamed(_) | Outcome::Failed(_) | Outcome::Retryable(_)) => {}
        }
        if has_references {
            self.send_settled(from, PeerMessage::Settled { task, attempt }, SmallVec::new());
        }
    }

    /// Values that an attempt left here and nobody waits for.
    pub(super) fn discard_values(&mut self, task: TaskId, outcome: &Outcome) {
        if let Outcome::Returned(values) = outcome {
            for (index, value) in (0..).zip(values) {
                self.discard_value(task.object(index), value.inline, self.me);
            }
        }
    }

    /// A value that `runner` made too late, or for nobody. A value that is counted already stays.
    pub(super) fn discard_value(&mut self, object: ObjectId, inline: bool, runner: WorkerId) {
        let me = self.me;
        if inline || runner == me {
            if !self.objects.get(&object).is_some_and(|entry| entry.is_in_table(me)) {
                self.free_value(object);
            }
            return;
        }
        let is_counted = matches!(self.objects.get(&object), Some(ObjectEntry {
            borrow: Borrow::Owned, value: Value::Arena { copies, .. }, ..
        }) if copies.contains(&runner));
        if !is_counted {
            self.send(runner, PeerMessage::Free { object });
        }
    }

    pub(super) fn driver_finished(
        &mut self,
        job: crate::id::JobId,
        attempt: u32,
        outcome: Outcome,
    ) {
        self.head.drivers.insert(job, (attempt, outcome.clone()));
        self.send_head(ToHead::DriverFinished { job, attempt, outcome });
    }
}
