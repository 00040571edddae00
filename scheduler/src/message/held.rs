//! What is said when a worker and a head meet.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{ActorId, JobId, TaskId, WorkerId};
use crate::resource::Resources;

/// What a worker still has when it meets a head again: the head rebuilds its view from these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Held {
    /// Tasks and actors that a head assigned, running or waiting there.
    pub assigned: Vec<HeldTask>,
    /// Names of actors that it supervises.
    pub names: Vec<(String, ActorId)>,
    /// Jobs of which it has anything. References that it holds as an owner's borrower are between
    /// workers and not listed.
    pub jobs: Vec<JobId>,
    /// It is to leave once it has nothing to do: it gets no more tasks.
    pub draining: bool,
}

/// A task that a head had assigned.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct HeldTask {
    /// The task.
    pub task: TaskId,
    /// Which try.
    pub attempt: u32,
    /// Who gets the result.
    pub owner: WorkerId,
    /// What it holds.
    pub request: Resources,
    /// Whether it is a job's driver.
    pub driver: bool,
}
