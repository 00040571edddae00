//! `rdist jobs` and `rdist stop`.

use std::time::{SystemTime, UNIX_EPOCH};

use rdist::client::{JobProgress, JobStatus};
use rdist::scheduler::id::WorkerId;
use serde_json::{Value, json};

use super::{session, watch};
use crate::arguments::{Client, Job};
use crate::output;
use crate::units::show_seconds;

/// Columns for people.
const COLUMNS: [(&str, &str); 6] = [
    ("job", "JOB"),
    ("name", "NAME"),
    ("state", "STATE"),
    ("submitted", "SUBMITTED"),
    ("time", "TIME"),
    ("detail", "DETAIL"),
];

/// Lists jobs, the youngest last.
pub(super) fn list(options: &Client, json: bool) -> anyhow::Result<()> {
    let jobs = session::run(options, async |client| Ok(client.jobs().await?))?;
    let now = now_ms();
    let rows: Vec<Value> = jobs.iter().map(|job| row(job, now, json)).collect();
    let none = "no job yet; submit one with `rdist submit FILE`";
    output::rows(&mut std::io::stdout(), json, &rows, &COLUMNS, none)?;
    Ok(())
}

/// Stops a job.
pub(super) fn stop(options: &Job, json: bool) -> anyhow::Result<()> {
    let job = watch::parse_job(&options.job)?;
    session::run(&options.client, async |client| Ok(client.stop_job(job).await?))?;
    if json {
        println!("{}", json!({"event": "job_stopped", "job": job.to_string()}));
    } else {
        println!("{job} stopped");
    }
    Ok(())
}

/// A job as JSON, with what only people want where it is for them.
fn row(job: &JobStatus, now: u64, json: bool) -> Value {
    let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1_000.0;
    let metrics = job.metrics.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut row = json!({
        "job": job.job.to_string(),
        "name": job.name,
        "state": job.state.word(),
        "attempt": job.attempt,
        "submitted_at_ms": job.submitted_at,
        "started_at_ms": job.started_at,
        "finished_at_ms": job.finished_at,
        "metrics": metrics.unwrap_or(Value::Null),
    });
    let detail = match &job.state {
        JobProgress::Waiting { reason } => {
            row["reason"] = reason.as_str().into();
            reason.clone()
        }
        JobProgress::Running { worker } => {
            row["worker"] = WorkerId(*worker).to_string().into();
            format!("on {}", WorkerId(*worker))
        }
        JobProgress::Failed { error } => {
            row["error"] = error.as_str().into();
            error.lines().next().unwrap_or_default().to_owned()
        }
        JobProgress::Succeeded | JobProgress::Stopped => String::new(),
    };
    if !json {
        let end = job.finished_at.unwrap_or(now);
        row["submitted"] = format!("{} ago", show_seconds(seconds(job.submitted_at, now))).into();
        row["time"] = show_seconds(seconds(job.submitted_at, end)).into();
        row["detail"] = detail.into();
    }
    row
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rdist::scheduler::id::JobId;

    use super::*;

    #[test]
    fn a_failed_job_shows_the_first_line_of_why_and_scripts_see_all() {
        let job = JobStatus {
            job: JobId(3),
            name: "mnist".into(),
            state: JobProgress::Failed { error: "task-1 panicked: boom\nat x.rs:1".into() },
            attempt: 1,
            submitted_at: 1_000,
            started_at: Some(1_200),
            finished_at: Some(3_500),
            metrics: Some("{\"test_accuracy\":0.5}".into()),
        };
        let people = row(&job, 61_000, false);
        assert_eq!(people["detail"], "task-1 panicked: boom");
        assert_eq!(people["submitted"], "1 min 0 s ago");
        assert_eq!(people["time"], "2.50 s");
        let scripts = row(&job, 61_000, true);
        assert_eq!(scripts["error"], "task-1 panicked: boom\nat x.rs:1");
        assert_eq!(scripts["metrics"]["test_accuracy"], 0.5);
        assert_eq!(scripts["state"], "failed");
    }
}
