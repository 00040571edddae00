//! What executors say. All of it is input: an executor that breaks the protocol is killed with a
//! reason, and nothing else happens.

use std::sync::Arc;

use rdist_scheduler::checkpoint::{Applied, EndedCall};
use rdist_scheduler::id::{ActorId, ExecutorId, ObjectId, TaskId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Outcome, Returned};
use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};

use super::Dispatch;
use crate::store::Stored;
use crate::wire::cluster::{Said, WorkerToHead};
use crate::wire::decode;
use crate::wire::executor::{
    CallEnd, FromExecutor, MAX_BODY_BYTES, MAX_DEPENDENCIES, MAX_INLINE_BYTES, MAX_RETURNS,
    MAX_SAVED_CALLS, MAX_STATE_BYTES, ToExecutor, Value,
};
use crate::worker::network::Command;

impl Dispatch {
    /// Handles the next message of `id`. Returns whether there was one.
    pub(super) fn read_frame(&mut self, id: ExecutorId) -> bool {
        let Some(executor) = self.executors.get_mut(&id) else { return false };
        if executor.misbehaved.is_some() {
            return false;
        }
        let message = match executor.receiver.try_recv() {
            Ok(None) => return false,
            Ok(Some(frame)) => decode::<FromExecutor>(frame).map_err(|error| error.to_string()),
            Err(corrupt) => Err(corrupt.to_string()),
        };
        if let Err(reason) = message.and_then(|message| self.message(id, message)) {
            self.misbehaved(id, reason);
        }
        true
    }

    pub(super) fn misbehaved(&mut self, id: ExecutorId, reason: String) {
        tracing::warn!(%id, reason, "an executor broke the protocol and is killed");
        if let Some(executor) = self.executors.get_mut(&id) {
            executor.misbehaved.get_or_insert(reason);
        }
    }

    fn message(&mut self, by: ExecutorId, message: FromExecutor) -> Result<(), String> {
        match message {
            FromExecutor::Submit(spec) => return self.submitted(by, spec),
            FromExecutor::Finished { task, attempt, outcome, values } => {
                self.store_returned(by, task, &outcome, values)?;
                self.tell(LocalEvent::Finished { executor: by, task, attempt, outcome });
                self.end_holds(by, task);
            }
            FromExecutor::Hello { functions } => {
                if let Some(executor) = self.executors.get(&by) {
                    let job = executor.job;
                    self.functions.extend(functions.into_iter().map(|(id, n)| ((job, id), n)));
                }
                self.tell(LocalEvent::ExecutorStarted { executor: by });
            }
            FromExecutor::Event(json) => {
                if let Some(executor) = self.executors.get(&by) {
                    let said = Said::Event { job: executor.job, json };
                    self.network.command(Command::Say(said));
                }
            }
            FromExecutor::Saved { .. }
            | FromExecutor::Yielded { .. }
            | FromExecutor::CreditWanted { .. }
            | FromExecutor::Consumed { .. }
            | FromExecutor::Blocked(..)
            | FromExecutor::Unblocked(..)
            | FromExecutor::Recalled
            | FromExecutor::Cancel { .. } => return self.of_work(by, message),
            FromExecutor::Put { .. }
            | FromExecutor::PutFailed { .. }
            | FromExecutor::Wanted(_)
            | FromExecutor::Retained(_)
            | FromExecutor::Released(_)
            | FromExecutor::SegmentWanted { .. }
            | FromExecutor::MemoryGiven { .. } => return self.of_objects(by, message),
            FromExecutor::RouteWanted(_)
            | FromExecutor::Promised { .. }
            | FromExecutor::Answered { .. }
            | FromExecutor::Made { .. }
            | FromExecutor::LeaseWanted
            | FromExecutor::LeaseOver { .. } => return self.of_direct(by, message),
            FromExecutor::KillActor { .. }
            | FromExecutor::Detach(_)
            | FromExecutor::RemoveGroup { .. }
            | FromExecutor::OffersWanted { .. }
            | FromExecutor::ActorLookup { .. } => return self.of_others(by, message),
        }
        Ok(())
    }

