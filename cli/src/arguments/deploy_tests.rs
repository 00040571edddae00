//! What `workloads/deploy` says to `rdist`: the scripts are run with programs in the places of
//! `rdist`, `srun` and `pbsdsh`, and what they are called with must be a command line of ours.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::Parser as _;

use super::Arguments;

/// Notes what it is called with, and with which token; a head says where it is.
const RDIST: &str = r#"#!/bin/sh
{ printf '%s\n' "${RDIST_TOKEN-}"; printf '%s\n' "$@"; } >"$CALLS/$$"
case "$1 $2" in
"head start") echo '{"event":"head_ready","address":"10.0.0.1:7420","token":"secret"}' ;;
"worker join") cat >/dev/null ;;
"submit "*) exit "$STATUS" ;;
esac
"#;
/// Runs the command that follows its options, as on one machine.
const SRUN: &str = r#"#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
SLURM_NODEID=0 PBS_TASKNUM=0 exec "$@"
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn assert_parses(words: &[&str]) {
    let parsed = Arguments::try_parse_from(words);
    assert!(parsed.is_ok(), "{words:?}: {}", parsed.unwrap_err());
}

/// A folder with programs that stand for those of a cluster.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "calls", "tmp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for (name, text) in [("rdist", RDIST), ("srun", SRUN), ("pbsdsh", SRUN)] {
            let path = folder.path().join("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        Self(folder)
    }

    /// Runs a script, whose job ends with a status.
    fn run(&self, script: &str, arguments: &[&str], status: i32) -> Output {
        let (folder, path) = (self.0.path(), std::env::var("PATH").unwrap_or_default());
        let mut bash = Command::new("bash");
        bash.arg(root().join("workloads/deploy").join(script));
        match script {
            "pbs.sh" => bash.env("ARGUMENTS", arguments.join(" ")),
            _ => bash.args(arguments),
        };
        bash.env("PATH", format!("{}:{path}", folder.join("bin").display()));
        bash.env("CALLS", folder.join("calls")).env("STATUS", status.to_string());
        bash.env("TMPDIR", folder.join("tmp")).env("PBS_O_WORKDIR", folder);
        bash.env("SLURM_JOB_ID", "7").env("SLURM_CPUS_PER_TASK", "3").env_remove("SLURM_TMPDIR");
        bash.env("PBS_JOBID", "7.host").env("NCPUS", "3").env_remove("RDIST_TOKEN");
        bash.current_dir(folder).output().unwrap()
    }

    /// Token and arguments of each call, by its first two words.
    fn calls(&self) -> BTreeMap<String, (String, Vec<String>)> {
        let entries = fs::read_dir(self.0.path().join("calls")).unwrap();
        let call = |path: PathBuf| {
            let text = fs::read_to_string(path).unwrap();
            let mut lines = text.lines().map(str::to_owned);
            let (token, words) = (lines.next().unwrap(), lines.collect::<Vec<_>>());
            (words[..2].join(" "), (token, words))
        };
        entries.map(|entry| call(entry.unwrap().path())).collect()
    }
}

