//! From a job's `[data]` to data sets in the object store: found, sampled, split, decoded. The
//! tables of what went where, and of what was left out, are written to the output folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rdist::prelude::*;
use serde_json::{Value, json};

use super::checkpoint::Identity;
use super::error::JobError;
use super::replica::Sets;
use super::test_set::TestSet;
use crate::data::mnist::{self, Mnist, Places};
use crate::data::stored::{Dataset, Stored};
use crate::data::table::{self, Class, Sample, Skipped, Tables};
use crate::data::{ImageSet, Images, Shape, find, folders, herbarium};
use crate::model::Input;
use crate::place;
use crate::spec::{DataSet, DataSpec, Spec};

/// Pictures that could not be used are named here up to this number; the table has all.
const NAMED: usize = 5;

/// The folder of tables, below that of results.
const TABLES: &str = "tables";
/// The table of pictures that could not be used.
const SKIPPED_FILE: &str = "skipped.csv";

/// A job's data.
pub struct Prepared {
    /// In the store, for replicas.
    pub sets: Sets,
    /// Of all images.
    pub shape: Shape,
    /// In the order of their index.
    pub classes: Vec<Class>,
    /// Of the training images.
    pub train_labels: Vec<u32>,
    /// Of the images that rounds are judged by.
    pub watch_labels: Vec<u32>,
    /// Whether those are validation images, or the test images themselves.
    pub validates: bool,
    /// Where all of it comes from.
    pub source: String,
    /// To test with at the end.
    pub tests: TestSet,
    /// Pictures of no use, among those that were decoded before the training.
    pub skipped: Vec<Skipped>,
}

impl Prepared {
    /// What figures of a round's judgement are called: `val` or `test`.
    pub fn split(&self) -> &'static str {
        if self.validates { "val" } else { "test" }
    }

    /// The class that pictures of no use are taken for: the most frequent one in training.
    pub fn fallback(&self) -> u32 {
        most_frequent(self.train_labels.iter().copied(), self.classes.len())
    }

    /// How much an image's loss counts by its class, so that all classes count alike; their mean
    /// over the training images is 1.
    pub fn balance(&self) -> Vec<f32> {
        let mut counts = vec![0_u64; self.classes.len()];
        for label in &self.train_labels {
            counts[*label as usize] += 1;
        }
        let present = counts.iter().filter(|count| **count > 0).count() as f64;
        let share = self.train_labels.len() as f64 / present.max(1.0);
        counts.iter().map(|count| (share / (*count).max(1) as f64) as f32).collect()
    }
}

/// Prepares the data of a job, for all its models; `folders` are those of their results.
///
/// # Errors
/// No data, or none that can be used.
pub fn prepare(cx: &Driver, spec: &Spec, folders: &[&Path]) -> Result<Prepared, JobError> {
    match spec.data.set {
        DataSet::Mnist | DataSet::Synthetic => digits(cx, spec),
        DataSet::Folders | DataSet::Herbarium => pictures(cx, spec, folders),
    }
}

fn most_frequent(labels: impl Iterator<Item = u32>, classes: usize) -> u32 {
    let mut counts = vec![0_u64; classes];
    labels.for_each(|label| counts[label as usize] += 1);
    let most = counts.iter().enumerate().max_by_key(|(_, count)| **count);
    most.map_or(0, |(class, _)| class as u32)
}

/// What a saved model is tested with.
pub struct Evaluation {
    /// To test with.
    pub tests: TestSet,
    /// In the order of their index.
    pub classes: Vec<Class>,
    /// See [`Prepared::fallback`].
    pub fallback: u32,
    /// Where they come from.
    pub source: String,
}

/// Finds the test images of a job that trains nothing; pictures are not decoded yet.
///
/// # Errors
/// No data, or none that can be used.
pub fn evaluation(cx: &Driver, spec: &Spec) -> Result<Evaluation, JobError> {
    if !spec.data.set.is_pictures() {
        let Split { train, test, shape, source, .. } = split_digits(spec)?;
        let test = test.resized(shape)?;
        return Ok(Evaluation {
            tests: TestSet::of_pixels(Dataset::put(cx, &test)?)?,
            classes: digit_classes(),
            fallback: most_frequent(train.labels.iter().copied(), mnist::CLASSES),
            source,
        });
    }
    let (folder, mut tables) = tables(&spec.data)?;
    divide(&mut tables, &spec.data)?;
    println!("test: {} pictures from {}", tables.test.len(), folder.display());
    let labels = tables.train.iter().filter_map(|sample| sample.label);
    Ok(Evaluation {
        fallback: most_frequent(labels, tables.classes.len()),
        tests: TestSet::of_files(tables.test, spec.data.shape),
        classes: tables.classes,
        source: format!("pictures from {}", folder.display()),
    })
}

