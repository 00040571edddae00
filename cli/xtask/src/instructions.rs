//! `cargo xtask instructions`: how many instructions the hot paths take, counted by valgrind and
//! compared with what is committed. A count does not know how busy the machine is, so a small
//! growth can be told from noise.
//!
//! Each path of `runtime/benches/instructions.rs` is gone a number of times and three times as
//! often; the difference is what the rounds cost, without the start of the process and of what the
//! path needs. The program is optimised as a release is, but in the dev profile: the
//! dependencies that the tests have built stay as they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::{interrupt, step};

/// What to do with the counts.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write what is counted into the committed file, instead of comparing.
    #[arg(long)]
    accept: bool,
}

/// Growth that is let through: what a compiler's mood or a C library's `memcpy` make of it.
const TOLERANCE: f64 = 0.10;
/// The same where another compiler than the committed figures' is used.
const TOLERANCE_OF_OTHERS: f64 = 0.30;

/// The fewer of the two numbers of rounds.
const ROUNDS: u64 = 2_000;

/// How the program is built: in one piece, so that what is inlined does not depend on how code
/// happens to be shared out among units.
const SETTINGS: [&str; 4] =
    ["opt-level=3", "codegen-units=1", "debug-assertions=false", "overflow-checks=false"];

/// A path that does twice what another does: were it not told apart, nothing would be.
const CONTROL: (&str, &str) = ("ring_frame_twice", "ring_frame");

/// Instructions of a round, by path.
type Counts = BTreeMap<String, f64>;

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    interrupt::catch()?;
    if !is_possible() {
        bail!("valgrind is not installed; `apt-get install valgrind`, then run this again");
    }
    let counts = count()?;
    let mut file = Committed::read()?;
    if options.accept {
        file.accept(&counts);
        file.write()?;
        println!("{} counts written into {}", counts.len(), file.path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let (passed, failed) = report(&file, &counts);
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts and compares as a part of the tests: how many paths passed and failed.
pub(crate) fn check() -> anyhow::Result<(u64, u64)> {
    let counts = count()?;
    Ok(report(&Committed::read()?, &counts))
}

/// Whether there is something to count with.
pub(crate) fn is_possible() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Builds the program and counts each of its paths.
fn count() -> anyhow::Result<Counts> {
    let program = build()?;
    let folder = crate::target_folder().join("instructions");
    std::fs::create_dir_all(&folder)?;
    let list = Command::new(&program).output().context("asking for the paths")?;
    let list = String::from_utf8(list.stdout)?;
    let mut counts = Counts::new();
    for name in list.lines() {
        let few = collected(&program, name, ROUNDS, &folder)?;
        let many = collected(&program, name, 3 * ROUNDS, &folder)?;
        let each = many.saturating_sub(few) as f64 / (2 * ROUNDS) as f64;
        counts.insert(name.to_owned(), each.round());
    }
    control(&mut counts)?;
    Ok(counts)
}

/// Fails unless work that is done twice counts about twice.
fn control(counts: &mut Counts) -> anyhow::Result<()> {
    let (twice, once) = CONTROL;
    let twice = counts.remove(twice).context("the path that does its work twice is missing")?;
    let once = *counts.get(once).context("the path that does its work once is missing")?;
    if !(1.8..2.2).contains(&(twice / once)) {
        bail!("twice the work took {twice} instructions instead of {once}: the counts are wrong");
    }
    Ok(())
}

fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(crate::repository());
    // All members, so that the dependencies have the features that the tests' have.
    command.args(["build", "--workspace", "--bench", "instructions"]);
    command.arg("--message-format=json-render-diagnostics");
    for package in ["rdist", "rdist-scheduler"] {
        for setting in SETTINGS {
            command.arg("--config").arg(format!("profile.dev.package.{package}.{setting}"));
        }
    }
    command.env("CARGO_INCREMENTAL", "0");
    eprintln!("+ {}", step::shown(&command));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("the program whose instructions are counted does not build");
    }
    let messages = String::from_utf8(output.stdout)?;
    let is_it = |message: &Value| message["target"]["name"] == "instructions";
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let executable = messages.filter(is_it).find_map(|message| {
        let executable = message["executable"].as_str()?;
        Some(PathBuf::from(executable))
    });
    executable.context("cargo does not say where the program is that it built")
}

