//! Tasks, actors and objects as lists for people.

use super::{Holder, LocalCore};
use crate::actor::ActorState;
use crate::id::{ActorId, GroupId, ObjectId, TaskId, WorkerId};
use crate::object::{ObjectEntry, Value};
use crate::outcome::TaskError;
use crate::resource::Resources;
use crate::spec::{GroupStrategy, TaskKind};
use crate::task::{TaskEntry, TaskState};

/// A task that a worker owns or hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// The task.
    pub task: TaskId,
    /// The function's id in the program.
    pub function: u64,
    /// One word for people.
    pub state: &'static str,
    /// Which try, counted from 0.
    pub attempt: u32,
    /// Who gets the result.
    pub owner: WorkerId,
    /// Where it is, if it is anywhere.
    pub worker: Option<WorkerId>,
    /// What it asks for.
    pub request: Resources,
}

/// An actor that a worker supervises or hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorView {
    /// The actor.
    pub actor: ActorId,
    /// The function's id of its constructor.
    pub function: u64,
    /// Its supervisor.
    pub owner: WorkerId,
    /// Where it lives, if it does.
    pub worker: Option<WorkerId>,
    /// Which life, counted from 0.
    pub life: u32,
    /// Its cluster-wide name.
    pub name: Option<String>,
    /// What it holds.
    pub request: Resources,
    /// Why it is gone for good.
    pub death: Option<TaskError>,
}

/// An object that a worker owns or refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectView {
    /// The object.
    pub object: ObjectId,
    /// Its owner.
    pub owner: WorkerId,
    /// One word for people.
    pub state: &'static str,
    /// Bytes, where they lie in an arena.
    pub size: Option<u64>,
    /// Workers with a copy, as far as known here.
    pub copies: Vec<WorkerId>,
    /// How many refer to it, as far as known here.
    pub holders: u32,
    /// Who they are, in order.
    pub held_by: Vec<Holder>,
}

/// A placement group that a worker leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// The group.
    pub group: GroupId,
    /// For people.
    pub name: Option<String>,
    /// How its bundles lie to each other.
    pub strategy: GroupStrategy,
    /// What each bundle holds, and where it is.
    pub bundles: Vec<(Resources, Option<WorkerId>)>,
    /// Whether every bundle is reserved.
    pub reserved: bool,
}

/// A bundle that is reserved on a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleView {
    /// The group.
    pub group: GroupId,
    /// Which bundle.
    pub bundle: u32,
    /// Which reservation of it.
    pub round: u32,
    /// The worker that leads the group.
    pub owner: WorkerId,
    /// What it holds.
    pub total: Resources,
    /// What nothing in it uses.
    pub available: Resources,
    /// Tasks and actors in it.
    pub users: u32,
}

impl LocalCore {
    /// Whether the value in this worker's table is the object's, as the core knows it.
    pub fn reads(&self, object: ObjectId) -> bool {
        self.objects.get(&object).is_some_and(|entry| entry.is_readable(self.me))
    }

    /// Who owns an object, if this worker has anything to do with it.
    pub fn owner(&self, object: ObjectId) -> Option<WorkerId> {
        self.objects.get(&object).map(|entry| entry.owner)
    }