/// What a profile times.
pub enum ProfileImages {
    /// Picture files.
    Files(Vec<Sample>),
    /// Pixels of each image.
    Pixels(Vec<Vec<u8>>),
}

/// At most so many of a job's test images, and what the job's model is.
///
/// # Errors
/// No data, or none that can be used.
pub fn profile_images(spec: &Spec, most: usize) -> Result<(ProfileImages, Identity), JobError> {
    let identity = |shape: Shape, classes: Vec<Class>| Identity {
        architecture: spec.model.architecture,
        input: Input { shape, classes: classes.len() as i64, dropout: spec.model.dropout() },
        normal: spec.data.normal,
        classes,
    };
    if !spec.data.set.is_pictures() {
        let Split { test, shape, .. } = split_digits(spec)?;
        let count = test.len().min(most);
        let first: Vec<u32> = (0..count as u32).collect();
        let test = test.select(&first).resized(shape)?;
        let pixels = (0..count).map(|index| test.image(index).to_vec()).collect();
        return Ok((ProfileImages::Pixels(pixels), identity(test.shape, digit_classes())));
    }
    let (_, mut tables) = tables(&spec.data)?;
    divide(&mut tables, &spec.data)?;
    tables.test.truncate(most);
    Ok((ProfileImages::Files(tables.test), identity(spec.data.shape, tables.classes)))
}

fn digit_classes() -> Vec<Class> {
    let class = |class: usize| Class { id: class.to_string(), name: class.to_string() };
    (0..mnist::CLASSES).map(class).collect()
}

/// How much there is, before anything is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amounts {
    /// Where it comes from.
    pub source: String,
    /// Images to train on.
    pub train: usize,
    /// Images to judge rounds by.
    pub validation: usize,
    /// Images to test with.
    pub test: usize,
    /// Listed by the set, but left out.
    pub skipped: usize,
    /// How many classes there are.
    pub classes: usize,
    /// Of all images.
    pub shape: Shape,
}

/// Counts the data of a job.
///
/// # Errors
/// No data, or none that can be used.
pub fn count(spec: &Spec) -> Result<Amounts, JobError> {
    if !spec.data.set.is_pictures() {
        let Split { train, validation, test, source, shape } = split_digits(spec)?;
        return Ok(Amounts {
            source,
            shape,
            train: train.len(),
            validation: validation.len(),
            test: test.len(),
            skipped: 0,
            classes: mnist::CLASSES,
        });
    }
    let (folder, mut tables) = tables(&spec.data)?;
    divide(&mut tables, &spec.data)?;
    Ok(Amounts {
        source: format!("pictures from {}", folder.display()),
        train: tables.train.len(),
        validation: tables.validation.len(),
        test: tables.test.len(),
        skipped: tables.skipped.len(),
        classes: tables.classes.len(),
        shape: spec.data.shape,
    })
}

/// Digits that a job uses, as they come.
struct Split {
    /// What they are to be made to.
    shape: Shape,
    train: ImageSet,
    validation: ImageSet,
    test: ImageSet,
    source: String,
}

fn split_digits(spec: &Spec) -> Result<Split, JobError> {
    let (job, spec) = (spec, &spec.data);
    let places = Places::of_environment(spec.path.clone(), spec.download);
    let Mnist { train, test, source } = match spec.set {
        DataSet::Synthetic => mnist::drawn(&places, Vec::new())?,
        _ => mnist::find(&places)?,
    };
    let shape = spec.digits.of(train.shape);
    if job.infer.model.is_none() {
        check_side(job, shape)?;
    }
    let taken = table::chosen(&train.labels, spec.shares.validation, spec.split_seed);
    let (validation, train) = (pick(&train, &taken, true), pick(&train, &taken, false));
    let most = spec.amount.of(train.len());
    let within = |set: ImageSet, most: usize| match most < set.len() {
        true => pick(&set, &table::within(&set.labels, most, spec.split_seed), true),
        false => set,
    };
    let limit = spec.amount.limit.map_or(usize::MAX, |limit| limit as usize);
    Ok(Split {
        shape,
        train: within(train, most),
        validation: within(validation, limit),
        test: within(test, limit),
        source: source.to_string(),
    })
}

