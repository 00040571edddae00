//! What a model says of the test images: figures, samples that people can look at, and the table
//! of answers; after a training, or with a model that was saved.

use std::path::Path;

use rdist::prelude::*;
use serde_json::{Map, Value, json};

use super::checkpoint::{Identity, Saved};
use super::error::JobError;
use super::fleet::Fleet;
use super::page::{Outcome, Subject};
use super::prepare;
use super::record::figures;
use super::test_set::TestSet;
use crate::data::stored::Dataset;
use crate::data::table::Class;
use crate::metric::{Answers, Confusion, Metric, Seen, accuracy};
use crate::pipeline::{self, Collect, Duty, Predicted, Table};
use crate::report::digits::{self, Sample};
use crate::spec::Spec;

/// Width of the drawn samples, in characters.
const WIDTH: usize = 100;
/// Images of more pixels in a row are told of, not drawn.
const MOST_COLUMNS: u32 = 40;
/// Classes of a confusion matrix that is worth sending.
const MOST_CLASSES: u32 = 100;
/// How often answers are asked for again after losses.
const MAX_TRIES: u32 = 5;

/// What the model with `parameters` says of the images that rounds are judged by.
pub(super) async fn answers(
    fleet: &mut Fleet,
    parameters: &ObjectRef<Vec<f32>>,
    count: usize,
) -> Result<Answers, JobError> {
    for tries in 0..MAX_TRIES {
        // Smaller and smaller pieces, for replicas that do not live long.
        if let Some(answers) = fleet.answers(parameters, count as u64, 1 << tries).await? {
            return Ok(answers);
        }
    }
    let last = "the parameters could not be read, or no replica lived long enough".to_owned();
    Err(JobError::TooManyLosses { losses: MAX_TRIES, last })
}

/// A test: a model, and what it is tested with.
pub(super) struct Test<'a> {
    pub(super) spec: &'a Spec,
    pub(super) identity: &'a Identity,
    pub(super) tests: &'a TestSet,
    /// The class that pictures of no use are taken for.
    pub(super) fallback: u32,
}

impl Test<'_> {
    /// Predicts all test images through the pipeline, and tells of it. Returns the figures as the
    /// job's metrics, and how it went.
    pub(super) async fn predict(
        &self,
        cx: &Driver,
        parameters: ObjectRef<Vec<f32>>,
    ) -> Result<(Map<String, Value>, Predicted, pipeline::Report), JobError> {
        let Identity { architecture, input, normal, .. } = *self.identity;
        let processor = self.spec.train.device.processor();
        let duty = Duty { architecture, input, normal, processor, parameters };
        let mut settings = self.spec.infer.pipeline.clone();
        let [.., predictors] = &mut settings.actors;
        *predictors = predictors.or(self.spec.train.replicas);
        let (source, labels) = (self.tests.source(), self.tests.labels());
        let collect = self.collect()?;
        let (predicted, report) =
            pipeline::predict(cx, duty, &source, &labels, &settings, collect).await?;
        let mut metrics = self.tell(cx, &predicted)?;
        metrics.insert("infer_images_per_second".to_owned(), json!(report.images_per_second()));
        Ok((metrics, predicted, report))
    }

    /// Tells of a test by what was said already: rounds were judged by the test images themselves.
    pub(super) fn tell_watched(
        &self,
        cx: &Driver,
        watch: &Dataset,
        answers: &Answers,
    ) -> Result<(Map<String, Value>, Predicted), JobError> {
        let mut collect = self.collect()?;
        let rows = watch.open()?.rows();
        collect.take(&rows, answers)?;
        for row in (0..self.tests.len() as u32).filter(|row| rows.binary_search(row).is_err()) {
            collect.fail(row, String::new())?;
        }
        let mut predicted = collect.finish()?;
        // They were named when they were decoded.
        predicted.failed.clear();
        Ok((self.tell(cx, &predicted)?, predicted))
    }

    /// Where predictions go: pictures have a table of them.
    fn collect(&self) -> Result<Collect, JobError> {
        let Some(samples) = self.tests.samples() else { return Ok(Collect::new()) };
        let ids = samples.iter().map(|sample| sample.id.clone()).collect();
        let classes = self.identity.classes.iter().map(|class| class.id.clone()).collect();
        let path = self.spec.output.folder.join("predictions.csv");
        let ordered = self.spec.infer.pipeline.ordered;
        let table = Table::create(&path, ids, classes, self.fallback, ordered)?;
        Ok(Collect::into_table(table))
    }

    /// Tells of samples, figures, what was left out.
    fn tell(&self, cx: &Driver, predicted: &Predicted) -> Result<Map<String, Value>, JobError> {
        let Self { spec, identity, tests, .. } = self;
        self.show(predicted, spec.infer.samples as usize);
        if tests.samples().is_some() {
            let path = spec.output.folder.join("predictions.csv");
            println!("{} predictions in {}", tests.len(), path.display());
        }
        if !predicted.failed.is_empty() {
            let skipped = tests.skipped(&predicted.failed);
            prepare::name_skipped(&skipped, &spec.output.folder.join("tables"))?;
            cx.emit(&prepare::skipped_event("test", tests.len(), &skipped));
        }
        let all = tests.labels();
        let labels: Vec<u32> = predicted.rows.iter().map(|row| all[*row as usize]).collect();
        let seen = Seen::new(&predicted.answers, &labels, identity.classes.len() as u32);
        let mut metrics = Map::new();
        if seen.pairs.is_empty() {
            println!("the classes of the test images are not known: no figures");
            return Ok(metrics);
        }
        metrics.extend(named("test", &seen));
        let figure = |metric: Metric| (metric.of)(&seen);
        let shown =
            [accuracy::ACCURACY, crate::metric::f1::MACRO_F1, crate::metric::roc_auc::ROC_AUC];
        let shown: Vec<String> = shown
            .into_iter()
            .filter_map(|metric| Some(format!("{} {:.4}", metric.name, figure(metric)?)))
            .collect();
        println!("test {} of {} images", shown.join(", "), seen.pairs.len());
        if seen.classes <= MOST_CLASSES {
            let names: Vec<&str> =
                identity.classes.iter().map(|class| class.name.as_str()).collect();
            let rows = Confusion::of(&seen).rows(seen.classes);
            cx.emit(&json!({ "event": "confusion", "classes": names, "rows": rows }));
        }
        Ok(metrics)
    }

    /// Shows the first images with what they are taken for.
    fn show(&self, predicted: &Predicted, most: usize) {
        let (classes, labels) = (&self.identity.classes, self.tests.labels());
        let name = |class: u32| classes.get(class as usize).map_or("?", |c| c.name.as_str());
        let caption = |index: usize| {
            let row = predicted.rows[index];
            let (class, label) = (predicted.answers.classes[index], labels[row as usize]);
            match classes.get(label as usize) {
                None => format!("predicted {}", name(class)),
                Some(_) if class == label => {
                    format!("predicted {}, true {}", name(class), name(label))
                }
                Some(_) => format!("predicted {}, true {} (wrong)", name(class), name(label)),
            }
        };
        let count = predicted.rows.len().min(most);
        let shape = self.identity.input.shape;
        if shape.channels == 1 && shape.columns <= MOST_COLUMNS {
            let pixels = |index: usize| self.tests.pixels(predicted.rows[index]);
            let images: Vec<(usize, Vec<u8>)> =
                (0..count).filter_map(|index| Some((index, pixels(index)?))).collect();
            let samples: Vec<Sample<'_>> = images
                .iter()
                .map(|(index, pixels)| Sample { pixels, caption: caption(*index) })
                .collect();
            if !samples.is_empty() {
                print!("{}", digits::draw(&samples, shape.columns as usize, WIDTH));
            }
            return;
        }
        for (index, row) in predicted.rows.iter().enumerate().take(count) {
            let samples = self.tests.samples().unwrap_or_default();
            let id = samples.get(*row as usize).map(|sample| sample.id.clone());
            let id = id.unwrap_or_else(|| format!("image {row}"));
            let sure = 100.0 * predicted.answers.certainty[index];
            println!("{id}: {} ({sure:.0} % sure)", caption(index));
        }
    }
}

