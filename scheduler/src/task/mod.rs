//! Tables of tasks: their life cycle, and the queue of those that wait for resources. They know
//! nothing of executors, objects or other workers; `local` moves tasks through them.

mod queue;
mod table;

pub(crate) use queue::{Ready, ReadyQueue};
pub(crate) use table::{SpillReason, TaskEntry, TaskKey, TaskState, TaskTable};
