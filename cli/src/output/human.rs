//! A job for people: its output as it is, progress bars on a terminal, a summary at the end.

use std::io::{self, IsTerminal as _, Write};

use owo_colors::OwoColorize as _;
use serde_json::Value;

use super::commands::Commands;
use super::{Event, Finished, Lines, Reporter, Standing};
use crate::progress::{Progress, Step};
use crate::units::{show_number, show_seconds};

/// Writes for people: a job's standard output to `out`, all else to `err`.
pub(crate) struct Human<O, E> {
    out: O,
    err: E,
    progress: Progress,
    colours: bool,
    /// The last thing said of where the job stands, so that nothing is said twice.
    standing: Option<Standing>,
    /// How its commands went.
    commands: Commands,
}

impl Human<io::Stdout, io::Stderr> {
    /// To this process's standard output and error, with bars if that is a terminal.
    pub(crate) fn stdio() -> Self {
        let terminal = io::stderr().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let progress = Progress::new(terminal);
        let (out, err, commands) = (io::stdout(), io::stderr(), Commands::default());
        Self { out, err, progress, colours, standing: None, commands }
    }
}

impl<O: Write, E: Write> Human<O, E> {
    fn note(&mut self, text: &str) -> io::Result<()> {
        let Self { err, progress, .. } = self;
        progress.aside(|| writeln!(err, "{text}"))
    }
}

impl<O: Write, E: Write> Reporter for Human<O, E> {
    fn submitted(&mut self, job: &str, name: &str) -> io::Result<()> {
        let job = if self.colours { job.bold().to_string() } else { job.to_owned() };
        self.note(&format!("{job} submitted: {name}"))
    }

    fn standing(&mut self, job: &str, standing: &Standing) -> io::Result<()> {
        if self.standing.as_ref() == Some(standing) {
            return Ok(());
        }
        let restarted = matches!(self.standing, Some(Standing::Running(_)));
        let line = match standing {
            Standing::Waiting(reason) => Some(format!("{job} waits: {reason}")),
            Standing::Running(worker) if restarted => {
                Some(format!("{job} starts again on {worker}"))
            }
            Standing::Running(worker) if self.standing.is_some() => {
                Some(format!("{job} runs on {worker}"))
            }
            _ => None,
        };
        self.standing = Some(standing.clone());
        line.map_or(Ok(()), |line| self.note(&line))
    }

    fn lines(&mut self, _job: &str, lines: Lines<'_>) -> io::Result<()> {
        let Self { out, err, progress, .. } = self;
        let prefix = match lines.name {
            Some(name) => format!("{name} | "),
            None if lines.source == "driver" => String::new(),
            None => format!("({} on {}) ", lines.source, lines.worker),
        };
        let text: String = lines.text.lines().map(|line| format!("{prefix}{line}\n")).collect();
        progress.aside(|| {
            if lines.stderr {
                return err.write_all(text.as_bytes());
            }
            out.write_all(text.as_bytes())?;
            out.flush()
        })
    }

    fn event(&mut self, _job: &str, event: &Event) -> io::Result<()> {
        if self.progress.training(event) {
            return Ok(());
        }
        if let Some(step) = Step::of(event) {
            if let Some(line) = self.progress.step(&step) {
                self.note(&line)?;
            }
            return Ok(());
        }
        // All else a driver says in words on its output as well; the rest of an event is for
        // programs.
        match event.get("message").and_then(Value::as_str) {
            Some(message) => self.note(message),
            None => Ok(()),
        }
    }

    fn command(&mut self, _job: &str, command: &Event) -> io::Result<()> {
        match self.commands.add(command) {
            Some(note) => self.note(&note),
            None => Ok(()),
        }
    }

