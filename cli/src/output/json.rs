//! A job as one JSON object per line; each has `event` and `job`.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Event, Finished, Lines, Reporter, Standing};

/// Writes JSON lines.
pub(crate) struct Json<W>(W);

impl<W: Write> Json<W> {
    /// To `output`.
    pub(crate) fn new(output: W) -> Self {
        Self(output)
    }

    /// Each line is flushed: whoever reads a pipe sees it at once.
    fn line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.0, "{value}")?;
        self.0.flush()
    }
}

impl<W: Write> Reporter for Json<W> {
    fn submitted(&mut self, job: &str, name: &str) -> io::Result<()> {
        self.line(&json!({"event": "job_submitted", "job": job, "name": name}))
    }

    fn standing(&mut self, job: &str, standing: &Standing) -> io::Result<()> {
        let mut line = json!({"event": "job_state", "job": job, "state": standing.word()});
        match standing {
            Standing::Waiting(reason) => line["reason"] = reason.as_str().into(),
            Standing::Running(worker) => line["worker"] = worker.as_str().into(),
            Standing::Failed(_) | Standing::Succeeded | Standing::Stopped => return Ok(()),
        }
        self.line(&line)
    }

    fn lines(&mut self, job: &str, lines: Lines<'_>) -> io::Result<()> {
        let stream = if lines.stderr { "stderr" } else { "stdout" };
        let mut line = json!({
            "event": "output", "job": job, "source": lines.source, "worker": lines.worker,
            "task": lines.task, "stream": stream, "text": lines.text,
        });
        if let Some(name) = lines.name {
            line["name"] = name.into();
        }
        self.line(&line)
    }

    fn event(&mut self, job: &str, event: &Event) -> io::Result<()> {
        let mut line = event.clone();
        line.insert("job".to_owned(), job.into());
        line.entry("event").or_insert_with(|| "event".into());
        self.line(&Value::Object(line))
    }

    fn command(&mut self, job: &str, command: &Event) -> io::Result<()> {
        let mut line = command.clone();
        line.insert("job".to_owned(), job.into());
        line.insert("event".to_owned(), "task_finished".into());
        self.line(&Value::Object(line))
    }

    fn finished(&mut self, finished: &Finished<'_>) -> io::Result<()> {
        let mut line = json!({
            "event": "job_finished", "job": finished.job, "status": finished.standing.word(),
            "seconds": finished.seconds, "metrics": finished.metrics,
        });
        if let Standing::Failed(error) = finished.standing {
            line["error"] = error.as_str().into();
        }
        self.line(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(show: impl FnOnce(&mut Json<&mut Vec<u8>>) -> io::Result<()>) -> Value {
        let mut bytes = Vec::new();
        show(&mut Json::new(&mut bytes)).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn the_end_of_a_job_has_the_promised_fields() {
        let metrics = json!({"test_accuracy": 0.97}).as_object().cloned().unwrap();
        let standing = Standing::Failed("task 1 panicked:\nat x".into());
        let finished =
            Finished { job: "job-3", standing: &standing, seconds: 1.5, metrics: &metrics };
        let expected = json!({
            "event": "job_finished", "job": "job-3", "status": "failed", "seconds": 1.5,
            "metrics": {"test_accuracy": 0.97}, "error": "task 1 panicked:\nat x",
        });
        assert_eq!(shown(|json| json.finished(&finished)), expected);
    }

    #[test]
    fn an_event_keeps_its_fields_and_names_its_job() {
        let event = json!({"event": "round", "loss": 0.5}).as_object().cloned().unwrap();
        let expected = json!({"event": "round", "loss": 0.5, "job": "job-3"});
        assert_eq!(shown(|json| json.event("job-3", &event)), expected);
    }

    #[test]
    fn output_stays_on_one_line() {
        let (source, worker, task) = ("driver", "worker-1", Some("task-1"));
        let lines = Lines { source, worker, task, name: None, stderr: true, text: "a\nb\n" };
        let line = shown(|json| json.lines("job-3", lines));
        assert_eq!((&line["stream"], &line["text"]), (&"stderr".into(), &"a\nb\n".into()));
        assert_eq!(line["task"], "task-1");
    }
}