/// Instructions of one run; which functions took them is left in `folder`.
fn collected(program: &Path, name: &str, rounds: u64, folder: &Path) -> anyhow::Result<u64> {
    let mut command = Command::new("valgrind");
    let out = profile(folder, name);
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(program).args([name, &rounds.to_string()]);
    let output = command.output().with_context(|| step::shown(&command))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("`{}` ended with {}:\n{said}", step::shown(&command), output.status);
    }
    instructions(&said)
        .with_context(|| format!("valgrind does not say what {name} collected:\n{said}"))
}

fn profile(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.callgrind"))
}

/// From a line like `==42== Collected : 123456`.
fn instructions(said: &str) -> Option<u64> {
    let (_, count) = said.lines().find_map(|line| line.split_once("Collected : "))?;
    count.split_whitespace().next()?.parse().ok()
}

/// Prints a line for each path; how many passed and failed.
fn report(file: &Committed, counts: &Counts) -> (u64, u64) {
    let tolerance = file.tolerance();
    let (mut passed, mut failed) = (0, 0);
    println!("\ninstructions of the hot paths, at most {:.0} % more:", 100.0 * tolerance);
    for (name, verdict) in compare(&file.counts, counts, tolerance) {
        println!("  {name:<24} {verdict}");
        if verdict.is_failure() {
            failed += 1;
            let folder = crate::target_folder().join("instructions");
            println!("    where they go: callgrind_annotate {}", profile(&folder, &name).display());
        } else {
            passed += 1;
        }
    }
    if failed > 0 {
        println!(
            "  if this is worth it: `cargo xtask instructions --accept`, and commit {}",
            Committed::FILE
        );
    }
    (passed, failed)
}

/// What a path's count means.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Within the tolerance, or less.
    Fits {
        committed: f64,
        now: f64,
    },
    /// So much less that the committed figure guards nothing.
    Fewer {
        committed: f64,
        now: f64,
    },
    More {
        committed: f64,
        now: f64,
    },
    /// Nothing is committed for it.
    New {
        now: f64,
    },
    /// Something is committed for what is no path any longer.
    Gone,
}

impl Verdict {
    fn is_failure(&self) -> bool {
        matches!(self, Self::More { .. } | Self::New { .. } | Self::Gone)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let change = |committed: f64, now: f64| 100.0 * (now / committed - 1.0);
        match *self {
            Self::Fits { committed, now } => {
                write!(f, "{now:>8} of {committed:>8} ({:+.1} %)", change(committed, now))
            }
            Self::Fewer { committed, now } => write!(
                f,
                "{now:>8} of {committed:>8} ({:+.1} %): better; accept it to keep it",
                change(committed, now)
            ),
            Self::More { committed, now } => write!(
                f,
                "{now:>8} of {committed:>8}: GREW by {:.1} %, {} instructions",
                change(committed, now),
                now - committed
            ),
            Self::New { now } => write!(f, "{now:>8}: NOTHING COMMITTED to compare it with"),
            Self::Gone => write!(f, "is committed, and is NO PATH any longer"),
        }
    }
}

fn compare(committed: &Counts, counts: &Counts, tolerance: f64) -> Vec<(String, Verdict)> {
    let mut verdicts: BTreeMap<_, _> =
        committed.keys().map(|name| (name.clone(), Verdict::Gone)).collect();
    for (name, &now) in counts {
        let verdict = match committed.get(name) {
            None => Verdict::New { now },
            Some(&committed) if now > committed * (1.0 + tolerance) => {
                Verdict::More { committed, now }
            }
            Some(&committed) if now < committed * (1.0 - tolerance) => {
                Verdict::Fewer { committed, now }
            }
            Some(&committed) => Verdict::Fits { committed, now },
        };
        verdicts.insert(name.clone(), verdict);
    }
    verdicts.into_iter().collect()
}

