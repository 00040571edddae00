//! The actors of a pipeline: made, called, moved, replaced. What is to be done, [`Flow`] says.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rdist::prelude::*;
use serde_json::json;

use super::collect::{Collect, Predicted};
use super::flow::{Block, Call, Failure, Flow, Limits, Made, Work};
use super::hand::{Duty, Hand, Part, Pixels, Product};
use super::stage::{self, Each, Stage};
use super::telling::{Moved, Telling};
use super::{Report, Settings, Source};
use crate::data::table::Sample;
use crate::device::Processor;
use crate::train::error::{JobError, Loss, loss};

/// With `predictors = "auto"`: predictors that are asked for beyond those that there are. They
/// wait for CPUs, and so find workers that join.
const CANDIDATES: usize = 4;
/// How often it is asked whether actors should move.
const BALANCE_EVERY: Duration = Duration::from_millis(500);
/// How often a pipeline that stands still says what it waits for.
const REMIND: Duration = Duration::from_secs(10);
/// Actors that may be lost before another call ends well.
const MAX_LOSSES: u32 = 24;

/// What an actor was made for, and its successor will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Berth {
    /// A stage that prepares: it holds no CPU, but takes what predictors leave.
    Prepares(Stage),
    /// It holds a CPU: prediction, until it is needed elsewhere.
    Predicts,
}

struct Member {
    berth: Berth,
    handle: ActorHandle<Hand>,
    joined: bool,
}

enum Event {
    /// An actor is there, on this worker; or it could not be made.
    Joined(u32, Result<String>),
    /// A call of an actor ended.
    Ended(u64, u32, Result<Product>),
}

type Events = FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send>>>;

/// See the module.
pub(super) struct Crew {
    cx: Driver,
    duty: Duty,
    settings: Settings,
    collect: Collect,
    members: BTreeMap<u32, Member>,
    next_number: u32,
    events: Events,
    began: Instant,
    /// When something happened last, or was waited for in words.
    silence: Instant,
    /// When every stage had an actor for the first time.
    started: Option<Instant>,
    /// All, and those since a call ended well.
    losses: (u32, u32),
    telling: Telling,
}

impl Crew {
    pub(super) fn new(cx: Driver, duty: Duty, settings: Settings, collect: Collect) -> Self {
        Self {
            telling: Telling::new(cx.clone()),
            cx,
            duty,
            settings,
            collect,
            members: BTreeMap::new(),
            next_number: 1,
            events: FuturesUnordered::new(),
            began: Instant::now(),
            silence: Instant::now(),
            started: None,
            losses: (0, 0),
        }
    }

    pub(super) async fn run(
        mut self,
        source: &Source<'_>,
        labels: &[u32],
    ) -> Result<(Predicted, Report), JobError> {
        let mut flow = self.flow(source)?;
        let files = match source {
            Source::Files(samples) => samples,
            Source::Images(_) => &[][..],
        };
        let mut balanced = self.began;
        while !flow.is_done() {
            self.recruit(&flow);
            self.telling.progress(&flow);
            while let Some(call) = flow.next_call(self.now()) {
                self.start(call, files, labels)?;
            }
            let until = flow.deadline().map_or(REMIND, |at| at.saturating_sub(self.now()));
            let wait = if self.settings.balance { until.min(BALANCE_EVERY) } else { until };
            match tokio::time::timeout(wait, self.events.next()).await {
                Ok(Some(event)) => self.hear(&mut flow, event)?,
                Ok(None) => {}
                Err(_) => self.remind(&flow),
            }
            if self.settings.balance && balanced.elapsed() >= BALANCE_EVERY {
                balanced = Instant::now();
                self.balance(&mut flow);
            }
        }
        self.telling.progress(&flow);
        self.dismiss();
        let seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let predicted = self.collect.finish()?;
        let report = Report {
            images: predicted.rows.len() as u64,
            failed: predicted.failed.len() as u64,
            seconds,
            sizes: flow.sizes(),
            stages: *flow.done(),
            losses: self.losses.0,
            moves: self.telling.into_moves(),
        };
        Ok((predicted, report))
    }

    fn flow(&self, source: &Source<'_>) -> Result<Flow<Pixels>, JobError> {
        let Settings { batch, wait, block, queue, .. } = self.settings;
        let [block, batch, queue] = [block, batch, queue].map(|count| count as usize);
        let limits = Limits { block, batch, queue, wait };
        let dataset = match source {
            Source::Files(samples) => return Ok(Flow::of_files(limits, samples.len() as u32)),
            Source::Images(dataset) => dataset,
        };
        let (mut blocks, mut from) = (Vec::new(), 0);
        for chunk in &dataset.chunks {
            let count = chunk.read()?.rows.len() as u32;
            let rows = (from..from + count).collect();
            let object = Pixels::Chunk(chunk.clone());
            blocks.push(Block { rows, object, first: 0, ends: Vec::new() });
            from += count;
        }
        blocks.retain(|block| !block.rows.is_empty());
        Ok(Flow::of_images(limits, blocks))
    }

