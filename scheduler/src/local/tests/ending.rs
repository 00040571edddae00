//! The end of a world: when it has come, and what must not be left.

use std::collections::VecDeque;

use super::{DRIVERS, World};
use crate::id::{ActorId, TaskId, WorkerId};
use crate::local::{LocalEvent, ObjectView};
use crate::message::FromHead;

impl World {
    /// Nothing is under way, and programs are done but for the drivers.
    pub(super) fn is_quiet(&self) -> bool {
        self.links.values().all(VecDeque::is_empty)
            && self.workers.values().all(|worker| {
                worker.pulls.is_empty()
                    && worker.core.tasks().all(|task| task.task == TaskId::driver(task.task.job()))
                    && worker.processes.values().all(|process| process.refs.is_empty())
            })
    }

    pub(super) fn stuck(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, worker) in &self.workers {
            for task in worker.core.tasks() {
                let why = worker.core.explain(task.task);
                lines.push(format!("{id} {:?} {} {why:?}", task.task, task.state));
            }
            for (executor, process) in &worker.processes {
                for running in &process.running {
                    let waits = running
                        .waits_for
                        .map(|object| worker.core.objects().find(|view| view.object == object));
                    lines.push(format!("{id} {executor} {:?} {waits:?}", running.spec.id));
                }
            }
        }
        lines
    }

    /// Everybody has let go of everything: only actors' arguments may still be held.
    pub(super) fn check_end(&mut self) {
        for (job, _) in DRIVERS {
            let owned: Vec<(ActorId, WorkerId)> =
                self.actors.iter().copied().filter(|actor| actor.0.0.job() == job).collect();
            for (actor, owner) in owned {
                if self.workers.contains_key(&owner) {
                    self.handle(owner, LocalEvent::ActorKillRequested { actor, owner });
                }
            }
        }
        for _ in 0..10_000 {
            self.step();
        }
        assert!(self.is_quiet(), "{:#?}", self.stuck());
        for (id, worker) in &self.workers {
            // Copies that outlived their owner are kept until their job ends.
            let is_orphan = |view: &ObjectView| {
                let is_lost = !self.workers.contains_key(&view.owner);
                view.object.is_replicated() && is_lost && view.holders == 0
            };
            let objects: Vec<_> = worker.core.objects().filter(|view| !is_orphan(view)).collect();
            assert!(objects.is_empty(), "{id} keeps {objects:#?}");
        }
        for (job, _) in DRIVERS {
            for worker in self.workers.keys().copied().collect::<Vec<_>>() {
                self.handle(worker, LocalEvent::FromHead(FromHead::JobEnded { job }));
            }
        }
        for (id, worker) in &self.workers {
            assert_eq!(worker.core.objects().count(), 0, "{id} keeps what the job left");
            let held: Vec<_> = worker.table.keys().collect();
            assert!(held.is_empty(), "the table of {id} keeps {held:?}");
        }
    }
}
