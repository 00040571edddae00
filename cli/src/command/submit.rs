//! `rdist submit`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use rdist::client::{Client, Files, JobProgress, JobRequest};
use rdist::scheduler::id::JobId;

use super::session;
use super::watch::{self, Ending, Updates};
use crate::arguments::Submit;
use crate::program;

/// Checks, submits, follows.
pub(super) fn submit(submit: &Submit, json: bool) -> anyhow::Result<ExitCode> {
    let request = prepare(submit)?;
    session::run(&submit.client, async |client| {
        let name = request.name.clone();
        let job = client.submit(request).await?;
        let mut reporter = watch::reporter(json);
        reporter.submitted(&job.to_string(), &name)?;
        if submit.detach {
            if !json {
                println!("{job}");
            }
            return Ok(ExitCode::SUCCESS);
        }
        let updates = Updates::of(job, client, &submit.client);
        let ending = watch::follow(updates, &mut *reporter, submit.timeout).await?;
        if let Ending::TimedOut = ending {
            give_up(client, job, submit, json).await?;
        }
        Ok(watch::exit_code(&ending, job, json))
    })
}

/// What the head is asked to run.
fn prepare(submit: &Submit) -> anyhow::Result<JobRequest> {
    let inherited = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment = program::environment(inherited, &submit.environment, submit.data.as_deref())?;
    let program = if program::is_workload(&submit.file) {
        program::workload(&submit.file, &submit.arguments, &submit.set)?
    } else {
        program::plain(&submit.file, &submit.arguments, &submit.set)?
    };
    let files = submit.working_dir.as_deref();
    let files = files.map(|folder| Files::of_folder(folder, submit.working_dir_limit));
    let folder: PathBuf = std::env::current_dir().context("the current folder is gone")?;
    Ok(JobRequest {
        name: submit.name.clone().unwrap_or(program.name),
        program: program.path,
        arguments: program.arguments,
        environment,
        working_directory: folder.to_string_lossy().into_owned(),
        files: files.transpose()?,
        driver_files: None,
    })
}

/// The job has waited too long for a place: stops it, and says what it waited for.
async fn give_up(client: &Client, job: JobId, submit: &Submit, json: bool) -> anyhow::Result<()> {
    let waited = submit.timeout.unwrap_or_default().as_secs_f64();
    let status = client.job(job).await?;
    let reason = match status.state {
        JobProgress::Waiting { reason } => reason,
        // It has just started, or ended: too late all the same.
        other => other.word().to_owned(),
    };
    client.stop_job(job).await?;
    eprintln!(
        "{job} did not start within {waited} s and was stopped: {reason}\n\
         `rdist status` shows the workers; `rdist worker join` adds this machine"
    );
    if json {
        // The last line of a submit is always the job's end.
        println!(
            "{}",
            serde_json::json!({
                "event": "job_finished", "job": job.to_string(), "status": "stopped",
                "seconds": waited, "metrics": {}, "error": reason,
            })
        );
    }
    Ok(())
}
