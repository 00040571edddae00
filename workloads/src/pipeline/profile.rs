//! How long each activity takes for an image, on a sample of a job's test images, with one thread
//! and without a cluster; and how many actors that is worth for each stage.

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::{Value, json};

use super::stage::{Each, Stage, ceiling, recommend};
use crate::data::augment::{Change, show};
use crate::data::picture::Decoder;
use crate::data::random::Random;
use crate::data::stored::NO_LABEL;
use crate::model::ready::Ready;
use crate::spec::Spec;
use crate::tensor;
use crate::train::checkpoint::{Identity, Saved};
use crate::train::error::JobError;
use crate::train::prepare::{self, ProfileImages};
use crate::train::trainer::answers_of;

/// Images that are timed when nobody says how many.
pub const DEFAULT_IMAGES: usize = 128;

/// The activities, in the order of the way, with the stage that does them.
const ACTIVITIES: [(&str, Stage); 6] = [
    ("read", Stage::Read),
    ("decode", Stage::Decode),
    ("resize", Stage::Decode),
    ("normalise", Stage::Normalise),
    ("predict", Stage::Predict),
    ("collect", Stage::Predict),
];

/// What one activity takes for an image, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// What it is called.
    pub activity: &'static str,
    /// Which stage does it.
    pub stage: Stage,
    /// Of all images.
    pub mean: f64,
    /// Half of the images take less.
    pub median: f64,
    /// One in twenty takes more.
    pub slow: f64,
}

impl Timing {
    fn of((activity, stage): (&'static str, Stage), times: &mut [f64]) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (share * times.len().saturating_sub(1) as f64).round() as usize;
            times.get(index).copied().unwrap_or_default()
        };
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        Self { activity, stage, mean, median: at(0.5), slow: at(0.95) }
    }
}

/// What a sample of a job showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// What was timed.
    pub model: String,
    /// Images in the sample that were of use, and that were not.
    pub images: (usize, usize),
    /// In a batch.
    pub batch: usize,
    /// Activities that there were.
    pub timings: Vec<Timing>,
    /// CPUs that actors are recommended for.
    pub cpus: u32,
}

impl Profile {
    /// Seconds for an image, by stage.
    pub fn costs(&self) -> Each<f64> {
        let mut costs = [0.0; 4];
        self.timings.iter().for_each(|timing| costs[timing.stage as usize] += timing.mean);
        costs
    }

    /// Actors for each stage.
    pub fn recommended(&self) -> Each<u32> {
        recommend(&self.costs(), self.cpus)
    }

    /// For people.
    pub fn text(&self) -> String {
        let (images, skipped) = self.images;
        let mut text = format!(
            "{} on {images} images, batches of {}, one thread\n\n\
             activity     stage         mean ms    median     95 %     of all   images/s\n",
            self.model, self.batch
        );
        let total: f64 = self.costs().iter().sum();
        for Timing { activity, stage, mean, median, slow } in &self.timings {
            let line = format!(
                "{activity:<12} {:<12} {:>8.3} {:>9.3} {:>8.3} {:>8.1} % {:>10.0}\n",
                stage.name(),
                1e3 * mean,
                1e3 * median,
                1e3 * slow,
                100.0 * mean / total.max(1e-12),
                1.0 / mean.max(1e-12),
            );
            text += &line;
        }
        let _ = writeln!(text, "{:<12} {:<12} {:>8.3}", "all", "", 1e3 * total);
        if skipped > 0 {
            let _ = writeln!(text, "{skipped} more images are of no use and were left out");
        }
        let [readers, decoders, normalisers, predictors] = self.recommended();
        let _ = write!(
            text,
            "\nfor {} CPUs, up to {:.0} images/s:\n\n[infer]\nreaders = {readers}\n\
             decoders = {decoders}\nnormalisers = {normalisers}\npredictors = {predictors}\n",
            self.cpus,
            ceiling(&self.costs(), self.cpus)
        );
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let timings: Vec<Value> = self
            .timings
            .iter()
            .map(|timing| {
                json!({
                    "activity": timing.activity, "stage": timing.stage.name(),
                    "mean_seconds": timing.mean, "median_seconds": timing.median,
                    "p95_seconds": timing.slow,
                })
            })
            .collect();
        let [readers, decoders, normalisers, predictors] = self.recommended();
        json!({
            "event": "profile", "model": self.model, "images": self.images.0,
            "skipped": self.images.1, "batch": self.batch, "timings": timings, "cpus": self.cpus,
            "images_per_second": ceiling(&self.costs(), self.cpus),
            "recommended": {
                "readers": readers, "decoders": decoders, "normalisers": normalisers,
                "predictors": predictors,
            },
        })
    }
}