    fn has_gpus(&self) -> bool {
        self.duty.processor == Processor::Gpu
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Asks for the actors that are missing.
    fn recruit(&mut self, flow: &Flow<Pixels>) {
        let count = |crew: &Self, berth: Berth, joined: bool| {
            let of = crew.members.values();
            of.filter(|member| member.berth == berth && (!joined || member.joined)).count()
        };
        for stage in [Stage::Read, Stage::Decode, Stage::Normalise] {
            if !flow.needs(stage) {
                continue;
            }
            let berth = Berth::Prepares(stage);
            let wanted = self.settings.actors[stage as usize].unwrap_or(1) as usize;
            (count(self, berth, false)..wanted).for_each(|_| self.spawn(berth));
        }
        let berth = Berth::Predicts;
        let wanted = match self.settings.actors[Stage::Predict as usize] {
            Some(wanted) => wanted as usize,
            None => count(self, berth, true) + CANDIDATES,
        };
        (count(self, berth, false)..wanted).for_each(|_| self.spawn(berth));
    }

    fn spawn(&mut self, berth: Berth) {
        let with = Hand::with().max_restarts(0);
        let with = match berth {
            // Beside the driver, which sees the files.
            Berth::Prepares(_) => with.cpus(0.0).strategy(Placement::on(self.cx.worker_id())),
            Berth::Predicts => with.cpus(1.0).gpus(self.duty.processor.gpus()).own_process(),
        };
        let number = self.next_number;
        self.next_number += 1;
        let spawning = with.spawn(&self.cx, &self.duty);
        let handle = spawning.handle();
        self.members.insert(number, Member { berth, handle, joined: false });
        let ready = spawning.into_future();
        self.events.push(Box::pin(async move {
            let place = match ready.await {
                Ok(handle) => handle.place().call().await,
                Err(error) => Err(error),
            };
            Event::Joined(number, place)
        }));
    }

    /// Makes a call.
    fn start(
        &mut self,
        call: Call<Pixels>,
        files: &[Sample],
        labels: &[u32],
    ) -> Result<(), JobError> {
        use std::os::unix::ffi::OsStrExt as _;

        let Call { id, actor, work } = call;
        let Some(Member { handle, .. }) = self.members.get(&actor) else { return Ok(()) };
        let bytes = |object: Pixels| match object {
            Pixels::Bytes(object) => Ok(object),
            Pixels::Chunk(_) => Err(JobError::Unfit("a chunk where bytes belong".to_owned())),
        };
        let result: ObjectRef<Product> = match work {
            Work::Read(rows) => {
                let path = |row: u32| files[row as usize].file.as_os_str().as_bytes().to_vec();
                let files: Vec<_> = rows.into_iter().map(|row| (row, path(row))).collect();
                handle.read(files).submit()
            }
            Work::Decode(Block { rows, object, first, ends }) => {
                handle.decode(bytes(object)?, first, rows, ends).submit()
            }
            Work::Normalise(blocks) => {
                let part = |Block { rows, object, first, .. }| {
                    let rows: Vec<u32> = rows;
                    Part { pixels: object, first, count: rows.len() as u32 }
                };
                let parts: Vec<Part> = blocks.into_iter().map(part).collect();
                handle.normalise(parts).submit()
            }
            Work::Predict(Block { rows, object, first, .. }) => {
                let labels: Vec<u32> = rows.iter().map(|row| labels[*row as usize]).collect();
                handle.predict(bytes(object)?, first, labels).submit()
            }
        };
        self.events.push(Box::pin(async move { Event::Ended(id, actor, result.await) }));
        Ok(())
    }

    fn hear(&mut self, flow: &mut Flow<Pixels>, event: Event) -> Result<(), JobError> {
        self.silence = Instant::now();
        match event {
            Event::Joined(number, Ok(place)) => self.join(flow, number, &place),
            Event::Joined(number, Err(error)) => match loss(&error) {
                Some(_) => self.lose(flow, number, &error)?,
                None => return Err(error.into()),
            },
            Event::Ended(id, _, Ok(product)) => self.end(flow, id, product)?,
            Event::Ended(id, number, Err(error)) => {
                let failure = match loss(&error) {
                    Some(Loss::Replica) => Failure::Actor,
                    Some(Loss::Input) => Failure::Input,
                    None => return Err(error.into()),
                };
                if failure == Failure::Actor {
                    self.lose(flow, number, &error)?;
                }
                flow.failed(id, self.now(), failure).map_err(|row| {
                    let last = error.to_string();
                    JobError::Image { row: u64::from(row) + 1, last }
                })?;
            }
        }
        Ok(())
    }

    fn join(&mut self, flow: &mut Flow<Pixels>, number: u32, place: &str) {
        let has_gpus = self.has_gpus();
        let Some(member) = self.members.get_mut(&number) else { return };
        member.joined = true;
        let reads = place == format!("{:?}", self.cx.worker_id());
        let before = flow.sizes();
        let stage = match member.berth {
            Berth::Prepares(stage) => stage,
            // What has a GPU is for prediction alone, which nobody else can do.
            Berth::Predicts if !self.settings.balance || has_gpus => Stage::Predict,
            Berth::Predicts => match before {
                [.., 0] => Stage::Predict,
                sizes => stage::neediest(&flow.costs(), &sizes, |s| reads || s != Stage::Read),
            },
        };
        flow.join(number, stage, reads);
        if member.berth == Berth::Predicts && stage != Stage::Predict {
            let why = format!("{}, the most of all stages", pace(flow, stage, &before));
            self.tell_move(flow, number, (Stage::Predict, stage), why);
        }
        let sizes = flow.sizes();
        let is_whole = Stage::ALL.into_iter().all(|s| !flow.needs(s) || sizes[s as usize] > 0);
        if is_whole && self.started.is_none() {
            self.started = Some(Instant::now());
        }
    }

    fn end(&mut self, flow: &mut Flow<Pixels>, id: u64, product: Product) -> Result<(), JobError> {
        let Product { object, rows, ends, failed, answers, nanos } = product;
        // What is normalised are the rows of the call, which the flow knows.
        let object = object.map(Pixels::Bytes);
        let block = object.map(|object| Block { rows, object, first: 0, ends });
        let busy = Duration::from_nanos(nanos);
        let made = Made { block, failed: failed.iter().map(|(row, _)| *row).collect(), busy };
        let now = self.now();
        let predicted = flow.finished(id, now, made);
        self.losses.1 = 0;
        if !predicted.is_empty() {
            self.collect.take(&predicted, &answers)?;
        }
        for (row, reason) in failed {
            self.collect.fail(row, reason)?;
        }
        Ok(())
    }

    /// Takes a lost actor off the list; another one takes its place.
    fn lose(
        &mut self,
        flow: &mut Flow<Pixels>,
        number: u32,
        error: &Error,
    ) -> Result<(), JobError> {
        let Some(member) = self.members.remove(&number) else { return Ok(()) };
        let stage = flow.leave(number);
        // It may live on, cut off; if it is really gone, there is nothing to end.
        let _ = member.handle.kill();
        self.losses.0 += 1;
        self.losses.1 += 1;
        if self.losses.1 > MAX_LOSSES {
            return Err(JobError::TooManyLosses { losses: self.losses.1, last: error.to_string() });
        }
        let stage = stage.map_or("no stage yet", Stage::name);
        let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
        println!("actor {number} of the pipeline ({stage}) is lost: {reason}; its work goes on");
        self.cx.emit(&json!({
            "event": "pipeline_actor_lost", "actor": number, "stage": stage, "reason": reason,
        }));
        Ok(())
    }

    fn balance(&mut self, flow: &mut Flow<Pixels>) {
        let before = flow.sizes();
        let predicts = |stage: Stage| stage == Stage::Predict && self.has_gpus();
        let may = |from: Stage, to: Stage| !predicts(from) && !predicts(to);
        let may = |from: Stage, to: Stage| may(from, to) && flow.may_move(from, to);
        let moved = stage::better(&flow.costs(), &before, may);
        let Some(stage::Move { from, to, rates }) = moved else { return };
        let Some(actor) = flow.reassign(from, to) else { return };
        let why = format!(
            "{}, {}: {:.0} images/s at most, with the move {:.0}",
            pace(flow, to, &before),
            pace(flow, from, &before),
            rates.0,
            rates.1
        );
        self.tell_move(flow, actor, (from, to), why);
    }

    /// Says that an actor works for another stage from now on.
    fn tell_move(
        &mut self,
        flow: &Flow<Pixels>,
        actor: u32,
        (from, to): (Stage, Stage),
        why: String,
    ) {
        let seconds = self.now().as_secs_f64();
        self.telling.moved(flow, Moved { seconds, actor, from, to, why });
    }

    fn remind(&mut self, flow: &Flow<Pixels>) {
        if self.silence.elapsed() < REMIND || flow.sizes()[Stage::Predict as usize] > 0 {
            return;
        }
        self.silence = Instant::now();
        let what = self.duty.processor.name();
        println!(
            "waiting for a predictor: no worker has a free {what}; `rdist worker join` adds one"
        );
    }

    fn dismiss(&self) {
        for member in self.members.values() {
            // The job goes on without them, or ends and they with it.
            let _ = member.handle.kill();
        }
    }
}

/// What a stage takes, in words.
fn pace(flow: &Flow<Pixels>, stage: Stage, actors: &Each<u32>) -> String {
    let cost = 1e3 * flow.costs()[stage as usize].unwrap_or_default();
    format!(
        "{} takes {cost:.2} ms an image with {} of the actors",
        stage.name(),
        actors[stage as usize]
    )
}