/// The file of figures, and those of this architecture.
struct Committed {
    path: PathBuf,
    whole: Value,
    counts: Counts,
    /// The compiler that they are of, and the one that is used now.
    rustc: (String, String),
}

impl Committed {
    const FILE: &str = "runtime/benches/instructions.json";

    fn read() -> anyhow::Result<Self> {
        let path = crate::repository().join(Self::FILE);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned());
        let whole: Value =
            serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let here = &whole[std::env::consts::ARCH];
        let counts = here["instructions"].as_object().into_iter().flatten();
        let counts = counts.filter_map(|(name, count)| Some((name.clone(), count.as_f64()?)));
        let counts = counts.collect();
        let rustc = (here["rustc"].as_str().unwrap_or_default().to_owned(), rustc()?);
        Ok(Self { path, whole, counts, rustc })
    }

    /// Growth that is let through with this compiler.
    fn tolerance(&self) -> f64 {
        let (theirs, ours) = &self.rustc;
        if theirs == ours {
            return TOLERANCE;
        }
        println!("\nthe committed figures are of rustc {theirs}, and this is {ours}");
        TOLERANCE_OF_OTHERS
    }

    fn accept(&mut self, counts: &Counts) {
        let rustc = &self.rustc.1;
        self.whole[std::env::consts::ARCH] = json!({ "rustc": rustc, "instructions": counts });
    }

    fn write(&self) -> anyhow::Result<()> {
        let text = format!("{:#}\n", self.whole);
        std::fs::write(&self.path, text).with_context(|| self.path.display().to_string())
    }
}

/// The version of the compiler, as `1.95.0`.
fn rustc() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().context("running rustc")?;
    let version = String::from_utf8(output.stdout)?;
    let version = version.split_whitespace().nth(1);
    Ok(version.context("rustc does not say its version")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(&str, f64)]) -> Counts {
        all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn growth_past_the_tolerance_fails_and_nothing_less_does() {
        let committed = counts(&[("a", 1_000.0), ("b", 1_000.0), ("c", 1_000.0), ("d", 1_000.0)]);
        let now = counts(&[("a", 1_101.0), ("b", 1_099.0), ("c", 890.0), ("e", 1.0)]);
        let verdicts = compare(&committed, &now, TOLERANCE);
        let failed: Vec<_> = verdicts.iter().map(|(_, verdict)| verdict.is_failure()).collect();
        assert_eq!(failed, [true, false, false, true, true]);
        assert_eq!(verdicts[2].1, Verdict::Fewer { committed: 1_000.0, now: 890.0 });
        assert_eq!(verdicts[3].1, Verdict::Gone);
        let text = verdicts[0].1.to_string();
        assert!(text.ends_with("GREW by 10.1 %, 101 instructions"), "{text}");
    }

    #[test]
    fn counts_that_do_not_tell_twice_the_work_are_not_believed() {
        let mut broken = counts(&[("ring_frame", 100.0), ("ring_frame_twice", 101.0)]);
        assert!(control(&mut broken).is_err());
        let mut sound = counts(&[("ring_frame", 100.0), ("ring_frame_twice", 195.0)]);
        control(&mut sound).expect("twice is twice");
        assert_eq!(sound, counts(&[("ring_frame", 100.0)]));
    }

    #[test]
    fn what_valgrind_says_is_understood() {
        let said = "==7== Events    : Ir\n==7== Collected : 2151703\n==7== \n";
        assert_eq!(instructions(said), Some(2_151_703));
        assert_eq!(instructions("==7== valgrind: nothing"), None);
    }
}
