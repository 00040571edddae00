//! The head's side of jobs: submission, changes of state, and what they say.

use rdist_scheduler::cluster::{ClusterEvent, JobState};
use rdist_scheduler::id::JobId;
use rdist_scheduler::resource::Resources;

use super::daemon::{Daemon, Outgoing, now_ms};
use super::record::{AskedBy, JobRecord};
use super::room;
use super::updates::{Origin, UpdateFile, Watcher, path_of};
use crate::wire::client::{ClientRefusal, ClientReply, JobProgress, JobUpdate, Submission};
use crate::wire::cluster::{JobInfo, Output, Said};
use crate::wire::files::SmallFile;

/// Longest event of a driver; longer ones are dropped.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// Most tries of a driver whose end is remembered.
const MAX_NOTES: usize = 16;

impl Daemon {
    pub(super) fn submit(&mut self, submission: Submission) -> ClientReply {
        if let Some(job) = self.books.submitted(submission.id) {
            // Asked again, because the answer was lost.
            return ClientReply::Submitted(job);
        }
        let has_all = self.blobs.check(&submission.program, &submission.files);
        if let Err(refusal) = has_all.and_then(|()| room::check(&self.home.head(), 0)) {
            return ClientReply::Refused(refusal);
        }
        if let Err(error) = SmallFile::check(&submission.small_files) {
            return ClientReply::Refused(ClientRefusal::Files(error.to_string()));
        }
        let Ok(number) = u32::try_from(self.books.count("job")) else {
            let reason = "it has used up all numbers for jobs".to_owned();
            return ClientReply::Refused(ClientRefusal::HeadFailed(reason));
        };
        let job = JobId(number);
        // A job of which nothing could be read later is not taken.
        if let Err(error) = self.file(job) {
            let reason = format!("what the job says cannot be kept: {error}");
            return ClientReply::Refused(ClientRefusal::HeadFailed(reason));
        }
        let info = JobInfo {
            job,
            name: submission.name,
            program: submission.program,
            arguments: submission.arguments,
            environment: submission.environment,
            working_directory: submission.working_directory,
            files: submission.files,
            small_files: submission.small_files,
            weight: submission.weight.max(1),
            quota: submission.quota,
            eager_pool: submission.eager_pool,
        };
        self.begin_job(info, AskedBy::Client(submission.id));
        ClientReply::Submitted(job)
    }

    /// A new job, in the books and in the core.
    pub(super) fn begin_job(&mut self, info: JobInfo, asked_by: AskedBy) {
        let job = info.job;
        let record = JobRecord {
            info,
            state: JobProgress::Waiting { reason: "it was just submitted".to_owned() },
            attempt: 0,
            submitted_at: now_ms(),
            started_at: None,
            finished_at: None,
            metrics: None,
            notes: Vec::new(),
            asked_by,
        };
        let (driver, weight) = (record.driver(), record.info.weight);
        let quota = record.info.quota.clone();
        tracing::info!(%job, name = record.info.name, "a job was submitted");
        self.books.add_job(record);
        self.tell_rules(job, weight, quota);
        self.tell(ClusterEvent::JobSubmitted { job, driver });
    }

    /// What the core is to know of a job before the job begins.
    pub(super) fn tell_rules(&mut self, job: JobId, weight: u32, quota: Resources) {
        if weight != 1 {
            self.tell(ClusterEvent::JobWeighed { job, weight });
        }
        if !quota.is_none() {
            self.tell(ClusterEvent::JobLimited { job, quota });
        }
    }

    pub(super) fn stop_job(&mut self, job: JobId) -> ClientReply {
        match self.books.jobs().get(&job) {
            None => ClientReply::Refused(ClientRefusal::NoJob(job)),
            Some(record) if record.state.is_ended() => ClientReply::Done,
            Some(_) => {
                self.tell(ClusterEvent::JobStopRequested { job });
                ClientReply::Done
            }
        }
    }

    /// The core says where a job stands. Durable when a try begins or the job ends.
    pub(super) fn job_changed(&mut self, job: JobId, state: JobState) {
        let now = now_ms();
        let Some(record) = self.books.job_mut(job) else { return };
        if record.state.is_ended() {
            return;
        }
        let attempt = match &state {
            JobState::Waiting { attempt, .. } | JobState::Running { attempt, .. } => *attempt,
            _ => record.attempt,
        };
        let state = match state {
            JobState::Waiting { reason, .. } => JobProgress::Waiting { reason },
            JobState::Running { worker, .. } => JobProgress::Running { worker: worker.0 },
            JobState::Succeeded => JobProgress::Succeeded,
            JobState::Failed(error) => JobProgress::Failed { error: error.to_string() },
            JobState::Stopped => JobProgress::Stopped,
        };
        if record.state == state && record.attempt == attempt {
            return;
        }
        let durable = state.is_ended()
            || matches!(state, JobProgress::Running { .. })
            || attempt != record.attempt;
        if matches!(state, JobProgress::Running { .. }) {
            record.started_at.get_or_insert(now);
        }
        if attempt != record.attempt
            && record.notes.len() < MAX_NOTES
            && let JobProgress::Waiting { reason } = &state
        {
            record.notes.push(format!("try {attempt} of its driver was lost: {reason}"));
        }
        let ended = state.is_ended();
        if ended {
            record.finished_at = Some(now);
        }
        record.state = state.clone();
        record.attempt = attempt;
        if durable {
            self.books.keep_job(job);
        }
        if ended {
            self.detached_ended(job, &state);
        }
        tracing::info!(%job, state = state.word(), attempt, "a job changed");
        let update = JobUpdate::State { at: now, attempt, state };
        self.outbox.push(Outgoing::Update { job, update, origin: None });
        if ended {
            self.outbox.push(Outgoing::JobEnded(job));
            self.forget_old_jobs();
        }
    }

