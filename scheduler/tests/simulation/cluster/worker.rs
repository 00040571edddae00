//! Workers: what their cores want done, and what they say to each other.

use std::collections::{BTreeMap, BTreeSet};

use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, ExecutorId, GroupId, JobId, ObjectId, WorkerId};
use rdist_scheduler::local::{ExecutorRole, LocalAction, LocalConfig, LocalCore, LocalEvent};
use rdist_scheduler::message::{PeerMessage, Place, ToHead};
use rdist_scheduler::outcome::{Death, Outcome};
use rdist_scheduler::resource::{Amount, Resources};
use rdist_scheduler::spec::{Strategy, TaskKind, TaskSpec};
use rdist_scheduler::time::Timestamp;

use super::disk::Disk;
use super::lease::Links;
use super::{Event, MILLISECOND, Simulation, Worker, labels_of};
use crate::checker::{Pool, Usage};
use crate::executor::end::number;
use crate::executor::{Command, Handle, Process, Rings, Stored};
use crate::network::Address;

impl Worker {
    /// A value that comes; what the core reads already stays, as in the runtime.
    pub fn keep(&mut self, object: ObjectId, value: Stored) {
        if !self.core.reads(object) {
            self.table.insert(object, value);
            self.disk.forget(object);
        }
    }

    /// The bundles of a group here, each with its round.
    fn bundles_of(&self, pool: Pool) -> BTreeSet<(u32, u32)> {
        let bundles = self.core.bundles();
        let of_pool = bundles.filter(|bundle| pool == Some((bundle.group, bundle.owner)));
        of_pool.map(|bundle| (bundle.bundle, bundle.round)).collect()
    }

    /// What the tasks of a group may hold here together, or those that are in none.
    pub(super) fn room_of(&self, pool: Pool) -> Resources {
        let mut inside = Resources::NONE;
        let mut outside = self.usage.total.clone();
        for bundle in self.core.bundles() {
            outside.subtract(&bundle.total);
            if pool == Some((bundle.group, bundle.owner)) {
                inside.add(&bundle.total);
            }
        }
        if pool.is_some() { inside } else { outside }
    }
}

impl Simulation {
    /// Something runs in a group: each bundle that has a place is reserved there, and where nobody
    /// dies or leaves, every bundle has one.
    pub(super) fn check_whole(&self, group: GroupId, owner: WorkerId) {
        let job = group.0.job();
        if self.stopped.contains(&job) || self.ended.contains_key(&job) {
            return; // which each worker hears in its time
        }
        let Some(leader) = self.workers.get(&owner) else { return };
        let Some(view) = leader.core.groups().find(|view| view.group == group) else { return };
        let faults = self.options.faults;
        assert!(
            view.reserved || faults.workers || faults.drains,
            "something runs in {group}, which is not reserved: {view:?}"
        );
        for (number, (holds, place)) in (0..).zip(&view.bundles) {
            let Some(worker) = place.and_then(|worker| self.workers.get(&worker)) else { continue };
            let mut there = worker.core.bundles();
            let found = there.find(|b| (b.group, b.owner, b.bundle) == (group, owner, number));
            assert_eq!(found.map(|b| b.total).as_ref(), Some(holds), "bundle {number} of {group}");
        }
    }

    /// A job holds no more than its quota.
    fn check_quota(&self, job: JobId) {
        let quota = Amount::whole(self.mix_of(job).quota);
        if quota.is_zero() || self.stopped.contains(&job) || self.ended.contains_key(&job) {
            return;
        }
        let mut held = Amount::ZERO;
        for worker in self.workers.values() {
            held += worker.usage.of_job(job);
            let bundles = worker.core.bundles().filter(|bundle| bundle.group.0.job() == job);
            held += bundles.map(|bundle| bundle.total.cpu).sum();
        }
        assert!(held <= quota, "{job} holds {held} CPU of a quota of {quota}");
    }

    pub(super) fn join(&mut self) {
        self.next_worker += 1;
        let worker = WorkerId(self.next_worker);
        let mut total = Resources::cpus([4.0, 4.0, 8.0][self.rng.below(3) as usize]);
        total.memory = Amount::whole(16 << 20);
        let labels = labels_of(worker);
        let config = LocalConfig { labels, ..LocalConfig::new(worker, total.clone()) };
        let core = LocalCore::new(config);
        let new = Worker {
            id: worker,
            core,
            table: FastMap::default(),
            processes: BTreeMap::new(),
            rings: Rings::default(),
            links: Links::default(),
            disk: Disk::default(),
            usage: Usage::new(total),
            timer: None,
            closed: FastSet::default(),
            ended: FastSet::default(),
            session: None,
            stalled_until: 0,
            said: 0,
            drained: false,
            leaves: false,
        };
        self.workers.insert(worker, new);
        self.living = self.workers.keys().collect();
        self.agenda.at((self.now + self.rng.below(MILLISECOND)) & !1, Event::Hello(worker));
    }

