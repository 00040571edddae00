//! `[train]`: who learns how.

use super::SpecError;
use super::document::Section;
use crate::device::{DeviceSpec, Wish};
use crate::metric::{self, Metric};
use crate::train::aggregate::Combine;
use crate::train::optimiser::{OptimiserSpec, Rule};
use crate::train::outer::Outer;
use crate::train::schedule::{Rates, Schedule};

/// `train.strategy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Replicas train an epoch each on their part; their parameters are averaged.
    ParameterAverage,
    /// Gradients are averaged every step; replicas stay equal.
    Allreduce,
    /// Gradients go to a master replica, which steps.
    GradientMaster,
    /// Each member keeps its own part of the data; averages weighted by the parts' sizes.
    Fedavg,
    /// As `Fedavg`, and members are held near the common parameters.
    Fedprox,
    /// As `ParameterAverage`, but the average is a direction, which an outer optimiser takes.
    Diloco,
}

impl Strategy {
    /// Every one, by the name that the TOML uses.
    pub const ALL: [(&'static str, Self); 6] = [
        ("parameter_average", Self::ParameterAverage),
        ("allreduce", Self::Allreduce),
        ("gradient_master", Self::GradientMaster),
        ("fedavg", Self::Fedavg),
        ("fedprox", Self::Fedprox),
        ("diloco", Self::Diloco),
    ];

    /// Its name in the TOML.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, each)| *each == self).map_or("", |(name, _)| name)
    }

    /// Whether data stays with members of a federation.
    pub fn is_federated(self) -> bool {
        matches!(self, Self::Fedavg | Self::Fedprox)
    }

    /// Whether the job says how often results are exchanged; others do so every step, or epoch.
    pub fn exchanges(self) -> bool {
        matches!(self, Self::GradientMaster | Self::Diloco)
    }

    /// Whether replicas train by themselves and their parameters are merged.
    pub fn merges_parameters(self) -> bool {
        !matches!(self, Self::Allreduce | Self::GradientMaster)
    }
}

/// `[train]`
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSpec {
    /// `strategy`
    pub strategy: Strategy,
    /// `replicas`; `None` is `"auto"`: one for each CPU of the cluster.
    pub replicas: Option<u32>,
    /// `epochs`: how often every image is shown.
    pub epochs: u64,
    /// `device`: what models compute on.
    pub device: DeviceSpec,
    /// `batch`: images per step and replica.
    pub batch: u32,
    /// `seed`: of first values, orders, augmentation and dropout.
    pub seed: u64,
    /// `learning_rate`, `schedule`, `warmup`
    pub rates: Rates,
    /// `optimiser`, `momentum`, `weight_decay`, `clip`
    pub optimiser: OptimiserSpec,
    /// `label_smoothing`
    pub label_smoothing: f64,
    /// `exchange`: batches between two exchanges; `None` is `"epoch"`.
    pub exchange: Option<u32>,
    /// `proximal`, `outer`, ...: how results are merged.
    pub merging: Merging,
    /// `select`, `monitor`, `patience`
    pub selection: Selection,
    /// `baseline`: steps that one replica takes alone, to tell the speed-up by.
    pub baseline: Option<u64>,
    /// `resume`
    pub resume: Resume,
}

impl TrainSpec {
    /// Members of the federation, if the job says how many: replicas that cannot all be there at a
    /// time take turns to be them.
    pub fn members(&self) -> Option<u32> {
        self.merging.members.or(self.replicas)
    }

    /// What is remembered between steps, or between rounds that merge parameters; what was
    /// remembered of one kind is of no use to another. `None`: nothing.
    pub fn memory(&self) -> Option<&'static str> {
        match (self.strategy.merges_parameters(), self.merging.outer, self.optimiser.rule) {
            (true, Outer::None, _) => None,
            (true, Outer::Momentum { .. }, _) => Some("momentum over rounds"),
            (true, Outer::Adam { .. }, _) => Some("moments over rounds"),
            (false, _, Rule::Sgd) => Some("momentum over steps"),
            (false, _, Rule::Adam | Rule::Adamw) => Some("moments over steps"),
        }
    }
}

/// How what members of a round return becomes the next round's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Merging {
    /// `proximal`: how strongly members are held near the common parameters.
    pub proximal: f64,
    /// `aggregate`, `trim`
    pub combine: Combine,
    /// `outer`, `outer_rate`, `outer_momentum`
    pub outer: Outer,
    /// `participation`: share of the members in a round.
    pub participation: f64,
    /// `members` of the federation; see [`TrainSpec::members`].
    pub members: Option<u32>,
    /// `skew`: concentration of the classes; `None`: all classes alike.
    pub skew: Option<f64>,
}

