//! The replicas of a job: made, counted, replaced. It decides who does a piece of work; what the
//! work is, strategies decide.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use rdist::Value;
use rdist::prelude::*;

use super::error::{JobError, Loss, loss};
use super::replica::{Replica, Sets};
use super::spent::Spent;
use super::trainer::Recipe;
use crate::data::shard;
use crate::metric::Answers;

/// How long training waits for one more replica of a fixed number before it starts with those
/// that are there.
const PATIENCE: Duration = Duration::from_secs(10);
/// With `"auto"`: replicas that are asked for beyond those that there are. They wait for CPUs, and
/// so find workers that join.
const CANDIDATES: usize = 8;
/// How often a job that has no replica says what it waits for.
const REMIND: Duration = Duration::from_secs(10);
/// Replicas that may be lost before another piece of work is done.
const MAX_LOSSES: u32 = 12;
/// How often a piece of work is given to a replica that is lost with it before it is given up.
const MAX_TRIES: u32 = 2;

/// A replica that works.
pub struct Member {
    /// From 1, never used again.
    pub number: u32,
    /// For calls.
    pub handle: ActorHandle<Replica>,
    /// Whether it holds the present parameters and optimiser (`allreduce`, `gradient_master`).
    pub synced: bool,
}

type Ready = Pin<Box<dyn Future<Output = Result<ActorHandle<Replica>>> + Send>>;

/// A replica that is being made, or waits for room.
struct Joining {
    number: u32,
    handle: ActorHandle<Replica>,
    ready: Ready,
}

/// What replicas are made of.
#[derive(Clone)]
pub struct Material {
    /// How to train.
    pub recipe: Recipe,
    /// What to see.
    pub sets: Sets,
}

/// See the module.
pub struct Fleet {
    cx: Driver,
    material: Material,
    /// `None`: as many as there are CPUs, or GPUs.
    wanted: Option<u32>,
    members: Vec<Member>,
    /// While one replica is measured alone: the others.
    aside: Option<Vec<Member>>,
    joining: Vec<Joining>,
    next_number: u32,
    losses: u32,
    changes: u64,
}

impl Fleet {
    /// Starts the first replicas, and waits for them.
    ///
    /// # Errors
    /// A replica's constructor failed.
    pub async fn assemble(
        cx: Driver,
        material: Material,
        wanted: Option<u32>,
    ) -> Result<Self, JobError> {
        let mut fleet = Self {
            cx,
            material,
            wanted,
            members: Vec::new(),
            aside: None,
            joining: Vec::new(),
            next_number: 1,
            losses: 0,
            changes: 0,
        };
        fleet.recruit();
        let started = Instant::now();
        fleet.until_one_is_there().await?;
        // All are started at once, so the others come about as soon as the first one.
        let patience = match wanted {
            Some(_) => PATIENCE,
            None => PATIENCE.min(started.elapsed() / 2 + Duration::from_millis(500)),
        };
        while fleet.wants_more() {
            match tokio::time::timeout(patience, fleet.join_any()).await {
                Ok(joined) => joined?,
                Err(_) => break,
            }
            fleet.recruit();
        }
        if let Some(wanted) = wanted
            && fleet.len() < wanted as usize
        {
            println!(
                "starting with {} of {wanted} replicas; the others join when there are CPUs",
                fleet.len()
            );
        }
        Ok(fleet)
    }

