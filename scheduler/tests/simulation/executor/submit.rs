//! What programs submit and put.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rdist_scheduler::hash::{FastHasher, FastMap};
use rdist_scheduler::id::{ActorId, GroupId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::resource::{Amount, Resources};
use rdist_scheduler::spec::{
    ActorOptions, Backoff, CallRules, GroupOptions, GroupStrategy, Policy, Reference, Strategy,
    TaskKind, TaskSpec,
};

use super::{At, Stored};
use crate::cluster::Simulation;
use crate::network::mix;
use crate::workload::{Child, Placing, Trouble, function_of, put_id};

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
        let is_grouped = matches!(strategy, Strategy::Group { .. });
        if child.seed.is_multiple_of(6) && !is_grouped {
            // It gets a process for itself. A task that waits gives back no memory, so that some
            // has to be left over by all that may wait at a time.
            let waits = child.depth > 0 || child.items > 0 || !child.borrowed.is_empty();
            request.memory = Amount::whole(if waits { 1 << 10 } else { 1 << 20 });
        }
        let spec = TaskSpec {
            function: function_of(child.seed),
            request,
            dependencies: of(&child.dependencies),
            borrowed: of(&child.borrowed),
            returns: 1,
            max_retries: 1_000,
            strategy,
            priority: child.priority,
            policy: (child.trouble != Trouble::default())
                .then(|| Box::new(self.policy(child.trouble))),
            ..self.spec(id, at, TaskKind::Plain, child.body())
        };
        self.oracle.submit(id, child, |slot| known[&slot]);
        self.submitted += 1;
        self.submit_plain(at, spec);
    }

    pub(super) fn policy(&self, trouble: Trouble) -> Policy {
        let (first, most) = (Duration::from_millis(5), Duration::from_millis(100));
        Policy {
            timeout: (trouble.hangs > 0).then_some(Duration::from_millis(50)),
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
            Placing::Group(n, bundle) => {
                let run = &self.workers[&at.worker].processes[&at.executor].runs[&at.run];
                return Strategy::Group { group: run.groups[n], owner: at.worker, bundle };
            }
        };
        let members = self.members();
        Strategy::Affinity { worker: members[(n % members.len() as u64) as usize], soft }
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
        run.actors.push((ActorId(id), matches!(place, Placing::Group(..))));
        let name = named.then(|| format!("{id}"));
        let kind = TaskKind::ActorCreate(ActorOptions {
            max_restarts: 1_000,
            own_process,
            checkpoint: saves_state(ActorId(id)),
            max_concurrency: 1,
            name,
        });
        let body = mix(1, id.job().0.into()).to_le_bytes().to_vec();
        let request = Resources::cpus(cpus);
        let made = self.spec(id, at, kind, body);
        let spec = TaskSpec { request, strategy, returns: 0, ..made };
        self.submit_spec(at, spec);
    }

    pub(super) fn call(&mut self, at: At, actor: usize, dependencies: &[usize]) {
        let Some(run) = self.running(at) else { return };
        let id = run.root().child(run.children);
        run.children += 1;
        let (actor, is_grouped) = run.actors[actor];
        let dependencies = dependencies.iter().map(|slot| run.slots[*slot]).collect();
        // Who has a group waits for nobody.
        let (actor, owner) =
            if is_grouped { (actor, at.worker) } else { self.callee(id, actor, at.worker) };
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let number = process.call_numbers.entry(actor).or_default();
        *number += 1;
        let mut body = mix(2, *number).to_le_bytes().to_vec();
        body.extend([0, 1]);
        for word in [*number, at.worker.0, u64::from(at.executor.0)] {
            body.extend(word.to_le_bytes());
        }
        let exactly_once = saves_state(actor);
        let rules = CallRules { out_of_order: is_unordered(actor), exactly_once };
        let kind = TaskKind::ActorCall { actor, actor_owner: owner, rules };
        let max_retries = if exactly_once { u32::MAX } else { 0 };
        if exactly_once {
            self.calls.submitted(id, (actor, owner));
        }
        let spec = TaskSpec { dependencies, max_retries, ..self.spec(id, at, kind, body) };
        self.submit_spec(at, spec);
    }

    /// Now and then a call is of another job's actor, as if that was found by its name.
    fn callee(&mut self, call: TaskId, own: ActorId, worker: WorkerId) -> (ActorId, WorkerId) {
        let mine = (own, worker);
        if self.options.jobs.len() < 2 || !mix(5, hash_of(ActorId(call))).is_multiple_of(6) {
            return mine;
        }
        let others = self.served.iter().filter(|(actor, _)| actor.0.job() != call.job());
        let others: Vec<_> = others.copied().collect();
        if others.is_empty() {
            return mine;
        }
        let other = others[(mix(6, hash_of(ActorId(call))) % others.len() as u64) as usize];
        self.foreign.insert(call, other.0.0.job());
        other
    }

    pub(super) fn spec(&self, id: TaskId, at: At, kind: TaskKind, body: Vec<u8>) -> TaskSpec {
        let parent = self.workers[&at.worker].processes[&at.executor].runs[&at.run].spec.id;
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
        if spec.returns > 0 {
            let reference = Reference { object: spec.id.object(0), owner: at.worker };
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
        let value = Stored { value: mix(seed, 1), contains: contains.clone() };
        let size = if inline { 100 } else { 1 << 20 };
        let copies = if object.is_replicated() { 2 + (seed >> 9 & 1) as u32 } else { 1 };
        let event = LocalEvent::Put { by: at.executor, object, size, inline, copies, contains };
        self.say(at.worker, at.executor, event, vec![(object, value)]);
    }
}

/// Whether an actor allows calls out of order; follows from its id, as for a type in a program.
pub(super) fn is_unordered(actor: ActorId) -> bool {
    mix(3, hash_of(actor)).is_multiple_of(4)
}

/// Whether an actor saves its state, so that its calls count once.
pub(super) fn saves_state(actor: ActorId) -> bool {
    mix(4, hash_of(actor)).is_multiple_of(2)
}

fn hash_of(actor: ActorId) -> u64 {
    let mut hasher = FastHasher::default();
    actor.hash(&mut hasher);
    hasher.finish()
}
