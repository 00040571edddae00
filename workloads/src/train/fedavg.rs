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
use crate::metric::Tally;

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
        if works.is_empty() {
            let (parameters, optimiser) = (standing.parameters.clone(), standing.optimiser.clone());
            return Ok(Some(Progress { parameters, optimiser, tally: Tally::default() }));
        }
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
/// Of a short run that may be none, for one of them or for all; later runs have what is left.
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
    let works = participants(course, round, sizes.len()).into_iter().map(work);
    works.filter(|work| work.from < work.to).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    fn course(images: u64, members: u32, participation: f64) -> Course {
        let set =
            ["train.strategy=fedavg".to_owned(), format!("train.participation={participation}")];
        let spec = Spec::parse("job.toml", "", &set).unwrap().train;
        Course {
            images,
            labels: vec![0; images as usize],
            batch: 1,
            exchange: None,
            rates: spec.rates,
            merging: spec.merging,
            members,
            trained: 1,
            seed: 1,
        }
    }

    fn sizes(course: &Course) -> Vec<u64> {
        let members = shard::partition(&course.labels, partition(course), course.seed);
        members.iter().map(|member| member.len() as u64).collect()
    }

    /// What is cut as losses would have it is what a whole epoch is.
    #[test]
    fn short_runs_together_are_every_image_of_every_member_once() {
        let course = course(100, 7, 1.0);
        let sizes = sizes(&course);
        let mut done = [0; 7];
        for start in 0..100 {
            for work in works(&course, &sizes, 3, &(start..start + 1)) {
                let Among::Member(member) = work.among else { panic!("{work:?}") };
                assert_eq!(work.from, done[member.index as usize], "{work:?}");
                done[member.index as usize] = work.to;
            }
        }
        assert_eq!(done[..], sizes);
        assert!(works(&course, &sizes, 3, &(0..1)).is_empty(), "nobody has a whole image of it");
    }

    #[test]
    fn a_share_of_the_members_takes_part_and_another_one_each_time() {
        let course = course(100, 10, 0.3);
        let sizes = sizes(&course);
        let rounds: Vec<Vec<Work>> =
            (0..20).map(|round| works(&course, &sizes, round, &(0..100))).collect();
        assert!(rounds.iter().all(|works| works.len() == 3));
        let mut seen = std::collections::BTreeSet::new();
        for work in rounds.concat() {
            let Among::Member(member) = work.among else { panic!("{work:?}") };
            seen.insert(member.index);
        }
        assert_eq!(seen.len(), 10, "everybody's turn comes");
    }
}