/// Which round's model is kept, and when training ends early.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// `select`: keep the best round's model rather than the last one's.
    pub best: bool,
    /// `monitor`: what is watched.
    pub monitor: Metric,
    /// `patience`: rounds without a better value that end training; `None`: all are trained.
    pub patience: Option<u64>,
}

/// `train.resume`: whether a training goes on from the checkpoint that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// It starts anew.
    Never,
    /// It goes on, or does not start.
    Always,
    /// It goes on where a checkpoint is there that fits, else it starts anew.
    Auto,
}

impl Selection {
    /// Whether anything depends on which round is best.
    pub fn is_watched(&self) -> bool {
        self.best || self.patience.is_some()
    }
}

pub(super) fn read(mut s: Section<'_>) -> Result<TrainSpec, SpecError> {
    let strategy = s.choice("strategy", &Strategy::ALL, Strategy::ParameterAverage, STRATEGY)?;
    let replicas = s.integer_or("replicas", "auto", COUNT, None, REPLICAS)?;
    let device = read_device(&mut s)?;
    let epochs = s.integer("epochs", COUNT, 5, EPOCHS)?;
    let batch = s.integer("batch", COUNT, 64, BATCH)? as u32;
    let seed = s.integer("seed", 0..=u64::MAX, 1, SEED)?;
    let rates = read_rates(&mut s, epochs)?;
    let optimiser = read_optimiser(&mut s)?;
    let smoothing = |n: f64| (0.0..1.0).contains(&n);
    let label_smoothing =
        s.number("label_smoothing", "from 0, below 1", smoothing, 0.0, LABEL_SMOOTHING)?;
    let exchange = if strategy == Strategy::Diloco { None } else { Some(1) };
    let exchange = s.integer_or("exchange", "epoch", COUNT, exchange, EXCHANGE)?;
    if s.is_given("exchange") && !strategy.exchanges() {
        let expected = "nothing: that is for train.strategy \"gradient_master\" and \"diloco\"";
        return Err(s.unfit("exchange", expected));
    }
    let merging = read_merging(&mut s, strategy)?;
    let selection = read_selection(&mut s)?;
    let baseline = s.integer_or("baseline", "none", 1..=100_000, None, BASELINE)?;
    if baseline.is_some() && strategy.is_federated() {
        return Err(s.unfit("baseline", "nothing: members of a federation have their own data"));
    }
    let resume = match s.flag_or("resume", "auto", false, RESUME)? {
        Some(false) => Resume::Never,
        Some(true) => Resume::Always,
        None => Resume::Auto,
    };
    s.finish()?;
    Ok(TrainSpec {
        strategy,
        replicas: replicas.map(|n| n as u32),
        epochs,
        device,
        batch,
        seed,
        rates,
        optimiser,
        label_smoothing,
        exchange: exchange.map(|n| n as u32),
        merging,
        selection,
        baseline,
        resume,
    })
}

const COUNT: std::ops::RangeInclusive<u64> = 1..=u32::MAX as u64;

fn read_device(s: &mut Section<'_>) -> Result<DeviceSpec, SpecError> {
    let text = s.text("device", "`auto`", DEVICE)?.unwrap_or_else(|| "auto".to_owned());
    let wish = match text.as_str() {
        "auto" => Wish::Auto,
        "cpu" => Wish::Cpu,
        "cuda" | "cuda:0" => Wish::Gpu,
        other => {
            let number = other.strip_prefix("cuda:").and_then(|number| number.parse::<u32>().ok());
            let expected = match number {
                Some(number) => format!(
                    "\"cuda\" or \"cuda:0\": a replica sees the one GPU that it is given, which \
                     is its first; a worker started with CUDA_VISIBLE_DEVICES={number} gives that \
                     one"
                ),
                None => "\"auto\", \"cpu\", \"cuda\" or \"cuda:0\"".to_owned(),
            };
            return Err(s.unfit("device", &expected));
        }
    };
    Ok(DeviceSpec { wish, place: s.place("device"), text })
}

