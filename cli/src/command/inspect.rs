//! `rdist status`, `rdist list` and `rdist explain`.

use std::io::Write as _;

use rdist::wire::client::{ClusterStatus, Listed, WorkerStatus};
use serde_json::{Value, json};

use super::session;
use crate::arguments::{Client, Explain, List, Listing};
use crate::output;
use crate::units::{show_bytes, show_seconds};

/// Columns of workers for people.
const WORKERS: [(&str, &str); 8] = [
    ("worker", "WORKER"),
    ("host", "HOST"),
    ("pid", "PROCESS"),
    ("state", "STATE"),
    ("total", "HAS"),
    ("available", "FREE"),
    ("store_bytes", "STORE"),
    ("labels", "LABELS"),
];

/// The head and its workers.
pub(super) fn status(options: &Client, json: bool) -> anyhow::Result<()> {
    let status = session::run(options, async |client| Ok(client.status().await?))?;
    let workers: Vec<Value> = status.workers.iter().map(worker).collect();
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{}", status_json(&status, workers))?;
        return Ok(());
    }
    writeln!(
        out,
        "head {} (process {}, rdist {}), up for {}",
        status.address,
        status.pid,
        status.version,
        show_seconds(status.uptime_ms as f64 / 1_000.0),
    )?;
    writeln!(
        out,
        "{} jobs, {} of them active; {} tasks wait for room\n",
        status.jobs, status.active_jobs, status.waiting_tasks
    )?;
    let none = "no worker has joined; start one with `rdist worker join`";
    output::rows(&mut out, false, &workers, &WORKERS, none)?;
    Ok(())
}

fn status_json(status: &ClusterStatus, workers: Vec<Value>) -> Value {
    json!({
        "event": "status",
        "address": status.address,
        "pid": status.pid,
        "version": status.version,
        "protocol": status.protocol,
        "uptime_seconds": status.uptime_ms as f64 / 1_000.0,
        "epoch": status.epoch,
        "active_jobs": status.active_jobs,
        "jobs": status.jobs,
        "waiting_tasks": status.waiting_tasks,
        "workers": workers,
    })
}

fn worker(worker: &WorkerStatus) -> Value {
    let state = match (worker.connected, worker.draining) {
        (false, _) => "not connected",
        (true, true) => "draining",
        (true, false) => "ready",
    };
    let labels: Vec<String> =
        worker.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    json!({
        "worker": worker.worker.to_string(),
        "host": worker.host,
        "pid": worker.pid,
        "address": worker.address,
        "state": state,
        "total": worker.total.to_string(),
        "available": worker.available.to_string(),
        "cpus": worker.total.cpu.as_f64(),
        "available_cpus": worker.available.cpu.as_f64(),
        "gpus": worker.total.gpu.as_f64(),
        "store_bytes": worker.store_bytes,
        "labels": labels,
        "placed": worker.placed,
        "backlog": worker.backlog,
    })
}

/// Tasks, actors, objects or workers.
pub(super) fn list(options: &List, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if options.what == Listing::Workers {
        let status = session::run(&options.client, async |client| Ok(client.status().await?))?;
        let rows: Vec<Value> = status.workers.iter().map(worker).collect();
        let none = "no worker has joined; start one with `rdist worker join`";
        output::rows(&mut out, json, &rows, &WORKERS, none)?;
        return Ok(());
    }
    let (what, none) = match options.what {
        Listing::Tasks => (Listed::Tasks, "no task waits or runs"),
        Listing::Actors => (Listed::Actors, "no actor lives"),
        Listing::Objects => (Listed::Objects, "the stores are empty"),
        Listing::Workers => (Listed::Workers, ""),
    };
    let rows = session::run(&options.client, async |client| Ok(client.list(what).await?))?;
    let rows = rows_of(rows);
    let columns = columns(&rows);
    let columns: Vec<(&str, &str)> =
        columns.iter().map(|(field, heading)| (field.as_str(), heading.as_str())).collect();
    output::rows(&mut out, json, &rows, &columns, none)?;
    Ok(())
}

/// The rows of an answer, whatever shape it has.
fn rows_of(answer: Value) -> Vec<Value> {
    match answer {
        Value::Array(rows) => rows,
        Value::Null => Vec::new(),
        other => vec![other],
    }
}

/// All fields of the rows, the names of things first, with headings.
fn columns(rows: &[Value]) -> Vec<(String, String)> {
    const FIRST: [&str; 7] = ["task", "actor", "object", "name", "function", "state", "worker"];
    let mut fields: Vec<&String> =
        rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()).collect();
    let rank = |field: &str| FIRST.iter().position(|first| *first == field).unwrap_or(FIRST.len());
    fields.sort_by_key(|field| (rank(field), (*field).clone()));
    fields.dedup();
    let heading = |field: &str| field.trim_end_matches("_bytes").replace('_', " ").to_uppercase();
    fields.into_iter().map(|field| (field.clone(), heading(field))).collect()
}

/// Why something is where it is.
pub(super) fn explain(options: &Explain, json: bool) -> anyhow::Result<()> {
    let id = options.id.as_str();
    let answer = session::run(&options.client, async |client| Ok(client.explain(id).await?))?;
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    for row in rows_of(answer) {
        match row {
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                    let value = match value {
                        Value::String(text) => text.clone(),
                        Value::Number(number) if name.ends_with("_bytes") => {
                            show_bytes(number.as_u64().unwrap_or_default())
                        }
                        other => other.to_string(),
                    };
                    writeln!(out, "{:<12} {value}", name.replace('_', " "))?;
                }
            }
            Value::String(text) => writeln!(out, "{text}")?,
            other => writeln!(out, "{other}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_start_with_what_a_row_is() {
        let rows =
            [json!({"attempt": 1, "task": "a"}), json!({"state": "waiting", "size_bytes": 3})];
        let columns = columns(&rows);
        let fields: Vec<&str> = columns.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["task", "state", "attempt", "size_bytes"]);
        assert_eq!(columns[3].1, "SIZE");
    }
}