    /// About what runs in it.
    fn of_work(&mut self, by: ExecutorId, message: FromExecutor) -> Result<(), String> {
        match message {
            FromExecutor::Saved { actor, state, calls } => {
                return self.saved(by, actor, state, calls);
            }
            FromExecutor::Yielded { task, attempt, index, value, contains } => {
                if index >= ObjectId::MAX_RETURNS {
                    return Err(format!("{task} yields a value with the number {index}"));
                }
                let object = task.object(index);
                self.check_job(by, object)?;
                let (size, inline) = size_of(&value);
                self.store(by, object, value)?;
                let value = Returned { size, inline, contains };
                self.tell(LocalEvent::Yielded { executor: by, task, attempt, index, value });
            }
            FromExecutor::CreditWanted { task, wanted } => {
                self.tell(LocalEvent::CreditWanted { executor: by, task, wanted });
            }
            FromExecutor::Consumed { task, owner, count } => {
                self.check_job(by, task.stream())?;
                self.tell(LocalEvent::Consumed { task, owner, count });
            }
            FromExecutor::Blocked(task, attempt) => {
                self.tell(LocalEvent::Blocked { executor: by, task, attempt });
            }
            FromExecutor::Unblocked(task, attempt) => {
                self.tell(LocalEvent::Unblocked { executor: by, task, attempt });
            }
            FromExecutor::Recalled => self.tell(LocalEvent::Recalled { executor: by }),
            FromExecutor::Cancel { task, owner, mode } => {
                self.check_job(by, task.object(0))?;
                self.tell(LocalEvent::CancelRequested { task, owner, mode });
            }
            other => return Err(out_of_place(&other)),
        }
        Ok(())
    }

    /// About values and the memory that they lie in.
    fn of_objects(&mut self, by: ExecutorId, message: FromExecutor) -> Result<(), String> {
        match message {
            FromExecutor::Put { object, value, copies, contains } => {
                self.check_job(by, object)?;
                let (size, inline) = size_of(&value);
                self.store(by, object, value)?;
                self.tell(LocalEvent::Put { by, object, size, inline, copies, contains });
            }
            FromExecutor::PutFailed { object, error } => {
                self.check_job(by, object)?;
                self.tell(LocalEvent::PutFailed { by, object, error });
            }
            FromExecutor::Wanted(reference) => self.tell(LocalEvent::Wanted { by, reference }),
            FromExecutor::Retained(reference) => self.tell(LocalEvent::Retained { by, reference }),
            FromExecutor::Released(object) => self.released(object, by),
            FromExecutor::SegmentWanted { len } => self.segment_wanted(by, len),
            FromExecutor::MemoryGiven { objects, segments } => {
                return self.memory_given(by, objects, segments);
            }
            other => return Err(out_of_place(&other)),
        }
        Ok(())
    }

    /// About what processes do among themselves.
    fn of_direct(&mut self, by: ExecutorId, message: FromExecutor) -> Result<(), String> {
        match message {
            FromExecutor::RouteWanted(actor) => self.tell(LocalEvent::RouteWanted { by, actor }),
            FromExecutor::Promised { spec, lost } => {
                self.check_spec(by, &spec)?;
                self.tell(LocalEvent::Promised { by, spec: Arc::new(spec), lost });
            }
            FromExecutor::Answered { task, outcome, values } => {
                self.check_job(by, task.object(0))?;
                self.store_returned(by, task, &outcome, values)?;
                self.tell(LocalEvent::Answered { by, task, outcome });
            }
            FromExecutor::Made { caller, object, value, contains } => {
                return self.made(by, caller, object, (value, contains));
            }
            FromExecutor::LeaseWanted => self.tell(LocalEvent::LeaseWanted { by }),
            FromExecutor::LeaseOver { caller, number, running } => {
                return self.lease_over(by, caller, number, running);
            }
            other => return Err(out_of_place(&other)),
        }
        Ok(())
    }