fn read_rates(s: &mut Section<'_>, epochs: u64) -> Result<Rates, SpecError> {
    let rate = |n: f64| n > 0.0 && n <= 10.0;
    let first = s.number("learning_rate", "above 0, at most 10", rate, 1e-3, LEARNING_RATE)?;
    let schedule = s.choice("schedule", &Schedule::ALL, Schedule::Cosine, SCHEDULE)?;
    let warmup = s.number("warmup", "from 0", |n| (0.0..=1e6).contains(&n), 0.0, WARMUP)?;
    Ok(Rates { schedule, first, warmup, epochs })
}

fn read_optimiser(s: &mut Section<'_>) -> Result<OptimiserSpec, SpecError> {
    let share = |n: f64| (0.0..1.0).contains(&n);
    Ok(OptimiserSpec {
        rule: s.choice("optimiser", &Rule::ALL, Rule::Adam, OPTIMISER)?,
        momentum: s.number("momentum", "from 0, below 1", share, 0.9, MOMENTUM)? as f32,
        decay: s.number("weight_decay", "from 0 to 1", |n| (0.0..=1.0).contains(&n), 0.0, DECAY)?
            as f32,
        clip: s.number_or("clip", "above 0", |n| n > 0.0, "no limit", CLIP)?,
    })
}

fn read_merging(s: &mut Section<'_>, strategy: Strategy) -> Result<Merging, SpecError> {
    let positive = |n: f64| (0.0..=1e3).contains(&n);
    let shown = "0.01 with \"fedprox\", else 0";
    let proximal = s.number_or("proximal", "from 0 to 1000", positive, shown, PROXIMAL)?;
    let kinds = [("mean", 0), ("median", 1), ("trimmed_mean", 2)];
    let kind = s.choice("aggregate", &kinds, 0, AGGREGATE)?;
    let trim = s.number("trim", "from 0, below 0.5", |n| (0.0..0.5).contains(&n), 0.2, TRIM)?;
    let combine = [Combine::Mean, Combine::Median, Combine::TrimmedMean(trim)][kind];
    let shown = "\"momentum\" with \"diloco\", else \"none\"";
    let outers = [("none", 0), ("momentum", 1), ("nesterov", 2), ("adam", 3)];
    let outer = s.choice_or("outer", &outers, shown, OUTER)?;
    let outer = outer.unwrap_or(if strategy == Strategy::Diloco { 2 } else { 0 });
    let rate = |n: f64| n > 0.0 && n <= 10.0;
    let shown = "0.7 with momentum, 0.01 with \"adam\"";
    let rate = s.number_or("outer_rate", "above 0, at most 10", rate, shown, OUTER_RATE)?;
    let share = |n: f64| (0.0..1.0).contains(&n);
    let momentum = s.number("outer_momentum", "from 0, below 1", share, 0.9, OUTER_MOMENTUM)?;
    let outer = match outer {
        0 => Outer::None,
        3 => Outer::Adam { rate: rate.unwrap_or(0.01) },
        kind => {
            let nesterov = kind == 2;
            Outer::Momentum { rate: rate.unwrap_or(0.7), momentum, nesterov }
        }
    };
    let part = |n: f64| n > 0.0 && n <= 1.0;
    let participation = s.number("participation", "above 0, up to 1", part, 1.0, PARTICIPATION)?;
    let members = s.integer_or("members", "replicas", 1..=100_000, None, MEMBERS)?;
    let skew = s.number_or("skew", "above 0", |n| n > 0.0, "all classes alike", SKEW)?;
    if !strategy.is_federated() && (members.is_some() || skew.is_some() || participation < 1.0) {
        let key = if members.is_some() { "members" } else { "skew" };
        let key = if participation < 1.0 { "participation" } else { key };
        return Err(s.unfit(key, "nothing, or train.strategy \"fedavg\" or \"fedprox\""));
    }
    if !strategy.merges_parameters() && proximal.is_some_and(|strength| strength > 0.0) {
        let expected = "0: replicas have the same parameters at every step of this train.strategy";
        return Err(s.unfit("proximal", expected));
    }
    let proximal = proximal.unwrap_or(if strategy == Strategy::Fedprox { 0.01 } else { 0.0 });
    if !strategy.merges_parameters() && (combine != Combine::Mean || outer != Outer::None) {
        let key = if combine == Combine::Mean { "outer" } else { "aggregate" };
        return Err(s.unfit(key, "nothing, or a train.strategy that merges parameters"));
    }
    let members = members.map(|n| n as u32);
    Ok(Merging { proximal, combine, outer, participation, members, skew })
}