#[test]
fn the_scripts_run_and_what_they_say_is_understood() {
    let job = ["workloads/mnist.toml", "--set", "train.resume=auto"];
    for script in ["slurm.sh", "pbs.sh"] {
        let stage = Stage::new();
        let none = stage.run(script, &[], 0);
        assert_eq!(none.status.code(), Some(2), "{script} without a job: {none:?}");
        assert!(stage.calls().is_empty());
        for status in [0, 3] {
            let stage = Stage::new();
            let run = stage.run(script, &job, status);
            assert_eq!(run.status.code(), Some(status), "{script}: {run:?}");
            let calls = stage.calls();
            for (_, words) in calls.values() {
                let words = words.iter().map(String::as_str);
                assert_parses(&["rdist"].into_iter().chain(words).collect::<Vec<_>>());
            }
            let names: Vec<&str> = calls.keys().map(String::as_str).collect();
            let submit = "submit workloads/mnist.toml";
            assert_eq!(names, ["head start", "head stop", submit, "worker join"], "{script}");
            assert_eq!(calls[submit].1[1..], job, "{script}");
            let (token, worker) = &calls["worker join"];
            for word in ["10.0.0.1:7420", "--foreground", "3"] {
                assert!(worker.iter().any(|each| each == word), "{word}: {worker:?}");
            }
            // Where any process can be listed, the token is no argument.
            assert!(token == "secret" || worker.ends_with(&["--token", "-"].map(str::to_owned)));
            assert!(!worker.iter().any(|word| word.contains("secret")), "{worker:?}");
            let left = fs::read_dir(stage.0.path().join("tmp")).unwrap().count();
            assert_eq!(left, 0, "{script} leaves its state");
        }
    }
}

#[test]
fn the_manifests_command_lines_are_understood() {
    let text = read("workloads/deploy/kubernetes.yaml");
    let word = |text: &str| text.trim().trim_matches('"').to_owned();
    let mut lines: Vec<Vec<String>> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let list = line.trim_start_matches(['#', ' ']).split_once("args:");
        let command = line.split_once("command: [").and_then(|(_, rest)| rest.split_once(']'));
        if let Some((_, list)) = list {
            let words: Vec<String> = match list.trim().strip_prefix('[') {
                Some(list) => list.trim_end_matches(']').split(',').map(word).collect(),
                None => {
                    let items = text.lines().skip(at + 1).map(str::trim);
                    items.map_while(|item| item.strip_prefix("- ")).map(word).collect()
                }
            };
            lines.push([vec!["rdist".to_owned()], words].concat());
        } else if let Some((list, _)) = command {
            lines.push(list.split(',').map(word).collect());
        } else if let Some((_, said)) = line.split_once("-- rdist ") {
            let said = said.split(')').next().unwrap_or_default();
            lines.push(format!("rdist {said}").split(' ').map(str::to_owned).collect());
        }
    }
    // Three containers, three probes, two tokens.
    assert_eq!(lines.len(), 8, "{lines:?}");
    for line in lines {
        assert_parses(&line.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn what_the_image_is_built_from_is_there() {
    let text = read("workloads/deploy/Dockerfile");
    let ignored = read(".dockerignore");
    let packages = ["cli", "workloads"].map(|folder| read(&format!("{folder}/Cargo.toml")));
    let words: Vec<&str> = text.split_whitespace().collect();
    for pair in words.windows(2).filter(|pair| pair[0] == "-p" && pair[1].starts_with("rdist")) {
        let name = format!("name = \"{}\"", pair[1]);
        assert!(packages.iter().any(|package| package.contains(&name)), "{name}");
    }
    let copied = text.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copied: Vec<&str> = copied.filter(|line| !line.starts_with("--from")).collect();
    assert_eq!(copied.len(), 2, "{copied:?}");
    for line in copied {
        let from = line.split(' ').next().unwrap_or_default();
        let (folder, end) = from.split_once('*').unwrap_or((from, ""));
        let files = fs::read_dir(root().join(folder)).unwrap().flatten();
        let has = files.filter(|file| file.file_name().to_string_lossy().ends_with(end)).count();
        assert!(has > 0, "nothing is {from}");
        assert!(ignored.lines().all(|line| line != folder.trim_end_matches('/')), "{from}");
    }
    // What the manifest submits is what the image holds.
    let manifest = read("workloads/deploy/kubernetes.yaml");
    let held = "/opt/rdist/workloads/";
    assert!(text.contains(&format!("COPY workloads/*.toml {held}")));
    let submitted = manifest.split(held).nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    assert!(root().join("workloads").join(submitted).is_file(), "{submitted}");
    assert!(read("cli/xtask/src/main.rs").contains("export"), "cargo xtask libtorch --export");
}