/// Times `most` images of a job. The model is the one that the job names to predict with, else one
/// with fresh values, which takes as long.
///
/// # Errors
/// No data, or none that can be used; a saved model that cannot be read.
pub fn profile(spec: &Spec, most: usize, cpus: u32) -> Result<Profile, JobError> {
    tch::set_num_threads(1);
    let mut spec = spec.clone();
    let saved = spec.infer.model.as_deref().map(Saved::read).transpose()?;
    if let Some(saved) = &saved {
        spec.data.suit(saved.identity.input.shape);
    }
    let (images, identity) = prepare::profile_images(&spec, most)?;
    let (identity, values) = match saved {
        Some(saved) => (saved.identity, Some(saved.parameters)),
        None => (identity, None),
    };
    let mut bench = Bench::default();
    bench.pixels(&images, &identity)?;
    if bench.pixels.is_empty() {
        let text = "none of the sample's pictures could be used; data.path names other ones";
        return Err(JobError::Unfit(text.to_owned()));
    }
    let batch = (spec.infer.pipeline.batch as usize).min(bench.pixels.len());
    bench.predict(&identity, values, batch)?;
    let used = bench.pixels.len();
    let timings = ACTIVITIES.into_iter().zip(&mut bench.times);
    let timings = timings.filter(|(_, times)| !times.is_empty());
    let timings = timings.map(|(activity, times)| Timing::of(activity, times)).collect();
    let images = (used, bench.skipped);
    Ok(Profile { model: identity.to_string(), images, batch, timings, cpus })
}

/// Times of each activity, and what it works on.
#[derive(Default)]
struct Bench {
    times: [Vec<f64>; 6],
    pixels: Vec<Vec<u8>>,
    skipped: usize,
}

impl Bench {
    fn time<T>(&mut self, activity: usize, per: usize, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        let each = started.elapsed().as_secs_f64() / per.max(1) as f64;
        self.times[activity].extend(std::iter::repeat_n(each, per));
        result
    }

    /// Reads, decodes and resizes.
    fn pixels(&mut self, images: &ProfileImages, identity: &Identity) -> Result<(), JobError> {
        let shape = identity.input.shape;
        let samples = match images {
            ProfileImages::Pixels(pixels) => {
                self.pixels.clone_from(pixels);
                return Ok(());
            }
            ProfileImages::Files(samples) => samples,
        };
        let mut decoder = Decoder::new(shape);
        for (index, sample) in samples.iter().enumerate() {
            // The first one also warms up; it is done twice and counted once.
            if index == 0
                && let Ok(bytes) = std::fs::read(&sample.file)
            {
                let _ = decoder.decode_into(&bytes, &mut vec![0; shape.len()]);
            }
            let Ok(bytes) = self.time(0, 1, || std::fs::read(&sample.file)) else {
                self.times[0].pop();
                self.skipped += 1;
                continue;
            };
            let Ok(picture) = self.time(1, 1, || decoder.decode(&bytes)) else {
                self.times[1].pop();
                self.skipped += 1;
                continue;
            };
            let mut target = vec![0; shape.len()];
            match self.time(2, 1, || decoder.resize_into(&picture, &mut target)) {
                Ok(()) => self.pixels.push(target),
                Err(_) => self.skipped += 1,
            }
        }
        Ok(())
    }