fn read_selection(s: &mut Section<'_>) -> Result<Selection, SpecError> {
    let best = s.choice("select", &[("last", false), ("best", true)], false, SELECT)?;
    let names: Vec<(&'static str, Metric)> =
        Metric::ALL.into_iter().map(|metric| (metric.name, metric)).collect();
    let monitor = s.choice("monitor", &names, metric::accuracy::ACCURACY, MONITOR)?;
    let patience = s.integer_or("patience", "none", COUNT, None, PATIENCE)?;
    Ok(Selection { best, monitor, patience })
}

const STRATEGY: &str = "How replicas learn together. `parameter_average`: an epoch each, then the \
    average. `allreduce`: gradients are averaged every step. `gradient_master`: gradients go to a \
    master replica, which steps. `fedavg`: data stays with members of a federation (`fedprox`: \
    and members are held near the common parameters). `diloco`: an epoch each (or `exchange` \
    batches), then an outer step.";
const REPLICAS: &str = "How many copies of the model train; `auto` follows the CPUs of the \
    cluster, also while it grows. `RDIST_NUM_REPLICAS` takes the place of `auto`.";
const DEVICE: &str = "What models compute on, in training and prediction. `cuda` (or `cuda:0`): \
    each replica is given a CPU and a GPU of its worker, and sees that GPU alone; which GPUs a \
    worker gives, and under which numbers, `CUDA_VISIBLE_DEVICES` says when it joins. Where no \
    worker has one, or libtorch was built without CUDA, the job says so before it starts. `auto`: \
    as `cuda` where a worker has a GPU that libtorch can use, else as `cpu`. Optimiser steps are \
    taken on CPUs.";
const EPOCHS: &str = "How often every image is shown.";
const BATCH: &str = "Images per step and replica.";
const SEED: &str = "Of first values, orders, augmentation and dropout.";
const LEARNING_RATE: &str = "At the start; see `schedule`.";
const SCHEDULE: &str = "How the rate falls to zero at the end of the last epoch: along a cosine, \
    a line, or not at all; `step` divides it by ten after each third.";
const WARMUP: &str = "Epochs in which the rate rises from zero to the first one.";
const OPTIMISER: &str = "`sgd` has momentum; `adamw` decays weights apart from the gradient.";
const MOMENTUM: &str = "Of `sgd`.";
const DECAY: &str = "Weight decay: part of the gradient with `sgd` and `adam`, apart from it with \
    `adamw`.";
const CLIP: &str = "Largest norm of a gradient; longer ones are shortened to it.";
const LABEL_SMOOTHING: &str = "Share of the truth that is spread over all classes in training.";
const EXCHANGE: &str = "Batches of each replica between two exchanges (`gradient_master`, \
    `diloco`); `epoch`: one exchange an epoch.";
const PROXIMAL: &str = "FedProx: pulls parameters to the common ones, times half the squared \
    distance.";
const AGGREGATE: &str = "How results are merged: the weighted mean, or by element the median or \
    the mean without extremes, which withstand a replica that returns nonsense.";
const TRIM: &str = "Share that `trimmed_mean` leaves out at either end.";
const OUTER: &str = "What takes the step from the common parameters to the merged ones.";
const OUTER_RATE: &str = "Learning rate of `outer`.";
const OUTER_MOMENTUM: &str = "Momentum of `outer`.";
const PARTICIPATION: &str = "Share of the federation's members that train in a round.";
const MEMBERS: &str = "Members of the federation, among whom the data is divided once; replicas \
    take turns to be them. `replicas`: as many as that number says, or with `auto` as there are at \
    the start. A checkpoint goes on with the members that it has.";
const SKEW: &str = "Members have the classes in different shares: the smaller the number, the \
    more so (a Dirichlet concentration; 0.1 is strong, 100 is none).";
const SELECT: &str = "Whether the last round's model is saved or the best one's.";
const MONITOR: &str = "What says which round is best, measured on the validation images. With more \
    than two classes `precision`, `recall`, `f1` and `roc_auc` are means over the classes, each \
    against the rest; `roc_auc` of at most 100 classes.";
const PATIENCE: &str = "Ends training after so many rounds without a better value.";
const BASELINE: &str = "So many steps are first taken by one replica alone, while the others \
    rest, and their result is thrown away: by their speed the job tells speed-up and efficiency.";
const RESUME: &str = "`true`: goes on from the checkpoint, which must be there. `auto`: goes on \
    where a checkpoint is there that fits, else starts; so the same line can be submitted again \
    and again. A training that starts where an earlier one has left checkpoints moves those to \
    `earlier-1` (or 2, ...) below their folder.";
