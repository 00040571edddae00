//! The command line: every command, every option, with an example in each help text.

mod bench;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rdist::config::HeadConfig;

use crate::units::{self, Pair};
pub(crate) use bench::{Bench, BenchCommand, Scale};

/// Runs tasks and actors on a cluster of machines.
#[derive(Debug, Parser)]
#[command(
    name = "rdist",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  rdist head start\n  rdist worker join\n  \
                  rdist submit workloads/mnist.toml\n\n\
                  All state lies in RDIST_HOME, by default ~/.rdist."
)]
pub(crate) struct Arguments {
    /// Print one JSON object per line instead of text for people.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start or stop the head, the process that places work in the cluster.
    #[command(subcommand, after_help = "Example:\n  rdist head start")]
    Head(HeadCommand),
    /// Let this machine join a cluster, or leave it.
    #[command(subcommand, after_help = "Example:\n  rdist worker join")]
    Worker(WorkerCommand),
    /// Run a program, a workload or commands on the cluster, and follow them.
    #[command(
        after_help = "Examples:\n  rdist submit workloads/mnist.toml --set train.epochs=2\n  \
                            rdist submit workloads/mnist.toml --data ~/data\n  \
                            rdist submit workloads/commands.toml\n  \
                            rdist submit --each 'gzip -k {}' *.csv\n  \
                            rdist submit ./target/release/examples/pi -- 1000000\n  \
                            rdist submit ./my_program --working-dir . --env LOG=debug\n\n\
                            Ctrl-C lets the job go on and says how to see it again.\n\
                            A head that goes away is waited for, up to 60 s; the job is one job.\n\
                            The exit status is 0 only when the job succeeded."
    )]
    Submit(Submit),
    /// Show the head, its workers and what they have free.
    #[command(after_help = "Example:\n  rdist status")]
    Status(Client),
    /// List jobs, ended ones too.
    #[command(after_help = "Example:\n  rdist jobs")]
    Jobs(Client),
    /// Show what a job has printed.
    #[command(after_help = "Examples:\n  rdist logs job-3\n  rdist logs job-3 -f")]
    Logs(Logs),
    /// Stop a job.
    #[command(after_help = "Example:\n  rdist stop job-3")]
    Stop(Job),
    /// List what is in the cluster.
    #[command(after_help = "Examples:\n  rdist list tasks --limit 20\n  \
                            rdist list objects --json\n\n\
                            Where rows are left out, the last line says how many there are; of\n\
                            --json it is {\"event\":\"rows_left_out\",\"shown\":N,\"total\":N}.")]
    List(List),
    /// Say why a task, an actor, an object or a job is where it is, what it waits for, and what
    /// happened to it.
    #[command(after_help = "Examples:\n  rdist explain job-3\n  \
                            rdist explain $(rdist list tasks --json | jq -r .task | head -1)")]
    Explain(Explain),
    /// Make, list and revoke the tokens that let machines and people join.
    #[command(subcommand, after_help = "Example:\n  rdist token create --role worker --ttl 1h")]
    Token(TokenCommand),
    /// Print the task graph of a workload, or of commands, as Mermaid or for Graphviz.
    #[command(after_help = "Examples:\n  rdist graph workloads/mnist.toml\n  \
                            rdist graph workloads/mnist.toml --dot | dot -Tsvg > mnist.svg")]
    Graph(Graph),
    /// Time what a workload's prediction does (read, decode, resize, normalise, predict) on a
    /// sample, and recommend how many actors each stage is worth. Runs here; needs no cluster.
    #[command(after_help = "Examples:\n  rdist profile workloads/herbarium.toml\n  \
                            rdist profile workloads/herbarium_zoo.toml --set model.name=resnet34 \
                            --cpus 16")]
    Profile(Profile),
    /// Measure how fast calls, objects and actors are on this machine, row by row as Ray does.
    #[command(after_help = "Examples:\n  rdist bench --quick\n  \
                            rdist bench --filter 'actor calls'\n  \
                            ray microbenchmark > ray.txt; rdist bench --against ray.txt\n  \
                            rdist bench scale --plot scale.svg\n\n\
                            It starts a head and a worker of its own and ends them. Measure on a \
                            machine where nothing else runs.")]
    Bench(Bench),
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  rdist completions bash > \
                            ~/.local/share/bash-completion/completions/rdist")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// The head.
