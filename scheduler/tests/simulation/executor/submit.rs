//! What programs submit and put.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rdist_scheduler::hash::{FastHasher, FastMap};
use rdist_scheduler::id::{ActorId, GroupId, ObjectId, TaskId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::message::CancelMode;
use rdist_scheduler::resource::{Amount, Resources};
use rdist_scheduler::spec::{
    ActorOptions, Backoff, CallRules, GroupOptions, GroupStrategy, InGroup, LabelRule,
    LabelSelector, LabelTest, Policy, Reference, Strategy, TaskKind, TaskSpec,
};

use super::direct::Via;
use super::route::Goes;
use super::{At, Handle, Stored};
use crate::cluster::{Simulation, labels_of};
use crate::network::mix;
use crate::workload::{Child, ENDLESS, Mix, Placing, Trouble, function_of, put_id};

impl Simulation {
    pub(super) fn submit_task(&mut self, at: At, child: &Child) {
        let strategy = self.strategy(at, child.place);
        let Some(run) = self.running(at) else { return };
        let id = run.root().child(run.children);
        run.children += 1;
        let known: FastMap<usize, ObjectId> = (child.dependencies.iter().chain(&child.borrowed))
            .map(|slot| (*slot, run.slots[*slot].object))
            .collect();
        let of = |wanted: &[usize]| wanted.iter().map(|slot| run.slots[*slot]).collect();
        let mut request = Resources::cpus(child.cpus);
        let is_grouped = matches!(strategy, Strategy::Group(_));
        if child.seed.is_multiple_of(6) && !is_grouped {
            // It gets a process for itself. A task that waits gives back no memory, so that some
            // has to be left over by all that may wait at a time.
            let waits = child.depth > 0
                || child.items > 0
                || !child.borrowed.is_empty()
                || child.calls.is_some();
            request.memory = Amount::whole(if waits { 1 << 10 } else { 1 << 20 });
        }
        let spec = TaskSpec {
            function: function_of(child.seed),
            request,
            dependencies: of(&child.dependencies),
            borrowed: of(&child.borrowed),
            returns: child.returns.into(),
            max_retries: 1_000,
            strategy,
            priority: child.priority,
            policy: child.trouble.has_policy().then(|| Box::new(self.policy(child.trouble))),
            ..self.spec(id, at, TaskKind::Plain, child.body())
        };
        if let Some((actor, _)) = child.calls {
            let handle = self.running(at).map(|run| run.actors[actor]);
            self.handles.extend(handle.map(|handle| (id, handle)));
        }
        if self.mix_of(id.job()).cancels {
            self.parents.insert(id, spec.parent);
        }
        if child.trouble.hangs == ENDLESS {
            self.endless.insert(id);
        }
        self.oracle.submit(id, child, |slot| known[&slot]);
        self.submitted += 1;
        self.submit_plain(at, spec);
    }

    pub(super) fn policy(&self, trouble: Trouble) -> Policy {
        let (first, most) = (Duration::from_millis(5), Duration::from_millis(100));
        Policy {
            timeout: (trouble.hangs > 0 && trouble.hangs < ENDLESS)
                .then_some(Duration::from_millis(50)),
            timeout_retries: 1_000,
            error_retries: 1_000,
            backoff: Backoff { first, most },
            ..Policy::DEFAULT
        }
    }

    pub(super) fn strategy(&self, at: At, place: Placing) -> Strategy {
        let (n, soft) = match place {
            Placing::Default => return Strategy::Default,
            Placing::Spread => return Strategy::Spread,
            Placing::Near(n) => (n, true),
            Placing::Only(n) => (n, false),
            Placing::Labelled(n) => return self.labelled(n),
            Placing::Group(n, bundle) => {
                let run = &self.workers[&at.worker].processes[&at.executor].runs[&at.run];
                let place = InGroup { group: run.groups[n], owner: at.worker, bundle };
                return Strategy::Group(Box::new(place));
            }
        };
        let members = self.members();
        Strategy::Affinity { worker: members[(n % members.len() as u64) as usize], soft }
    }

    /// Only where a label is, unless the last worker that has it may go; else rather there.
    fn labelled(&self, n: u64) -> Strategy {
        let members = self.members();
        let worker = members[(n % members.len() as u64) as usize];
        let rules = labels_of(worker).into_iter().map(|(key, value)| {
            let test = LabelTest::In(vec![value]);
            LabelRule { key, test }
        });
        let rules: Vec<LabelRule> = rules.collect();
        let any = LabelRule { key: rules[0].key.clone(), test: LabelTest::Exists };
        let faults = self.options.faults;
        let selector = match faults.workers || faults.drains {
            true => LabelSelector { hard: vec![any], soft: rules },
            false => LabelSelector { hard: rules, soft: Vec::new() },
        };
        Strategy::Labels(Box::new(selector))
    }

    pub(super) fn reserve(&mut self, at: At, bundles: &[f64], strategy: GroupStrategy) {
        let Some(run) = self.running(at) else { return };
        let id = run.root().child(run.children);
        run.children += 1;
        run.groups.push(GroupId(id));
        let bundles = bundles.iter().map(|cpus| Resources::cpus(*cpus)).collect();
        let options = GroupOptions { bundles, strategy, name: None };
        let kind = TaskKind::GroupCreate(Box::new(options));
        let spec = self.spec(id, at, kind, Vec::new());
        self.submit_spec(at, spec);
    }

    pub(super) fn return_group(&mut self, at: At, group: usize) {
        let Some(run) = self.running(at) else { return };
        let (group, owner) = (run.groups[group], at.worker);
        let event = LocalEvent::GroupRemoveRequested { group, owner };
        self.say(at.worker, at.executor, event, Vec::new());
    }

    pub(super) fn spawn(
        &mut self,
        at: At,
        own_process: bool,
        cpus: f64,
        (named, place): (bool, Placing),
    ) {
        let strategy = self.strategy(at, place);
        let Some(run) = self.running(at) else { return };
        let id = run.root().child(run.children);
        run.children += 1;
        let is_grouped = matches!(place, Placing::Group(..));
        run.actors.push(Handle { actor: ActorId(id), owner: at.worker, is_grouped });
        let name = named.then(|| format!("{id}"));
        let kind = TaskKind::ActorCreate(Box::new(ActorOptions {
            max_restarts: 1_000,
            own_process,
            checkpoint: saves_state(ActorId(id)),
            max_concurrency: self.limits_of(ActorId(id))[0] as u32,
            name,
        }));
        let body = mix(1, id.job().0.into()).to_le_bytes().to_vec();
        let request = Resources::cpus(cpus);
        let made = self.spec(id, at, kind, body);
        let spec = TaskSpec { request, strategy, returns: 0, ..made };
        self.submit_spec(at, spec);
    }

    /// Calls an actor, by the way that there is; false: not yet.
    pub(super) fn call(
        &mut self,
        at: At,
        actor: usize,
        dependencies: &[usize],
        borrowed: &[usize],
    ) -> bool {
        let Some(run) = self.running(at) else { return false };
        let (id, handle) = (run.root().child(run.children), run.actors[actor]);
        let of = |slots: &[usize]| slots.iter().map(|slot| run.slots[*slot]).collect();
        let arguments = Arguments { dependencies: of(dependencies), borrowed: of(borrowed) };
        // Who has a group waits for nobody, and what another job's actor returns is not passed on.
        let Mix { routes, waits, .. } = self.mix_of(id.job());
        let is_mine = handle.is_grouped || (routes || waits) && arguments.are_none();
        let is_mine =
            is_mine || arguments.all().any(|of| self.called.contains_key(&of.object.task));
        let handle = if is_mine { handle } else { self.callee(id, handle) };
        self.call_by(at, handle, arguments, Asks::Answer)
    }

    pub(super) fn call_by(
        &mut self,
        at: At,
        Handle { actor, owner, .. }: Handle,
        arguments: Arguments,
        asks: Asks,
    ) -> bool {
        let Some(run) = self.running(at) else { return false };
        let id = run.root().child(run.children);
        let is_end = asks == Asks::End;
        let rules = CallRules {
            out_of_order: is_unordered(actor) && !is_end,
            exactly_once: saves_state(actor) && !is_end,
        };
        let fits = arguments.are_none() && asks == Asks::Answer;
        let goes = self.way(at, (actor, rules), id.object(0), fits);
        if matches!(goes, Goes::NotYet) {
            return false;
        }
        let mut body = self.call_body(at, actor, id);
        if let Some([flag, is_small]) = body.get_mut(8..10) {
            *flag = asks as u8;
            *is_small |= u8::from(asks != Asks::Answer);
        }
        if let Some(run) = self.running(at) {
            run.children += 1;
        }
        let kind = TaskKind::ActorCall { actor, actor_owner: owner, rules };
        // Some are tried again, and may so count twice.
        let is_tried = mix(7, hash_of(ActorId(id))).is_multiple_of(4);
        let max_retries = match rules.exactly_once {
            true => u32::MAX,
            false if is_end => 0,
            false if asks == Asks::Nothing => u32::MAX,
            false if is_tried && self.mix_of(id.job()).routes => 1_000,
            false => 0,
        };
        self.called.insert(id, actor);
        if let Some(process) = self.process(at.worker, at.executor) {
            let number = process.call_numbers[&actor];
            self.numbers.insert(id, (at.worker, at.executor, number));
        }
        if rules.exactly_once {
            self.calls.submitted((id, at.run), (actor, owner));
        }
        self.note_wait(at, actor, id, &arguments);
        let Arguments { dependencies, borrowed } = arguments;
        let call = self.spec(id, at, kind, body);
        let spec = TaskSpec { dependencies, borrowed, max_retries, ..call };
        match goes {
            Goes::Directly(host) => self.give(at, host, Via::Route(actor), spec),
            Goes::ByWorker | Goes::NotYet => {
                self.forget_own(at, id.object(0));
                self.submit_spec(at, spec);
            }
        }
        true
    }

    /// The task ends that makes a value, or has made it.
    pub(super) fn cancel_value(&mut self, at: At, slot: usize, mode: CancelMode) {
        let Some(run) = self.running(at) else { return };
        let Reference { object, owner } = run.slots[slot];
        self.pass_on(at, object);
        self.cancelled.insert(object.task);
        let event = LocalEvent::CancelRequested { task: object.task, owner, mode };
        self.say(at.worker, at.executor, event, Vec::new());
    }

    pub(super) fn kill_actor(&mut self, at: At, actor: usize) {
        let Some(run) = self.running(at) else { return };
        let Handle { actor, owner, .. } = run.actors[actor];
        self.wants_end(actor);
        let event = LocalEvent::ActorKillRequested { actor, owner };
        self.say(at.worker, at.executor, event, Vec::new());
    }

    /// Somebody wants an actor to end at once.
    pub(super) fn wants_end(&mut self, actor: ActorId) {
        self.killed.insert(actor);
        self.terminated.remove(&actor);
    }

    /// Says where a call comes in the order of its caller's, and who that is.
    fn call_body(&mut self, at: At, actor: ActorId, call: TaskId) -> Vec<u8> {
        let may_be_large = self.mix_of(call.job()).routes && !saves_state(actor);
        let is_small = !may_be_large || !mix(8, hash_of(ActorId(call))).is_multiple_of(3);
        let Some(process) = self.process(at.worker, at.executor) else { return Vec::new() };
        let number = process.call_numbers.entry(actor).or_default();
        *number += 1;
        let mut body = mix(2, *number).to_le_bytes().to_vec();
        body.extend([0, u8::from(is_small)]);
        for word in [*number, at.worker.0, u64::from(at.executor.0), at.run] {
            body.extend(word.to_le_bytes());
        }
        body
    }

    /// Now and then a call is of another job's actor, as if that was found by its name.
    fn callee(&mut self, call: TaskId, own: Handle) -> Handle {
        if self.options.jobs.len() < 2 || !mix(5, hash_of(ActorId(call))).is_multiple_of(6) {
            return own;
        }
        let others = self.served.iter().filter(|other| other.actor.0.job() != call.job());
        let others: Vec<_> = others.copied().collect();
        if others.is_empty() {
            return own;
        }
        let other = others[(mix(6, hash_of(ActorId(call))) % others.len() as u64) as usize];
        self.foreign.insert(call, other.actor.0.job());
        other
    }

    pub(super) fn spec(&mut self, id: TaskId, at: At, kind: TaskKind, body: Vec<u8>) -> TaskSpec {
        let run = &self.workers[&at.worker].processes[&at.executor].runs[&at.run];
        let (parent, root) = (run.spec.id, run.root());
        self.tries.submitted(id, parent, root);
        TaskSpec {
            id,
            parent,
            kind,
            function: 0,
            request: Resources::NONE,
            dependencies: Vec::new(),
            borrowed: Vec::new(),
            returns: 1,
            max_retries: 1_000,
            strategy: Strategy::Default,
            priority: 0,
            policy: None,
            body,
        }
    }

    pub(super) fn submit_spec(&mut self, at: At, spec: TaskSpec) {
        for reference in spec.dependencies.iter().chain(&spec.borrowed) {
            self.pass_on(at, reference.object);
        }
        for index in 0..spec.returns {
            let reference = Reference { object: spec.id.object(index), owner: at.worker };
            self.hold(at, reference, false);
            if let Some(run) = self.running(at) {
                run.slots.push(reference);
            }
        }
        let event = LocalEvent::Submitted { by: at.executor, spec: Arc::new(spec) };
        self.say(at.worker, at.executor, event, Vec::new());
    }

    pub(super) fn put(&mut self, at: At, seed: u64, inline: bool, contains: &[usize]) {
        let Some(run) = self.running(at) else { return };
        let object = put_id(run.root(), run.puts, seed, inline);
        run.puts += 1;
        let contains: Vec<Reference> = contains.iter().map(|slot| run.slots[*slot]).collect();
        let reference = Reference { object, owner: at.worker };
        run.slots.push(reference);
        contains.iter().for_each(|inner| self.pass_on(at, inner.object));
        self.oracle.put(object, seed, contains.iter().map(|inner| inner.object).collect());
        self.hold(at, reference, false);
        let value = Stored { value: mix(seed, 1), inline, contains: contains.clone() };
        let size = if inline { 100 } else { 1 << 20 };
        let copies = if object.is_replicated() { 2 + (seed >> 9 & 1) as u32 } else { 1 };
        let event = LocalEvent::Put { by: at.executor, object, size, inline, copies, contains };
        self.say(at.worker, at.executor, event, vec![(object, value)]);
    }
}

/// What a call gets.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) dependencies: Vec<Reference>,
    /// It waits for them while it runs.
    pub(super) borrowed: Vec<Reference>,
}

impl Arguments {
    fn are_none(&self) -> bool {
        self.all().next().is_none()
    }

    fn all(&self) -> impl Iterator<Item = &Reference> {
        self.dependencies.iter().chain(&self.borrowed)
    }
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Answer,
    /// It is never answered.
    Nothing,
    /// The actor ends when it has answered.
    End,
}

/// Whether an actor allows calls out of order; follows from its id, as for a type in a program.
pub(super) fn is_unordered(actor: ActorId) -> bool {
    mix(3, hash_of(actor)).is_multiple_of(4)
}

/// Whether an actor saves its state, so that its calls count once.
pub(super) fn saves_state(actor: ActorId) -> bool {
    mix(4, hash_of(actor)).is_multiple_of(2)
}

pub(super) fn hash_of(actor: ActorId) -> u64 {
    let mut hasher = FastHasher::default();
    actor.hash(&mut hasher);
    hasher.finish()
}
