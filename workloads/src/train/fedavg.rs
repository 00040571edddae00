//! Federated averaging (workload 4; `McMahan` et al. 2017): the data set is divided once, a member
//! of the federation only ever trains on its own part, and results count by the size of their
//! part. A part whose replica is lost is trained by another one: the federation is simulated, and
//! what counts is that no part is left out.

use std::ops::Range;

use super::error::JobError;
use super::fleet::Fleet;
use super::trainer::{Among, Member, Work};
use super::{Course, Progress, Scheme, Standing, merged};
use crate::data::random::Random;
use crate::data::shard::{self, Partition};

/// See the module.
#[derive(Default)]
pub(super) struct Fedavg {
    /// How many images each member has.
    sizes: Vec<u64>,
}

impl Scheme for Fedavg {
    async fn train(
        &mut self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
        positions: Range<u64>,
    ) -> Result<Option<Progress>, JobError> {
        if self.sizes.is_empty() {
            let members = shard::partition(&course.labels, partition(course), course.seed);
            self.sizes = members.iter().map(|member| member.len() as u64).collect();
        }
        let works = works(course, &self.sizes, standing.epochs, &positions);
        let trained = fleet
            .spread(&works, |replica, work| replica.train(&standing.parameters, work).submit())
            .await?;
        let Some(trained) = trained else { return Ok(None) };
        merged(fleet, course, standing, &trained, |tally| tally.images as f64).await
    }
}

fn partition(course: &Course) -> Partition {
    Partition { parts: course.members, skew: course.merging.skew }
}

/// What the members of a round do: each the share of its own images that `positions` are of all.
fn works(course: &Course, sizes: &[u64], round: u64, positions: &Range<u64>) -> Vec<Work> {
    let work = |index: usize| {
        let cut = |position: u64| {
            let part = u128::from(sizes[index]) * u128::from(position);
            (part / u128::from(course.images.max(1))) as u64
        };
        let member = Member { index: index as u32, partition: partition(course) };
        Work {
            from: cut(positions.start),
            to: cut(positions.end),
            among: Among::Member(member),
            ..course.work(round, positions.clone())
        }
    };
    participants(course, round, sizes.len()).into_iter().map(work).collect()
}

/// Who trains in a round: a share of the members, another one each time.
fn participants(course: &Course, round: u64, members: usize) -> Vec<usize> {
    const PURPOSE: u64 = 0x9a47;
    let mut all: Vec<usize> = (0..members).collect();
    let wanted = (members as f64 * course.merging.participation).round() as usize;
    Random::new(&[course.seed, PURPOSE, round]).shuffle(&mut all);
    all.truncate(wanted.max(1));
    all.sort_unstable();
    all
}