    /// The history is bounded: the oldest ended jobs go, with all that they said and, in a thread
    /// that may wait for the disk, with the programs and files that nobody else needs.
    pub(super) fn forget_old_jobs(&mut self) {
        let gone = self.books.forget_jobs(self.kept_jobs);
        if gone.is_empty() {
            return;
        }
        for job in gone {
            self.updates.remove(&job);
            let path = path_of(&self.updates_folder, job);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%job, %error, "what an old job said cannot be removed");
                }
                _ => tracing::debug!(%job, "an old job is forgotten"),
            }
        }
        let jobs = self.books.jobs().values().map(|job| (job.info.program, job.info.files));
        let (jobs, blobs) = (Vec::from_iter(jobs), self.blobs.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = blobs.clean(jobs.into_iter()) {
                tracing::warn!(%error, "programs that no job needs cannot be removed");
            }
        });
    }

    /// What a job said on a worker.
    pub(super) fn told_by(&mut self, origin: Origin, said: Said) {
        match said {
            Said::Output(output) => self.output(origin, output),
            Said::Event { job, json } => self.job_event(origin, job, &json),
        }
    }

    fn output(&mut self, origin: Origin, output: Output) {
        let update = JobUpdate::Output {
            at: now_ms(),
            worker: output.worker.0,
            source: output.source,
            task: output.task.map(|task| task.to_string()),
            stderr: output.stderr,
            text: output.text,
        };
        self.said(output.job, update, origin);
    }

    fn job_event(&mut self, origin: Origin, job: JobId, json: &str) {
        let event = match serde_json::from_str::<serde_json::Value>(json) {
            Ok(event) if json.len() <= MAX_EVENT_BYTES => event,
            Ok(_) => return tracing::warn!(%job, len = json.len(), "an event is too long"),
            Err(error) => return tracing::warn!(%job, %error, "an event is no JSON"),
        };
        if let Some(metrics) = event.get("metrics")
            && let Some(record) = self.books.job_mut(job)
        {
            record.metrics = Some(metrics.to_string());
        }
        self.said(job, JobUpdate::Event { at: now_ms(), event }, origin);
    }

    fn said(&mut self, job: JobId, update: JobUpdate, origin: Origin) {
        if self.books.jobs().contains_key(&job) {
            self.outbox.push(Outgoing::Update { job, update, origin: Some(origin) });
        }
    }

    /// Appends to the job's file. What cannot be written is lost, which the head's log says.
    pub(super) fn append(&mut self, job: JobId, update: &JobUpdate, origin: Option<Origin>) {
        let open = self.updates.contains_key(&job);
        let over = self.books.jobs().get(&job).is_none_or(|record| record.state.is_ended());
        let result = if over && !open {
            // Last words: nobody waits for more of them.
            UpdateFile::open(path_of(&self.updates_folder, job))
                .and_then(|mut file| file.append(update, origin))
        } else {
            self.file(job).and_then(|file| file.append(update, origin))
        };
        if let Err(error) = result {
            tracing::error!(%job, %error, "what a job said cannot be written");
        }
    }

    fn file(&mut self, job: JobId) -> std::io::Result<&mut UpdateFile> {
        match self.updates.entry(job) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let file = UpdateFile::open(path_of(&self.updates_folder, job))?;
                Ok(entry.insert(file))
            }
        }
    }

    /// A reader of what the job says.
    pub(super) fn watch(&mut self, job: JobId, from_start: bool) -> Result<Watcher, ClientRefusal> {
        let record = self.books.jobs().get(&job).ok_or(ClientRefusal::NoJob(job))?;
        let now =
            JobUpdate::State { at: now_ms(), attempt: record.attempt, state: record.state.clone() };
        let failed = |error: &dyn core::fmt::Display| ClientRefusal::HeadFailed(error.to_string());
        let mut first = serde_json::to_vec(&now).map_err(|error| failed(&error))?;
        first.push(b'\n');
        if record.state.is_ended() {
            let path = path_of(&self.updates_folder, job);
            return Watcher::ended(&path, from_start, first).map_err(|error| failed(&error));
        }
        let watcher = self.file(job).and_then(|file| file.watch(from_start, first));
        watcher.map_err(|error| failed(&error))
    }
}
