//! Follows one job: what its updates mean, without where they come from or where they go.

use std::collections::HashMap;

use serde_json::Value;

use crate::output::{Event, Finished, Lines, Reporter, Standing};

/// What is known of a job that is followed.
pub(crate) struct Follower<'a> {
    job: String,
    reporter: &'a mut dyn Reporter,
    metrics: Event,
    /// Whether it has run.
    started: bool,
    /// The commands that tasks run, by task; `None`: they run none.
    names: Option<HashMap<String, String>>,
    /// What tasks have printed whose names are on their way.
    held: Vec<Printed>,
}

/// [`Lines`] that wait for the task's name.
struct Printed {
    source: String,
    worker: String,
    task: String,
    stderr: bool,
    text: String,
}

impl<'a> Follower<'a> {
    /// Of `job`.
    pub(crate) fn new(job: String, reporter: &'a mut dyn Reporter) -> Self {
        Self { job, reporter, metrics: Event::new(), started: false, names: None, held: Vec::new() }
    }

    /// Whether the job has run, on whatever worker.
    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    /// It has printed something.
    pub(crate) fn lines(&mut self, lines: Lines<'_>) -> std::io::Result<()> {
        let Some((names, task)) = self.names.as_ref().zip(lines.task) else {
            return self.reporter.lines(&self.job, lines);
        };
        match names.get(task) {
            Some(name) => self.reporter.lines(&self.job, Lines { name: Some(name), ..lines }),
            None => {
                self.held.push(Printed {
                    source: lines.source.to_owned(),
                    worker: lines.worker.to_owned(),
                    task: task.to_owned(),
                    stderr: lines.stderr,
                    text: lines.text.to_owned(),
                });
                Ok(())
            }
        }
    }

    /// Shows what was held back: no more names will come.
    pub(crate) fn show_held(&mut self) -> std::io::Result<()> {
        self.let_go(true)
    }

    /// Shows what was held back of tasks whose names are known, or of all.
    fn let_go(&mut self, all: bool) -> std::io::Result<()> {
        let Some(names) = &self.names else { return Ok(()) };
        let is_due = |printed: &mut Printed| all || names.contains_key(&printed.task);
        for Printed { source, worker, task, stderr, text } in self.held.extract_if(.., is_due) {
            let name = names.get(&task).map(String::as_str);
            let (source, worker, text) = (source.as_str(), worker.as_str(), text.as_str());
            let task = Some(task.as_str());
            let lines = Lines { source, worker, task, name, stderr, text };
            self.reporter.lines(&self.job, lines)?;
        }
        Ok(())
    }

    /// Its driver has said something. An object `metrics` is remembered for the end; what is no
    /// JSON object is shown as a message.
    pub(crate) fn event(&mut self, event: &Value) -> std::io::Result<()> {
        let mut event = match event {
            Value::Object(event) => event.clone(),
            Value::String(text) => message(text),
            other => message(&other.to_string()),
        };
        if let Some(metrics) = event.get("metrics").and_then(Value::as_object) {
            self.metrics.extend(metrics.clone());
        }
        if let Some(Value::Object(names)) = event.get("names") {
            let text =
                |(task, name): (&String, &Value)| Some((task.clone(), name.as_str()?.into()));
            self.names.get_or_insert_default().extend(names.iter().filter_map(text));
            self.let_go(false)?;
        }
        // Of commands that have ended, each is told by itself.
        if event.get("event").and_then(Value::as_str) == Some("tasks_finished")
            && let Some(Value::Array(tasks)) = event.remove("tasks")
        {
            for task in tasks.iter().filter_map(Value::as_object) {
                self.reporter.command(&self.job, task)?;
            }
        }
        self.reporter.event(&self.job, &event)
    }

    /// It stands there now, `seconds` after its submission.
    pub(crate) fn standing(&mut self, standing: &Standing, seconds: f64) -> std::io::Result<()> {
        self.started |= !matches!(standing, Standing::Waiting(_));
        if standing.is_end() {
            self.show_held()?;
        }
        self.reporter.standing(&self.job, standing)?;
        if standing.is_end() {
            let finished = Finished { job: &self.job, standing, seconds, metrics: &self.metrics };
            self.reporter.finished(&finished)?;
        }
        Ok(())
    }
}

fn message(text: &str) -> Event {
    Event::from_iter([("message".to_owned(), text.into())])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Json;

    fn lines(bytes: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn the_last_value_of_each_metric_is_in_the_end() {
        let mut bytes = Vec::new();
        let mut json = Json::new(&mut bytes);
        let mut follower = Follower::new("job-1".into(), &mut json);
        follower.standing(&Standing::Waiting("no worker".into()), 0.0).unwrap();
        assert!(!follower.has_started());
        follower.standing(&Standing::Running("worker-1".into()), 1.0).unwrap();
        assert!(follower.has_started());
        follower.event(&json!({"metrics": {"loss": 1, "test_accuracy": 0.5}})).unwrap();
        follower.event(&json!({"metrics": {"test_accuracy": 0.75}})).unwrap();
        follower.standing(&Standing::Succeeded, 2.5).unwrap();
        let lines = lines(&bytes);
        let expected = json!({
            "event": "job_finished", "job": "job-1", "status": "succeeded", "seconds": 2.5,
            "metrics": {"loss": 1, "test_accuracy": 0.75},
        });
        assert_eq!(lines.last(), Some(&expected));
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn what_a_command_prints_waits_for_its_name() {
        let mut bytes = Vec::new();
        let mut json = Json::new(&mut bytes);
        let mut follower = Follower::new("job-1".into(), &mut json);
        let printed = |task, text| {
            let (source, worker, name, stderr) = ("pool", "worker-1", None, false);
            Lines { source, worker, task, name, stderr, text }
        };
        let names = |names: Value| json!({"event": "tasks_submitted", "names": names});
        follower.lines(printed(Some("task-0"), "at once\n")).unwrap();
        follower.event(&names(json!({}))).unwrap();
        follower.lines(printed(Some("task-1"), "early\n")).unwrap();
        follower.lines(printed(None, "the driver's\n")).unwrap();
        follower.event(&names(json!({"task-1": "echo[1]"}))).unwrap();
        follower.lines(printed(Some("task-1"), "late\n")).unwrap();
        follower.lines(printed(Some("task-2"), "nameless\n")).unwrap();
        follower.standing(&Standing::Succeeded, 1.0).unwrap();
        let output: Vec<_> = lines(&bytes)
            .iter()
            .filter(|line| line["event"] == "output")
            .map(|line| (line["name"].clone(), line["text"].as_str().unwrap().trim().to_owned()))
            .collect();
        let line = |name: Value, text: &str| (name, text.to_owned());
        let expected = [
            line(Value::Null, "at once"),
            line(Value::Null, "the driver's"),
            line(json!("echo[1]"), "early"),
            line(json!("echo[1]"), "late"),
            line(Value::Null, "nameless"),
        ];
        assert_eq!(output, expected);
    }

    #[test]
    fn an_event_that_is_no_object_is_shown_all_the_same() {
        for (event, text) in [(json!([1, 2]), "[1,2]"), (json!("words"), "words")] {
            let mut bytes = Vec::new();
            let mut json = Json::new(&mut bytes);
            Follower::new("job-1".into(), &mut json).event(&event).unwrap();
            assert_eq!(lines(&bytes)[0]["message"], text);
        }
    }
}
