//! Several models in one job, one after the other, and the table that compares them.

use rdist::prelude::*;
use serde_json::{Map, Value, json};

use super::error::JobError;
use crate::data::table;
use crate::model::Architecture;
use crate::spec::Spec;

/// The job of each model that a job asks for; several have a folder each.
pub(super) fn jobs(spec: &Spec) -> Vec<Spec> {
    if spec.model.compare.is_empty() {
        return vec![spec.clone()];
    }
    let models = std::iter::once(spec.model.architecture).chain(spec.model.compare.clone());
    models.map(|architecture| job(spec, architecture)).collect()
}

/// The job of one of several models.
fn job(spec: &Spec, architecture: Architecture) -> Spec {
    let mut job = spec.clone();
    job.model.compare.clear();
    job.model.architecture = architecture;
    let (output, name) = (&mut job.output, architecture.name());
    output.folder = output.folder.join(name);
    output.checkpoints = output.checkpoints.join(name);
    output.upload = output.upload.as_deref().and_then(|path| {
        let (folder, file) = (path.parent()?, path.file_name()?);
        Some(folder.join(name).join(file))
    });
    // The report shows the settings of its own model.
    let own = [
        ("model.name", name.to_owned()),
        ("model.dropout", job.model.dropout().to_string()),
        ("output.folder", job.output.folder.display().to_string()),
    ];
    for (key, value) in own {
        job.settings
            .iter_mut()
            .filter(|each| each.0 == key)
            .for_each(|each| each.1 = value.clone());
    }
    job
}

/// What models have reached.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

struct Row {
    model: &'static str,
    epochs: u64,
    figures: Map<String, Value>,
}

impl Row {
    fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name)?.as_f64()
    }

    fn cell(&self, name: &str) -> String {
        self.figure(name).map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
    }
}

/// Columns: heading, and the metric that it shows.
const COLUMNS: [(&str, &str); 5] = [
    ("validation", "val_accuracy"),
    ("test", "test_accuracy"),
    ("test macro F1", "test_macro_f1"),
    ("train images/s", "train_images_per_second"),
    ("predicted images/s", "infer_images_per_second"),
];

impl Table {
    /// Adds what a model has reached.
    pub(super) fn add(&mut self, job: &Spec, figures: Map<String, Value>) {
        let model = job.model.architecture.name();
        self.rows.push(Row { model, epochs: job.train.epochs, figures });
    }

    /// Sends the job's metrics; a comparison is printed, and written as `results.csv`.
    pub(super) fn tell(self, cx: &Driver, spec: &Spec) -> Result<(), JobError> {
        if let [row] = &self.rows[..] {
            cx.emit(&json!({ "event": "metrics", "metrics": row.figures }));
            // W3's table has both accuracies; a job without validation images has said all.
            if row.figure("val_accuracy").is_some() && row.figure("test_accuracy").is_some() {
                print!("{}", self.text());
            }
            return Ok(());
        }
        print!("{}", self.text());
        let path = spec.output.folder.join("results.csv");
        let written = std::fs::write(&path, self.csv());
        written.map_err(|source| JobError::Output { path: path.clone(), source })?;
        println!("the table is in {}", path.display());
        let mut metrics = Map::new();
        for row in self.rows {
            let named = row.figures.into_iter();
            metrics.extend(named.map(|(name, value)| (format!("{}_{name}", row.model), value)));
        }
        cx.emit(&json!({ "event": "metrics", "metrics": metrics }));
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!("{:<18} {:>6}", "model", "epochs");
        COLUMNS.iter().for_each(|(heading, _)| text += &format!("  {heading:>10}"));
        text.push('\n');
        for row in &self.rows {
            text += &format!("{:<18} {:>6}", row.model, row.epochs);
            for (heading, metric) in COLUMNS {
                let width = heading.len().max(10);
                text += &format!("  {:>width$}", row.cell(metric));
            }
            text.push('\n');
        }
        text
    }

    fn csv(&self) -> String {
        let mut text = String::from("model,epochs");
        COLUMNS.iter().for_each(|(_, metric)| text += &format!(",{metric}"));
        text.push('\n');
        for row in &self.rows {
            text += &format!("{},{}", table::quoted(row.model), row.epochs);
            for (_, metric) in COLUMNS {
                let cell = row.figure(metric).map_or_else(String::new, |value| value.to_string());
                text += &format!(",{cell}");
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(set: &[&str]) -> Spec {
        let set: Vec<String> = set.iter().map(|each| (*each).to_owned()).collect();
        Spec::parse("job.toml", "", &set).unwrap()
    }

    #[test]
    fn each_model_has_its_folder_and_its_own_dropout() {
        let one = spec(&["model.name=resnet18"]);
        assert!(jobs(&one) == std::slice::from_ref(&one));
        let set = ["data.set=folders", "model.name=resnet18", "model.compare=vgg, alexnet"];
        let jobs = jobs(&spec(&set));
        let folders: Vec<_> =
            jobs.iter().map(|job| job.output.folder.to_string_lossy().into_owned()).collect();
        assert_eq!(folders, ["output/resnet18", "output/vgg", "output/alexnet"]);
        let dropouts: Vec<f64> = jobs.iter().map(|job| job.model.dropout()).collect();
        assert_eq!(dropouts, [0.0, 0.5, 0.5]);
        // What is given is for all of them, also where it is the first one's own value.
        let given = [&set[..], &["model.dropout=0", "output.upload=s3://models/a/m.pt"]].concat();
        let jobs = super::jobs(&spec(&given));
        assert!(jobs.iter().all(|job| job.model.dropout() == 0.0));
        assert_eq!(jobs[2].output.upload, Some("s3://models/a/alexnet/m.pt".into()));
        let name = jobs[2].settings.iter().find(|setting| setting.0 == "model.name").unwrap();
        assert_eq!(name.1, "alexnet");
        let wrong = |name: &str| {
            let set = [&set[..2], &[name]].concat().iter().map(|s| (*s).to_owned()).collect();
            let set: Vec<String> = set;
            Spec::parse("job.toml", "", &set).unwrap_err().to_string()
        };
        assert!(wrong("model.compare=resnet").contains("squeezenet"), "names what there is");
        assert!(wrong("model.compare=inception").contains("data.size=75"));
        assert!(wrong("model.compare=vgg,vgg").contains("vgg once"));
        assert!(wrong("model.compare=resnet18").contains("resnet18 once"));
    }

    #[test]
    fn the_table_names_models_and_figures() {
        let mut table = Table::default();
        let figures = |validation: f64| {
            let mut figures = Map::new();
            figures.insert("val_accuracy".to_owned(), json!(validation));
            figures.insert("test_accuracy".to_owned(), json!(0.5));
            figures
        };
        for (name, validation) in [("resnet18", 0.886), ("resnet34", 0.626)] {
            table.add(&spec(&[&format!("model.name={name}")]), figures(validation));
        }
        let text = table.text();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..4], ["resnet18", "5", "0.886", "0.500"]);
        assert_eq!(lines[2][..4], ["resnet34", "5", "0.626", "0.500"]);
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
        assert!(table.csv().contains("resnet34,5,0.626,0.5,,,\n"), "{}", table.csv());
    }
}