    /// About actors and placement groups, wherever they are.
    fn of_others(&mut self, by: ExecutorId, message: FromExecutor) -> Result<(), String> {
        match message {
            FromExecutor::KillActor { actor, owner } => {
                self.tell(LocalEvent::ActorKillRequested { actor, owner });
            }
            FromExecutor::Detach(spec) => {
                self.check_job(by, spec.id.object(0))?;
                if spec.body.len() > MAX_BODY_BYTES {
                    return Err(format!("{} has a body of {} bytes", spec.id, spec.body.len()));
                }
                self.network.to_head(&WorkerToHead::Detach { spec: spec.clone() });
                self.launches.detaching.insert(spec.id, (by, spec));
            }
            FromExecutor::RemoveGroup { group, owner } => {
                self.check_job(by, group.0.object(0))?;
                self.tell(LocalEvent::GroupRemoveRequested { group, owner });
            }
            FromExecutor::OffersWanted { request } => {
                self.tell(LocalEvent::OffersWanted { by, request });
            }
            FromExecutor::ActorLookup { request, name } => {
                self.tell(LocalEvent::ActorLookup { by, request, name });
            }
            other => return Err(out_of_place(&other)),
        }
        Ok(())
    }

    /// Takes the values that a task returned into the table.
    fn store_returned(
        &mut self,
        by: ExecutorId,
        task: TaskId,
        outcome: &Outcome,
        values: Vec<Value>,
    ) -> Result<(), String> {
        let Outcome::Returned(returned) = outcome else { return Ok(()) };
        if returned.len() != values.len() {
            return Err(format!("{task} has values without a description"));
        }
        for (index, (returned, value)) in returned.iter().zip(values).enumerate() {
            if returned.inline != matches!(value, Value::Inline(_)) {
                return Err(format!("{task} describes a value wrongly"));
            }
            let index = u32::try_from(index).unwrap_or(u32::MAX >> 1);
            self.store(by, task.object(index), value)?;
        }
        Ok(())
    }

    fn saved(
        &mut self,
        executor: ExecutorId,
        actor: ActorId,
        state: Vec<u8>,
        calls: Vec<CallEnd>,
    ) -> Result<(), String> {
        if state.len() > MAX_STATE_BYTES || calls.len() > MAX_SAVED_CALLS {
            let (bytes, count) = (state.len(), calls.len());
            return Err(format!("{actor} saved {bytes} bytes and {count} calls at a time"));
        }
        let mut ended = Vec::with_capacity(calls.len());
        for CallEnd { task: call, attempt, outcome, values } in calls {
            let value = match (&outcome, &*values) {
                (Outcome::Returned(returned), [Value::Inline(bytes)])
                    if returned.iter().all(|returned| returned.contains.is_empty()) =>
                {
                    Some(bytes.clone())
                }
                _ => None,
            };
            self.store_returned(executor, call, &outcome, values)?;
            ended.push(EndedCall { attempt, applied: Applied { call, outcome, value } });
        }
        let tasks: Vec<TaskId> = ended.iter().map(|call| call.applied.call).collect();
        self.tell(LocalEvent::Saved { executor, actor, state, calls: ended });
        tasks.into_iter().for_each(|task| self.end_holds(executor, task));
        Ok(())
    }

    /// A value of a direct call, for its caller, which is told that it comes.
    fn made(
        &mut self,
        by: ExecutorId,
        caller: ExecutorId,
        object: ObjectId,
        (value, contains): (Value, Vec<Reference>),
    ) -> Result<(), String> {
        self.check_job(by, object)?;
        let job = |id| self.executors.get(&id).map(|executor| executor.job);
        if job(caller).is_some_and(|other| Some(other) != job(by)) {
            return Err(format!("{object} is for an executor of another job"));
        }
        let (size, inline) = size_of(&value);
        self.store(by, object, value)?;
        let value = Returned { size, inline, contains };
        self.tell(LocalEvent::Made { executor: by, caller, object, value });
        self.act();
        self.send(caller, &ToExecutor::Made(object));
        Ok(())
    }