#[derive(Debug, Subcommand)]
pub(crate) enum HeadCommand {
    /// Start the head; returns when it is ready, and prints how to join.
    #[command(after_help = "Examples:\n  rdist head start\n  \
                            rdist head start --listen 127.0.0.1:0\n  \
                            rdist head start --foreground   # for systemd and Kubernetes")]
    Start(HeadStart),
    /// Stop the head and the workers that joined it.
    #[command(after_help = "Examples:\n  rdist head stop\n  rdist head stop --keep-workers\n\n\
                            Jobs that have not ended are stopped. With --keep-workers they go \
                            on, and the head finds them when it starts again.")]
    Stop(HeadStop),
}

/// How to stop the head.
#[derive(Debug, Args)]
pub(crate) struct HeadStop {
    /// Leave the workers running: they find the head when it starts again.
    #[arg(long)]
    pub keep_workers: bool,
    #[command(flatten)]
    pub client: Client,
}

/// How to start the head.
#[derive(Debug, Args)]
pub(crate) struct HeadStart {
    /// UDP address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:7420")]
    pub listen: SocketAddr,
    /// A worker that is silent for this long is lost: its work is done again elsewhere, and when
    /// it is heard of again it joins as another one.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = units::silence)]
    pub dead_after: Duration,
    /// So many jobs are remembered after their end, with their logs.
    #[arg(long, value_name = "N", default_value_t = HeadConfig::KEPT_JOBS)]
    pub keep_jobs: usize,
    #[command(flatten)]
    pub daemon: Daemon,
}

/// How a daemon runs.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// Stay in the foreground instead of going on in the background.
    #[arg(long)]
    pub foreground: bool,
    /// How often to take a new certificate and key; they are good for 30 days.
    #[arg(long, value_name = "TIME", default_value = "10d", value_parser = units::duration)]
    pub rotate_every: Duration,
    /// The process that started this one reads standard output up to the line that says whether
    /// the start went well.
    #[arg(long, hide = true, requires = "foreground")]
    pub report_ready: bool,
}

impl Daemon {
    /// For the process in the background.
    pub(crate) fn rotate_argument(&self) -> String {
        format!("--rotate-every={}ms", self.rotate_every.as_millis())
    }
}

/// This machine as a worker.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Join a cluster; returns when the head has accepted this machine.
    #[command(
        after_help = "Examples:\n  rdist worker join                # the head of this machine\n  \
                            rdist worker join 10.0.0.5:7420 --token T --cpus 8 --label zone=a\n  \
                            rdist worker join 10.0.0.5:7420 --token -   # token on standard input"
    )]
    Join(Box<WorkerJoin>),
    /// Leave now: what runs on the worker is started again elsewhere.
    #[command(
        after_help = "Examples:\n  rdist worker leave            # all workers of this machine\n  \
                            rdist worker leave worker-81985529216486895"
    )]
    Leave(WorkerLeave),
    /// Take nothing new, and leave when all that runs there has ended.
    #[command(after_help = "Example:\n  rdist worker drain worker-81985529216486895")]
    Drain(WorkerDrain),
}

