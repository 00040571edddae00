//! `rdist status`, `rdist list` and `rdist explain`.

use std::io::Write as _;

use anyhow::bail;
use rdist::client::{ClusterStatus, Listed, Rows, WorkerStatus};
use rdist::scheduler::id::{JobId, WorkerId};
use serde_json::{Value, json};

use super::session;
use crate::arguments::{Client, Explain, List, Listing};
use crate::output;
use crate::units::{show_number, show_seconds};

/// Columns of workers for people.
const WORKERS: [(&str, &str); 11] = [
    ("worker", "WORKER"),
    ("host", "HOST"),
    ("pid", "PROCESS"),
    ("state", "STATE"),
    ("total", "HAS"),
    ("available", "FREE"),
    ("store_bytes", "STORE"),
    ("used_bytes", "USED"),
    ("spilled_bytes", "SPILLED"),
    ("limits", "LIMITS"),
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
        "used_bytes": worker.usage.live_bytes,
        "spilled_bytes": worker.usage.spilled_bytes,
        "limits": worker.usage.limits,
        "spilled_objects": worker.usage.spilled_files,
        "labels": labels,
        "placed": worker.placed,
        "backlog": worker.backlog,
    })
}

/// Tasks, actors, objects, placement groups or workers.
pub(super) fn list(options: &List, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if options.what == Listing::Workers {
        let status = session::run(&options.client, async |client| Ok(client.status().await?))?;
        let rows = status.workers.iter().take(options.limit as usize).map(worker).collect();
        let none = "no worker has joined; start one with `rdist worker join`";
        let rows = Rows { rows, total: status.workers.len() as u64 };
        output::rows(&mut out, json, &rows.rows, &WORKERS, none)?;
        return say_cut(&rows, options, json);
    }
    let (what, none) = match options.what {
        Listing::Tasks => (Listed::Tasks, "no task waits or runs"),
        Listing::Actors => (Listed::Actors, "no actor lives"),
        Listing::Objects => (Listed::Objects, "the stores are empty"),
        Listing::PlacementGroups => (Listed::PlacementGroups, "no placement group is reserved"),
        Listing::Workers => (Listed::Workers, ""),
    };
    let limit = options.limit;
    let rows = session::run(&options.client, async |client| Ok(client.list(what, limit).await?))?;
    let columns = columns(&rows.rows);
    let columns: Vec<(&str, &str)> =
        columns.iter().map(|(field, heading)| (field.as_str(), heading.as_str())).collect();
    output::rows(&mut out, json, &rows.rows, &columns, none)?;
    say_cut(&rows, options, json)
}

/// Says so where there is more than is shown.
fn say_cut(rows: &Rows, options: &List, json: bool) -> anyhow::Result<()> {
    let (shown, total) = (rows.rows.len() as u64, rows.total);
    if shown >= total {
        return Ok(());
    }
    if json {
        let cut = json!({"event": "rows_left_out", "shown": shown, "total": total});
        writeln!(std::io::stdout(), "{cut}")?;
        return Ok(());
    }
    // Beside the table, which others may read.
    eprintln!("{}", cut(shown, total, options.limit));
    Ok(())
}

fn cut(shown: u64, total: u64, limit: u32) -> String {
    let number = |number: u64| show_number(number as f64);
    let more = match shown < u64::from(limit) {
        true => "more do not fit into one answer".to_owned(),
        false => format!("--limit {total} shows more"),
    };
    format!("{} of {} shown; {more}", number(shown), number(total))
}

/// All fields of the rows, the names of things first, with headings.
fn columns(rows: &[Value]) -> Vec<(String, String)> {
    const FIRST: [&str; 8] =
        ["task", "actor", "object", "group", "name", "function", "state", "worker"];
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
    // A bare number is a job, as everywhere.
    let id = match options.id.parse::<u32>() {
        Ok(number) => JobId(number).to_string(),
        Err(_) => options.id.clone(),
    };
    let answer = session::run(&options.client, async |client| Ok(client.explain(&id).await?))?;
    let lines = explanation(&answer);
    if lines.is_empty() {
        bail!(
            "nobody knows {id}: it ended long ago, or never was, or went directly from one process \
             to another, of which no worker keeps a history when it ends well; `rdist list tasks` \
             shows what is known"
        );
    }
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(())
}

/// An explanation in words: of a job where it stands, of a task or an actor the head's reason and
/// each worker's.
fn explanation(answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let text = |name: &str| answer[name].as_str();
    if let Some(status) = text("status") {
        let name = text("name").unwrap_or_default();
        lines.push(format!("{} ({name}) is {status}", text("id").unwrap_or_default()));
        if let Some(worker) = answer["worker"].as_u64() {
            lines.push(format!("its driver runs on {}", WorkerId(worker)));
        }
        lines.extend(text("reason").map(|reason| format!("it waits: {reason}")));
        lines.extend(text("error").map(str::to_owned));
    }
    let tries = answer["tries"].as_array().into_iter().flatten();
    lines.extend(tries.filter_map(Value::as_str).map(str::to_owned));
    lines.extend(text("head").map(|reason| format!("head: {reason}")));
    for row in answer["workers"].as_array().into_iter().flatten() {
        let worker = row["worker"].as_str().unwrap_or("a worker");
        let reason = row["reason"].as_str().unwrap_or_default();
        lines.extend(reason.lines().map(|line| format!("{worker}: {line}")));
    }
    lines.extend(text("ended").map(str::to_owned));
    lines
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

    #[test]
    fn a_list_that_is_cut_says_how_to_see_more() {
        assert_eq!(cut(10_000, 12_345, 10_000), "10,000 of 12,345 shown; --limit 12345 shows more");
        let full = "10 of 12 shown; more do not fit into one answer";
        assert_eq!(cut(10, 12, 100), full);
    }

    #[test]
    fn an_explanation_names_who_says_so() {
        let job = json!({"id": "job-1", "name": "pi", "status": "running", "worker": 7});
        assert_eq!(explanation(&job), ["job-1 (pi) is running", "its driver runs on worker-7"]);
        let workers = json!([{"worker": "worker-7", "reason": "needs 2 GPU"}]);
        let task = json!({"id": "task-1", "head": "waits for room", "workers": workers});
        assert_eq!(explanation(&task), ["head: waits for room", "worker-7: needs 2 GPU"]);
        assert!(explanation(&json!({"id": "task-1", "workers": []})).is_empty());
    }
}
