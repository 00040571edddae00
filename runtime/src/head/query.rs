//! Questions that the workers answer: asked of all, merged, answered in time with what there is.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rdist_scheduler::id::{JobId, ObjectId, TaskId, WorkerId};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::daemon::{Answer, Daemon, Outgoing};
use crate::wire::client::{ClientRefusal, ClientReply, Listed, MAX_REPLY_BYTES};
use crate::wire::cluster::{HeadToWorker, Query, Things};

/// A worker that has not answered by then is left out.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question under way.
pub(super) struct PendingQuery {
    waiting: BTreeSet<WorkerId>,
    /// With who told them.
    rows: Vec<(WorkerId, Value)>,
    /// What those had more than they told of, at least.
    more: u64,
    query: Query,
    /// The head's own answer, for an explanation.
    explanation: Map<String, Value>,
    reply: oneshot::Sender<Answer>,
    deadline: Instant,
}

impl PendingQuery {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Daemon {
    pub(super) fn list(&mut self, what: Listed, limit: u32, reply: oneshot::Sender<Answer>) {
        let what = match what {
            Listed::Tasks => Things::Tasks,
            Listed::Actors => Things::Actors,
            Listed::Objects => Things::Objects,
            Listed::PlacementGroups => Things::Groups,
            Listed::Workers => {
                let list = list(self.worker_rows(), 0, limit);
                let answer = Answer::Reply(ClientReply::Json(list));
                return self.outbox.push(Outgoing::Answer { reply, answer });
            }
        };
        self.ask(Query::List { what, limit }, Map::new(), reply);
    }

    fn worker_rows(&self) -> Vec<Value> {
        let row = |worker: crate::wire::client::WorkerStatus| {
            let labels: Map<String, Value> =
                worker.labels.into_iter().map(|(key, value)| (key, value.into())).collect();
            json!({
                "worker": worker.worker.to_string(),
                "host": worker.host,
                "pid": worker.pid,
                "address": worker.address,
                "total": worker.total.to_string(),
                "available": worker.available.to_string(),
                "labels": labels,
                "connected": worker.connected,
                "draining": worker.draining,
                "placed": worker.placed,
                "backlog": worker.backlog,
            })
        };
        self.worker_statuses().into_iter().map(row).collect()
    }

    pub(super) fn explain(&mut self, id: String, reply: oneshot::Sender<Answer>) {
        let mut explanation = Map::new();
        explanation.insert("id".to_owned(), id.clone().into());
        if let Some(job) = id.strip_prefix("job-").and_then(|digits| digits.parse().ok()) {
            return match self.explain_job(JobId(job), &mut explanation) {
                Ok(()) => self.ask(Query::Explain(id), explanation, reply),
                Err(refusal) => {
                    let answer = Answer::Reply(ClientReply::Refused(refusal));
                    self.outbox.push(Outgoing::Answer { reply, answer });
                }
            };
        }
        let object = id.parse::<ObjectId>().map(|object| object.task);
        let Ok(task) = object.or_else(|_| id.parse::<TaskId>()) else {
            let answer = Answer::Reply(ClientReply::Refused(ClientRefusal::NotAnId(id)));
            return self.outbox.push(Outgoing::Answer { reply, answer });
        };
        if let Some(reason) = self.core.explain(task) {
            explanation.insert("head".to_owned(), reason.into());
        }
        if let Some(record) = self.books.jobs().get(&task.job())
            && record.state.is_ended()
        {
            let (job, state) = (task.job(), record.state.word());
            let reason = format!("{job} has {state}: its tasks, actors and objects are gone");
            explanation.insert("ended".to_owned(), reason.into());
        }
        self.ask(Query::Explain(id), explanation, reply);
    }

    fn explain_job(
        &self,
        job: JobId,
        explanation: &mut Map<String, Value>,
    ) -> Result<(), ClientRefusal> {
        let record = self.books.jobs().get(&job).ok_or(ClientRefusal::NoJob(job))?;
        // The state's own fields: status, reason, worker, error.
        if let Ok(Value::Object(state)) = serde_json::to_value(&record.state) {
            explanation.extend(state);
        }
        explanation.insert("name".to_owned(), record.info.name.clone().into());
        explanation.insert("attempt".to_owned(), record.attempt.into());
        explanation.insert("driver".to_owned(), TaskId::driver(job).to_string().into());
        if let Some(reason) = self.core.explain(TaskId::driver(job)) {
            explanation.insert("head".to_owned(), reason.into());
        }
        let stopped = |note: &String| Value::from(note.as_str());
        explanation.insert("tries".to_owned(), record.notes.iter().map(stopped).collect());
        Ok(())
    }

    fn ask(
        &mut self,
        query: Query,
        explanation: Map<String, Value>,
        reply: oneshot::Sender<Answer>,
    ) {
        let request = self.next_query;
        self.next_query += 1;
        let connected = self.sessions.keys().filter(|worker| !self.missing.contains_key(worker));
        let waiting: BTreeSet<WorkerId> = connected.copied().collect();
        for worker in &waiting {
            let message = HeadToWorker::Query { request, query: query.clone() };
            self.outbox.push(Outgoing::Worker { to: *worker, message });
        }
        let deadline = Instant::now() + PATIENCE;
        let rows = Vec::new();
        let pending = PendingQuery { waiting, rows, more: 0, query, explanation, reply, deadline };
        self.queries.insert(request, pending);
        self.finish_query_if_complete(request);
    }

