//! Why a task, an actor or an object is where it is, in a few lines for people.

use std::collections::BTreeMap;

use super::LocalCore;
use crate::actor::{ActorEntry, ActorState, Hosted};
use crate::group::{GroupEntry, Pending};
use crate::id::{ActorId, GroupId, JobId, ObjectId, TaskId, WorkerId};
use crate::object::Value;
use crate::resource::Resources;
use crate::spec::TaskKind;
use crate::task::{SpillReason, TaskEntry, TaskKey, TaskState};

/// Holders of an object that an explanation names.
const HOLDERS_SHOWN: usize = 10;

impl LocalCore {
    /// A task that this worker owns or hosts, or an actor that it supervises or hosts: where it is
    /// or what it waits for, then a line for each of its tries that is remembered, also after its
    /// end. `None` for others.
    pub fn explain(&self, id: TaskId) -> Option<String> {
        let (now, noun) = match self.tasks.by_id(id) {
            Some(entry) => {
                let more = match entry.attempt {
                    0 => String::new(),
                    attempt => format!(", in its try {}", attempt + 1),
                };
                (Some(format!("{}{more}", self.explain_task(entry))), "try")
            }
            None => match self.explain_actor(ActorId(id)) {
                Some(now) => (Some(now), "life"),
                None => (self.explain_group(GroupId(id)), "try"),
            },
        };
        let lines: Vec<String> =
            now.into_iter().chain(self.history.of(id, noun, self.now)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// An object that this worker owns or refers to: where its value is or what it waits for, and
    /// who keeps it. `None` for others.
    pub fn explain_object(&self, object: ObjectId) -> Option<String> {
        let entry = self.objects.get(&object)?;
        let mut lines = vec![match &entry.value {
            Value::Inline => "its value is here, inside messages".to_owned(),
            Value::Arena { size, copies } => {
                let copies: Vec<String> = copies.iter().map(ToString::to_string).collect();
                format!("its value has {size} bytes; copies are on {}", copies.join(", "))
            }
            Value::Failed(error) => format!("it will never have a value: {error}"),
            Value::Absent if !entry.is_owned() => {
                format!("{} has to make or to find its value", entry.owner)
            }
            Value::Absent => match self.tasks.find(object.task, self.me) {
                Some(key) => format!("its task {}", self.explain_task(&self.tasks[key])),
                None => "it has no value yet".to_owned(),
            },
        }];
        if let Some(from) = &entry.pull {
            lines.push(format!("a copy is being fetched from {from}"));
        }
        if entry.is_owned() && entry.recorded {
            lines.push("it can be made again by running its task again".to_owned());
        }
        let held_by = self.holders().remove(&object).unwrap_or_default();
        let shown: Vec<String> =
            held_by.iter().take(HOLDERS_SHOWN).map(ToString::to_string).collect();
        lines.push(match held_by.len().saturating_sub(shown.len()) {
            _ if held_by.is_empty() => "nobody here refers to it".to_owned(),
            0 => format!("it is kept for {}", shown.join(", ")),
            more => format!("it is kept for {} and {more} more", shown.join(", ")),
        });
        Some(lines.join("\n"))
    }

    /// What this worker has of a job, by state; `None`: nothing.
    pub fn explain_job(&self, job: JobId) -> Option<String> {
        let mut states: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut waits = None;
        for view in self.tasks().filter(|view| view.task.job() == job) {
            *states.entry(view.state).or_default() += 1;
            if matches!(view.state, "waiting" | "queued" | "spilled") {
                waits = waits.or(Some(view.task));
            }
        }
        let actors = self.actors().filter(|view| view.actor.0.job() == job).count();
        let objects = self.objects.keys().filter(|object| object.task.job() == job).count();
        if states.is_empty() && actors == 0 && objects == 0 {
            return None;
        }
        let mut parts: Vec<String> =
            states.iter().map(|(state, count)| format!("{count} tasks {state}")).collect();
        parts.extend((actors > 0).then(|| format!("{actors} actors")));
        parts.extend((objects > 0).then(|| format!("{objects} objects")));
        let called = |(actor, hosted): (&ActorId, &Hosted)| {
            if actor.0.job() == job { hosted.routes.len() } else { 0 }
        };
        let routes: usize = self.hosted.iter().map(called).sum();
        let (routes, leases) = (
            (routes > 0).then(|| count(routes, "way of direct calls", "ways of direct calls")),
            Some(self.leases.of_job(job)).filter(|leases| *leases > 0),
        );
        parts.extend(routes);
        parts.extend(leases.map(|leases| count(leases, "lease of a CPU", "leases of CPUs")));
        let first = waits.and_then(|task| Some((task, self.tasks.by_id(task)?)));
        let first = first.map(|(task, entry)| format!("\n{task} {}", self.explain_task(entry)));
        Some(parts.join(", ") + &first.unwrap_or_default())
    }

    fn explain_task(&self, entry: &TaskEntry) -> String {
        let request = &entry.spec.request;
        match &entry.state {
            TaskState::Naming => "waits for the head to grant the actor's name".to_owned(),
            TaskState::Waiting { .. } => self.explain_waiting(entry),
            TaskState::Grouping => self.explain_grouping(entry),
            TaskState::Ready { shape } => {
                let ahead = self.queue.len().saturating_sub(1);
                let same = self.queue.len_of(*shape).saturating_sub(1);
                match self.bundles.get(entry.bundle) {
                    Some(bundle) => format!(
                        "waits for {request} in bundle {} of {}, which has {} free",
                        bundle.number, bundle.group, bundle.ledger.available
                    ),
                    None => format!(
                        "{}; {ahead} other tasks queue, {same} of them alike",
                        self.shortage(request)
                    ),
                }
            }
            TaskState::Starting { executor } => format!("waits for {executor} to start"),
            TaskState::Running { executor, blocked: true, .. } => {
                format!("runs in {executor}, where it waits for objects")
            }
            TaskState::Running { executor, .. } => format!("runs in {executor}"),
            TaskState::Ahead { executor, .. } => {
                format!("waits in {executor} for the short tasks before it")
            }
            TaskState::Spilled { reason, told, waits } => {
                let why = self.explain_spill(*reason, request);
                match waits {
                    Some(waits) => format!("{why}, spilled to head: {waits}"),
                    None if *told => format!("{why}, spilled to head, which has not answered"),
                    None => format!("{why}; waits for a head to place it"),
                }
            }
            TaskState::Placed { worker } => format!("is on {worker}"),
            TaskState::Called { worker, .. } => format!("is called on {worker}"),
            TaskState::Lane => self.explain_lane(entry),
            TaskState::Mailbox if entry.missing > 0 => self.explain_waiting(entry),
            TaskState::Mailbox => "waits for earlier calls of the same caller".to_owned(),
            TaskState::BackingOff { until } => {
                format!("failed, and is tried again in {:?}", *until - self.now)
            }
        }
    }

    /// `waits for 1 CPU; 0 of 2 free`.
    fn shortage(&self, request: &Resources) -> String {
        let Some((name, wanted, free)) = self.ledger.available.shortage(request) else {
            return "is next".to_owned();
        };
        let total = self.amount(name);
        let free =
            if free < crate::resource::Amount::ZERO { crate::resource::Amount::ZERO } else { free };
        format!("waits for {wanted} {name}; {free} of {total} free")
    }

    fn amount(&self, name: &str) -> crate::resource::Amount {
        let total = &self.ledger.total;
        match name {
            "CPU" => total.cpu,
            "GPU" => total.gpu,
            "memory" => total.memory,
            other => total.get(other),
        }
    }

    fn explain_spill(&self, reason: SpillReason, request: &Resources) -> String {
        match reason {
            SpillReason::TooLarge => match self.ledger.total.shortage(request) {
                Some((name, wanted, has)) => {
                    format!("needs {wanted} {name}; this worker has {has}")
                }
                None => format!("needs {request}"),
            },
            SpillReason::Strategy => "its strategy is to run elsewhere".to_owned(),
            SpillReason::NoRoom => format!("needs {request} now, which is not free here"),
            SpillReason::Requested => "there is room elsewhere".to_owned(),
            SpillReason::Quota => "its job has a quota".to_owned(),
            SpillReason::HeadLost => "the head that placed it is gone".to_owned(),
            SpillReason::Draining => "this worker is leaving".to_owned(),
        }
    }

    fn explain_waiting(&self, entry: &TaskEntry) -> String {
        let here = entry.wants_copies();
        let mut missing = entry.spec.dependencies.iter().filter(|dependency| {
            self.objects.get(&dependency.object).is_none_or(|object| {
                if here { !object.is_readable(self.me) } else { !object.is_available() }
            })
        });
        let Some(first) = missing.next() else { return "is about to queue".to_owned() };
        let more = match missing.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let object = first.object;
        let how = match self.objects.get(&object) {
            Some(entry) if entry.pull.is_some() => ", which is being fetched".to_owned(),
            Some(entry) if !entry.is_owned() && matches!(entry.value, Value::Absent) => {
                format!(", which {} has to make", entry.owner)
            }
            _ => String::new(),
        };
        format!("waits for {object}{how}{more}")
    }

    fn explain_lane(&self, entry: &TaskEntry) -> String {
        if entry.missing > 0 {
            return self.explain_waiting(entry);
        }
        let TaskKind::ActorCall { actor, .. } = entry.spec.kind else { return String::new() };
        match self.actors.get(&actor) {
            Some(ActorEntry { place: ActorState::At { life, .. }, floor, .. }) if life >= floor => {
                "waits for earlier calls of the same caller".to_owned()
            }
            _ => format!("waits for {actor} to be made"),
        }
    }

    /// A task that reserves a group, or waits for one.
    fn explain_grouping(&self, entry: &TaskEntry) -> String {
        let (group, owner) = match entry.spec.strategy.in_group() {
            Some(place) => (place.group, place.owner),
            None => (GroupId(entry.spec.id), self.me),
        };
        match self.groups.get(&(group, owner)) {
            Some(known) if owner == self.me => explain_led(known),
            _ => format!("waits for {group}, which {owner} leads, to be reserved"),
        }
    }

    fn explain_group(&self, group: GroupId) -> Option<String> {
        self.groups.get(&(group, self.me)).map(explain_led)
    }

    fn explain_actor(&self, actor: ActorId) -> Option<String> {
        if let Some(hosted) = self.hosted.get(&actor) {
            let direct = self.explain_direct(actor, hosted);
            return Some(format!("lives in {}, life {}{direct}", hosted.executor, hosted.life));
        }
        let entry = self.actors.get(&actor).filter(|entry| entry.supervised.is_some())?;
        Some(match &entry.place {
            ActorState::Pending => "is being made".to_owned(),
            ActorState::At { worker, life } => format!("lives on {worker}, life {life}"),
            ActorState::Dead(error) => format!("is dead: {error}"),
        })
    }

    /// Who calls the actor past this worker, which knows of those calls that others wait for.
    fn explain_direct(&self, actor: ActorId, hosted: &Hosted) -> String {
        if hosted.routes.is_empty() {
            return String::new();
        }
        let is_known = |key: &&TaskKey| {
            let entry = &self.tasks[**key];
            let called =
                matches!(entry.spec.kind, TaskKind::ActorCall { actor: of, .. } if of == actor);
            called && entry.is_promised()
        };
        let running = self.executors.get(&hosted.executor).map(|process| process.running.iter());
        let known = running.into_iter().flatten().filter(is_known).count();
        let callers = count(hosted.routes.len(), "process calls", "processes call");
        let known = count(known, "such call is", "such calls are");
        format!("\n{callers} it directly; {known} known here, and of others no history")
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Where a group stands that is led here.
fn explain_led(entry: &GroupEntry) -> String {
    let Some(led) = &entry.led else { return "is led by another worker".to_owned() };
    let of = |wanted: fn(&Pending) -> bool| led.pending.iter().filter(|p| wanted(p)).count();
    let count = entry.bundles.len();
    if led.pending.is_empty() {
        let mut workers: Vec<WorkerId> =
            entry.bundles.iter().filter_map(|bundle| Some(bundle.place?.0)).collect();
        workers.sort_unstable();
        workers.dedup();
        let workers: Vec<String> = workers.iter().map(ToString::to_string).collect();
        return format!("all {count} bundles are reserved, on {}", workers.join(", "));
    }
    let asked = of(|pending| matches!(pending, Pending::Asked));
    let placed = of(|pending| matches!(pending, Pending::Placed(_)));
    match (&led.waits, asked) {
        (Some(waits), 1..) => format!("waits for places for {asked} of {count} bundles: {waits}"),
        (None, 1..) => format!("waits for the head to place {asked} of {count} bundles"),
        (_, 0) => format!("waits for workers to reserve {placed} of {count} bundles"),
    }
}