    /// Replicas that work now.
    pub fn members(&mut self) -> &mut [Member] {
        &mut self.members
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How often one came or went so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The driver's context.
    pub fn cx(&self) -> &Driver {
        &self.cx
    }

    /// Between rounds: takes in replicas that are ready, and asks for those that are missing.
    ///
    /// # Errors
    /// A replica's constructor failed.
    pub async fn refresh(&mut self) -> Result<(), JobError> {
        self.got_on();
        self.take_in().await?;
        self.until_one_is_there().await
    }

    /// The same in the middle of a round, without waiting; returns how many there were before:
    /// behind those are the new ones, which hold nothing yet.
    ///
    /// # Errors
    /// A replica's constructor failed.
    pub async fn take_in(&mut self) -> Result<usize, JobError> {
        let before = self.members.len();
        if self.aside.is_some() {
            return Ok(before);
        }
        self.recruit();
        poll_fn(|task| Poll::Ready(self.poll_joining(task))).await?;
        for member in &self.members[before..] {
            println!("replica {} joined; {} replicas work now", member.number, self.len());
        }
        self.recruit();
        Ok(before)
    }

    /// A piece of work is done: losses before it do not count any more.
    pub fn got_on(&mut self) {
        self.losses = 0;
    }

    /// Leaves one replica; nobody joins it until the others are brought back.
    pub fn set_aside(&mut self) {
        self.aside = Some(self.members.split_off(self.members.len().min(1)));
    }

    /// Takes replicas in again; none of all is in step with the others.
    pub fn bring_back(&mut self) {
        self.members.extend(self.aside.take().into_iter().flatten());
        self.members.iter_mut().for_each(|member| member.synced = false);
    }

    /// Where the time of each replica that works went so far. What became of one that does not
    /// answer, its next call tells.
    pub async fn spent(&self) -> Vec<(u32, Spent)> {
        let asked: Vec<_> = self
            .members
            .iter()
            .map(|member| (member.number, member.handle.spent().submit()))
            .collect();
        let mut spent = Vec::with_capacity(asked.len());
        for (number, answer) in asked {
            spent.extend(answer.await.ok().map(|answer| (number, answer)));
        }
        spent
    }

    /// The CPUs that replicas have together: of each machine once.
    ///
    /// # Errors
    /// A replica's code failed.
    pub async fn cpus(&mut self) -> Result<u64, JobError> {
        let asked: Vec<u32> = self.members.iter().map(|member| member.number).collect();
        let machines = self.spread(&asked, |replica, _| replica.machine().submit()).await?;
        let machines: BTreeMap<String, u64> = machines.into_iter().flatten().collect();
        Ok(machines.values().sum())
    }

    fn wants_more(&self) -> bool {
        self.wanted.is_none_or(|wanted| self.members.len() < wanted as usize)
    }

    /// Asks for replicas: with a fixed number for those that are missing, else for some more than
    /// there are.
    fn recruit(&mut self) {
        let missing = match self.wanted {
            Some(wanted) => {
                let aside = self.aside.as_ref().map_or(0, Vec::len);
                (wanted as usize).saturating_sub(self.members.len() + aside)
            }
            None => CANDIDATES,
        };
        while self.joining.len() < missing {
            let Material { recipe, sets } = &self.material;
            let gpus = recipe.processor.gpus();
            let with = Replica::with().own_process().cpus(1.0).gpus(gpus).max_restarts(0);
            let spawning = with.spawn(&self.cx, self.next_number, recipe, sets);
            let handle = spawning.handle();
            let ready = spawning.into_future();
            self.joining.push(Joining { number: self.next_number, handle, ready });
            self.next_number += 1;
        }
    }

    /// Takes in those that are ready; true: there were some.
    fn poll_joining(&mut self, task: &mut std::task::Context<'_>) -> Result<bool, JobError> {
        let mut joined = false;
        let mut index = 0;
        while index < self.joining.len() {
            match self.joining[index].ready.as_mut().poll(task) {
                Poll::Pending => index += 1,
                Poll::Ready(outcome) => {
                    let Joining { number, .. } = self.joining.remove(index);
                    match outcome {
                        Ok(handle) => {
                            self.members.push(Member { number, handle, synced: false });
                            self.changes += 1;
                            joined = true;
                        }
                        Err(error) => self.count_loss(number, &error)?,
                    }
                }
            }
        }
        Ok(joined)
    }

    async fn join_any(&mut self) -> Result<(), JobError> {
        poll_fn(|task| match self.poll_joining(task) {
            Ok(true) => Poll::Ready(Ok(())),
            // Lost while it was made: another one takes its place.
            Ok(false) if self.joining.is_empty() => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }

    async fn until_one_is_there(&mut self) -> Result<(), JobError> {
        while self.members.is_empty() {
            self.recruit();
            match tokio::time::timeout(REMIND, self.join_any()).await {
                Ok(joined) => joined?,
                Err(_) => println!(
                    "waiting for a replica: no worker has a free {}; `rdist worker join` adds one",
                    self.material.recipe.processor.name()
                ),
            }
        }
        Ok(())
    }

    /// Takes a lost replica off the list. The job goes on.
    ///
    /// # Errors
    /// Its call failed for another reason than a loss, or there were too many losses.
    pub fn lose(&mut self, number: u32, error: &Error) -> Result<(), JobError> {
        let Some(index) = self.members.iter().position(|member| member.number == number) else {
            return Ok(());
        };
        self.count_loss(number, error)?;
        let gone = self.members.remove(index);
        self.changes += 1;
        // It may live on, cut off, and hold a CPU that its successor needs. If it is really gone,
        // there is nothing to end.
        let _ = gone.handle.kill();
        let rest = match self.members.len() {
            0 => "its part waits for another replica".to_owned(),
            1 => "its part goes to the one that is left".to_owned(),
            left => format!("its part goes to the {left} that are left"),
        };
        println!("replica {number} is lost ({}); {rest}", first_line(error));
        self.recruit();
        Ok(())
    }

    fn count_loss(&mut self, number: u32, error: &Error) -> Result<(), JobError> {
        if loss(error).is_none() {
            return Err(error.clone().into());
        }
        self.cx.emit(&serde_json::json!({
            "event": "replica_lost", "replica": number, "reason": first_line(error),
        }));
        self.losses += 1;
        if self.losses > MAX_LOSSES {
            let (losses, last) = (self.losses, error.to_string());
            return Err(JobError::TooManyLosses { losses, last });
        }
        Ok(())
    }

    /// Has every piece done by some replica, all at once; what a lost replica left goes to the
    /// others. `None`: an input is lost, so nobody can do it, or replicas were lost with one piece
    /// again and again, so that smaller ones have better prospects.
    ///
    /// # Errors
    /// A call's own error, or too many losses.
    pub async fn spread<P, T: Value>(
        &mut self,
        pieces: &[P],
        call: impl Fn(&ActorHandle<Replica>, &P) -> ObjectRef<T>,
    ) -> Result<Option<Vec<T>>, JobError> {
        let mut results: Vec<Option<T>> = pieces.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..pieces.len()).collect();
        let mut tries = vec![0; pieces.len()];
        while !open.is_empty() {
            self.until_one_is_there().await?;
            let turns = open.drain(..).zip(self.members.iter().cycle());
            let calls: Vec<_> = turns
                .map(|(piece, member)| (piece, member.number, call(&member.handle, &pieces[piece])))
                .collect();
            for (piece, number, object) in calls {
                match object.await {
                    Ok(result) => {
                        results[piece] = Some(result);
                        self.got_on();
                    }
                    Err(error) => match loss(&error) {
                        Some(Loss::Input) => return Ok(None),
                        Some(Loss::Replica) | None => {
                            // With its first piece it was lost; others waited for their turn.
                            let first = self.members.iter().any(|member| member.number == number);
                            self.lose(number, &error)?;
                            tries[piece] += u32::from(first);
                            if tries[piece] == MAX_TRIES {
                                return Ok(None);
                            }
                            open.push(piece);
                        }
                    },
                }
            }
        }
        Ok(Some(results.into_iter().flatten().collect()))
    }

    /// What the model with `parameters` says of the first `count` of the images that judge rounds,
    /// asked for in so many pieces for each replica. `None`: as [`spread`](Self::spread).
    ///
    /// # Errors
    /// Those of [`spread`](Self::spread).
    pub async fn answers(
        &mut self,
        parameters: &ObjectRef<Vec<f32>>,
        count: u64,
        pieces: usize,
    ) -> Result<Option<Answers>, JobError> {
        let parts = shard::split(0..count, self.len().max(1).saturating_mul(pieces));
        let answers = self
            .spread(&parts, |replica, run| replica.answers(parameters, run.start, run.end).submit())
            .await?;
        Ok(answers.map(|parts| {
            let mut all = Answers::default();
            parts.into_iter().for_each(|part| all.extend(part));
            all
        }))
    }

    /// Ends all replicas.
    pub fn dismiss(self) {
        let joining = self.joining.iter().map(|joining| &joining.handle);
        for handle in self.members.iter().map(|member| &member.handle).chain(joining) {
            // The job ends anyway, and its replicas with it.
            let _ = handle.kill();
        }
    }
}

fn first_line(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
