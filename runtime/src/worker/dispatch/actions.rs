//! What the core wants done.

use std::sync::Arc;

use rdist_scheduler::id::{ExecutorId, JobId, ObjectId, WorkerId};
use rdist_scheduler::local::{ExecutorRole, LocalAction, LocalEvent};
use rdist_scheduler::message::{PeerMessage, Place, ToHead};
use rdist_scheduler::outcome::{Death, Outcome};
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::TaskSpec;

use super::{Dispatch, Launches};
use crate::store::Stored;
use crate::wire::cluster::{JobInfo, PeerFrame, WorkerToHead};
use crate::wire::executor::ToExecutor;
use crate::worker::executor::Executor;
use crate::worker::launch::{self, Launch};
use crate::worker::limits::Limit;
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
            LocalAction::Run { executor, spec, attempt } => self.run_task(executor, spec, attempt),
            LocalAction::RunAhead { executor, spec, attempt, after } => {
                let (spec, after) = (TaskSpec::clone(&spec), Some(after));
                let run = ToExecutor::Run { spec, attempt, dependencies: Vec::new(), after };
                self.send(executor, &run);
            }
            LocalAction::Recall { executor } => self.send(executor, &ToExecutor::Recall),
            LocalAction::Deliver { executor, object, error } => {
                self.deliver(executor, object, error);
            }
            // What `()` is in an archive.
            LocalAction::PutNothing { object } => self.keep(object, Stored::Inline([].into())),
            LocalAction::Free { object } => self.free(object),
            LocalAction::Send { to, message } => self.send_peer(to, message),
            LocalAction::SendHead(message) => self.send_head(message),
            LocalAction::Pull { object, size, from } => self.pull(object, size, from),
            LocalAction::StartExecutor { executor, job, role, resources, gpus } => {
                self.start_executor((executor, job, role), &resources, &gpus);
            }
            LocalAction::StopExecutor { executor, force } => self.stop_executor(executor, force),
            LocalAction::Restore { executor, actor, state } => {
                self.send(executor, &ToExecutor::Restore { actor, state });
            }
            LocalAction::Keep { object, value } => {
                self.keep(object, Stored::Inline(value.into()));
            }
            LocalAction::Cancel { executor, task } => self.cancel(executor, task),
            LocalAction::Credit { executor, task, consumed } => {
                self.send(executor, &ToExecutor::Credit { task, consumed });
            }
            LocalAction::DropActor { executor, actor } => {
                self.send(executor, &ToExecutor::DropActor(actor));
            }
            LocalAction::Route { caller, actor, executor } => self.route(caller, actor, executor),
            LocalAction::RouteEnded { caller, actor, death } => {
                self.send(caller, &ToExecutor::RouteEnded { actor, death });
            }
            LocalAction::Lease { caller, granted } => self.lease(caller, granted),
            LocalAction::EndLease { executor, caller, number, how } => {
                self.send(executor, &ToExecutor::EndLease { caller, number, how });
            }
            LocalAction::Offers { executor, request, offers } => {
                self.send(executor, &ToExecutor::Offers { request, offers });
            }
            LocalAction::ActorFound { executor, request, actor } => {
                self.send(executor, &ToExecutor::ActorFound { request, actor });
            }
        }
    }

    pub(super) fn send(&mut self, executor: ExecutorId, message: &ToExecutor) {
        if let Some(executor) = self.executors.get_mut(&executor) {
            executor.send(message, &self.arena);
        }
    }

    /// Forgets a value.
    pub(super) fn free(&mut self, object: ObjectId) {
        if let Some(stored) = self.table.remove(object) {
            self.give_back(object, stored);
        }
    }

    /// Lets go of a value that has left the table, wherever it is.
    pub(super) fn give_back(&mut self, object: ObjectId, stored: Stored) {
        if !matches!(stored, Stored::Inline(_)) {
            self.room.forget(object);
            self.forget_waiting(object);
        }
        self.free_block(stored);
    }

    /// Lets a block be used again, by whoever writes its segment.
    pub(super) fn free_block(&mut self, stored: Stored) {
        let Stored::Block(block) = stored else { return };
        if let Some(writer) = self.arena.free(block) {
            self.launches.reclaim.entry(writer).or_default().push(block);
        }
        self.room.made();
    }

    fn send_peer(&mut self, to: WorkerId, message: PeerMessage) {
        let announced: Vec<ObjectId> = match &message {
            PeerMessage::Finished { task, outcome: Outcome::Returned(returned), .. } => (0..)
                .zip(returned)
                .filter(|(_, returned)| returned.inline)
                .map(|(index, _)| task.object(index))
                .collect(),
            PeerMessage::Yielded { task, index, value, .. } if value.inline => {
                vec![task.object(*index)]
            }
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
        self.said += 1;
        self.network.to_peer(to, &PeerFrame { number: self.said, message, values });
    }

    /// The end of a job is told after the last line that its driver printed: when its pipes are
    /// dry, or its process has ended and what holds them is another.
    fn send_head(&mut self, message: ToHead) {
        if let ToHead::DriverFinished { job, .. } = &message {
            let driver = |executor: &&Executor| executor.is_driver && executor.job == *job;
            if let Some(executor) = self.executors.values().find(driver) {
                self.launches.farewells.insert(executor.id, message);
                return;
            }
        }
        self.tell_head(message);
    }

    /// Numbers a message of the core to the head, and sends it.
    pub(super) fn tell_head(&mut self, message: ToHead) {
        self.said += 1;
        self.network.to_head(&WorkerToHead::Core { number: self.said, message });
    }

    fn start_executor(
        &mut self,
        (id, job, role): (ExecutorId, JobId, ExecutorRole),
        resources: &Resources,
        gpus: &[u32],
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
            ExecutorRole::Alone => "task",
            ExecutorRole::Driver => "driver",
            ExecutorRole::Actor(_) => "actor",
        };
        let memory = (!resources.memory.is_zero()).then(|| resources.memory.as_f64() as u64);
        let limit = Limit { memory, cpus: resources.cpu.as_f64() };
        let name = |gpu: &u32| self.gpus.get(*gpu as usize).map(String::as_str);
        let gpus: Vec<&str> = gpus.iter().filter_map(name).collect();
        let gpus = gpus.join(",");
        let launch = Launch { executor: id, worker: self.worker, job, socket, limit, gpus, source };
        match self.jobs.get(&job).cloned() {
            Some(info) => self.launch(launch, info),
            None => {
                self.network.to_head(&WorkerToHead::JobWanted(job));
                self.launches.waiting.push(launch);
            }
        }
    }

    pub(super) fn launch(&mut self, launch: Launch, info: Arc<JobInfo>) {
        let (job, wants_pool) = (info.job, info.eager_pool && launch.is_driver());
        self.network.command(Command::Launch(launch, info));
        if wants_pool {
            self.tell(LocalEvent::PoolExpected { job });
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