    /// Placement groups that the worker leads, in no particular order.
    pub fn groups(&self) -> impl Iterator<Item = GroupView> + '_ {
        self.groups.iter().filter_map(|((group, _), entry)| {
            let led = entry.led.as_ref()?;
            let TaskKind::GroupCreate(options) = &led.spec.kind else { return None };
            let place = |bundle: &crate::message::BundlePlace| {
                (bundle.request.clone(), bundle.place.map(|(worker, _)| worker))
            };
            Some(GroupView {
                group: *group,
                name: options.name.clone(),
                strategy: options.strategy,
                bundles: entry.bundles.iter().map(place).collect(),
                reserved: led.pending.is_empty(),
            })
        })
    }

    /// Bundles that are reserved on the worker.
    pub fn bundles(&self) -> impl Iterator<Item = BundleView> + '_ {
        self.bundles.iter().map(|(_, bundle)| BundleView {
            group: bundle.group,
            bundle: bundle.number,
            round: bundle.round,
            owner: bundle.owner,
            total: bundle.ledger.total.clone(),
            available: bundle.ledger.available.clone(),
            users: bundle.users,
        })
    }

    /// Tasks that the worker owns or hosts, in no particular order.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView> + '_ {
        self.tasks.iter().map(|(_, entry)| self.view_of_task(entry))
    }

    /// Actors that the worker supervises or hosts, in no particular order.
    pub fn actors(&self) -> impl Iterator<Item = ActorView> + '_ {
        let supervised = self.actors.iter().filter_map(|(actor, entry)| {
            let supervised = entry.supervised.as_ref()?;
            let (worker, death) = match &entry.place {
                ActorState::Pending => (None, None),
                ActorState::At { worker, .. } => (Some(*worker), None),
                ActorState::Dead(error) => (None, Some(TaskError::clone(error))),
            };
            Some(ActorView {
                actor: *actor,
                function: supervised.spec.function,
                owner: self.me,
                worker,
                life: supervised.life,
                name: supervised.name.clone(),
                request: supervised.spec.request.clone(),
                death,
            })
        });
        let hosted = self.hosted.iter().filter(|(_, hosted)| hosted.owner != self.me);
        supervised.chain(hosted.map(|(actor, hosted)| ActorView {
            actor: *actor,
            function: hosted.spec.function,
            owner: hosted.owner,
            worker: Some(self.me),
            life: hosted.life,
            name: None,
            request: hosted.spec.request.clone(),
            death: None,
        }))
    }

    /// Objects that the worker owns or refers to, in no particular order.
    pub fn objects(&self) -> impl Iterator<Item = ObjectView> + '_ {
        let mut holders = self.holders();
        self.objects.iter().map(move |(object, entry)| {
            let held_by = holders.remove(object).unwrap_or_default();
            view_of_object(*object, entry, held_by)
        })
    }

    fn view_of_task(&self, entry: &TaskEntry) -> TaskView {
        let (state, worker) = match &entry.state {
            TaskState::Naming => ("naming", None),
            TaskState::Waiting { .. } => ("waiting", None),
            TaskState::Grouping => ("placing", None),
            TaskState::Ready { .. } => ("queued", Some(self.me)),
            TaskState::Starting { .. } => ("starting", Some(self.me)),
            TaskState::Running { blocked: true, .. } => ("blocked", Some(self.me)),
            TaskState::Running { .. } => ("running", Some(self.me)),
            TaskState::Ahead { .. } => ("queued", Some(self.me)),
            TaskState::Spilled { .. } => ("spilled", None),
            TaskState::Placed { worker } => ("placed", Some(*worker)),
            TaskState::Lane => ("waiting", None),
            TaskState::Called { worker, .. } => ("called", Some(*worker)),
            TaskState::Mailbox => ("queued", Some(self.me)),
            TaskState::BackingOff { .. } => ("backing off", None),
        };
        TaskView {
            task: entry.spec.id,
            function: entry.spec.function,
            state,
            attempt: entry.attempt,
            owner: entry.owner,
            worker,
            request: entry.spec.request.clone(),
        }
    }
}

fn view_of_object(object: ObjectId, entry: &ObjectEntry, held_by: Vec<Holder>) -> ObjectView {
    let (state, size, copies) = match &entry.value {
        Value::Absent => ("pending", None, Vec::new()),
        Value::Inline => ("inline", None, Vec::new()),
        Value::Arena { size, copies } => ("sealed", Some(*size), copies.to_vec()),
        Value::Failed(_) => ("failed", None, Vec::new()),
    };
    let (owner, holders) = (entry.owner, entry.holders);
    ObjectView { object, owner, state, size, copies, holders, held_by }
}
