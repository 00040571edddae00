//! Answers to what people ask about a worker, as JSON text.

use std::collections::HashMap;

use rdist_scheduler::id::{JobId, ObjectId, WorkerId};
use rdist_scheduler::local::LocalCore;
use rdist_scheduler::spec::GroupStrategy;
use serde_json::{Value, json};

use crate::wire::cluster::{MAX_LINK_FRAME_BYTES, Query, Things};

/// Names of functions, by job.
pub(super) type Functions = HashMap<(JobId, u64), String>;

/// Most bytes of one answer, which has to fit into a frame of the link to the head.
const MAX_ANSWER_BYTES: usize = MAX_LINK_FRAME_BYTES / 4 * 3;

/// Most holders of an object that a list names.
const MAX_HOLDERS: usize = 16;

/// What the worker's table knows of an object.
pub(super) struct Here {
    /// `inline`, `memory`, `disk`, ...; `None`: it is not here.
    pub stored: Option<&'static str>,
    /// How many read it: executors that were told it, and tasks that were given it.
    pub pins: u32,
}

/// A list, or an explanation, or `null` for what is not known here.
pub(super) fn answer(
    me: WorkerId,
    core: &LocalCore,
    functions: &Functions,
    query: &Query,
    here: &dyn Fn(ObjectId) -> Here,
) -> String {
    match query {
        Query::List { what, limit } => {
            let mut list = List::new(me, *limit);
            match what {
                Things::Tasks => tasks(core, functions, &mut list),
                Things::Actors => actors(core, functions, &mut list),
                Things::Objects => objects(core, here, &mut list),
                Things::Groups => groups(core, &mut list),
            }
            list.finish()
        }
        Query::Explain(id) => explain(core, id).to_string(),
    }
}

/// Rows as JSON text, up to a limit.
struct List {
    me: WorkerId,
    rows: String,
    left: usize,
    total: u64,
    /// Whether something was left out.
    cut: bool,
}

impl List {
    fn new(me: WorkerId, limit: u32) -> Self {
        Self { me, rows: String::new(), left: limit as usize, total: 0, cut: false }
    }

    /// Another thing, which that worker counts; others may tell of it, too.
    fn add(&mut self, counted_by: WorkerId, row: impl FnOnce() -> Value) {
        self.total += u64::from(counted_by == self.me);
        self.cut |= self.left == 0;
        if self.cut {
            return;
        }
        let row = row().to_string();
        if self.rows.len() + row.len() > MAX_ANSWER_BYTES {
            self.cut = true;
            return;
        }
        if !self.rows.is_empty() {
            self.rows.push(',');
        }
        self.rows.push_str(&row);
        self.left -= 1;
    }

    fn finish(self) -> String {
        let total = if self.cut { format!(r#","total":{}"#, self.total) } else { String::new() };
        format!(r#"{{"rows":[{}]{total}}}"#, self.rows)
    }
}

fn tasks(core: &LocalCore, functions: &Functions, list: &mut List) {
    let row = |view: rdist_scheduler::local::TaskView| {
        json!({
            "task": view.task.to_string(),
            "job": view.task.job().to_string(),
            "name": name(functions, view.task.job(), view.function),
            "state": view.state,
            "attempt": view.attempt,
            "owner": view.owner.to_string(),
            "worker": place(view.worker),
            "request": view.request.to_string(),
        })
    };
    for view in core.tasks() {
        list.add(view.worker.unwrap_or(view.owner), || row(view));
    }
}

fn actors(core: &LocalCore, functions: &Functions, list: &mut List) {
    let row = |view: rdist_scheduler::local::ActorView| {
        json!({
            "actor": view.actor.to_string(),
            "job": view.actor.0.job().to_string(),
            "class": name(functions, view.actor.0.job(), view.function),
            "name": view.name,
            "owner": view.owner.to_string(),
            "worker": place(view.worker),
            "life": view.life,
            "request": view.request.to_string(),
            "death": view.death.map(|error| error.to_string()),
        })
    };
    for view in core.actors() {
        list.add(view.owner, || row(view));
    }
}

fn objects(core: &LocalCore, here: &dyn Fn(ObjectId) -> Here, list: &mut List) {
    let row = |view: rdist_scheduler::local::ObjectView| {
        json!({
            "object": view.object.to_string(),
            "job": view.object.task.job().to_string(),
            "state": view.state,
            "bytes": view.size,
            "owner": view.owner.to_string(),
            "copies": view.copies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "holders": view.holders,
            "held_by": view.held_by.iter().take(MAX_HOLDERS).map(ToString::to_string)
                .collect::<Vec<_>>(),
            "stored": here(view.object).stored,
            "pins": here(view.object).pins,
        })
    };
    for view in core.objects() {
        list.add(view.owner, || row(view));
    }
}

fn groups(core: &LocalCore, list: &mut List) {
    let row = |view: rdist_scheduler::local::GroupView| {
        let bundles = view.bundles.iter().map(|(holds, worker)| {
            let place = worker.map_or_else(|| "nowhere yet".to_owned(), |w| w.to_string());
            format!("{holds} on {place}")
        });
        json!({
            "group": view.group.to_string(),
            "job": view.group.0.job().to_string(),
            "name": view.name,
            "state": if view.reserved { "reserved" } else { "waiting" },
            "strategy": strategy(view.strategy),
            "bundles": bundles.collect::<Vec<_>>(),
        })
    };
    let me = list.me;
    for view in core.groups() {
        list.add(me, || row(view));
    }
}

fn strategy(strategy: GroupStrategy) -> &'static str {
    match strategy {
        GroupStrategy::Pack => "pack",
        GroupStrategy::Spread => "spread",
        GroupStrategy::StrictPack => "strict pack",
        GroupStrategy::StrictSpread => "strict spread",
    }
}

fn explain(core: &LocalCore, id: &str) -> Value {
    let reason = if let Ok(object) = id.parse::<ObjectId>() {
        core.explain_object(object)
    } else if let Some(job) = id.strip_prefix("job-").and_then(|digits| digits.parse().ok()) {
        core.explain_job(JobId(job))
    } else {
        id.parse().ok().and_then(|task| core.explain(task))
    };
    reason.map_or(Value::Null, |reason| json!({ "id": id, "reason": reason }))
}

fn name(functions: &Functions, job: JobId, function: u64) -> Value {
    match functions.get(&(job, function)) {
        Some(name) => json!(name),
        None if function == 0 => json!("main"),
        None => Value::Null,
    }
}

fn place(worker: Option<WorkerId>) -> Value {
    worker.map_or(Value::Null, |worker| json!(worker.to_string()))
}
