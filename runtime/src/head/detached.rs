//! Detached actors: each is a job of its own, of the program that asked for it, so that it has
//! what a job has: it outlives that program, is placed again when a worker is lost, is in the
//! books, and is stopped like any other. Its driver makes the actor and waits for its end.
//!
//! Who asked is answered when the actor has its name, or will never have it.

use rdist_scheduler::id::{ActorId, JobId, TaskId, WorkerId};
use rdist_scheduler::spec::{TaskKind, TaskSpec};

use super::daemon::{Daemon, Outgoing};
use super::record::AskedBy;
use crate::wire::client::JobProgress;
use crate::wire::cluster::{HeadToWorker, JobInfo};
use crate::wire::executor::Detached;

impl Daemon {
    /// A program on that worker wants a detached actor.
    pub(super) fn detach(&mut self, from: WorkerId, spec: TaskSpec) {
        let task = spec.id;
        if let Some(answer) = self.detach_or_refuse(from, spec) {
            self.answer_detached(from, task, answer);
        }
    }

    /// `None`: the answer comes later.
    fn detach_or_refuse(&mut self, from: WorkerId, spec: TaskSpec) -> Option<Detached> {
        let task = spec.id;
        let refused = |reason: &str| Some(Detached::Refused { reason: reason.to_owned() });
        let Some(name) = name_of(&spec).map(str::to_owned) else {
            return refused("a detached actor is found by its name, and this one has none");
        };
        if !spec.dependencies.is_empty() || !spec.borrowed.is_empty() {
            return refused("its arguments have to be values, not objects of a job that may end");
        }
        let same = self.books.jobs().values().find(|job| {
            !job.state.is_ended() && job.detached().is_some_and(|spec| spec.id == task)
        });
        if let Some(job) = same.map(|job| job.info.job) {
            // Asked again, because the answer or the head was lost.
            self.detaching.insert(job, (from, task));
            let named = self.books.names().get(&name).filter(|by| by.actor.0.job() == job);
            return named.map(|by| Detached::Named { actor: by.actor, owner: by.owner });
        }
        if let Some(record) = self.books.names().get(&name) {
            return Some(Detached::NameTaken { by: record.actor });
        }
        let maker = self.books.jobs().get(&task.job()).filter(|job| !job.state.is_ended());
        let Some(info) = maker.map(|job| job.info.clone()) else {
            return refused("the job that asked for it has ended");
        };
        let Ok(number) = u32::try_from(self.books.count("job")) else {
            return refused("the head has used up all numbers for jobs");
        };
        let job = JobId(number);
        tracing::info!(%job, name, by = %task.job(), "a detached actor becomes a job");
        self.detaching.insert(job, (from, task));
        let name = format!("actor {name}");
        let info = JobInfo { job, name, eager_pool: false, ..info };
        self.begin_job(info, AskedBy::Task(spec.into()));
        None
    }

    /// An actor has got a name.
    pub(super) fn detached_named(&mut self, actor: ActorId, owner: WorkerId) {
        if let Some((from, task)) = self.detaching.remove(&actor.0.job()) {
            self.answer_detached(from, task, Detached::Named { actor, owner });
        }
    }

    /// A job has ended; it may be an actor that never got its name.
    pub(super) fn detached_ended(&mut self, job: JobId, state: &JobProgress) {
        let Some((from, task)) = self.detaching.remove(&job) else { return };
        let name = self.books.jobs().get(&job).and_then(|job| job.detached());
        let holder = name.and_then(name_of).and_then(|name| self.books.names().get(name));
        let answer = match (holder, state) {
            (Some(record), _) => Detached::NameTaken { by: record.actor },
            (None, JobProgress::Failed { error }) => Detached::Refused { reason: error.clone() },
            (None, _) => Detached::Refused { reason: format!("{job}, which was it, has ended") },
        };
        self.answer_detached(from, task, answer);
    }

    fn answer_detached(&mut self, to: WorkerId, task: TaskId, answer: Detached) {
        let message = HeadToWorker::Detached { task, answer };
        self.outbox.push(Outgoing::Worker { to, message });
    }
}

fn name_of(spec: &TaskSpec) -> Option<&str> {
    match &spec.kind {
        TaskKind::ActorCreate(options) => options.name.as_deref(),
        _ => None,
    }
}
