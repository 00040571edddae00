//! Arguments of `rdist bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to measure.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Bench {
    /// Something else than the rows.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// Take a few seconds in all instead of a few minutes.
    #[arg(long)]
    pub quick: bool,
    /// Measure only rows whose name holds this.
    #[arg(long, value_name = "PART", default_value = "")]
    pub filter: String,
    /// The output of `ray microbenchmark` on this machine, to print ratios to.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
}

/// What there is to measure beside the rows.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure what the head costs per worker, per task and per actor as a cluster grows.
    #[command(after_help = "Examples:\n  rdist bench scale --quick\n  \
                            rdist bench scale --workers 1,10,100 --plot scale.svg\n\n\
                            It starts clusters of its own on this machine and ends them; sizes \
                            past what a machine holds are of the head's core alone.")]
    Scale(Scale),
}

/// How far to go.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// Sizes of clusters of processes.
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_value = "1,10,100")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub workers: Vec<u64>,
    /// Numbers of workers that the head's core alone is given.
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_value = "10,100,1000,10000")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub simulated: Vec<u64>,
    /// Write the figures as a picture (SVG), too.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Two idle seconds instead of ten, and fewer tasks.
    #[arg(long)]
    pub quick: bool,
    /// One such number, in this process.
    #[arg(long, value_name = "COUNT", hide = true)]
    pub simulate: Option<u64>,
}
