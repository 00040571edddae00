//! `rdist submit`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use rdist::client::{Client, Files, JobProgress, JobRequest};
use rdist::scheduler::id::JobId;
use rdist::scheduler::resource::Resources;

use super::session;
use super::watch::{self, Ending, Updates};
use crate::arguments::{Each, Submit};
use crate::plan::{self, Limits, Plan};
use crate::{job, program, units};

/// Checks, submits, follows.
pub(super) fn submit(submit: &Submit, json: bool) -> anyhow::Result<ExitCode> {
    if submit.dry_run {
        return dry_run(submit, json);
    }
    let request = prepare(submit)?;
    session::run(&submit.client, async |client| {
        let name = request.name.clone();
        let job = session::submit(client, &submit.client, request).await?;
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

/// Says what would be done.
fn dry_run(submit: &Submit, json: bool) -> anyhow::Result<ExitCode> {
    if plan_of(submit)?.is_some() {
        bail!("--dry-run is for workloads; `rdist graph` draws a plan of commands");
    }
    let data = submit.data.as_deref();
    print!("{}", program::plan(file(submit)?, &submit.set, data, json)?);
    Ok(ExitCode::SUCCESS)
}

/// What the head is asked to run.
fn prepare(submit: &Submit) -> anyhow::Result<JobRequest> {
    let inherited = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment = program::environment(inherited, &submit.environment, submit.data.as_deref())?;
    let files = submit.working_dir.as_deref();
    let files =
        files.map(|folder| Files::of_folder(folder, submit.working_dir_limit)).transpose()?;
    let request = match plan_of(submit)? {
        Some((plan, folder)) => commands(plan, &folder)?,
        None => other(submit)?,
    };
    let name = submit.name.clone().unwrap_or(request.name);
    let mut quota = if submit.quota.is_empty() { request.quota } else { Resources::NONE };
    for pair in &submit.quota {
        units::limit(&mut quota, &pair.name, &pair.value)
            .map_err(|why| anyhow::anyhow!("--quota {why}"))?;
    }
    Ok(JobRequest { name, environment, files, weight: submit.weight, quota, ..request })
}

/// The one file that is to be submitted.
fn file(submit: &Submit) -> anyhow::Result<&Path> {
    match submit.words.as_slice() {
        [file] => Ok(file),
        [file, argument, ..] => bail!(
            "{} is one file too many after {}; arguments of a program follow `--`, and \
             --each 'cmd {{}}' runs a command for each of many",
            argument.display(),
            file.display()
        ),
        [] => bail!("name a program, a workload or commands (.toml)"),
    }
}

/// The commands that are to be run, if it is commands, and the folder where they start.
fn plan_of(submit: &Submit) -> anyhow::Result<Option<(Plan, PathBuf)>> {
    let here = || std::env::current_dir().context("the current folder is gone");
    if let Some(template) = &submit.each.each {
        let limits = limits(&submit.each);
        let plan = plan::each(&plan::Each { template, limits }, &arguments(submit)?)?;
        return Ok(Some((plan, here()?)));
    }
    let file = file(submit)?;
    if !program::is_workload(file) {
        return Ok(None);
    }
    let Some(plan) = read_plan(file)? else { return Ok(None) };
    if let Some(argument) = submit.arguments.first() {
        bail!("commands take no arguments, but {argument:?} follows `--`; write them in the file");
    }
    if let Some(pair) = submit.set.first() {
        bail!("--set {pair} changes a workload, and {} has commands; use --env", file.display());
    }
    let folder = here()?.join(file.parent().unwrap_or(Path::new("")));
    Ok(Some((plan, folder)))
}

/// The plan in a `.toml`, if it is one.
pub(super) fn read_plan(file: &Path) -> anyhow::Result<Option<Plan>> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    Ok(plan::is_plan(&text).then(|| plan::build(file, &text)).transpose()?)
}

fn limits(each: &Each) -> Limits {
    let defaults = Limits::default();
    Limits {
        cpus: each.cpus.unwrap_or(defaults.cpus),
        memory: each.memory.unwrap_or(defaults.memory),
        retries: each.retries.unwrap_or(defaults.retries),
        time_limit: each.time_limit.map(|time| time.as_millis() as u64),
        ..defaults
    }
}

/// The arguments of `--each`, from the command line or from standard input.
fn arguments(submit: &Submit) -> anyhow::Result<Vec<String>> {
    if let Some(pair) = submit.set.first() {
        bail!("--set {pair} changes a workload, and --each has none");
    }
    if submit.words == [Path::new("-")] && submit.arguments.is_empty() {
        let lines = std::io::stdin().lines().collect::<Result<Vec<String>, _>>();
        let lines = lines.context("cannot read the arguments from standard input")?;
        return Ok(lines.into_iter().filter(|line| !line.is_empty()).collect());
    }
    let word = |word: &PathBuf| {
        let text = word.to_str().map(str::to_owned);
        text.with_context(|| format!("the argument {} is not UTF-8", word.display()))
    };
    let words: anyhow::Result<Vec<String>> = submit.words.iter().map(word).collect();
    Ok([words?, submit.arguments.clone()].concat())
}

/// Commands, run by this very binary; files that they need travel with the driver.
fn commands(plan: Plan, folder: &Path) -> anyhow::Result<JobRequest> {
    let mut files = Files::default();
    for (at, file) in plan.files.iter().enumerate() {
        files.add_file(&format!("{}/{at}", plan::INPUTS_FOLDER), file.clone());
    }
    let results = plan.results.as_ref().map(|results| folder.join(results));
    let quota = plan.quota.clone();
    let plan = Plan { results, ..plan };
    files.add_bytes(plan::PLAN_FILE, serde_json::to_vec(&plan)?);
    Ok(JobRequest {
        name: plan.name,
        program: std::env::current_exe().context("finding this program's own file")?,
        arguments: vec![job::COMMANDS.to_owned()],
        working_directory: folder.to_string_lossy().into_owned(),
        driver_files: Some(files),
        quota,
        eager_pool: true,
        ..Default::default()
    })
}

/// A workload or a program.
fn other(submit: &Submit) -> anyhow::Result<JobRequest> {
    let file = file(submit)?;
    let program = if program::is_workload(file) {
        program::workload(file, &submit.arguments, &submit.set)?
    } else {
        program::plain(file, &submit.arguments, &submit.set)?
    };
    let folder = std::env::current_dir().context("the current folder is gone")?;
    Ok(JobRequest {
        name: program.name,
        program: program.path,
        arguments: program.arguments,
        working_directory: folder.to_string_lossy().into_owned(),
        ..Default::default()
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
