//! The program of the training jobs. `rdist submit JOB.toml` runs it as a job; by hand it checks
//! and draws jobs.

use std::process::ExitCode;

use rdist_workloads::graph::{self, Amounts, Format};
use rdist_workloads::pipeline::profile;
use rdist_workloads::plan;
use rdist_workloads::spec::Spec;
use rdist_workloads::train::error::JobError;

const HELP: &str = "\
The training and inference jobs of rdist.

Usage:
  rdist-workloads check FILE [--set KEY=VALUE]...          say what is wrong with a job's TOML
  rdist-workloads graph FILE [--dot] [--set KEY=VALUE]...  print its task graph (Mermaid)
  rdist-workloads plan FILE [--json] [--set KEY=VALUE]...  print what it would do
  rdist-workloads profile FILE [--json] [--images N] [--cpus N] [--set KEY=VALUE]...
                                                           time what prediction does
  rdist-workloads reference                                print what a TOML may say (Markdown)
  rdist-workloads run FILE [--set KEY=VALUE]...            run it
  rdist-workloads run --spec-text TEXT --spec-name FILE [--run ID] [--set KEY=VALUE]...

Example:
  rdist-workloads graph workloads/mnist.toml --set train.replicas=4
";

/// How many replicas, where the TOML leaves it to the cluster.
const NUM_REPLICAS: &str = "RDIST_NUM_REPLICAS";

/// What the command line asks for.
struct Command {
    verb: String,
    name: String,
    text: String,
    overrides: Vec<String>,
    /// Unlike that of any other run; the same when its driver starts again.
    run: Option<String>,
    format: Format,
    json: bool,
    /// Images that are profiled, and the CPUs that actors are recommended for.
    images: Option<usize>,
    cpus: Option<u32>,
}

impl Command {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, JobError> {
        let usage = |text: String| JobError::Usage(text);
        let mut arguments = arguments;
        let verb = arguments.next().ok_or_else(|| usage("no command is given".to_owned()))?;
        if !["check", "graph", "plan", "profile", "run"].contains(&verb.as_str()) {
            return Err(usage(format!("there is no command `{verb}`")));
        }
        let (mut name, mut text, mut overrides) = (None, None, Vec::new());
        let (mut format, mut json) = (Format::Mermaid, false);
        let (mut images, mut cpus, mut run) = (None, None, None);
        while let Some(argument) = arguments.next() {
            let value = |arguments: &mut dyn Iterator<Item = String>| {
                arguments.next().ok_or_else(|| usage(format!("{argument} wants a value")))
            };
            match argument.as_str() {
                "--set" => overrides.push(value(&mut arguments)?),
                "--spec-text" => text = Some(value(&mut arguments)?),
                "--run" if verb == "run" => run = Some(value(&mut arguments)?),
                "--spec-name" => name = Some(value(&mut arguments)?),
                "--json" if verb == "plan" || verb == "profile" => json = true,
                "--images" if verb == "profile" => {
                    images = Some(count(&argument, &value(&mut arguments)?)? as usize);
                }
                "--cpus" if verb == "profile" => {
                    cpus = Some(count(&argument, &value(&mut arguments)?)?);
                }
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
        Ok(Self { verb, name, text, overrides, run, format, json, images, cpus })
    }

    fn spec(&self) -> Result<Spec, JobError> {
        let mut spec = Spec::parse(&self.name, &self.text, &self.overrides)?;
        spec.run.clone_from(&self.run);
        let named = std::env::var(NUM_REPLICAS).ok().filter(|value| !value.is_empty());
        if let (None, Some(named)) = (spec.train.replicas, named) {
            let count = named.parse::<u32>().ok().filter(|count| *count > 0);
            let wrong = || {
                let text = format!("{NUM_REPLICAS} is {named:?}, expected a number of at least 1");
                JobError::Usage(text)
            };
            spec.train.replicas = Some(count.ok_or_else(wrong)?);
        }
        Ok(spec)
    }
}

fn main() -> ExitCode {
    rdist_workloads::tensor::keep_freed_memory();
    let verb = std::env::args().nth(1);
    if std::env::var_os(rdist::EXECUTOR_FD).is_some() {
        return job::start();
    }
    if matches!(verb.as_deref(), Some("--help" | "-h" | "help")) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if verb.as_deref() == Some("reference") {
        print!("{}", rdist_workloads::spec::reference());
        return ExitCode::SUCCESS;
    }
    let checked =
        Command::parse(std::env::args().skip(1)).and_then(|command| Ok((command.spec()?, command)));
    match checked {
        Ok((_, command)) if command.verb == "run" => job::start(),
        Ok((spec, command)) if command.verb == "graph" => {
            print!("{}", graph::graph(&spec, Amounts::unknown(&spec), command.format));
            ExitCode::SUCCESS
        }
        Ok((spec, command)) if command.verb == "plan" => print_plan(&spec, command.json),
        Ok((spec, command)) if command.verb == "profile" => print_profile(&spec, &command),
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

/// A number of at least 1.
fn count(argument: &str, value: &str) -> Result<u32, JobError> {
    let count = value.parse::<u32>().ok().filter(|count| *count > 0);
    let wrong = || format!("{argument} is {value:?}, expected a number of at least 1");
    count.ok_or_else(|| JobError::Usage(wrong()))
}

fn print_profile(spec: &Spec, command: &Command) -> ExitCode {
    let here = || std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let cpus = command.cpus.unwrap_or_else(here);
    match profile::profile(spec, command.images.unwrap_or(profile::DEFAULT_IMAGES), cpus) {
        Ok(profile) if command.json => println!("{}", profile.json()),
        Ok(profile) => print!("{}", profile.text()),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn print_plan(spec: &Spec, json: bool) -> ExitCode {
    match plan::plan(spec) {
        Ok(plan) if json => println!("{}", plan.json()),
        Ok(plan) => print!("{}", plan.text()),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
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
