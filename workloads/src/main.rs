//! The program of the training jobs. `rdist submit JOB.toml` runs it as a job; by hand it checks
//! and draws jobs.

use std::process::ExitCode;

use rdist_workloads::graph::{self, Format};
use rdist_workloads::spec::Spec;
use rdist_workloads::train::error::JobError;

const HELP: &str = "\
The training and inference jobs of rdist.

Usage:
  rdist-workloads check FILE [--set KEY=VALUE]...          say what is wrong with a job's TOML
  rdist-workloads graph FILE [--dot] [--set KEY=VALUE]...  print its task graph (Mermaid)
  rdist-workloads run FILE [--set KEY=VALUE]...            run it
  rdist-workloads run --spec-text TEXT --spec-name FILE [--set KEY=VALUE]...

Example:
  rdist-workloads graph workloads/mnist.toml --set train.replicas=4
";

/// What the command line asks for.
struct Command {
    verb: String,
    name: String,
    text: String,
    overrides: Vec<String>,
    format: Format,
}

impl Command {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, JobError> {
        let usage = |text: String| JobError::Usage(text);
        let mut arguments = arguments;
        let verb = arguments.next().ok_or_else(|| usage("no command is given".to_owned()))?;
        if !["check", "graph", "run"].contains(&verb.as_str()) {
            return Err(usage(format!("there is no command `{verb}`")));
        }
        let (mut name, mut text, mut overrides) = (None, None, Vec::new());
        let mut format = Format::Mermaid;
        while let Some(argument) = arguments.next() {
            let value = |arguments: &mut dyn Iterator<Item = String>| {
                arguments.next().ok_or_else(|| usage(format!("{argument} wants a value")))
            };
            match argument.as_str() {
                "--set" => overrides.push(value(&mut arguments)?),
                "--spec-text" => text = Some(value(&mut arguments)?),
                "--spec-name" => name = Some(value(&mut arguments)?),
                "--dot" if verb == "graph" => format = Format::Dot,
                file if !file.starts_with('-') && name.is_none() => name = Some(file.to_owned()),
                other => return Err(usage(format!("`{other}` is not understood"))),
            }
        }
        let name = name.ok_or_else(|| usage("no job file is given".to_owned()))?;
        let text = match text {
            Some(text) => text,
            None => std::fs::read_to_string(&name)
                .map_err(|error| usage(format!("cannot read the job {name}: {error}")))?,
        };
        Ok(Self { verb, name, text, overrides, format })
    }

    fn spec(&self) -> Result<Spec, JobError> {
        Ok(Spec::parse(&self.name, &self.text, &self.overrides)?)
    }
}

fn main() -> ExitCode {
    let verb = std::env::args().nth(1);
    if std::env::var_os(rdist::EXECUTOR_FD).is_some() {
        return job::start();
    }
    if matches!(verb.as_deref(), Some("--help" | "-h" | "help")) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let checked =
        Command::parse(std::env::args().skip(1)).and_then(|command| Ok((command.spec()?, command)));
    match checked {
        Ok((_, command)) if command.verb == "run" => job::start(),
        Ok((spec, command)) if command.verb == "graph" => {
            print!("{}", graph::graph(&spec, command.format));
            ExitCode::SUCCESS
        }
        Ok((spec, _)) => {
            println!("{}: a {} job, in order", spec.name, spec.train.strategy.name());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

mod job {
    use std::process::ExitCode;

    use rdist::prelude::*;
    use rdist_workloads::train::error::JobError;
    use rdist_workloads::train::run;

    use super::Command;

    #[rdist::main]
    async fn main(cx: Driver) -> Result<(), JobError> {
        let spec = Command::parse(std::env::args().skip(1))?.spec()?;
        run::run(cx, spec).await
    }

    /// As a job of a cluster: submitted, or in the process that a worker started for it.
    pub(super) fn start() -> ExitCode {
        main()
    }
}