fn digits(cx: &Driver, spec: &Spec) -> Result<Prepared, JobError> {
    let Split { train, validation, test, source, shape } = split_digits(spec)?;
    println!("data: {source}");
    let [train, validation, test] = [train, validation, test].map(|set| set.resized(shape));
    let (train, validation, test) = (train?, validation?, test?);
    let validates = !validation.is_empty();
    let test_set = Dataset::put(cx, &test)?;
    let watch = if validates { Dataset::put(cx, &validation)? } else { test_set.clone() };
    Ok(Prepared {
        shape,
        classes: digit_classes(),
        watch_labels: if validates { validation.labels } else { test.labels },
        validates,
        source,
        tests: TestSet::of_pixels(test_set)?,
        sets: Sets { train: Dataset::put(cx, &train)?, watch },
        train_labels: train.labels,
        skipped: Vec::new(),
    })
}

/// Whether all models of a job take images of this shape.
fn check_side(spec: &Spec, shape: Shape) -> Result<(), JobError> {
    let models = std::iter::once(&spec.model.architecture).chain(&spec.model.compare);
    let side = shape.rows.min(shape.columns);
    let Some(model) = models.into_iter().find(|model| model.smallest_side() > side) else {
        return Ok(());
    };
    let (name, least) = (model.name(), model.smallest_side());
    Err(JobError::Unfit(format!(
        "{name} takes images of at least {least}x{least} pixels, those of data.set are {shape}; \
         data.size = {least} makes them larger, model.name = \"convnet\" is for digits"
    )))
}

/// The images that are marked so.
fn pick(set: &ImageSet, marks: &[bool], mark: bool) -> ImageSet {
    let marked = |index: &u32| marks[*index as usize] == mark;
    let indices: Vec<u32> = (0..set.len() as u32).filter(marked).collect();
    set.select(&indices)
}

fn pictures(cx: &Driver, spec: &Spec, folders: &[&Path]) -> Result<Prepared, JobError> {
    let (folder, mut tables) = tables(&spec.data)?;
    println!(
        "data: {} pictures of {} classes from {}",
        tables.train.len() + tables.validation.len() + tables.test.len(),
        tables.classes.len(),
        folder.display()
    );
    divide(&mut tables, &spec.data)?;
    let written: Vec<PathBuf> = folders.iter().map(|folder| folder.join(TABLES)).collect();
    for path in &written {
        let failed = |source| JobError::Output { path: path.clone(), source };
        tables.write(path).map_err(failed)?;
    }
    let source = format!("pictures from {}", folder.display());
    Ok(Prepared { source, ..decoded(cx, spec, tables, &written)? })
}

/// What there is, and where it was found.
fn tables(spec: &DataSpec) -> Result<(PathBuf, Tables), JobError> {
    match (spec.set, &spec.path) {
        (DataSet::Herbarium, path) => {
            let path = path.as_deref().unwrap_or(Path::new("herbarium"));
            let folder = find::folder(path)?;
            Ok((folder.clone(), herbarium::read(&folder)?))
        }
        (_, Some(path)) => {
            let folder = find::folder(path)?;
            Ok((folder.clone(), folders::read(&folder)?))
        }
        (_, None) => Err(JobError::Unfit(
            "data.set = \"folders\" wants data.path, the folder that holds one folder of pictures \
             for each class"
                .to_owned(),
        )),
    }
}

/// Makes the parts that the set does not have, and takes samples of all.
fn divide(tables: &mut Tables, spec: &DataSpec) -> Result<(), JobError> {
    let (shares, seed) = (spec.shares, spec.split_seed);
    if tables.test.is_empty() {
        (tables.train, tables.test) =
            table::split(std::mem::take(&mut tables.train), shares.test, seed);
    }
    if tables.validation.is_empty() {
        // The share is of what was there before the test part was taken.
        let share = shares.validation / (1.0 - shares.test);
        (tables.train, tables.validation) =
            table::split(std::mem::take(&mut tables.train), share, seed.wrapping_add(1));
    }
    if tables.test.is_empty() {
        // Judged and tested by the same pictures.
        tables.test = std::mem::take(&mut tables.validation);
    }
    let labelled = |samples: &[Sample]| samples.iter().any(|sample| sample.label.is_some());
    if tables.validation.is_empty() && !labelled(&tables.test) {
        return Err(JobError::Unfit(
            "there are no pictures with a known class to judge rounds by; set data.validation, \
             for instance to 0.1"
                .to_owned(),
        ));
    }
    let limit = spec.amount.limit.map_or(usize::MAX, |limit| limit as usize);
    let most = spec.amount.of(tables.train.len());
    tables.train = table::limit(std::mem::take(&mut tables.train), most, seed);
    tables.validation = table::limit(std::mem::take(&mut tables.validation), limit, seed);
    tables.test = table::limit(std::mem::take(&mut tables.test), limit, seed);
    Ok(())
}

