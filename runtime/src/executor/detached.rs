//! Detached actors: one program asks for one, and a process of the same program, the driver of the
//! job that it becomes, makes it and waits for its end.
//!
//! The driver waits by a call that the actor never answers ([`WATCH`]): it fails when the actor is
//! gone for good, and is made again when the actor is. Where a driver runs again and the actor
//! still lives, it finds that by its name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdist_scheduler::id::{ActorId, TaskId, WorkerId};
use rdist_scheduler::outcome::{Cause, TaskError};
use rdist_scheduler::spec::{TaskKind, TaskSpec};

use super::process::Process;
use super::wait::{Parker, Why};
use crate::api::actor::RawActor;
use crate::api::context::Context;
use crate::api::error::{Error, Failure};
use crate::api::object::ObjectRef;
use crate::wire;
use crate::wire::executor::{Detached, FromExecutor};

/// The id of the call that is answered as soon as its actor is there.
pub(crate) const READY: u64 = u64::MAX - 1;

/// The id of the call that is never answered.
pub(crate) const WATCH: u64 = u64::MAX - 2;

/// Questions for detached actors.
#[derive(Debug, Default)]
pub(super) struct Detaching(Mutex<HashMap<TaskId, Asked>>);

#[derive(Debug)]
struct Asked {
    parker: Arc<Parker>,
    answer: Option<Detached>,
}

impl Detaching {
    pub(super) fn answered(&self, task: TaskId, answer: Detached) {
        if let Some(asked) = self.lock().get_mut(&task) {
            asked.answer = Some(answer);
            asked.parker.notify();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Asks for a detached actor; waits until it has its name, or will not have it.
    pub(crate) fn detach(&'static self, spec: TaskSpec) -> Result<(ActorId, WorkerId), TaskError> {
        let task = spec.id;
        let asked = Asked { parker: Parker::current(), answer: None };
        self.detaching.lock().insert(task, asked);
        let name = name_of(&spec).unwrap_or_default();
        self.send(&FromExecutor::Detach(spec));
        let is_answered =
            || self.detaching.lock().get(&task).is_none_or(|asked| asked.answer.is_some());
        self.wait(Why::Answer, None, is_answered, || {});
        let asked = self.detaching.lock().remove(&task);
        let cause = match asked.and_then(|asked| asked.answer) {
            Some(Detached::Named { actor, owner }) => return Ok((actor, owner)),
            Some(Detached::NameTaken { by }) => Cause::NameTaken { name, by },
            Some(Detached::Refused { reason }) => Cause::Refused { reason },
            None => Cause::Cancelled,
        };
        Err(TaskError { task, cause })
    }
}

/// The driver of a detached actor: makes it, unless a former try has, and waits for its end.
pub(super) fn serve(cx: &Context, body: &[u8]) -> Result<(), Failure> {
    let malformed = |error: wire::Malformed| Failure::Refused(format!("no actor to make: {error}"));
    let mut spec: TaskSpec = wire::decode(body).map_err(malformed)?;
    let process = cx.process();
    let name = name_of(&spec).unwrap_or_default();
    let found = process.look_up(&name).filter(|(actor, _)| actor.0.job() == cx.job_id());
    let (actor, owner) = match found {
        Some(found) => found,
        None => {
            spec.id = cx.running().next_child();
            spec.parent = cx.task_id();
            let actor = ActorId(spec.id);
            ObjectRef::<()>::of(process.submit(spec)).get().map_err(Failure::Passed)?;
            (actor, process.worker)
        }
    };
    match RawActor::of(actor, owner).call_hidden(WATCH).get() {
        Ok(()) => Ok(()),
        Err(Error::Task(TaskError { cause: Cause::ActorDied(death), .. })) if death.is_wanted() => {
            Ok(())
        }
        Err(error) => Err(Failure::Passed(error)),
    }
}

fn name_of(spec: &TaskSpec) -> Option<String> {
    match &spec.kind {
        TaskKind::ActorCreate(options) => options.name.clone(),
        _ => None,
    }
}