    /// A host gives a lease back. The caller is told of the task that has left it, whose value it
    /// is to have from here.
    fn lease_over(
        &mut self,
        by: ExecutorId,
        caller: ExecutorId,
        number: u64,
        running: Option<TaskSpec>,
    ) -> Result<(), String> {
        if let Some(spec) = &running {
            self.check_spec(by, spec)?;
            if !spec.takes_turns() || spec.returns != 1 {
                return Err(format!("{} ran by a lease, which is for others", spec.id));
            }
        }
        let left = running.as_ref().map(|spec| spec.id.object(0));
        let running = running.map(Arc::new);
        self.tell(LocalEvent::LeaseOver { executor: by, caller, number, running });
        if let Some(object) = left {
            self.act();
            self.send(caller, &ToExecutor::Made(object));
        }
        Ok(())
    }

    fn submitted(&mut self, by: ExecutorId, spec: TaskSpec) -> Result<(), String> {
        self.check_spec(by, &spec)?;
        self.tell(LocalEvent::Submitted { by, spec: Arc::new(spec) });
        Ok(())
    }

    fn check_spec(&self, by: ExecutorId, spec: &TaskSpec) -> Result<(), String> {
        self.check_job(by, spec.id.object(0))?;
        if spec.body.len() > MAX_BODY_BYTES {
            return Err(format!("{} has a body of {} bytes", spec.id, spec.body.len()));
        }
        if spec.returns > MAX_RETURNS || spec.dependencies.len() > MAX_DEPENDENCIES {
            let (returns, takes) = (spec.returns, spec.dependencies.len());
            return Err(format!("{} returns {returns} values and takes {takes}", spec.id));
        }
        if matches!(spec.kind, TaskKind::Driver | TaskKind::Bundle { .. }) {
            return Err(format!("{} is of a kind that no program submits", spec.id));
        }
        if let Some(place) = spec.strategy.in_group() {
            self.check_job(by, place.group.0.object(0))?;
        }
        Ok(())
    }

    /// Ids of another job would let one job write into another's objects.
    fn check_job(&self, by: ExecutorId, object: ObjectId) -> Result<(), String> {
        match self.executors.get(&by) {
            Some(executor)
                if executor.job != object.task.job()
                    && !executor.guests.contains(&object.task.job()) =>
            {
                Err(format!("{object} is not of its job, {}", executor.job))
            }
            _ => Ok(()),
        }
    }

    /// Takes a value that `by` made into the table.
    fn store(&mut self, by: ExecutorId, object: ObjectId, value: Value) -> Result<(), String> {
        match value {
            Value::Inline(bytes) if bytes.len() > MAX_INLINE_BYTES => {
                Err(format!("{object} has {} bytes inline", bytes.len()))
            }
            Value::Inline(bytes) => {
                self.keep(object, Stored::Inline(bytes.into()));
                Ok(())
            }
            Value::Block(block) => {
                self.arena.adopt(by, block).map_err(|error| error.to_string())?;
                self.keep(object, Stored::Block(block));
                Ok(())
            }
        }
    }

    /// Takes a value into the table. Where one is there already it stays, unless it is what a lost
    /// value left, which nobody reads: what the core counts lies inside the new one.
    pub(super) fn keep(&mut self, object: ObjectId, stored: Stored) {
        let Some(surplus) = self.table.insert(object, stored) else { return };
        if !self.core.reads(object) && self.table.users(object) == 0 {
            if let Some(former) = self.table.replace(object, surplus) {
                self.give_back(object, former);
            }
        } else {
            self.free_block(surplus);
        }
    }
}

/// A message in the hands of a function that is for others.
fn out_of_place(message: &FromExecutor) -> String {
    format!("{message:?} is out of place")
}

/// Bytes of a value, and whether they ride in the message.
fn size_of(value: &Value) -> (u64, bool) {
    match value {
        Value::Inline(bytes) => (bytes.len() as u64, true),
        Value::Block(block) => (block.len, false),
    }
}
