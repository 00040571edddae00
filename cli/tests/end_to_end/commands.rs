//! The command line without a cluster: help, mistakes, workload files.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cluster::Cluster;

/// A stand-in for `rdist-workloads`, which the real one takes minutes to build.
fn workloads_program(folder: &Path, script: &str) {
    let path = folder.join("rdist-workloads");
    shell(
        "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"",
        &[OsStr::new(script), path.as_os_str()],
    );
}

/// Programs are written by another process: one that this process writes to cannot be run while
/// a test beside this one forks, as the child holds the open file for a moment.
fn shell(script: &str, arguments: &[&OsStr]) {
    let status = Command::new("sh").args(["-c", script, "sh"]).args(arguments).status();
    assert!(status.unwrap().success(), "{script}");
}

/// `rdist` copied to a folder of its own, so that only what a test puts there is beside it.
fn lonely_rdist(cluster: &Cluster, folder: &Path, arguments: &[&str]) -> Output {
    let program = folder.join("rdist");
    if !program.exists() {
        let built = OsStr::new(env!("CARGO_BIN_EXE_rdist"));
        shell("cp \"$1\" \"$2\"", &[built, program.as_os_str()]);
    }
    let mut command = Command::new(program);
    command.args(arguments).env("RDIST_HOME", cluster.home()).env("PATH", "/usr/bin:/bin");
    let output = command.output().unwrap();
    Output {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

struct Output {
    success: bool,
    stdout: String,
    stderr: String,
}

#[test]
fn help_and_completions_need_no_state() {
    let cluster = Cluster::new();
    for arguments in [&["--help"][..], &["submit", "--help"], &["completions", "bash"]] {
        let finished = cluster.run(arguments);
        finished.assert_success();
        assert!(finished.stdout.iter().any(|line| line.contains("rdist")));
    }
    assert_eq!(fs::read_dir(cluster.home()).unwrap().count(), 0);
}

#[test]
fn without_a_head_every_command_says_how_to_start_one() {
    let cluster = Cluster::new();
    for arguments in [
        &["status"][..],
        &["jobs"],
        &["logs", "1"],
        &["stop", "job-1"],
        &["list", "workers"],
        &["worker", "join"],
        &["submit", env!("CARGO_BIN_EXE_rdist")],
    ] {
        cluster.run(arguments).assert_failure("rdist head start");
    }
}

#[test]
fn what_cannot_be_submitted_is_named() {
    let cluster = Cluster::new();
    cluster.run(&["submit", "no/such/program"]).assert_failure("no/such/program");
    cluster.run(&["submit", "no/such.toml"]).assert_failure("no/such.toml");
    cluster.run(&["submit", "Cargo.toml", "--", "x"]).assert_failure("--set");
    let plain = cluster.home().join("plain");
    fs::write(&plain, "text").unwrap();
    cluster.run(&["submit", plain.to_str().unwrap()]).assert_failure("not executable");
}

#[test]
fn a_workload_without_its_program_says_how_to_build_it() {
    let (cluster, folder) = (Cluster::new(), tempfile::tempdir().unwrap());
    let spec = folder.path().join("a.toml");
    fs::write(&spec, "").unwrap();
    let output = lonely_rdist(&cluster, folder.path(), &["submit", spec.to_str().unwrap()]);
    assert!(!output.success);
    assert!(
        output.stderr.contains("cargo build --release -p rdist-workloads"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_mistake_in_a_workload_shows_before_anything_is_submitted() {
    let (cluster, folder) = (Cluster::new(), tempfile::tempdir().unwrap());
    let spec = folder.path().join("a.toml");
    fs::write(&spec, "").unwrap();
    workloads_program(folder.path(), "echo \"error: $1 a.toml:3: no key 'epoch'\" >&2; exit 1");
    let arguments = ["submit", spec.to_str().unwrap(), "--set", "a=1"];
    let output = lonely_rdist(&cluster, folder.path(), &arguments);
    assert!(!output.success);
    assert_eq!(output.stderr, "error: check a.toml:3: no key 'epoch'\n");
}

#[test]
fn a_graph_is_what_the_workloads_program_draws() {
    let (cluster, folder) = (Cluster::new(), tempfile::tempdir().unwrap());
    let spec = folder.path().join("a.toml");
    fs::write(&spec, "").unwrap();
    workloads_program(folder.path(), "echo \"$@\"");
    let spec = spec.to_str().unwrap();
    let arguments = ["graph", spec, "--set", "train.epochs=2", "--dot"];
    let output = lonely_rdist(&cluster, folder.path(), &arguments);
    assert!(output.success, "{}", output.stderr);
    assert_eq!(output.stdout, format!("graph {spec} --set train.epochs=2 --dot\n"));
}