    /// Tells a worker's core, and does what it wants done.
    pub(super) fn tell(&mut self, worker: WorkerId, event: LocalEvent) {
        self.trace(|| format!("{worker} <- {event:?}"));
        let Some(at) = self.workers.get_mut(&worker) else { return };
        at.core.handle(Timestamp(self.now), event);
        self.do_actions(worker);
    }

    pub(super) fn do_actions(&mut self, worker: WorkerId) {
        let check = self.events.is_multiple_of(self.options.check_every);
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if check {
            at.core.check_invariants();
        }
        while let Some(action) = self.workers.get_mut(&worker).and_then(|w| w.core.poll_action()) {
            if self.trace {
                println!("{:>12} {worker} -> {action:?}", "");
            }
            self.act(worker, action);
        }
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if let Some(due) = at.core.poll_timeout()
            && at.timer.is_none_or(|timer| timer > due.0)
        {
            at.timer = Some(due.0);
            self.agenda.at(due.0.max(self.now), Event::WorkerTimer(worker));
        }
    }

    pub(super) fn worker_timer(&mut self, worker: WorkerId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if at.timer.is_none_or(|timer| timer > self.now) {
            return; // set anew since, for an earlier time, which has been
        }
        at.timer = None;
        if at.core.poll_timeout().is_some_and(|due| due.0 <= self.now) {
            at.core.handle_timeout(Timestamp(self.now));
        }
        self.do_actions(worker);
    }

