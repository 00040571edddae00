//! What is said about placement groups.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{GroupId, TaskId, WorkerId};
use crate::outcome::TaskError;
use crate::resource::Resources;
use crate::spec::{Assignment, GroupStrategy};

/// Worker to worker, about a placement group. Its leader is the worker where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum GroupMessage {
    /// The receiver leads the group: say where its bundles are, now and whenever that changes.
    Locate(GroupId),
    /// Answer, and notice of a change.
    Located {
        /// The group.
        group: GroupId,
        /// Where its bundles are.
        place: GroupPlace,
    },
    /// To the leader: give the group back.
    Remove(GroupId),
    /// To the leader: the bundle is reserved at the sender.
    Reserved {
        /// The group.
        group: GroupId,
        /// Which bundle.
        bundle: u32,
        /// The round of placement that the head's assignment named.
        round: u32,
    },
    /// To the leader: the sender cannot reserve the bundle, or wants it to go elsewhere.
    Refused {
        /// The group.
        group: GroupId,
        /// Which bundle.
        bundle: u32,
        /// The round of placement.
        round: u32,
    },
    /// From the leader: the bundle is not needed there any longer.
    Return {
        /// The group.
        group: GroupId,
        /// Which bundle.
        bundle: u32,
        /// The round in which it was reserved.
        round: u32,
        /// The group is gone, and what runs in it is to end; else the bundle moves elsewhere.
        gone: bool,
    },
    /// A task or an actor's creation, from its owner to the worker that has the bundle.
    Enter {
        /// Which bundle.
        bundle: u32,
        /// The round in which it was reserved.
        round: u32,
        /// The task.
        assignment: Box<Assignment>,
    },
    /// Answer to `Enter`: the bundle is not there any longer.
    Turned {
        /// The task.
        task: TaskId,
        /// Which try.
        attempt: u32,
        /// The bundle that it was sent to.
        bundle: u32,
        /// As the sender knew it.
        round: u32,
    },
}

/// Where the bundles of a placement group are.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum GroupPlace {
    /// Each of them, in order.
    Bundles(Vec<BundlePlace>),
    /// The group was given back, or could not be reserved.
    Gone(TaskError),
}

/// Where a bundle is.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BundlePlace {
    /// What it holds.
    pub request: Resources,
    /// Where, and the round in which it was reserved there; `None` while it is being placed.
    pub place: Option<(WorkerId, u32)>,
}

/// What a leader asks the head for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct GroupRequest {
    /// The group.
    pub group: GroupId,
    /// Larger with each request of the same leader; older ones are void.
    pub round: u32,
    /// How the bundles lie to each other.
    pub strategy: GroupStrategy,
    /// The bundles that need a place: index and what each holds.
    pub bundles: Vec<(u32, Resources)>,
    /// Where the group's other bundles are.
    pub beside: Vec<WorkerId>,
}
