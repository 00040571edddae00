//! Cross-checks of every table. Tests call [`LocalCore::check_invariants`] after every step; the
//! names are those of the modules that own the tables (`task::table`, `object`, `actor`,
//! `resource::ledger`).

use super::LocalCore;
use super::dispatch::frees_while_blocked;
use crate::actor::Out;
use crate::group::Slot;
use crate::hash::IdMap;
use crate::id::{ActorId, ObjectId, TaskId};
use crate::object::{Borrow, Value};
use crate::resource::Resources;
use crate::spec::TaskKind;
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// Panics with the name of an invariant that does not hold. Takes time in proportion to
    /// everything that the worker knows: for tests.
    pub fn check_invariants(&self) {
        assert!(self.steps.is_empty(), "LC-1: consequences are drawn before `handle` returns");
        self.check_tasks();
        self.check_ledger();
        self.check_references();
        self.check_objects();
        self.check_actors();
        self.check_leases();
        self.check_groups();
        self.check_checkpoints();
    }

    fn check_tasks(&self) {
        let mut ready = 0;
        let mut running = 0;
        let mut ahead = 0;
        for (key, entry) in self.tasks.iter() {
            let id = entry.spec.id;
            assert_eq!(
                self.tasks.find(id, entry.owner),
                Some(key),
                "TG-1: the index names {id:?}'s entry"
            );
            match entry.state {
                TaskState::Ready { .. } => ready += 1,
                TaskState::Starting { executor } => {
                    let process = &self.executors[&executor];
                    assert!(
                        process.waiting.contains(&(key, entry.stamp)),
                        "TG-3: {executor} knows that {id:?} waits for it"
                    );
                }
                TaskState::Running { executor, slot, .. } => {
                    running += 1;
                    let listed = self.executors[&executor].running.get(slot as usize);
                    assert_eq!(listed, Some(&key), "TG-3: {executor} lists {id:?} in its place");
                }
                TaskState::Ahead { executor, .. } => {
                    ahead += 1;
                    let listed = self.executors[&executor].ahead.tasks.contains(&key);
                    assert!(listed, "TG-5: {executor} lists {id:?} ahead");
                }
                _ => continue,
            }
            assert_eq!(entry.missing, 0, "TG-4: {id:?} has everything that it depends on");
        }
        let timers = self
            .tasks
            .iter()
            .filter(|(_, entry)| entry.extra.as_ref().is_some_and(|extra| extra.due.is_some()));
        assert_eq!(timers.count(), self.timers.len(), "TM-1: each timer is a task's");
        assert_eq!(self.tasks.iter().count(), self.tasks.len(), "TG-1: as many entries as ids");
        let queued: usize = self.bundles.iter().map(|(_, bundle)| bundle.queue.len()).sum();
        assert_eq!(self.queue.len() + queued, ready, "TG-2: the queue counts the ready tasks");
        let listed: usize = self.executors.values().map(|process| process.running.len()).sum();
        assert_eq!(listed, running, "TG-3: executors list the running tasks alone");
        self.check_idle();
        self.check_ahead(ahead);
    }

    fn check_idle(&self) {
        for executor in self.idle.values().flatten() {
            let process = &self.executors[executor];
            let is_idle = process.is_up() && process.running.is_empty();
            assert!(is_idle, "EX-1: {executor} waits for a task, and has none");
        }
    }

    fn check_ahead(&self, ahead: usize) {
        let listed: usize = self.executors.values().map(|process| process.ahead.tasks.len()).sum();
        assert_eq!(listed, ahead, "TG-5: executors list the tasks that are ahead alone");
        for (executor, process) in &self.executors {
            let open = |key: &&TaskKey| {
                self.tasks[**key].takes_turns()
                    && matches!(self.tasks[**key].state, TaskState::Running { blocked: false, .. })
            };
            let lanes = process.running.iter().filter(open).count();
            assert_eq!(process.ahead.lanes as usize, lanes, "TG-6: {executor} counts its lanes");
            let waits = !process.ahead.tasks.is_empty();
            assert!(!waits || lanes > 0, "TG-6: what is ahead in {executor} has its turn");
        }
    }

    fn check_ledger(&self) {
        let mut sum = self.ledger.available.clone();
        self.bundles.iter().for_each(|(_, bundle)| sum.add(&bundle.ledger.total));
        sum.add(&self.charged_to(Slot::NONE));
        sum.add(&self.leases.held());
        assert_eq!(sum, self.ledger.total, "RL-1: free and held make the total");
        let mut used = Resources::NONE;
        self.shares.jobs().for_each(|(_, held)| used.add(held));
        used.add(&self.ledger.available);
        assert_eq!(used, self.ledger.total, "RL-1: what jobs hold is what is not free");
        self.gpus.check(self.executors.values().map(|process| &process.gpus));
    }

    /// What the tasks and actors of a bundle hold, or those that are in none.
    fn charged_to(&self, slot: Slot) -> Resources {
        let mut sum = Resources::NONE;
        for (_, entry) in self.tasks.iter().filter(|(_, entry)| entry.bundle == slot) {
            let blocked = match entry.state {
                TaskState::Starting { .. } => false,
                // The lease holds what a task holds that is promised by it.
                TaskState::Running { .. } if entry.is_promised() => continue,
                TaskState::Running { blocked, .. } if !entry.is_call() => blocked,
                _ => continue,
            };
            sum.add(&Self::held_by(&entry.spec, blocked));
        }
        for hosted in self.hosted.values().filter(|hosted| hosted.bundle == slot) {
            let blocked = hosted.blocked > 0 && frees_while_blocked(&hosted.spec);
            sum.add(&Self::held_by(&hosted.spec, blocked));
        }
        sum
    }

    fn check_groups(&self) {
        for (slot, bundle) in self.bundles.iter() {
            let name = bundle.group.bundle(bundle.number);
            let mut sum = bundle.ledger.available.clone();
            sum.add(&self.charged_to(slot));
            assert_eq!(sum, bundle.ledger.total, "PG-1: free and held in {name:?}");
            let tasks = self.tasks.iter().filter(|(_, entry)| entry.bundle == slot).count();
            let actors = self.hosted.values().filter(|hosted| hosted.bundle == slot).count();
            assert_eq!(bundle.users as usize, tasks + actors, "PG-2: users of {name:?}");
        }
        for (_, entry) in self.tasks.iter() {
            let is_there = !entry.bundle.is_some() || self.bundles.get(entry.bundle).is_some();
            assert!(is_there, "PG-2: {:?} is in a bundle that is gone", entry.spec.id);
        }
        for ((group, owner), entry) in &self.groups {
            let Some(led) = &entry.led else { continue };
            for (number, bundle) in (0..).zip(&entry.bundles) {
                assert!(
                    bundle.place.is_some() || !led.pending.is_empty(),
                    "PG-3: bundle {number} of {group} has no place"
                );
                if let Some((worker, round)) = bundle.place
                    && worker == self.me
                {
                    let slot = self.bundles.find((*group, *owner), number);
                    let held = slot.and_then(|slot| self.bundles.get(slot)).map(|b| b.round);
                    assert_eq!(held, Some(round), "PG-3: bundle {number} of {group} is here");
                }
            }
        }
    }

    /// Counts every holder again.
    fn check_references(&self) {
        let mut held: IdMap<ObjectId, u32> = IdMap::default();
        self.each_holder(|object, _| *held.entry(object).or_default() += 1);
        for (object, entry) in self.objects.iter() {
            let holders = held.remove(object).unwrap_or(0);
            assert_eq!(entry.holders, holders, "RF-1: {object:?} counts its holders");
        }
        assert!(held.is_empty(), "RF-1: what is held has an entry: {held:?}");
    }

    fn check_objects(&self) {
        for (object, readings) in &self.readings {
            let entry = self.objects.get(object).expect("BC-1: what is read is known");
            let is_there = matches!(entry.value, Value::Arena { .. });
            assert!(entry.is_owned() && is_there && !readings.is_empty(), "BC-1: {object:?}");
        }
        for (object, entry) in self.objects.iter() {
            if entry.is_owned() {
                assert!(entry.holders > 0, "RF-2: somebody refers to {object:?}");
                assert_eq!(entry.owner, self.me, "RF-2: {object:?} is owned here");
            } else {
                let lives = !self.is_dead(entry.owner);
                let registered = entry.borrow == Borrow::Registered;
                assert_eq!(
                    registered,
                    lives && entry.holders > 0,
                    "RF-3: the owner of {object:?} knows of its holders here"
                );
                if lives {
                    let is_listed = self.peers[&entry.owner].borrowed.contains(object);
                    assert!(is_listed, "RF-3: {object:?} is listed with its owner");
                }
            }
            if let Value::Arena { copies, .. } = &entry.value {
                assert!(!copies.is_empty(), "OB-1: {object:?} has a copy");
                for copy in copies.iter().filter(|copy| entry.is_owned() && **copy != self.me) {
                    let is_listed = self.peers[copy].copies.contains(object);
                    assert!(is_listed, "OB-1: {copy} lists its copy of {object:?}");
                }
            }
        }
        for (worker, peer) in &self.peers {
            for object in &peer.copies {
                let is_there = matches!(self.objects.get(object).map(|entry| &entry.value),
                    Some(Value::Arena { copies, .. }) if copies.contains(worker));
                assert!(is_there, "OB-1: {object:?} has a copy on {worker}");
            }
        }
        self.check_lineage();
        self.replicas.check();
        self.check_lodgers();
    }

    fn check_lineage(&self) {
        let mut uses: IdMap<TaskId, usize> = IdMap::default();
        for (object, _) in self.objects.iter().filter(|(_, entry)| entry.recorded) {
            *uses.entry(object.task).or_default() += 1;
        }
        for (_, task) in self.makers.iter() {
            *uses.entry(*task).or_default() += 1;
        }
        self.check_makers();
        for (task, number) in self.lineage.iter().flat_map(|record| &record.needs) {
            if self.lineage.get(*task).is_some_and(|record| record.number == *number) {
                *uses.entry(*task).or_default() += 1;
            }
        }
        for record in self.lineage.iter() {
            let task = record.spec.id;
            let counted = uses.get(&task).copied().unwrap_or(0);
            assert_eq!(
                record.uses as usize, counted,
                "LN-1: the record of {task:?} counts its uses"
            );
        }
    }

    fn check_actors(&self) {
        self.check_routes();
        for (actor, hosted) in &self.hosted {
            let process = &self.executors[&hosted.executor];
            assert!(process.actors.contains(actor), "AC-1: {actor:?} is listed where it lives");
        }
        for process in self.executors.values() {
            for actor in &process.actors {
                assert!(self.hosted.contains_key(actor), "AC-1: {actor:?} lives here");
            }
        }
        self.check_calls_out();
        for (key, entry) in self.tasks.iter() {
            let (TaskKind::ActorCall { actor, rules, .. }, TaskState::Lane) =
                (&entry.spec.kind, &entry.state)
            else {
                continue;
            };
            if rules.out_of_order && entry.missing > 0 {
                continue;
            }
            let lane = &self.actors[actor].lanes[&entry.submitter];
            let places = lane.iter().filter(|c| c.key == key && c.stamp == entry.stamp).count();
            assert_eq!(places, 1, "AC-2: {:?} is in its lane", entry.spec.id);
            let in_order = lane.iter().is_sorted_by_key(|call| call.order);
            assert!(in_order || rules.out_of_order, "AC-2: a lane is in order");
        }
    }

    fn check_calls_out(&self) {
        let mut out: IdMap<ActorId, Out> = IdMap::default();
        for (_, entry) in self.tasks.iter() {
            if let (TaskKind::ActorCall { actor, .. }, &TaskState::Called { life, .. }) =
                (&entry.spec.kind, &entry.state)
            {
                let of = out.entry(*actor).or_insert(Out { life, calls: 0 });
                assert_eq!(of.life, life, "AC-4: calls of {actor:?} are with one life");
                of.calls += 1;
            }
        }
        for (actor, entry) in &self.actors {
            let counted = out.remove(actor).unwrap_or_default();
            assert_eq!(entry.out.calls, counted.calls, "AC-4: calls of {actor:?} are counted");
            let is_of = counted.calls == 0 || counted.life == entry.out.life;
            assert!(is_of, "AC-4: calls of {actor:?} are with the life that is known");
        }
    }
}
