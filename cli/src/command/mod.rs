//! One file per command, or per family of commands.

mod head;
mod inspect;
mod jobs;
mod session;
mod submit;
mod token;
mod watch;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::arguments::{Arguments, Command, HeadCommand, TokenCommand, WorkerCommand};
use crate::program;

/// Runs a command; the status is the process's.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let json = arguments.json;
    match arguments.command {
        Command::Head(HeadCommand::Start(start)) => head::start(&start, json)?,
        Command::Head(HeadCommand::Stop(stop)) => head::stop(&stop, json)?,
        Command::Worker(WorkerCommand::Join(join)) => worker::join(&join, json)?,
        Command::Worker(WorkerCommand::Leave(leave)) => worker::leave(&leave, json)?,
        Command::Worker(WorkerCommand::Drain(drain)) => worker::drain(&drain, json)?,
        Command::Submit(submit) => return submit::submit(&submit, json),
        Command::Logs(logs) => return watch::logs(&logs, json),
        Command::Status(client) => inspect::status(&client, json)?,
        Command::Jobs(client) => jobs::list(&client, json)?,
        Command::Stop(job) => jobs::stop(&job, json)?,
        Command::List(list) => inspect::list(&list, json)?,
        Command::Explain(explain) => inspect::explain(&explain, json)?,
        Command::Token(TokenCommand::Create(create)) => token::create(&create, json)?,
        Command::Token(TokenCommand::List(client)) => token::list(&client, json)?,
        Command::Token(TokenCommand::Revoke(revoke)) => token::revoke(&revoke, json)?,
        Command::Bench(bench) => return crate::bench::run(&bench, json),
        Command::Graph(graph) => {
            let text = match submit::read_plan(&graph.file)? {
                Some(plan) => crate::plan::graph(&plan, graph.dot),
                None => program::graph(&graph.file, &graph.set, graph.dot)?,
            };
            std::io::stdout().write_all(text.as_bytes())?;
        }
        Command::Profile(profile) => print!("{}", program::profile(&profile, json)?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "rdist", &mut script);
            std::io::stdout().write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
