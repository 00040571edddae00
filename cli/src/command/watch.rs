//! A job's updates, from the head to whoever follows it: `rdist logs`, and `rdist submit` after
//! the submission.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rdist::client::{Client, ClientError, JobProgress, JobStream, JobUpdate, WatchError};
use rdist::scheduler::id::{JobId, WorkerId};

use super::session::{self, Patience};
use crate::arguments::{self, Logs};
use crate::follow::Follower;
use crate::output::{Human, Json, Lines, Reporter, Standing};

/// The status of a process that Ctrl-C has ended, as shells give it.
const INTERRUPTED: u8 = 130;

/// Why following a job came to its end.
pub(super) enum Ending {
    /// The job has ended, like that.
    Job(Standing),
    /// Ctrl-C: the job goes on.
    Detached,
    /// It did not start in time.
    TimedOut,
}

/// `rdist logs`.
pub(super) fn logs(logs: &Logs, json: bool) -> anyhow::Result<ExitCode> {
    let job = parse_job(&logs.job)?;
    session::run(&logs.client, async |client| {
        if !logs.follow {
            print_past(client, job, json).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut reporter = reporter(json);
        let updates = Updates::of(job, client, &logs.client);
        let ending = follow(updates, &mut *reporter, None).await?;
        Ok(exit_code(&ending, job, json))
    })
}

/// `job-3` or `3`.
pub(super) fn parse_job(text: &str) -> anyhow::Result<JobId> {
    text.parse().with_context(|| format!("{text:?}; write job-3 or 3, `rdist jobs` lists all"))
}

/// For people, or as JSON.
pub(super) fn reporter(json: bool) -> Box<dyn Reporter> {
    if json { Box::new(Json::new(std::io::stdout())) } else { Box::new(Human::stdio()) }
}

/// Shows all updates of a job, from its first on, until it ends, Ctrl-C, or it has waited for a
/// start longer than `start_within`.
pub(super) async fn follow(
    mut updates: Updates<'_>,
    reporter: &mut dyn Reporter,
    start_within: Option<Duration>,
) -> anyhow::Result<Ending> {
    let job = updates.job;
    let mut follower = Follower::new(job.to_string(), reporter);
    let mut clock = Clock::default();
    let deadline = start_within.map(|within| tokio::time::Instant::now() + within);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let started = follower.has_started();
        let out_of_time = async {
            match deadline {
                Some(deadline) if !started => tokio::time::sleep_until(deadline).await,
                _ => std::future::pending().await,
            }
        };
        let update = tokio::select! {
            update = updates.next() => update?,
            interrupted = &mut interrupt => {
                interrupted.context("cannot wait for Ctrl-C")?;
                return Ok(Ending::Detached);
            }
            () = out_of_time => return Ok(Ending::TimedOut),
        };
        let Some(update) = update else {
            bail!("the head ended the updates of {job} before {job} ended; `rdist logs {job} -f`");
        };
        if let Some(end) = show(&mut follower, &mut clock, &update)? {
            return Ok(Ending::Job(end));
        }
    }
}

/// The updates of a job, from its first on, over as many connections as it takes: a head that was
/// killed and starts again has them all.
pub(super) struct Updates<'a> {
    job: JobId,
    options: &'a arguments::Client,
    client: Client,
    /// Whether the client's connection is not known to be lost.
    connected: bool,
    stream: Option<JobStream>,
    /// How many were handed out.
    seen: usize,
    /// How many of this stream are still to be passed over, as they were handed out before.
    skip: usize,
    patience: Patience,
}

impl<'a> Updates<'a> {
    /// Over `client` at first, then over others like it.
    pub(super) fn of(job: JobId, client: &Client, options: &'a arguments::Client) -> Self {
        Self {
            job,
            options,
            client: client.clone(),
            connected: true,
            stream: None,
            seen: 0,
            skip: 0,
            patience: Patience::default(),
        }
    }

    /// The next update; `None` after the last. Cancel safe.
    async fn next(&mut self) -> anyhow::Result<Option<JobUpdate>> {
        loop {
            if let Some(stream) = &mut self.stream {
                match stream.next().await {
                    Ok(Some(_)) if self.skip > 0 => self.skip -= 1,
                    Ok(update) => {
                        self.seen += usize::from(update.is_some());
                        self.patience = Patience::default();
                        return Ok(update);
                    }
                    Err(error @ WatchError::Malformed { .. }) => return Err(error.into()),
                    Err(error @ WatchError::Broken { .. }) => self.lose(&error),
                }
                continue;
            }
            match self.open().await {
                Ok(()) => {}
                Err(error) if self.patience.has_ended(&error) => return Err(error.into()),
                Err(_) => Patience::pause().await,
            }
        }
    }