/// The figures that mean something, by the name that the job's metrics have for them.
pub(super) fn named(split: &'static str, seen: &Seen) -> impl Iterator<Item = (String, Value)> {
    figures(seen).into_iter().filter_map(move |(metric, value)| {
        Some((format!("{split}_{}", metric.name), json!(value?)))
    })
}

/// Predicts the whole test set with a saved model.
pub(super) async fn predict(cx: Driver, mut spec: Spec, path: &Path) -> Result<(), JobError> {
    let saved = Saved::read(path)?;
    let Saved { identity, epochs, parameters, .. } = saved;
    if spec.output.upload.is_some() {
        println!("nothing is trained, and so nothing goes to output.upload");
    }
    spec.data.suit(identity.input.shape);
    prepare::forget_skipped(&spec.output.folder.join("tables"))?;
    let data = prepare::evaluation(&cx, &spec)?;
    if identity.input.shape != data.tests.shape() {
        return Err(JobError::Unfit(format!(
            "the model takes {} images, the test set has {} ones; data.path must name images like \
             those that it was trained on",
            identity.input.shape,
            data.tests.shape()
        )));
    }
    if identity.classes != data.classes {
        return Err(JobError::Unfit(unlike(&identity.classes, &data.classes)));
    }
    let parameters = cx.put(&parameters)?;
    let (tests, fallback) = (&data.tests, data.fallback);
    let test = Test { spec: &spec, identity: &identity, tests, fallback };
    let (metrics, predicted, report) = test.predict(&cx, parameters).await?;
    println!("that is {identity} of {epochs} epochs");
    cx.emit(&json!({ "event": "metrics", "metrics": metrics }));
    let outcome = Outcome {
        spec: &spec,
        subject: Subject::Model { path, identity: &identity, epochs },
        source: &data.source,
        classes: &data.classes,
        tests: &data.tests,
        predicted: &predicted,
        pipeline: Some(&report),
        metrics: &metrics,
    };
    outcome.tell(&cx)
}

/// How the classes of a model and of data differ, and what to do about it.
fn unlike(model: &[Class], data: &[Class]) -> String {
    let first = (0..model.len().max(data.len())).find(|at| model.get(*at) != data.get(*at));
    let name = |classes: &[Class]| match first.and_then(|at| classes.get(at)) {
        Some(Class { id, name }) if id == name => format!("`{id}`"),
        Some(Class { id, name }) => format!("`{id}` ({name})"),
        None => "no more".to_owned(),
    };
    format!(
        "the model tells {} classes apart, the data has {}; class {} is {} for the model and {} in \
         the data; data.path must name data with the model's classes, or train a model on these, \
         with this one as model.weights",
        model.len(),
        data.len(),
        first.unwrap_or_default() + 1,
        name(model),
        name(data)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_differs_is_named() {
        let class = |id: &str, name: &str| Class { id: id.to_owned(), name: name.to_owned() };
        let model = [class("0", "0"), class("7", "Poa")];
        let text = unlike(&model, &[class("0", "0"), class("8", "Poa")]);
        for piece in ["class 2 is `7` (Poa) for the model and `8` (Poa)", "data.path"] {
            assert!(text.contains(piece), "{text}");
        }
        assert!(unlike(&model, &model[..1]).contains("and no more in the data"));
    }
}