    pub(super) fn act(&mut self, worker: WorkerId, action: LocalAction) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        match action {
            LocalAction::StartExecutor { executor, job, role, .. } => {
                self.start_process(worker, executor, job, role);
            }
            LocalAction::StopExecutor { executor, force } => {
                // One that will not end takes along what runs beside it.
                self.harm.executors_died |= force && self.options.faults.executors;
                at.usage.end_executor(executor);
                if let Some(process) = at.processes.get_mut(&executor) {
                    process.leaving = true;
                }
                self.order(worker, executor, Command::Stop);
            }
            LocalAction::Run { executor, spec, attempt } => {
                self.check_start(worker, executor, &spec, attempt);
                self.run_or_wait(worker, executor, spec, attempt);
            }
            LocalAction::RunAhead { executor, spec, attempt, after } => {
                assert!(at.processes.get(&executor).is_none_or(|p| p.up), "runs before it is up");
                at.usage.queue(executor, &spec);
                self.order(worker, executor, Command::RunAhead(spec, attempt, after));
            }
            LocalAction::Recall { executor } => self.order(worker, executor, Command::Recall),
            LocalAction::Deliver { executor, object, error } => {
                self.deliver(worker, executor, object, error);
            }
            LocalAction::Restore { executor, actor, state } => {
                self.order(worker, executor, Command::Restore(actor, state));
            }
            LocalAction::Keep { object, value } => {
                let stored = Stored { value: number(&value), inline: true, contains: Vec::new() };
                at.table.entry(object).or_insert(stored);
            }
            LocalAction::Cancel { executor, task } => {
                self.cancel_delayed(worker, executor, task);
            }
            LocalAction::Credit { executor, task, consumed } => {
                self.order(worker, executor, Command::Credit(task, consumed));
            }
            LocalAction::DropActor { executor, actor } => {
                at.usage.end((executor, actor.0));
                self.order(worker, executor, Command::DropActor(actor));
            }
            LocalAction::ActorFound { executor, request, actor } => {
                self.order(worker, executor, Command::Found(request, actor));
            }
            LocalAction::Offers { .. } => {}
            LocalAction::Route { caller, actor, executor } => {
                self.route(worker, caller, actor, executor);
            }
            LocalAction::RouteEnded { caller, actor, death } => {
                self.order(worker, caller, Command::RouteEnded(actor, death));
            }
            LocalAction::Lease { caller, granted } => self.lease(worker, caller, granted),
            LocalAction::EndLease { executor, caller, number, how } => {
                self.order(worker, executor, Command::EndLease(caller, number, how));
            }
            LocalAction::Pull { object, size, from } => {
                let when = self.now + self.rng.below(3 * MILLISECOND);
                self.agenda.at(when & !1, Event::Pulled { worker, object, size, from });
            }
            LocalAction::PutNothing { object } => {
                let nothing = Stored { value: 0, inline: true, contains: Vec::new() };
                at.table.insert(object, nothing);
            }
            LocalAction::Free { object } => self.freed(worker, object),
            LocalAction::Send { to, message } => self.send_peer(worker, to, message),
            LocalAction::SendHead(message) => {
                if let ToHead::Blocked { task, attempt, blocked: true } = &message {
                    at.usage.said_blocked(*task, *attempt);
                }
                if let Some(session) = at.session {
                    at.said += 1;
                    let message = (at.said, message);
                    let link = (Address::Worker(worker), Address::Head);
                    self.send(link, Event::ToHead(worker, session, message));
                }
            }
        }
    }

    fn start_process(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        job: JobId,
        role: ExecutorRole,
    ) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        at.processes.insert(executor, Process::new(job, role));
        let up = self.now + MILLISECOND + self.rng.below(20 * MILLISECOND);
        self.agenda.at(up & !1, Event::ProcessUp(worker, executor));
        // Some programs say beforehand that they submit tasks.
        if role == ExecutorRole::Driver && job.0 % 2 == 1 {
            self.tell(worker, LocalEvent::PoolExpected { job });
        }
    }

    /// A task starts: what it needs is there, and it fits.
    fn check_start(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        spec: &TaskSpec,
        attempt: u32,
    ) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        assert!(at.processes.get(&executor).is_none_or(|p| p.up), "runs before it is up");
        for dependency in &spec.dependencies {
            let object = dependency.object;
            let there = at.table.contains_key(&object) || at.disk.was_damaged(object);
            assert!(there, "{:?} runs on {worker} without {dependency:?}", spec.id);
        }
        if matches!(spec.kind, TaskKind::ActorCall { .. }) {
            return;
        }
        if let Strategy::Labels(selector) = &spec.strategy {
            let labels = labels_of(worker);
            assert!(selector.admits(&labels), "{:?} may not run on {worker}", spec.id);
        }
        let actor = matches!(spec.kind, TaskKind::ActorCreate(_));
        self.check_name(ActorId(spec.id));
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let pool = spec.strategy.in_group().map(|place| (place.group, place.owner));
        let bundles = at.bundles_of(pool);
        at.usage.pays_from(pool, bundles);
        let most = at.room_of(pool);
        at.usage.start((&most, pool), (executor, spec.id), spec, actor);
        at.usage.started((executor, spec.id), attempt);
        if let Some((group, owner)) = pool {
            self.check_whole(group, owner);
        }
        self.check_quota(spec.id.job());
    }

    pub(super) fn freed(&mut self, worker: WorkerId, object: ObjectId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        at.table.remove(&object);
        at.disk.forget(object);
        if at.ended.contains(&object.task.job()) {
            return;
        }
        for (executor, process) in at.processes.iter().filter(|(_, process)| !process.leaving) {
            let viewed = process.views.contains(&object);
            assert!(!viewed, "{object:?} is freed while {executor} of {worker} reads it");
            for run in process.runs.values() {
                let used = run.spec.dependencies.iter().any(|d| d.object == object);
                assert!(!used, "{object:?} is freed under {:?} on {worker}", run.spec.id);
            }
        }
    }

    pub(super) fn order(&mut self, worker: WorkerId, executor: ExecutorId, command: Command) {
        let link = (Address::Worker(worker), Address::Executor(worker, executor));
        let at = (self.now + 1_000 + self.rng.below(10_000)) & !1;
        self.agenda.send(link, at, Event::ToExecutor { worker, executor, command });
    }

    pub(super) fn executor_says(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        message: LocalEvent,
        values: Vec<(ObjectId, Stored)>,
    ) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        values.into_iter().for_each(|(object, value)| at.keep(object, value));
        if matches!(message, LocalEvent::LeaseOver { .. }) {
            return self.lease_over(worker, message);
        }
        if self.notes_of_leases(worker, executor, &message) {
            return self.tell(worker, message);
        }
        if let LocalEvent::Made { caller, object, .. } = message {
            self.tell(worker, message);
            return self.order(worker, caller, Command::Made(object));
        }
        let in_call = self.waits_in_call(&message);
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let mut death = None;
        if let Some((actor, waits)) = in_call {
            // Nothing else runs in it, so that it needs no CPU.
            at.usage.block((executor, actor.0), waits);
        }
        match &message {
            LocalEvent::Finished { task, outcome, .. } => {
                at.disk.ended(executor, *task);
                let returned = matches!(outcome, Outcome::Returned(_));
                let lives = returned && at.usage.is_actor((executor, *task));
                if !lives {
                    at.usage.end((executor, *task));
                }
            }
            // Found by its name only once it has been submitted.
            LocalEvent::Submitted { spec, .. }
                if matches!(spec.kind, TaskKind::ActorCreate(_))
                    && !matches!(spec.strategy, Strategy::Group(_)) =>
            {
                let actor = ActorId(spec.id);
                self.served.push(Handle { actor, owner: worker, is_grouped: false });
            }
            LocalEvent::NotStarted { task, .. } => at.usage.end((executor, *task)),
            LocalEvent::Saved { calls, .. } => {
                calls.iter().for_each(|call| at.disk.ended(executor, call.applied.call));
            }
            LocalEvent::Released { by, object } => at.disk.released(*by, *object),
            LocalEvent::Recalled { .. } => at.usage.recalled(executor),
            LocalEvent::Blocked { task, .. } => at.usage.block((executor, *task), true),
            LocalEvent::Unblocked { task, .. } => at.usage.block((executor, *task), false),
            LocalEvent::ExecutorDied { death: how, .. } => {
                death = Some(how.clone());
                at.usage.end_executor(executor);
            }
            _ => {}
        }
        self.tell(worker, message);
        if let Some(death) = death {
            self.end_reader(worker, executor);
            self.end_links(worker, executor, &death);
        }
    }

    /// Whether a call of an actor that runs one at a time waits, or waits no longer.
    fn waits_in_call(&self, message: &LocalEvent) -> Option<(ActorId, bool)> {
        let (task, waits) = match message {
            LocalEvent::Blocked { task, .. } => (task, true),
            LocalEvent::Unblocked { task, .. } | LocalEvent::Finished { task, .. } => (task, false),
            _ => return None,
        };
        let actor = *self.called.get(task)?;
        (self.limits_of(actor) == [1]).then_some((actor, waits))
    }

    pub(super) fn delay(&mut self) -> u64 {
        (self.now + 50_000 + self.rng.below(MILLISECOND)) & !1
    }

    pub(super) fn send_peer(&mut self, from: WorkerId, to: WorkerId, message: PeerMessage) {
        assert_ne!(to, WorkerId::HEAD, "the head is no peer: {message:?}");
        self.moves +=
            u64::from(matches!(message, PeerMessage::ActorLost { death: Death::Moved, .. }));
        let Some(at) = self.workers.get_mut(&from) else { return };
        at.said += 1;
        let number = at.said;
        let value = |object: ObjectId| match at.table.get(&object) {
            Some(stored) => (object, stored.clone()),
            None => panic!("{from} announces {object:?}, which it does not have"),
        };
        let values = match &message {
            PeerMessage::Finished { task, outcome: Outcome::Returned(all), .. } => {
                let inline = (0..).zip(all).filter(|(_, returned)| returned.inline);
                inline.map(|(index, _)| value(task.object(index))).collect()
            }
            PeerMessage::Yielded { task, index, value: item, .. } if item.inline => {
                vec![value(task.object(*index))]
            }
            PeerMessage::Located { object, place: Place::Inline } => vec![value(*object)],
            _ => Vec::new(),
        };
        let link = (Address::Worker(from), Address::Worker(to));
        self.send(link, Event::Peer { from, to, number, message, values });
    }

    pub(super) fn peer_says(
        &mut self,
        (from, to): (WorkerId, WorkerId),
        number: u64,
        message: PeerMessage,
        values: Vec<(ObjectId, Stored)>,
    ) {
        if !self.arrives(from) {
            return;
        }
        let Some(at) = self.workers.get_mut(&to) else { return };
        if at.closed.contains(&from) || !at.core.is_news(from, number) {
            return;
        }
        values.into_iter().for_each(|(object, value)| at.keep(object, value));
        self.tell(to, LocalEvent::FromPeer { from, message });
    }

    /// Whether what that worker sent comes through: a dead one's last words may not.
    pub(super) fn arrives(&self, from: WorkerId) -> bool {
        self.cuts.get(&from).is_none_or(|cut| self.now <= *cut)
    }
}