    fn lose(&mut self, error: &dyn Display) {
        (self.connected, self.stream) = (false, None);
        self.patience.begin(error);
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        if !self.connected {
            self.client = session::connect_again(&self.client, self.options).await?;
            self.connected = true;
        }
        let stream = self.client.watch(self.job, true).await;
        if let Err(error @ ClientError::Broken { .. }) = &stream {
            self.lose(error);
        }
        self.stream = Some(stream?);
        self.skip = self.seen;
        Ok(())
    }
}

/// Shows what a job has said so far, and no more.
async fn print_past(client: &Client, job: JobId, json: bool) -> anyhow::Result<()> {
    let state = client.jobs().await?.into_iter().find(|status| status.job == job);
    let ended = state.is_some_and(|status| status.state.is_ended());
    let mut updates = client.watch(job, true).await?;
    let mut reporter = reporter(json);
    let mut follower = Follower::new(job.to_string(), &mut *reporter);
    let mut clock = Clock::default();
    // The stream of a job that runs has no end: what the head has comes without a pause.
    const PAUSE: Duration = Duration::from_millis(500);
    loop {
        let update = if ended {
            updates.next().await?
        } else {
            match tokio::time::timeout(PAUSE, updates.next()).await {
                Ok(update) => update?,
                Err(_) => None,
            }
        };
        let Some(update) = update else { return Ok(follower.show_held()?) };
        if show(&mut follower, &mut clock, &update)?.is_some() {
            return Ok(());
        }
    }
}

/// When the job was submitted: its first update is its first state.
#[derive(Default)]
struct Clock {
    first: Option<u64>,
}

impl Clock {
    fn seconds(&mut self, at: u64) -> f64 {
        let first = *self.first.get_or_insert(at);
        at.saturating_sub(first) as f64 / 1_000.0
    }
}

/// Shows one update; returns how the job ended, if that is what it says.
fn show(
    follower: &mut Follower<'_>,
    clock: &mut Clock,
    update: &JobUpdate,
) -> anyhow::Result<Option<Standing>> {
    match update {
        JobUpdate::Output { at, worker, source, task, stderr, text } => {
            clock.seconds(*at);
            let worker = WorkerId(*worker).to_string();
            let task = task.as_deref();
            let (worker, name, stderr) = (&worker, None, *stderr);
            follower.lines(Lines { source, worker, task, name, stderr, text })?;
        }
        JobUpdate::Event { at, event } => {
            clock.seconds(*at);
            follower.event(event)?;
        }
        JobUpdate::State { at, state, .. } => {
            let standing = standing(state);
            follower.standing(&standing, clock.seconds(*at))?;
            return Ok(standing.is_end().then_some(standing));
        }
    }
    Ok(None)
}

fn standing(state: &JobProgress) -> Standing {
    match state {
        JobProgress::Waiting { reason } => Standing::Waiting(reason.clone()),
        JobProgress::Running { worker } => Standing::Running(WorkerId(*worker).to_string()),
        JobProgress::Succeeded => Standing::Succeeded,
        JobProgress::Failed { error } => Standing::Failed(error.clone()),
        JobProgress::Stopped => Standing::Stopped,
    }
}

/// The process's status; after Ctrl-C, says how to go on.
pub(super) fn exit_code(ending: &Ending, job: JobId, json: bool) -> ExitCode {
    match ending {
        Ending::Job(Standing::Succeeded) => ExitCode::SUCCESS,
        Ending::Job(_) | Ending::TimedOut => ExitCode::FAILURE,
        Ending::Detached => {
            if json {
                println!("{}", serde_json::json!({"event": "detached", "job": job.to_string()}));
            }
            eprintln!(
                "\ndetached: {job} goes on\n  \
                 to see it again   rdist logs {job} -f\n  \
                 to stop it        rdist stop {job}"
            );
            ExitCode::from(INTERRUPTED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_time_starts_with_its_first_update() {
        let mut bytes = Vec::new();
        let mut json = Json::new(&mut bytes);
        let mut follower = Follower::new("job-1".into(), &mut json);
        let mut clock = Clock::default();
        let mut show = |update: JobUpdate| show(&mut follower, &mut clock, &update).unwrap();
        let state = |at, state| JobUpdate::State { at, attempt: 0, state };
        assert_eq!(show(state(1_000, JobProgress::Waiting { reason: "no worker".into() })), None);
        assert_eq!(show(state(1_500, JobProgress::Running { worker: 7 })), None);
        assert_eq!(show(state(3_500, JobProgress::Succeeded)), Some(Standing::Succeeded));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.lines().last().unwrap().contains("\"seconds\":2.5"), "{text}");
        assert!(text.contains("worker-7"), "{text}");
    }

    #[test]
    fn a_job_is_named_in_two_ways() {
        assert_eq!(parse_job("3").unwrap(), parse_job("job-3").unwrap());
        assert!(parse_job("three").is_err());
    }
}
