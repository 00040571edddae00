//! The stages of the pipeline, and how many actors each is worth. Pure.

/// What actors do; predictions are collected by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Files into memory.
    Read,
    /// Files to pixels of the model's size.
    Decode,
    /// Pixels to numbers, as batches.
    Normalise,
    /// Numbers to classes.
    Predict,
}

impl Stage {
    /// In the order of the way.
    pub const ALL: [Self; 4] = [Self::Read, Self::Decode, Self::Normalise, Self::Predict];

    /// For people.
    pub fn name(self) -> &'static str {
        ["read", "decode", "normalise", "predict"][self as usize]
    }
}

/// Something for each stage.
pub type Each<T> = [T; 4];

/// Seconds that stages take for an image, with one actor each; `None`: nobody knows yet.
pub type Costs = Each<Option<f64>>;

/// How many actors each stage is worth on so many CPUs: as many as CPUs that its share of the work
/// comes to, and at least one.
pub fn recommend(costs: &Each<f64>, cpus: u32) -> Each<u32> {
    let total: f64 = costs.iter().sum();
    costs.map(|cost| {
        let share = if total > 0.0 { cost / total * f64::from(cpus) } else { 0.0 };
        // A thousandth of a CPU is no reason for another actor.
        ((share - 1e-3).ceil() as u32).max(1)
    })
}

/// Images a second with all CPUs busy, whatever the stages.
pub fn ceiling(costs: &Each<f64>, cpus: u32) -> f64 {
    f64::from(cpus) / costs.iter().sum::<f64>().max(1e-12)
}

/// An actor that goes from one stage to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Move {
    /// Where it is missed least.
    pub from: Stage,
    /// The stage that all others wait for.
    pub to: Stage,
    /// Images a second that the slowest stage does now, and with the move.
    pub rates: (f64, f64),
}

/// A move that pays must make the slowest stage so much faster: less is noise, and would be moved
/// back the next moment.
const WORTH: f64 = 1.15;

/// The move that helps most, if one is worth it. `spare`: whether a stage has an actor that may go
/// where it is needed (from, to); a stage keeps its last one.
pub fn better(
    costs: &Costs,
    actors: &Each<u32>,
    spare: impl Fn(Stage, Stage) -> bool,
) -> Option<Move> {
    // Before everything was measured, what looks slow may only be late.
    let cost = |stage: Stage| costs[stage as usize];
    if Stage::ALL.into_iter().any(|stage| actors[stage as usize] > 0 && cost(stage).is_none()) {
        return None;
    }
    let rate = |actors: &Each<u32>| {
        let of = |stage: Stage| {
            let cost = cost(stage).filter(|cost| *cost > 0.0)?;
            Some(f64::from(actors[stage as usize]) / cost)
        };
        Stage::ALL.into_iter().filter_map(of).fold(f64::INFINITY, f64::min)
    };
    let now = rate(actors);
    let mut best: Option<Move> = None;
    for from in Stage::ALL.into_iter().filter(|stage| actors[*stage as usize] > 1) {
        for to in Stage::ALL {
            if from == to || actors[to as usize] == 0 || !spare(from, to) {
                continue;
            }
            let mut moved = *actors;
            moved[from as usize] -= 1;
            moved[to as usize] += 1;
            let then = rate(&moved);
            if then > now * WORTH && best.is_none_or(|best| then > best.rates.1) {
                best = Some(Move { from, to, rates: (now, then) });
            }
        }
    }
    best
}

/// Where one more actor helps most: the slowest stage of those where it may work, or prediction
/// while nobody knows.
pub fn neediest(costs: &Costs, actors: &Each<u32>, may: impl Fn(Stage) -> bool) -> Stage {
    let time = |stage: &Stage| {
        let cost = costs[*stage as usize]?;
        Some(cost / f64::from(actors[*stage as usize].max(1)))
    };
    let known = Stage::ALL.into_iter().filter_map(|stage| Some((time(&stage)?, stage)));
    let complete = known.clone().count() == Stage::ALL.len();
    let slowest = known
        .filter(|(_, stage)| may(*stage))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, stage)| stage);
    slowest.filter(|_| complete).unwrap_or(Stage::Predict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn always(_: Stage, _: Stage) -> bool {
        true
    }

    #[test]
    fn stages_get_actors_by_their_share_of_the_work() {
        // W3 on two CPUs: one actor each for the first three stages, the rest predict.
        assert_eq!(recommend(&[0.1, 1.0, 0.2, 40.0], 2), [1, 1, 1, 2]);
        assert_eq!(recommend(&[0.1, 1.0, 0.2, 0.3], 2), [1, 2, 1, 1]);
        assert_eq!(recommend(&[1.0, 1.0, 1.0, 1.0], 16), [4, 4, 4, 4]);
        assert_eq!(recommend(&[0.0; 4], 4), [1; 4]);
        assert!((ceiling(&[0.001, 0.002, 0.003, 0.004], 2) - 200.0).abs() < 1e-9);
    }

    #[test]
    fn an_actor_goes_where_all_others_wait() {
        let costs = [0.0001, 0.001, 0.0001, 0.0002].map(Some);
        let moved = better(&costs, &[1, 1, 1, 2], always).unwrap();
        assert_eq!((moved.from, moved.to), (Stage::Predict, Stage::Decode));
        assert_eq!(moved.rates.0.round(), 1_000.0);
        assert_eq!(moved.rates.1.round(), 2_000.0);
        assert_eq!(better(&costs, &[1, 2, 1, 1], always), None, "a second time it does not pay");
    }

    #[test]
    fn nobody_moves_for_little_or_without_knowledge_or_leave() {
        let even = [0.001, 0.001, 0.001, 0.0019].map(Some);
        assert_eq!(better(&even, &[1, 1, 1, 2], always), None);
        let slow = [Some(0.001), Some(0.1), None, Some(0.001)];
        assert_eq!(better(&slow, &[1, 1, 1, 2], always), None, "one stage is not measured yet");
        let slow = [0.001, 0.1, 0.001, 0.001].map(Some);
        assert_eq!(better(&slow, &[1, 1, 1, 1], always), None, "each stage keeps its last actor");
        assert_eq!(better(&slow, &[1, 1, 1, 2], |_, to| to != Stage::Decode), None);
    }

    #[test]
    fn a_new_actor_goes_to_the_slowest_stage() {
        let anywhere = |_| true;
        assert_eq!(neediest(&[None; 4], &[0; 4], anywhere), Stage::Predict);
        let costs = [0.001, 0.02, 0.001, 0.01].map(Some);
        assert_eq!(neediest(&costs, &[1, 1, 1, 1], anywhere), Stage::Decode);
        assert_eq!(neediest(&costs, &[1, 4, 1, 1], anywhere), Stage::Predict);
        // An actor that does not see the files helps the next slowest.
        let reads = [Some(9.0), Some(3.0), Some(0.5), Some(1.0)];
        assert_eq!(neediest(&reads, &[1, 1, 1, 1], |s| s != Stage::Read), Stage::Decode);
    }
}
