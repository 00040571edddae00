//! Folders that travel with a job.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, Finished, faults, text, wait_until};

/// A state folder with its head and two workers, and a folder to send.
struct Place {
    cluster: Cluster,
    workers: [String; 2],
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let cluster = Cluster::new();
        cluster.start_head();
        let join = || text(&cluster.join(&["--cpus", "1"]), "worker").to_owned();
        let workers = [join(), join()];
        Self { workers, cluster, folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A job that reads a file on each worker.
    fn read(&self, file: &str) -> Finished {
        let mut submit = self.cluster.rdist(&["submit", &faults(), "--working-dir"]);
        submit.arg(self.folder.path()).args(["--", "read", file]).args(&self.workers);
        crate::cluster::Running::start(submit).finish()
    }

    /// What the workers keep for jobs at this moment.
    fn kept(&self) -> Vec<PathBuf> {
        let workers = fs::read_dir(self.cluster.home().join("workers")).unwrap();
        let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
        workers
            .flatten()
            .flat_map(|worker| ["files", "scratch"].map(|name| worker.path().join(name)))
            .flat_map(entries)
            .map(|entry| entry.path())
            .collect()
    }
}

#[test]
fn a_folder_is_unpacked_on_every_worker_and_removed_after_the_job() {
    let place = Place::new();
    place.write("data/x.txt", "first\n");
    place.write("large.bin", &"x".repeat(100_000));
    place.write(".rdistignore", "*.bin\n");
    let finished = place.read("data/x.txt");
    finished.assert_success();
    let folders: Vec<&str> =
        finished.stdout.iter().map(|line| line.strip_suffix(": first").unwrap()).collect();
    assert_eq!(folders.len(), 2, "{finished}");
    assert_ne!(folders[0], folders[1], "each worker has its own");
    assert!(folders.iter().all(|folder| Path::new(folder).starts_with(place.cluster.home())));
    wait_until("the copies are gone", || match place.kept() {
        kept if kept.is_empty() => Ok(()),
        kept => Err(format!("{kept:?}")),
    });
    place.read("large.bin").assert_failure("No such file");

    place.write("data/x.txt", "second\n");
    let finished = place.read("data/x.txt");
    finished.assert_success();
    assert!(finished.stdout.iter().all(|line| line.ends_with(": second")), "{finished}");
}

#[test]
fn a_folder_that_is_too_large_is_refused_before_anything_starts() {
    let cluster = Cluster::with_workers(&[]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("huge.csv"), "x".repeat(2_000)).unwrap();
    let path = folder.path().to_str().unwrap();
    let limit = "--working-dir-limit";
    let finished = cluster.run(&["submit", &faults(), "--working-dir", path, limit, "1KiB"]);
    finished.assert_failure("huge.csv (2000)");
    finished.assert_failure(".rdistignore");
    assert!(cluster.run(&["jobs", "--json"]).stdout.is_empty());
}

/// Two builds of one program at the same time, as after a fix while the old one still runs.
#[test]
fn two_versions_of_a_program_run_side_by_side() {
    let cluster = Cluster::with_workers(&[2]);
    let folder = tempfile::tempdir().unwrap();
    let build = |name: &str, version: &str| {
        let path = folder.path().join(name);
        fs::copy(faults(), &path).unwrap();
        // Another content, which the loader does not look at.
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, version.as_bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let go_on = folder.path().join("go-on");
    let go_on = go_on.to_str().unwrap();
    let (old, new) = (build("one", "version 1"), build("two", "version 2"));
    let first = cluster.start(&["submit", &old, "--", "wait", go_on]);
    first.wait_for("the old one runs", |line| line.contains("task-pid").then_some(()));
    let second = cluster.start(&["submit", &new, "--", "wait", go_on]);
    second.wait_for("the new one runs", |line| line.contains("task-pid").then_some(()));
    fs::write(go_on, "").unwrap();
    first.finish().assert_success();
    second.finish().assert_success();
}
