//! What a model says of the test images: figures, samples that people can look at, and the table
//! of answers; after a training, or with a model that was saved.

use std::time::Instant;

use rdist::prelude::*;
use serde_json::{Map, json};

use super::checkpoint::Saved;
use super::error::JobError;
use super::fleet::{Fleet, Material};
use super::prepare::{Prepared, prepare};
use super::record::figures;
use super::replica::Part;
use super::run::recipe;
use crate::data::Images;
use crate::data::table::Class;
use crate::metric::{Answers, Confusion, Metric, Seen, accuracy};
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

/// What the model with `parameters` says of a part.
pub(super) async fn answers(
    fleet: &mut Fleet,
    parameters: &ObjectRef<Vec<f32>>,
    part: Part,
    count: usize,
) -> Result<Answers, JobError> {
    for _ in 0..MAX_TRIES {
        if let Some(answers) = fleet.answers(parameters, part, count as u64).await? {
            return Ok(answers);
        }
    }
    let last = "the parameters could not be read".to_owned();
    Err(JobError::TooManyLosses { losses: MAX_TRIES, last })
}

/// Tells of the test: samples, figures, `predictions.csv`. Returns the figures as the job's
/// metrics.
pub(super) fn tell(
    cx: &Driver,
    spec: &Spec,
    data: &Prepared,
    answers: &Answers,
) -> Result<Map<String, serde_json::Value>, JobError> {
    show(data, answers, spec.infer.samples as usize);
    write(spec, data, answers)?;
    let seen = Seen::new(answers, &data.test.labels(), data.classes.len() as u32);
    let mut metrics = Map::new();
    if seen.pairs.is_empty() {
        println!("the classes of the test images are not known: no figures");
        return Ok(metrics);
    }
    metrics.extend(named("test", &seen));
    let figure = |metric: Metric| (metric.of)(&seen);
    let shown = [accuracy::ACCURACY, crate::metric::f1::MACRO_F1, crate::metric::roc_auc::ROC_AUC];
    let shown: Vec<String> = shown
        .into_iter()
        .filter_map(|metric| Some(format!("{} {:.4}", metric.name, figure(metric)?)))
        .collect();
    println!("test {} of {} images", shown.join(", "), seen.pairs.len());
    if seen.classes <= MOST_CLASSES {
        let names: Vec<&str> = data.classes.iter().map(|class| class.name.as_str()).collect();
        let rows = Confusion::of(&seen).rows(seen.classes);
        cx.emit(&json!({ "event": "confusion", "classes": names, "rows": rows }));
    }
    Ok(metrics)
}

/// The figures that mean something, by the name that the job's metrics have for them.
pub(super) fn named(
    split: &'static str,
    seen: &Seen,
) -> impl Iterator<Item = (String, serde_json::Value)> {
    figures(seen).into_iter().filter_map(move |(metric, value)| {
        Some((format!("{split}_{}", metric.name), json!(value?)))
    })
}

/// Shows the first images with what they are taken for.
fn show(data: &Prepared, answers: &Answers, most: usize) {
    let count = answers.classes.len().min(most);
    let name = |class: u32| data.classes.get(class as usize).map_or("?", |c| c.name.as_str());
    let caption = |index: usize| {
        let (class, label) = (answers.classes[index], data.test.label(index));
        match data.classes.get(label as usize) {
            None => format!("predicted {}", name(class)),
            Some(_) if class == label => format!("predicted {}, true {}", name(class), name(label)),
            Some(_) => format!("predicted {}, true {} (wrong)", name(class), name(label)),
        }
    };
    if data.shape.channels == 1 && data.shape.columns <= MOST_COLUMNS {
        let sample =
            |index: usize| Sample { pixels: data.test.image(index), caption: caption(index) };
        let samples: Vec<Sample<'_>> = (0..count).map(sample).collect();
        if !samples.is_empty() {
            print!("{}", digits::draw(&samples, data.shape.columns as usize, WIDTH));
        }
        return;
    }
    let rows = data.test.rows();
    for (index, row) in rows.into_iter().enumerate().take(count) {
        let samples = data.tests.as_deref().unwrap_or_default();
        let id = samples.get(row as usize).map_or("", |sample| sample.id.as_str());
        println!("{id}: {} ({:.0} % sure)", caption(index), 100.0 * answers.certainty[index]);
    }
}

/// The challenge's table: every test picture's id and the id of its class. A picture that could
/// not be read gets the class that is most frequent in training.
fn write(spec: &Spec, data: &Prepared, answers: &Answers) -> Result<(), JobError> {
    let Some(tests) = &data.tests else { return Ok(()) };
    let mut counts = vec![0_u64; data.classes.len()];
    data.train_labels.iter().for_each(|label| counts[*label as usize] += 1);
    let most = counts.iter().enumerate().max_by_key(|(_, count)| **count).map_or(0, |(at, _)| at);
    let mut classes = vec![most as u32; tests.len()];
    for (row, class) in data.test.rows().into_iter().zip(&answers.classes) {
        classes[row as usize] = *class;
    }
    let id = |class: u32| data.classes.get(class as usize).map_or("", |class: &Class| &class.id);
    let mut text = String::from("Id,Predicted\n");
    for (sample, class) in tests.iter().zip(classes) {
        text.push_str(&format!("{},{}\n", crate::data::table::quoted(&sample.id), id(class)));
    }
    let path = spec.output.folder.join("predictions.csv");
    let written =
        std::fs::create_dir_all(&spec.output.folder).and_then(|()| std::fs::write(&path, text));
    written.map_err(|source| JobError::Output { path: path.clone(), source })?;
    println!("{} predictions in {}", tests.len(), path.display());
    Ok(())
}

/// Predicts the whole test set with a saved model, on as many replicas as there are.
pub(super) async fn predict(cx: Driver, mut spec: Spec, saved: Saved) -> Result<(), JobError> {
    if spec.data.set.is_pictures() {
        // Pictures can be made to what the model takes.
        spec.data.shape = saved.identity.input.shape;
    }
    let data = prepare(&cx, &spec)?;
    if saved.identity.input.shape != data.shape {
        return Err(JobError::Unfit(format!(
            "the model takes {} images, the test set has {} ones",
            saved.identity.input.shape, data.shape
        )));
    }
    if saved.identity.classes != data.classes {
        return Err(JobError::Unfit(format!(
            "the model tells {} classes apart, the data has {} or other ones",
            saved.identity.classes.len(),
            data.classes.len()
        )));
    }
    let mut recipe = recipe(&spec, &data);
    recipe.architecture = saved.identity.architecture;
    recipe.input = saved.identity.input;
    recipe.normal = saved.identity.normal;
    let material = Material { recipe, sets: data.sets.clone() };
    let parameters = cx.put(&saved.parameters)?;
    let mut fleet = Fleet::assemble(cx, material, spec.train.replicas).await?;
    let (started, tests) = (Instant::now(), data.test.count());
    let answers = answers(&mut fleet, &parameters, Part::Test, tests).await?;
    let rate = tests as f64 / started.elapsed().as_secs_f64().max(1e-9);
    let mut metrics = tell(fleet.cx(), &spec, &data, &answers)?;
    println!(
        "that is {} of {} epochs, {rate:.0} images/s, {} replicas",
        saved.identity,
        saved.epochs,
        fleet.len()
    );
    metrics.insert("infer_images_per_second".to_owned(), json!(rate));
    fleet.cx().emit(&json!({ "event": "metrics", "metrics": metrics }));
    fleet.dismiss();
    Ok(())
}
