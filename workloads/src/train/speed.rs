//! How much faster all replicas are than one: measured in one run, on the same machines, with the
//! same batch for each replica.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::error::JobError;
use super::fleet::Fleet;
use super::{Course, Scheme, Standing};
use crate::report::rounds::Round;

/// Steps before the clock counts: memory is laid out, caches are filled.
const WARM_UP: u64 = 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// Images a second of one replica alone.
    one: Option<f64>,
    /// By the number of replicas: images, and seconds of training.
    all: Vec<(usize, u64, f64)>,
    /// Rounds that belong to no number of replicas.
    left_out: u64,
}

impl Speed {
    /// Has the first replica train alone for so many steps, from where the training stands; the
    /// result is thrown away.
    ///
    /// What a stretch costs at its ends is in the time of the short and of the long one alike, so
    /// that their difference is of steps alone: one replica is not made to look slow.
    pub(super) async fn measure_one(
        &mut self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
        scheme: &mut impl Scheme,
        steps: u64,
    ) -> Result<(), JobError> {
        fleet.set_aside();
        let images = |steps: u64| course.images.min(course.batch.saturating_mul(steps));
        let mut seconds = Vec::new();
        for steps in [WARM_UP, WARM_UP, WARM_UP.saturating_add(steps)] {
            // As in a round's first stretch.
            fleet.members().iter_mut().for_each(|member| member.synced = false);
            let started = Instant::now();
            if scheme.train(fleet, course, standing, 0..images(steps)).await?.is_none() {
                break;
            }
            seconds.push(started.elapsed().as_secs_f64());
        }
        fleet.bring_back();
        let [_, short, long] = seconds[..] else {
            println!("the replica that was to be measured alone was lost: no speed-up is told");
            return Ok(());
        };
        let more = images(WARM_UP.saturating_add(steps)) - images(WARM_UP);
        if more > 0 && long > short {
            let rate = more as f64 / (long - short);
            println!("one replica alone: {rate:.0} images/s");
            self.one = Some(rate);
        } else {
            println!(
                "one replica's steps took too little time to be told from what disturbs them: no \
                 speed-up is told; train.baseline may be larger"
            );
        }
        Ok(())
    }

    /// Counts a round, which is of its number of replicas alone where that was `steady`.
    pub(super) fn add(&mut self, round: &Round, steady: bool) {
        let (images, seconds) = (round.train.images, round.seconds);
        match self.all.iter_mut().find(|(replicas, _, _)| *replicas == round.replicas) {
            _ if !steady => self.left_out += 1,
            Some((_, sum, time)) => (*sum, *time) = (*sum + images, *time + seconds),
            None => self.all.push((round.replicas, images, seconds)),
        }
    }

    /// Tells speed-up and efficiency, and returns them as metrics.
    pub(super) async fn tell(&self, fleet: &mut Fleet) -> Result<Map<String, Value>, JobError> {
        if self.one.is_none() || self.all.is_empty() && self.left_out == 0 {
            return Ok(Map::new());
        }
        let (words, metrics) = self.compare(fleet.cpus().await?);
        println!("{words}");
        Ok(metrics)
    }

    /// What so many CPUs made of the replicas, in words and as metrics.
    fn compare(&self, cpus: u64) -> (String, Map<String, Value>) {
        let mut metrics = Map::new();
        // The number of replicas that most of the time there were.
        let longest = self.all.iter().max_by(|a, b| a.2.total_cmp(&b.2));
        let (Some(one), Some(&(replicas, images, seconds))) = (self.one, longest) else {
            let words = "replicas came or went in every round: no speed-up is told";
            return (words.to_owned(), metrics);
        };
        let rate = images as f64 / seconds.max(1e-9);
        let speed_up = rate / one;
        let efficiency = speed_up / replicas as f64;
        let mut words = format!(
            "{replicas} replicas: {rate:.0} images/s, one alone {one:.0}: speed-up {speed_up:.2}, \
             efficiency {:.0} %",
            100.0 * efficiency
        );
        if (cpus as usize) < replicas {
            words += &format!("; {replicas} replicas share {cpus} CPUs, {cpus} is about the most");
        }
        if self.left_out > 0 {
            words += &format!("; rounds in which some came or went, left out: {}", self.left_out);
        }
        for (name, value) in [
            ("one_replica_images_per_second", one),
            ("speed_up", speed_up),
            ("efficiency", efficiency),
        ] {
            metrics.insert(name.to_owned(), json!(value));
        }
        metrics.insert("replicas".to_owned(), json!(replicas));
        metrics.insert("cpus".to_owned(), json!(cpus));
        (words, metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::rounds::tests::round;

    #[test]
    fn a_round_in_which_replicas_came_or_went_says_nothing_of_a_number() {
        let mut speed = Speed { one: Some(30.0), ..Speed::default() };
        speed.add(&round(1), false);
        let (words, metrics) = speed.compare(2);
        assert!(words.contains("no speed-up is told") && metrics.is_empty(), "{words}");
        // 100 images in 2 s each.
        speed.add(&round(2), true);
        speed.add(&Round { seconds: 1.0, replicas: 1, ..round(3) }, true);
        speed.add(&round(4), true);
        let (words, metrics) = speed.compare(2);
        assert!(words.contains("speed-up 1.67, efficiency 83 %; rounds"), "{words}");
        assert!(words.ends_with("left out: 1"), "{words}");
        assert_eq!((&metrics["replicas"], &metrics["cpus"]), (&json!(2), &json!(2)));
        assert!(speed.compare(1).0.contains("2 replicas share 1 CPUs"));
    }
}