/// How to join.
#[derive(Debug, Args)]
pub(crate) struct WorkerJoin {
    /// The head; without it, the head that runs on this machine in RDIST_HOME.
    #[arg(value_name = "HOST:PORT")]
    pub head: Option<String>,
    /// What lets this machine join; `-` reads it from standard input.
    #[arg(long, env = "RDIST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// UDP address for other workers; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:0")]
    pub listen: SocketAddr,
    /// Where other workers reach this one, if not at --listen: behind a NAT or a forwarded port.
    #[arg(long, value_name = "HOST:PORT", value_parser = units::host_port)]
    pub advertise: Option<String>,
    /// CPUs to offer; by default, all that this process may use.
    #[arg(long, value_name = "N", value_parser = units::amount)]
    pub cpus: Option<f64>,
    /// GPUs to offer; by default, those of NVIDIA that this machine has.
    #[arg(long, value_name = "N", value_parser = units::amount)]
    pub gpus: Option<f64>,
    /// Memory to offer to tasks; by default, what the object store leaves free.
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    pub memory: Option<u64>,
    /// Memory of the object store; by default, 30 % of this machine's.
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    pub store_memory: Option<u64>,
    /// Folder for objects that do not fit into the store; by default, `spill` in RDIST_HOME.
    #[arg(long, value_name = "FOLDER")]
    pub spill_dir: Option<PathBuf>,
    /// Most bytes on disk for such objects, 0 for none; by default, as much as the disk takes.
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    pub spill_limit: Option<u64>,
    /// A custom resource, as `name=amount`; may be repeated.
    #[arg(long = "resource", value_name = "NAME=N", value_parser = units::pair)]
    pub resources: Vec<Pair>,
    /// A label, as `name=value`; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = units::pair)]
    pub labels: Vec<Pair>,
    #[command(flatten)]
    pub daemon: Daemon,
}

/// Who leaves.
#[derive(Debug, Args)]
pub(crate) struct WorkerLeave {
    /// Which workers; by default, all of this machine in RDIST_HOME.
    #[arg(value_name = "WORKER")]
    pub workers: Vec<String>,
    #[command(flatten)]
    pub client: Client,
}

/// Who drains.
#[derive(Debug, Args)]
pub(crate) struct WorkerDrain {
    /// Which workers; by default, all of this machine in RDIST_HOME.
    #[arg(value_name = "WORKER")]
    pub workers: Vec<String>,
    #[command(flatten)]
    pub client: Client,
}

/// Which cluster to talk to.
#[derive(Debug, Args)]
pub(crate) struct Client {
    /// The head; without it, the head that runs on this machine in RDIST_HOME.
    #[arg(long, value_name = "HOST:PORT", env = "RDIST_HEAD", help_heading = "Cluster")]
    pub head: Option<String>,
    /// A client's token, for the head that --head names.
    #[arg(long, env = "RDIST_TOKEN", hide_env_values = true, help_heading = "Cluster")]
    pub token: Option<String>,
}

/// What to run, and how to follow it.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// A workload or commands (`.toml`), or a program built with rdist; after --each the arguments,
    /// or `-` for the lines of standard input.
    #[arg(value_name = "FILE", required = true)]
    pub words: Vec<PathBuf>,
    #[command(flatten)]
    pub each: Each,
    /// Change a value of the workload, as `table.key=value`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = units::pair)]
    pub set: Vec<Pair>,
    /// The job's name; by default, the file's.
    #[arg(long)]
    pub name: Option<String>,
    /// Folder with the job's data, as RDIST_DATA; for instance with `mnist/` and its four IDX
    /// files, plain or gzip. It must lie at the same place on the worker that runs the driver.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Set a variable in the job's environment, or pass one on; may be repeated. Variables that
    /// start with RDIST_ or AWS_ are passed on by themselves.
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    pub environment: Vec<String>,
    /// Send this folder along: the job's processes start in a copy of it, on every worker. What
    /// `.gitignore` and `.rdistignore` name stays here, and of what changed since the last submit
    /// only that is sent. The copies are removed when the job has ended.
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub working_dir: Option<PathBuf>,
    /// Refuse a working folder with more bytes than this.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::bytes,
          help_heading = "Files")]
    pub working_dir_limit: u64,
    /// Print what a workload would do (data, replicas, memory, task graph), and do nothing. Needs
    /// no cluster.
    #[arg(long, conflicts_with = "detach")]
    pub dry_run: bool,
    /// Return as soon as the job is accepted.
    #[arg(short, long)]
    pub detach: bool,
    /// Get N times what other jobs get, where both want more.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub weight: u32,
    /// Hold no more than that at a time over the whole cluster, as `CPU=4`, `GPU=1`, `memory=8GiB`
    /// or `NAME=N` of a custom resource; may be repeated.
    #[arg(long = "quota", value_name = "NAME=N", value_parser = units::pair)]
    pub quota: Vec<Pair>,
    /// Stop the job when it has not started after this long, for instance for want of workers.
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with = "detach")]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub client: Client,
    /// Arguments of the program.
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// One command for each of many arguments.
#[derive(Debug, Args)]
pub(crate) struct Each {
    /// Run this command once for each argument, `{}` in it replaced.
    #[arg(long, value_name = "COMMAND", help_heading = "Commands")]
    pub each: Option<String>,
    /// CPUs that each command holds.
    #[arg(long, value_name = "N", requires = "each", value_parser = units::amount,
          help_heading = "Commands")]
    pub cpus: Option<f64>,
    /// Memory that each command holds.
    #[arg(long, value_name = "SIZE", requires = "each", value_parser = units::bytes,
          help_heading = "Commands")]
    pub memory: Option<u64>,
    /// Run a command that fails again so often.
    #[arg(long, value_name = "N", requires = "each", help_heading = "Commands")]
    pub retries: Option<u32>,
    /// End a command that runs longer than this.
    #[arg(long, value_name = "TIME", requires = "each", value_parser = units::duration,
          help_heading = "Commands")]
    pub time_limit: Option<Duration>,
}