    fn finished(&mut self, finished: &Finished<'_>) -> io::Result<()> {
        self.progress.clear();
        self.commands.show(&mut self.out)?;
        for (name, value) in finished.metrics {
            writeln!(self.out, "{name:<28} {}", show_value(value))?;
        }
        self.out.flush()?;
        let (job, seconds) = (finished.job, show_seconds(finished.seconds));
        let word = match (finished.standing, finished.standing.word()) {
            (_, word) if !self.colours => word.to_owned(),
            (Standing::Succeeded, word) => word.green().to_string(),
            (_, word) => word.red().to_string(),
        };
        writeln!(self.err, "{job} {word} after {seconds}")?;
        if let Standing::Failed(error) = finished.standing {
            writeln!(self.err, "{error}")?;
        }
        Ok(())
    }
}

fn show_value(value: &Value) -> String {
    match value {
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), show_number),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(show: impl FnOnce(&mut Human<&mut Vec<u8>, &mut Vec<u8>>)) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let progress = Progress::new(false);
        let commands = Commands::default();
        let (out_, err_) = (&mut out, &mut err);
        let human =
            Human { out: out_, err: err_, progress, colours: false, standing: None, commands };
        show(&mut { human });
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn the_drivers_output_is_left_as_it_is_and_a_tasks_output_says_where_it_is_from() {
        let (out, err) = shown(|human| {
            let driver = Lines {
                source: "driver",
                worker: "w",
                task: None,
                name: None,
                stderr: false,
                text: "3.14\n",
            };
            human.lines("job-1", driver).unwrap();
            let task = Lines {
                source: "pool",
                worker: "worker-2",
                task: None,
                name: None,
                stderr: true,
                text: "a\nb\n",
            };
            human.lines("job-1", task).unwrap();
            human.lines("job-1", Lines { name: Some("work[3]"), ..task }).unwrap();
        });
        assert_eq!(out, "3.14\n");
        assert_eq!(err, "(pool on worker-2) a\n(pool on worker-2) b\nwork[3] | a\nwork[3] | b\n");
    }

    #[test]
    fn waiting_is_said_once_and_a_job_that_runs_at_once_says_nothing() {
        let waiting = Standing::Waiting("no worker has joined".into());
        let running = Standing::Running("worker-1".into());
        let (_, err) = shown(|human| {
            for standing in [&waiting, &waiting, &running, &Standing::Running("worker-2".into())] {
                human.standing("job-1", standing).unwrap();
            }
        });
        let expected = "job-1 waits: no worker has joined\njob-1 runs on worker-1\n\
                        job-1 starts again on worker-2\n";
        assert_eq!(err, expected);
        assert_eq!(shown(|human| human.standing("job-1", &running).unwrap()).1, "");
    }

    #[test]
    fn the_end_shows_metrics_and_the_reason() {
        let metrics = json!({"test_accuracy": 0.97}).as_object().cloned().unwrap();
        let standing = Standing::Failed("task-1 panicked: boom".into());
        let (out, err) = shown(|human| {
            let seconds = 2.0;
            human
                .finished(&Finished {
                    job: "job-1",
                    standing: &standing,
                    seconds,
                    metrics: &metrics,
                })
                .unwrap();
        });
        assert_eq!(out, format!("{:<28} 0.9700\n", "test_accuracy"));
        assert!(err.contains("failed") && err.contains("2.00 s") && err.contains("boom"), "{err}");
    }

    #[test]
    fn an_event_shows_its_message_and_its_progress_and_is_else_for_programs() {
        let (out, err) = shown(|human| {
            for event in [
                json!({"event": "lost", "message": "replica 1 is lost", "replica": 1}),
                json!({"event": "read", "progress": {"what": "reading", "done": 3, "total": 9}}),
                json!({"event": "round", "round": 2, "rounds": 9, "train_loss": 0.25}),
                json!({"event": "metrics", "metrics": {"test_accuracy": 0.5}}),
            ] {
                human.event("job-1", event.as_object().unwrap()).unwrap();
            }
        });
        assert_eq!((out.as_str(), err.as_str()), ("", "replica 1 is lost\nreading 3/9\n"));
    }
}
