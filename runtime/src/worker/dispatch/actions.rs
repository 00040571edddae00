//! What the core wants done.

use std::sync::Arc;

use rdist_scheduler::id::{ExecutorId, JobId, ObjectId, WorkerId};
use rdist_scheduler::local::{ExecutorRole, LocalAction, LocalEvent};
use rdist_scheduler::message::{PeerMessage, Place, ToHead};
use rdist_scheduler::outcome::{Death, Outcome, TaskError};
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::TaskSpec;

use super::{Dispatch, Launches};
use crate::store::Stored;
use crate::wire::cluster::{PeerFrame, WorkerToHead};
use crate::wire::executor::{ToExecutor, Value};
use crate::worker::executor::Executor;
use crate::worker::launch::{self, Launch};
use crate::worker::network::Command;

impl Dispatch {
    /// Does everything that the core wants done by now.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            self.action(action);
        }
    }

    fn action(&mut self, action: LocalAction) {
        match action {
            LocalAction::Run { executor, spec, attempt } => self.run_task(executor, &spec, attempt),
            LocalAction::Deliver { executor, object, error } => {
                self.deliver(executor, object, error);
            }
            LocalAction::Free { object } => self.free(object),
            LocalAction::Send { to, message } => self.send_peer(to, message),
            LocalAction::SendHead(message) => self.send_head(message),
            LocalAction::Pull { object, size, from } => self.pull(object, size, from),
            LocalAction::StartExecutor { executor, job, role, resources } => {
                self.start_executor(executor, job, role, &resources);
            }
            LocalAction::StopExecutor { executor, force } => self.stop_executor(executor, force),
            LocalAction::Cancel { executor, task } => {
                self.send(executor, &ToExecutor::Cancel(task));
            }
            LocalAction::DropActor { executor, actor } => {
                self.send(executor, &ToExecutor::DropActor(actor));
            }
            LocalAction::ActorFound { executor, request, actor } => {
                self.send(executor, &ToExecutor::ActorFound { request, actor });
            }
        }
    }

    fn send(&mut self, executor: ExecutorId, message: &ToExecutor) {
        if let Some(executor) = self.executors.get_mut(&executor) {
            executor.send(message, &self.arena);
        }
    }

    fn run_task(&mut self, executor: ExecutorId, spec: &Arc<TaskSpec>, attempt: u32) {
        let mut dependencies = Vec::with_capacity(spec.dependencies.len());
        for reference in &spec.dependencies {
            let Some(value) = self.value(reference.object) else {
                // The core's promise (RF-1); a bug here must not run a task without its arguments.
                tracing::error!(task = %spec.id, object = %reference.object, "argument is missing");
                return;
            };
            dependencies.push(value);
        }
        let spec = TaskSpec::clone(spec);
        self.send(executor, &ToExecutor::Run { spec, attempt, dependencies });
    }

    fn deliver(&mut self, to: ExecutorId, object: ObjectId, error: Option<Arc<TaskError>>) {
        let message = match (error, self.value(object)) {
            (Some(error), _) => ToExecutor::Failed { object, error: TaskError::clone(&error) },
            (None, Some(value)) => ToExecutor::Ready { object, value },
            (None, None) => {
                tracing::error!(%object, "a delivered object is missing");
                return;
            }
        };
        self.send(to, &message);
    }

    /// Forgets a value.
    pub(super) fn free(&mut self, object: ObjectId) {
        if let Some(stored) = self.table.remove(object) {
            self.give_back(stored);
        }
    }

    fn value(&self, object: ObjectId) -> Option<Value> {
        self.table.get(object).and_then(Stored::to_wire)
    }

    /// Lets a block be used again, by whoever writes its segment.
    pub(super) fn give_back(&mut self, stored: Stored) {
        let Stored::Block(block) = stored else { return };
        if let Some(writer) = self.arena.free(block) {
            self.launches.reclaim.entry(writer).or_default().push(block);
        }
        for (object, size, from) in std::mem::take(&mut self.pulls) {
            self.pull(object, size, from);
        }
    }

    fn send_peer(&mut self, to: WorkerId, message: PeerMessage) {
        let announced: Vec<ObjectId> = match &message {
            PeerMessage::Finished { task, outcome: Outcome::Returned(returned), .. } => (0..)
                .zip(returned)
                .filter(|(_, returned)| returned.inline)
                .map(|(index, _)| task.object(index))
                .collect(),
            PeerMessage::Located { object, place: Place::Inline } => vec![*object],
            _ => Vec::new(),
        };
        let values = announced
            .into_iter()
            .filter_map(|object| match self.table.get(object)? {
                Stored::Inline(bytes) => Some((object, bytes.to_vec())),
                _ => None,
            })
            .collect();
        self.network.to_peer(to, &PeerFrame { message, values });
    }

    /// The end of a job is told after the last line that its driver printed: when the process has
    /// ended and its pipes are dry.
    fn send_head(&mut self, message: ToHead) {
        if let ToHead::DriverFinished { job, .. } = &message {
            let driver = |executor: &&Executor| executor.is_driver && executor.job == *job;
            if let Some(executor) = self.executors.values().find(driver) {
                self.launches.farewells.insert(executor.id, message);
                return;
            }
        }
        self.network.to_head(&WorkerToHead::Core(message));
    }

    fn pull(&mut self, object: ObjectId, size: u64, from: WorkerId) {
        match self.arena.create(size) {
            Ok(block) => self.network.command(Command::Pull { object, from, block }),
            // Back-pressure: tried again when something is freed.
            Err(_) => self.pulls.push((object, size, from)),
        }
    }

    fn start_executor(
        &mut self,
        id: ExecutorId,
        job: JobId,
        role: ExecutorRole,
        resources: &Resources,
    ) {
        let is_driver = role == ExecutorRole::Driver;
        let (executor, socket) =
            match Executor::create((id, job, is_driver), self.worker, &self.bell) {
                Ok(created) => created,
                Err(error) => {
                    let reason = format!("no shared memory for its rings: {error}");
                    let death = Death::NotStarted { reason };
                    return self.tell(LocalEvent::ExecutorDied { executor: id, death });
                }
            };
        self.executors.insert(id, executor);
        let source = match role {
            ExecutorRole::Pool => "pool",
            ExecutorRole::Driver => "driver",
            ExecutorRole::Actor(_) => "actor",
        };
        let threads = resources.cpu.as_f64().ceil() as u32;
        let launch = Launch { executor: id, worker: self.worker, job, socket, threads, source };
        match self.jobs.get(&job) {
            Some(info) => self.network.command(Command::Launch(launch, info.clone())),
            None => {
                self.network.to_head(&WorkerToHead::JobWanted(job));
                self.launches.waiting.push(launch);
            }
        }
    }

    fn stop_executor(&mut self, id: ExecutorId, force: bool) {
        let Some(executor) = self.executors.get_mut(&id) else { return };
        executor.stopping = true;
        if force {
            return launch::kill(&self.processes, id);
        }
        executor.send(&ToExecutor::Shutdown, &self.arena);
    }
}

impl Launches {
    /// Takes the launches that wait for what the head knows of `job`.
    pub(super) fn take(&mut self, job: JobId) -> Vec<Launch> {
        self.waiting.extract_if(.., |launch| launch.job == job).collect()
    }
}
