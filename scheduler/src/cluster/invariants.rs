//! Cross-checks of the core's tables; the names are explained in [the module](super).

use super::JobState;
use super::core::ClusterCore;
use crate::id::{TaskId, WorkerId};
use crate::placement::{admits, choose_gang};

impl ClusterCore {
    /// Checks every invariant.
    ///
    /// # Panics
    /// With the invariant's name, if one does not hold.
    pub fn check_invariants(&self) {
        self.queue.check_invariants();
        self.field.check_invariants();
        self.check_ledger();
        self.check_room_is_used();
        self.check_jobs();
        for (owner, request) in self.gangs.iter() {
            assert!(self.members.contains_key(&owner), "CL-2: {owner} leads and is no member");
            if self.over_group_quota(request).is_some() {
                continue;
            }
            let found = choose_gang(&self.field, &super::groups::ask(request));
            assert_eq!(found, None, "CL-5: {} waits", request.group);
        }
        for (name, (actor, owner)) in &self.names {
            let known = self.members.contains_key(owner)
                || self.recovery.as_ref().is_some_and(|r| r.expected.contains(owner));
            assert!(known, "CL-7: {name} belongs to {owner}, which is gone");
            assert!(self.is_active(actor.0.job()), "CL-7: {name} is of an ended job");
        }
        for worker in self.sharing.askable() {
            assert!(self.members.contains_key(&worker), "CL-2: {worker} is asked and no member");
        }
    }

    fn check_ledger(&self) {
        let mut held = 0;
        for ((task, owner, attempt), placement) in self.ledger.iter() {
            let worker = placement.worker;
            let member = self.members.get(&worker);
            let listed = member.is_some_and(|m| m.holds.contains_key(&(*task, *attempt, *owner)));
            assert!(listed, "CL-2: {worker} does not list {task:?} attempt {attempt}");
            held += 1;
            if let Some(waiting) = self.queue.get(&(*task, *owner)) {
                assert!(waiting.attempt > *attempt, "CL-1: {task:?} waits and is placed");
            }
        }
        let lists: usize = self.members.values().map(|member| member.holds.len()).sum();
        assert_eq!(held, lists, "CL-2: members list what is not placed");
        for (worker, member) in &self.members {
            let spot = self.field.spot(*worker);
            let placed = spot.map(|spot| spot.placed as usize);
            assert_eq!(placed, Some(member.holds.len()), "CL-2: tasks counted on {worker}");
            for key in member.on_their_way.values() {
                assert!(self.ledger.get(key).is_some(), "CL-2: {key:?} is on its way, not placed");
            }
        }
    }

    fn check_room_is_used(&self) {
        for (_, shape) in self.queue.shapes() {
            if self.over_quota(shape.job, &shape.request).is_some() {
                continue;
            }
            let taker = match shape.bound {
                Some(worker) => {
                    let spot = self.field.spot(worker);
                    spot.is_some_and(|spot| spot.fits(&shape.request)).then_some(worker)
                }
                None => self
                    .field
                    .spots()
                    .filter(|_| {
                        !matches!(
                            shape.strategy,
                            crate::spec::Strategy::Affinity { soft: false, .. }
                        )
                    })
                    .filter(|(_, spot)| admits(spot, &shape.strategy))
                    .find(|(_, spot)| spot.fits(&shape.request))
                    .map(|(worker, _)| worker),
            };
            assert_eq!(taker, None, "CL-5: {} wait for {}", shape.len(), shape.request);
        }
    }

    fn check_jobs(&self) {
        for (job, known) in &self.jobs {
            let driver = TaskId::driver(*job);
            match &known.state {
                JobState::Running { worker, attempt } => {
                    let placement = self.ledger.get(&(driver, WorkerId::HEAD, *attempt));
                    let at = placement.map(|placement| placement.worker);
                    assert_eq!(at, Some(*worker), "CL-6: {job} runs elsewhere than it says");
                    assert_eq!(*attempt, known.attempt, "CL-6: {job}'s attempt");
                }
                JobState::Waiting { attempt, .. } => {
                    let waits = self.queue.get(&(driver, WorkerId::HEAD)).is_some();
                    assert!(waits || self.recovery.is_some(), "CL-6: {job} waits for nothing");
                    assert_eq!(*attempt, known.attempt, "CL-6: {job}'s attempt");
                }
                _ => {
                    assert!(self.queue.of_job(*job).is_empty(), "CL-6: {job} waits, ended");
                    assert!(self.ledger.of_job(*job).is_empty(), "CL-6: {job} is placed, ended");
                }
            }
        }
    }
}