/// Whose output.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The job, `job-3` or `3`.
    pub job: String,
    /// Go on until the job has ended; the exit status is 0 only when it succeeded.
    #[arg(short, long)]
    pub follow: bool,
    #[command(flatten)]
    pub client: Client,
}

/// One job.
#[derive(Debug, Args)]
pub(crate) struct Job {
    /// The job, `job-3` or `3`.
    pub job: String,
    #[command(flatten)]
    pub client: Client,
}

/// What to list.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// What to list.
    pub what: Listing,
    /// Show at most so many; what is left out is counted.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub limit: u32,
    #[command(flatten)]
    pub client: Client,
}

/// What there is to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    /// Tasks that wait or run.
    Tasks,
    /// Actors.
    Actors,
    /// Objects in the stores.
    Objects,
    /// Placement groups, with where their bundles are.
    PlacementGroups,
    /// Workers, with what they have and what is free.
    Workers,
}

/// What to explain.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A task (`task-...`), an actor (`actor-...`), an object (`task-.../return/0`), a placement
    /// group (`group-...`) or a job
    /// (`job-3`).
    pub id: String,
    #[command(flatten)]
    pub client: Client,
}

/// Tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it; it is shown this once.
    #[command(after_help = "Examples:\n  rdist token create\n  \
                            rdist token create --role client --ttl 7d --uses 1")]
    Create(TokenCreate),
    /// List tokens, without their secrets.
    #[command(after_help = "Example:\n  rdist token list")]
    List(Client),
    /// Revoke a token: nobody joins with it any more.
    #[command(after_help = "Example:\n  rdist token revoke 4f1c09aa")]
    Revoke(TokenRevoke),
}

/// A new token.
#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// What it allows.
    #[arg(long, default_value = "worker")]
    pub role: Role,
    /// How long it is good for.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = units::duration)]
    pub ttl: Duration,
    /// How often it may be used; by default, any number of times.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,
    #[command(flatten)]
    pub client: Client,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Join as a worker.
    Worker,
    /// Submit and stop jobs.
    Client,
    /// Look, and change nothing.
    ReadOnly,
}

/// A token to revoke.
#[derive(Debug, Args)]
pub(crate) struct TokenRevoke {
    /// The token's id, as `rdist token list` shows it.
    pub id: String,
    #[command(flatten)]
    pub client: Client,
}

/// Whose graph.
#[derive(Debug, Args)]
pub(crate) struct Graph {
    /// A workload (`.toml`).
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Change a value of the workload, as `table.key=value`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = units::pair)]
    pub set: Vec<Pair>,
    /// Print the graph for Graphviz.
    #[arg(long)]
    pub dot: bool,
}

/// Which workload to time.
#[derive(Debug, Args)]
pub(crate) struct Profile {
    /// A workload (`.toml`).
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Change a value of the workload, as `table.key=value`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = units::pair)]
    pub set: Vec<Pair>,
    /// Folder with the job's data, as RDIST_DATA.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Images in the sample; by default 128.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub images: Option<u32>,
    /// CPUs to recommend actors for; by default those of this machine.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus: Option<u32>,
}

#[cfg(test)]
mod deploy_tests;
#[cfg(test)]
mod tests;