    pub(super) fn query_answered(&mut self, worker: WorkerId, request: u64, json: &str) {
        let Some(pending) = self.queries.get_mut(&request) else { return };
        if !pending.waiting.remove(&worker) {
            return;
        }
        let rows = match serde_json::from_str::<Value>(json) {
            Ok(Value::Null) => Vec::new(),
            Ok(mut answer) => match answer["rows"].take() {
                Value::Array(rows) => {
                    let total = answer["total"].as_u64().unwrap_or(0);
                    pending.more += total.saturating_sub(rows.len() as u64);
                    rows
                }
                _ => vec![answer],
            },
            Err(error) => {
                tracing::warn!(%worker, %error, "an answer is no JSON");
                Vec::new()
            }
        };
        for mut row in rows {
            if let Value::Object(fields) = &mut row {
                fields.entry("worker").or_insert_with(|| worker.to_string().into());
            }
            pending.rows.push((worker, row));
        }
        self.finish_query_if_complete(request);
    }

    /// A lost worker answers nothing more.
    pub(super) fn query_lost(&mut self, worker: WorkerId) {
        let requests: Vec<u64> = self.queries.keys().copied().collect();
        for request in requests {
            if let Some(pending) = self.queries.get_mut(&request)
                && pending.waiting.remove(&worker)
            {
                self.finish_query_if_complete(request);
            }
        }
    }

    pub(super) fn expire_queries(&mut self, now: Instant) {
        let late = self.queries.iter().filter(|(_, pending)| pending.deadline <= now);
        let late: Vec<u64> = late.map(|(request, _)| *request).collect();
        for request in late {
            self.finish_query(request);
        }
    }

    fn finish_query_if_complete(&mut self, request: u64) {
        if self.queries.get(&request).is_some_and(|pending| pending.waiting.is_empty()) {
            self.finish_query(request);
        }
    }

    fn finish_query(&mut self, request: u64) {
        let Some(pending) = self.queries.remove(&request) else { return };
        let PendingQuery { rows, more, query, mut explanation, reply, .. } = pending;
        let rows = merge(rows);
        let json = match query {
            Query::Explain(_) => {
                explanation.insert("workers".to_owned(), Value::Array(rows));
                Value::Object(explanation).to_string()
            }
            Query::List { limit, .. } => list(rows, more, limit),
        };
        let answer = Answer::Reply(ClientReply::Json(json));
        self.outbox.push(Outgoing::Answer { reply, answer });
    }
}

/// As many of the rows as there may be and fit into a reply, and how many there are with those that
/// nobody told of.
fn list(mut rows: Vec<Value>, more: u64, limit: u32) -> String {
    let total = rows.len() as u64 + more;
    rows.truncate(limit as usize);
    loop {
        let list = json!({"rows": rows, "total": total});
        let json = list.to_string();
        if json.len() <= MAX_REPLY_BYTES - 1_024 {
            return json;
        }
        rows.truncate(rows.len() / 2);
    }
}

/// One row for each task, actor and object: its owner and its host may both have told of it.
fn merge(rows: Vec<(WorkerId, Value)>) -> Vec<Value> {
    let mut merged = Vec::with_capacity(rows.len());
    let mut places = HashMap::new();
    for (told_by, row) in rows {
        let id = ["task", "actor", "object", "group"].iter().find_map(|field| row[field].as_str());
        let place = match id {
            Some(id) => *places.entry(id.to_owned()).or_insert(merged.len()),
            None => merged.len(),
        };
        if place == merged.len() {
            merged.push(row);
        } else if knows_best(told_by, &row) {
            merged[place] = row;
        }
    }
    merged
}

/// Where a task is, its state is known; all else the owner knows best.
fn knows_best(told_by: WorkerId, row: &Value) -> bool {
    let field = if row["task"].is_string() { "worker" } else { "owner" };
    row[field].as_str() == Some(&told_by.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_that_two_workers_tell_of_has_one_row() {
        let (one, two) = (WorkerId(1), WorkerId(2));
        let task = |state: &str| {
            json!({"task": "t", "owner": "worker-1", "worker": "worker-2",
                                        "state": state})
        };
        let actor = |name: Value| {
            json!({"actor": "a", "owner": "worker-1", "worker": "worker-2",
                                         "name": name})
        };
        let rows = [
            (one, task("placed")),
            (two, task("running")),
            (two, actor(Value::Null)),
            (one, actor("counter".into())),
            (one, json!({"id": "t", "reason": "no room"})),
            (two, json!({"id": "t", "reason": "it runs"})),
        ];
        let forth = merge(rows.to_vec());
        assert_eq!(forth[..2], [task("running"), actor("counter".into())]);
        assert_eq!(forth.len(), 4);
        let back = merge(rows.into_iter().rev().collect());
        assert!(back.contains(&task("running")) && back.contains(&actor("counter".into())));
        assert_eq!(back.len(), 4);
    }
}
