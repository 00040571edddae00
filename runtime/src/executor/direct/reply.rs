//! The answering end: calls that come, and their results.

use std::sync::Arc;
use std::time::Duration;

use rdist_scheduler::id::{ActorId, ExecutorId, ObjectId};
use rdist_scheduler::outcome::{Cause, Outcome, TaskError};
use rdist_scheduler::spec::TaskSpec;

use crate::executor::mailbox;
use crate::executor::outbox::{Draft, Outbox};
use crate::executor::process::Process;
use crate::executor::run::Job;
use crate::executor::running::Running;
use crate::wire::direct::DirectReply;
use crate::wire::executor::{FromExecutor, MAX_INLINE_BYTES, Value};

/// Takes a call from another executor. An actor that is not here has ended, of which the worker
/// tells the caller.
pub(in crate::executor) fn accept(
    process: &'static Process,
    actor: ActorId,
    spec: TaskSpec,
    reply: Reply,
) {
    let Some(mailbox) = process.actors.get(&actor).map(|mailbox| mailbox.clone()) else { return };
    let running = Arc::new(Running::new(process, &spec, 0));
    process.running.insert(spec.id, running.clone());
    let job = Job { spec, dependencies: Vec::new(), running, reply: Some(reply) };
    mailbox::deliver(process, &mailbox, Box::new(job));
}

/// Where the result of a direct call goes.
#[derive(Debug, Clone)]
pub(in crate::executor) struct Reply {
    pub(in crate::executor) caller: ExecutorId,
    pub(in crate::executor) token: u64,
    pub(in crate::executor) outbox: Arc<Outbox>,
}

impl Reply {
    /// It returned that value: inline, and without references.
    pub(in crate::executor) fn value(&self, bytes: Vec<u8>) {
        debug_assert!(bytes.len() <= MAX_INLINE_BYTES, "larger ones are in the store");
        self.transmit(&DirectReply::Value(bytes));
    }

    /// A leased task returned that value: inline, and without references.
    pub(super) fn ran(&self, value: Vec<u8>, run: Duration) {
        debug_assert!(value.len() <= MAX_INLINE_BYTES, "larger ones are in the store");
        let nanos = u64::try_from(run.as_nanos()).unwrap_or(u64::MAX);
        self.transmit(&DirectReply::Ran { value, nanos });
    }

    /// A leased task comes back. The caller has to do something about it, also where nobody waits
    /// for its value.
    pub(super) fn not_started(&self) {
        self.outbox.transmit_urgently(Draft::new(&DirectReply::NotStarted).of(self.token));
    }

    /// It ended otherwise. The message that names `values` is out when this returns.
    pub(in crate::executor) fn end(
        &self,
        process: &Process,
        object: ObjectId,
        outcome: Outcome,
        mut values: Vec<Value>,
    ) {
        match outcome {
            Outcome::Returned(mut returned) => {
                let (Some(value), Some(what)) = (values.pop(), returned.pop()) else { return };
                let (caller, contains) = (self.caller, what.contains);
                let made = FromExecutor::Made { caller, object, value, contains };
                process.outbox.send(&made);
            }
            Outcome::Failed(error) | Outcome::Retryable(error) => {
                self.transmit(&DirectReply::Failed(error));
            }
            Outcome::Streamed(_) => {
                let reason = "it yielded values, and was to return one".to_owned();
                let error = TaskError { task: object.task, cause: Cause::Refused { reason } };
                self.transmit(&DirectReply::Failed(error));
            }
        }
    }

    fn transmit(&self, reply: &DirectReply) {
        self.outbox.transmit(Draft::new(reply).of(self.token));
    }
}