    /// Makes batches, predicts them, and takes the scores apart.
    fn predict(
        &mut self,
        identity: &Identity,
        values: Option<Vec<f32>>,
        batch: usize,
    ) -> Result<(), JobError> {
        let Identity { architecture, input, normal, .. } = identity;
        let shape = input.shape;
        let model = architecture.build(input);
        let values = values.unwrap_or_else(|| model.layout().initial(1));
        let unfit = || JobError::Unfit("the parameters are of another model".to_owned());
        let ready = Ready::new(model, &values).ok_or_else(unfit)?;
        let mut numbers = vec![0.0_f32; batch * shape.len()];
        // A sample that is no whole number of batches is filled up from its start.
        let count = self.pixels.len().next_multiple_of(batch);
        let order: Vec<usize> = (0..count).map(|at| at % self.pixels.len()).collect();
        let pixels = std::mem::take(&mut self.pixels);
        let mut random = Random::new(&[1]);
        numbers.iter_mut().for_each(|value| *value = random.between(-1.0, 1.0) as f32);
        // Once for nothing: libtorch plans its convolutions then.
        let _ = ready.forward(&tensor::batch(&numbers, shape));
        for chunk in order.chunks(batch) {
            for (index, target) in chunk.iter().zip(numbers.chunks_exact_mut(shape.len())) {
                self.time(3, 1, || show(&pixels[*index], shape, normal, &Change::NONE, target));
            }
            let images = tensor::batch(&numbers, shape);
            let scores = self.time(4, batch, || ready.forward(&images));
            let labels = vec![i64::from(NO_LABEL); batch];
            self.time(5, batch, || answers_of(&scores, &labels, input.classes));
        }
        self.pixels = pixels;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_digits_and_one_of_pictures_are_profiled() {
        let spec = |text: &str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(|each| (*each).to_owned()).collect();
            Spec::parse("job.toml", text, &set).unwrap()
        };
        let digits = spec("[data]\nset = \"synthetic\"\nlimit = 40\n[infer]\nbatch = 7", &[]);
        let profile = profile(&digits, 20, 4).unwrap();
        let names: Vec<_> = profile.timings.iter().map(|timing| timing.activity).collect();
        assert_eq!(names, ["normalise", "predict", "collect"]);
        assert_eq!((profile.images, profile.batch), ((20, 0), 7));

        let root = tempfile::tempdir().unwrap();
        for index in 0..14_u32 {
            let part = if index < 2 { "train" } else { "test" };
            let path = root.path().join(format!("{part}/{}/{index}.png", index % 2));
            let bytes = crate::data::picture::tests::png_of(40, 50, |x, y| [x as u8, y as u8, 9]);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, if index == 7 { b"no picture".to_vec() } else { bytes }).unwrap();
        }
        let set = [
            "data.set=folders",
            &format!("data.path={}", root.path().display()),
            "data.size=32",
            "model.name=herbarium_convnet",
        ];
        let profile = super::profile(&spec("", &set), 100, 4).unwrap();
        assert_eq!(profile.images, (11, 1));
        assert_eq!(profile.timings.len(), 6);
        assert!(profile.timings.iter().all(|timing| timing.mean > 0.0));
        let sizes = profile.recommended();
        assert!(sizes.iter().sum::<u32>() >= 4 && sizes[3] >= 2, "{sizes:?}");
        let json = profile.json();
        assert_eq!(json["recommended"]["predictors"], sizes[3]);
        let text = profile.text();
        for piece in ["resize", "for 4 CPUs", "predictors = ", "1 more images are of no use"] {
            assert!(text.contains(piece), "{piece}: {text}");
        }
    }

    #[test]
    fn spread_is_told_by_rank() {
        let mut times: Vec<f64> = (1..=100).map(f64::from).rev().collect();
        let timing = Timing::of(("read", Stage::Read), &mut times);
        assert_eq!((timing.mean, timing.median, timing.slow), (50.5, 51.0, 95.0));
    }
}
