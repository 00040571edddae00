//! The CPUs of an actor whose calls wait: the worker lends them to others meanwhile.
//!
//! An actor waits while every call of it that runs does: on a thread, inside of `get`, `wait` or
//! `block_on`, for longer than it spins; or as a future that is not ready. Only an actor that holds
//! CPUs says so, by the try of the task that made it. Its process says it and not each call, since
//! the worker does not know of direct calls, nor which of the others have started.

use rdist_scheduler::id::TaskId;
use rdist_scheduler::spec::TaskSpec;

use super::process::Process;
use crate::wire::executor::FromExecutor;

/// The life of an actor that holds CPUs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lender {
    actor: TaskId,
    life: u32,
}

impl Lender {
    /// `None`: it has nothing to lend.
    pub(super) fn new(spec: &TaskSpec, life: u32) -> Option<Self> {
        (!spec.request.cpu.is_zero()).then_some(Self { actor: spec.id, life })
    }

    /// It waits, or goes on. Said under the lock under which that was found.
    pub(super) fn say(self, process: &Process, waits: bool) {
        let message = match waits {
            true => FromExecutor::Blocked(self.actor, self.life),
            false => FromExecutor::Unblocked(self.actor, self.life),
        };
        process.outbox.send(&message);
    }
}