fn decoded(
    cx: &Driver,
    spec: &Spec,
    mut tables: Tables,
    written: &[PathBuf],
) -> Result<Prepared, JobError> {
    let (shape, started) = (spec.data.shape, Instant::now());
    let mut skipped = std::mem::take(&mut tables.skipped);
    let mut decode = |samples: &[Sample]| -> Result<(Dataset, Stored), JobError> {
        let dataset = Dataset::decode(cx, samples, shape)?;
        let stored = dataset.open()?;
        skipped.extend(stored.skipped(samples));
        Ok((dataset, stored))
    };
    let (train, train_stored) = decode(&tables.train)?;
    // Test pictures are decoded when their turn comes, unless they are looked at every round.
    let validates = !tables.validation.is_empty();
    let watched = if validates { &tables.validation } else { &tables.test };
    let (watch, watch_stored) = decode(watched)?;
    let total = tables.train.len() + watched.len();
    tell(cx, spec, total, started, &skipped, written)?;
    let train_labels = train_stored.labels();
    if train_labels.is_empty() {
        let text = "none of the training pictures could be used; the reasons are above";
        return Err(JobError::Unfit(text.to_owned()));
    }
    Ok(Prepared {
        sets: Sets { train, watch },
        shape,
        classes: tables.classes,
        train_labels,
        watch_labels: watch_stored.labels(),
        validates,
        source: String::new(),
        tests: TestSet::of_files(tables.test, shape),
        skipped,
    })
}

/// Says what was decoded and what was left out.
fn tell(
    cx: &Driver,
    spec: &Spec,
    total: usize,
    started: Instant,
    skipped: &[Skipped],
    written: &[PathBuf],
) -> Result<(), JobError> {
    let seconds = started.elapsed().as_secs_f64();
    let rate = total as f64 / seconds.max(1e-9);
    println!(
        "decoded {total} pictures to {} in {seconds:.1} s ({rate:.0} a second)",
        spec.data.shape
    );
    let mut event = skipped_event("train", total, skipped);
    event["seconds"] = json!(seconds);
    event["pictures_per_second"] = json!(rate);
    cx.emit(&event);
    written.iter().try_for_each(|tables| forget_skipped(tables))?;
    if skipped.is_empty() {
        return Ok(());
    }
    if let Some(tables) = written.first() {
        say_skipped(skipped, tables);
    }
    written.iter().try_for_each(|tables| list_skipped(skipped, tables))
}

/// Pictures of a part of the data that are left out, for programs.
pub(super) fn skipped_event(part: &str, pictures: usize, skipped: &[Skipped]) -> Value {
    let named: Vec<_> = skipped
        .iter()
        .take(100)
        .map(|each| json!({ "file": each.file, "reason": each.reason }))
        .collect();
    json!({
        "event": "data", "part": part, "pictures": pictures, "skipped": skipped.len(),
        "skipped_files": named,
    })
}

/// Removes an older run's table of pictures that are left out.
pub(super) fn forget_skipped(written: &Path) -> Result<(), JobError> {
    let path = written.join(SKIPPED_FILE);
    place::remove(&path).map_err(|source| JobError::Output { path, source })
}

/// Names pictures that are left out, here and in the table of them, which is made or goes on.
pub(super) fn name_skipped(skipped: &[Skipped], written: &Path) -> Result<(), JobError> {
    say_skipped(skipped, written);
    list_skipped(skipped, written)
}

fn say_skipped(skipped: &[Skipped], written: &Path) {
    let path = written.join(SKIPPED_FILE);
    println!("{} pictures are skipped; {} names all:", skipped.len(), path.display());
    for Skipped { file, reason } in skipped.iter().take(NAMED) {
        println!("  {file}: {reason}");
    }
}

fn list_skipped(skipped: &[Skipped], written: &Path) -> Result<(), JobError> {
    use std::io::Write as _;

    std::fs::create_dir_all(written)
        .map_err(|source| JobError::Output { path: written.to_owned(), source })?;
    let path = written.join(SKIPPED_FILE);
    let mut text = String::new();
    for Skipped { file, reason } in skipped {
        text.push_str(&format!("{},{}\n", table::quoted(file), table::quoted(reason)));
    }
    let append = || {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        if file.metadata()?.len() == 0 {
            file.write_all(b"file,reason\n")?;
        }
        file.write_all(text.as_bytes())
    };
    append().map_err(|source| JobError::Output { path: path.clone(), source })
}
