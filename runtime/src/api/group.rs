//! Placement groups: resources that are reserved together, for tasks and actors to run in.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use rdist_scheduler::id::{GroupId, WorkerId};
use rdist_scheduler::resource::{Amount, Resources};
use rdist_scheduler::spec::{GroupOptions, GroupStrategy, InGroup, Strategy, TaskKind};
use rkyv::{Archive, Deserialize, Serialize};

use super::context::Context;
use super::error::Error;
use super::object::ObjectRef;
use super::options::{Placement, TaskOptions};
use crate::executor::process::Process;
use crate::wire::executor::FromExecutor;

/// What one bundle of a placement group holds.
///
/// ```
/// use rdist::Bundle;
///
/// let bundle = Bundle::cpus(2.0).gpus(1.0).resource("licence", 1.0);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle(Resources);

impl Bundle {
    /// So many CPUs.
    pub fn cpus(n: f64) -> Self {
        Self(Resources::cpus(n))
    }

    /// And so many GPUs.
    #[must_use]
    pub fn gpus(mut self, n: f64) -> Self {
        self.0.gpu = Amount::from_f64(n);
        self
    }

    /// And so many bytes of memory.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.0.memory = Amount::whole(bytes);
        self
    }

    /// And so much of a custom resource.
    #[must_use]
    pub fn resource(mut self, name: &str, amount: f64) -> Self {
        self.0.set(name, Amount::from_f64(amount));
        self
    }
}

/// Resources on one worker or several, reserved together or not at all. Tasks and actors that are
/// placed into a bundle run on what it holds, and nothing else does.
///
/// ```
/// use rdist::prelude::*;
///
/// #[rdist::task]
/// fn half(x: u64) -> u64 { x / 2 }
///
/// # async fn f(cx: &Context) -> Result<()> {
/// let bundles = [Bundle::cpus(1.0), Bundle::cpus(1.0)];
/// let group = cx.placement_group(bundles, GroupStrategy::Spread).await?;
/// let first = half.with().placement_group(&group, 0).submit(cx, 8);
/// let any = half.with().any_bundle(&group).submit(cx, 10);
/// assert_eq!(first.get()? + any.get()?, 9);
/// group.remove()?;
/// # Ok(())
/// # }
/// ```
/// Await it, or the object that [`ready`](Self::ready) returns, to learn that it is reserved; tasks
/// may be placed into it before, and wait. It lives until it is [removed](Self::remove), its job
/// ends, or the driver or actor that asked for it is gone. When a worker under it is lost or
/// leaves, its bundles there are reserved elsewhere, by the same strategy, and the tasks in them
/// run again there as far as their retries allow. It is a value: tasks can take it.
#[derive(Debug, Clone, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv derives archived fields without docs")]
pub struct PlacementGroup {
    id: GroupId,
    owner: WorkerId,
    bundles: u32,
    ready: ObjectRef<()>,
}

impl PlacementGroup {
    fn reserve(
        cx: &Context,
        bundles: Vec<Resources>,
        strategy: GroupStrategy,
        name: Option<String>,
    ) -> Self {
        let count = u32::try_from(bundles.len()).unwrap_or(u32::MAX);
        let kind = TaskKind::GroupCreate(Box::new(GroupOptions { bundles, strategy, name }));
        let ready = cx.submit(GROUP_FUNCTION, kind, TaskOptions::of_actor(), Vec::new());
        let ready = ObjectRef::of(ready);
        let (id, owner) = (GroupId(ready.id().task), cx.process().worker);
        Self { id, owner, bundles: count, ready }
    }

    /// Its id, as `rdist list placement-groups` shows it.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// How many bundles it has.
    pub fn bundles(&self) -> u32 {
        self.bundles
    }

    /// An object that is there once all bundles are reserved, and that has failed when they never
    /// will be: the group was removed, or asks for nothing.
    pub fn ready(&self) -> &ObjectRef<()> {
        &self.ready
    }

    /// Waits until it is reserved, at most so long; whether it is.
    ///
    /// # Errors
    /// [`Error::Task`] when it never will be, [`Error::Cancelled`].
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        match self.ready.get_within(timeout) {
            Ok(()) => Ok(true),
            Err(Error::Timeout(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives it back, also before it is reserved. Tasks that wait in it fail, tasks that run in it
    /// are asked to end (and hold what they have until they do), actors in it end.
    ///
    /// # Errors
    /// [`Error::NotInTask`] outside a cluster's processes.
    pub fn remove(&self) -> Result<(), Error> {
        let (group, owner) = (self.id, self.owner);
        Process::current()?.send(&FromExecutor::RemoveGroup { group, owner });
        Ok(())
    }

    pub(crate) fn placement(&self, bundle: Option<u32>) -> Placement {
        let place = InGroup { group: self.id, owner: self.owner, bundle };
        Placement::of(Strategy::Group(Box::new(place)))
    }
}

/// No function of the program reserves groups.
const GROUP_FUNCTION: u64 = u64::MAX;

impl IntoFuture for PlacementGroup {
    type Output = Result<Self, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            (&self.ready).await?;
            Ok(self)
        })
    }
}

impl Context {
    /// Reserves a placement group: `bundles` on workers as `strategy` says, all of them or none.
    /// Returns at once; await it to learn that it is reserved. What does not fit waits.
    pub fn placement_group(
        &self,
        bundles: impl IntoIterator<Item = Bundle>,
        strategy: GroupStrategy,
    ) -> PlacementGroup {
        let bundles = bundles.into_iter().map(|bundle| bundle.0).collect();
        PlacementGroup::reserve(self, bundles, strategy, None)
    }

    /// The same, with a name that `rdist list placement-groups` shows.
    pub fn named_placement_group(
        &self,
        name: &str,
        bundles: impl IntoIterator<Item = Bundle>,
        strategy: GroupStrategy,
    ) -> PlacementGroup {
        let bundles = bundles.into_iter().map(|bundle| bundle.0).collect();
        PlacementGroup::reserve(self, bundles, strategy, Some(name.to_owned()))
    }
}
