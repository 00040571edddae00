//! What a submit runs: a workload file becomes a call of `rdist-workloads`, a program is itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};

use crate::arguments::Profile;
use crate::units::Pair;

/// The program that knows workload files; it links libtorch, which `rdist` never does.
const WORKLOADS: &str = "rdist-workloads";

/// What runs on the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// For people.
    pub name: String,
    /// The binary.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Whether `file` is a workload rather than a program.
pub(crate) fn is_workload(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

/// A program as it was built, with its own arguments.
pub(crate) fn plain(file: &Path, arguments: &[String], set: &[Pair]) -> anyhow::Result<Program> {
    use std::os::unix::fs::PermissionsExt as _;

    let shown = file.display();
    if let Some(pair) = set.first() {
        bail!(
            "--set {pair} changes a workload (.toml), and {shown} is a program; pass its own \
               arguments after `--`"
        );
    }
    let metadata = std::fs::metadata(file).with_context(|| format!("cannot submit {shown}"))?;
    if !metadata.is_file() {
        bail!("cannot submit {shown}: it is no file; name a program or a workload (.toml)");
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        bail!("cannot submit {shown}: it is not executable; name a program or a workload (.toml)");
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Program { name, path: file.to_owned(), arguments: arguments.to_vec() })
}

/// A workload: checked here first, so that a mistake in it shows at once and without a cluster.
pub(crate) fn workload(file: &Path, arguments: &[String], set: &[Pair]) -> anyhow::Result<Program> {
    let shown = file.display();
    if let Some(argument) = arguments.first() {
        bail!(
            "a workload takes no arguments, but {argument:?} follows `--`; change its values \
               with --set table.key=value"
        );
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let path = find()?;
    let file_argument = file.to_string_lossy().into_owned();
    let mut check = Command::new(&path);
    check.arg("check").arg(file).args(set_arguments(set));
    run_quietly(&mut check)?;

    let mut arguments = vec!["run".to_owned(), "--spec-text".to_owned(), text];
    arguments.extend(["--spec-name".to_owned(), file_argument]);
    arguments.extend(["--run".to_owned(), run_id()]);
    arguments.extend(set_arguments(set));
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Program { name, path, arguments })
}

/// What no other submission has: by it, a driver that starts again knows its own checkpoints from
/// those of earlier jobs, which may have had the same number in another cluster.
fn run_id() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since.as_nanos(), std::process::id())
}

/// The graph of a workload, in the language of Mermaid or of Graphviz.
pub(crate) fn graph(file: &Path, set: &[Pair], dot: bool) -> anyhow::Result<String> {
    std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut graph = Command::new(find()?);
    graph.arg("graph").arg(file).args(set_arguments(set));
    if dot {
        graph.arg("--dot");
    }
    run_quietly(&mut graph)
}

/// What a workload would do, for people or as JSON.
pub(crate) fn plan(
    file: &Path,
    set: &[Pair],
    data: Option<&Path>,
    json: bool,
) -> anyhow::Result<String> {
    let shown = file.display();
    if !is_workload(file) {
        bail!("{shown} is no workload (.toml): what a program will do, only running it tells");
    }
    let mut plan = Command::new(find()?);
    plan.arg("plan").arg(file).args(set_arguments(set));
    if json {
        plan.arg("--json");
    }
    if let Some(data) = data {
        plan.env("RDIST_DATA", data);
    }
    run_quietly(&mut plan)
}

/// How long a workload's prediction takes, activity by activity, for people or as JSON.
pub(crate) fn profile(given: &Profile, json: bool) -> anyhow::Result<String> {
    let shown = given.file.display();
    if !is_workload(&given.file) {
        bail!("{shown} is no workload (.toml); a program measures itself");
    }
    std::fs::metadata(&given.file).with_context(|| format!("cannot read {shown}"))?;
    let mut profile = Command::new(find()?);
    profile.arg("profile").arg(&given.file).args(set_arguments(&given.set));
    for (option, count) in [("--images", given.images), ("--cpus", given.cpus)] {
        if let Some(count) = count {
            profile.args([option, &count.to_string()]);
        }
    }
    if json {
        profile.arg("--json");
    }
    if let Some(data) = &given.data {
        profile.env("RDIST_DATA", data_folder(data)?);
    }
    run_quietly(&mut profile)
}

fn set_arguments(set: &[Pair]) -> impl Iterator<Item = String> + '_ {
    set.iter().flat_map(|pair| ["--set".to_owned(), pair.to_string()])
}

/// Runs `rdist-workloads`; what it prints on standard error is the error when it fails.
fn run_quietly(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.trim_end();
    if output.status.success() {
        // A warning is for people, whatever happens to standard output.
        if !stderr.is_empty() {
            eprintln!("{stderr}");
        }
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    if stderr.is_empty() {
        bail!("{WORKLOADS} ended with {} and said nothing", output.status);
    }
    bail!("{}", stderr.strip_prefix("error: ").unwrap_or(stderr))
}

/// `rdist-workloads`: beside this very program, else on PATH.
fn find() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        beside.iter().cloned().chain(std::env::split_paths(&path)).collect();
    find_in(&folders).with_context(|| {
        let beside = beside.map_or_else(|| "rdist".to_owned(), |path| path.display().to_string());
        format!(
            "{WORKLOADS}, which runs workload files, is neither in {beside} nor on PATH; build it \
             with `cargo build --release -p rdist-workloads` (needs libtorch: \
             `cargo xtask libtorch`)"
        )
    })
}

fn find_in(folders: &[PathBuf]) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;

    let executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    folders.iter().map(|folder| folder.join(WORKLOADS)).find(executable)
}

/// The job's environment: the client's `RDIST_*` and `AWS_*`, then what `--env` says, then the
/// folder of `--data`.
///
/// The variables that say which cluster this is, and who may join it, stay here: on a worker they
/// would be wrong, and in a job a secret.
pub(crate) fn environment(
    inherited: impl Iterator<Item = (String, String)>,
    given: &[String],
    data: Option<&Path>,
) -> anyhow::Result<Vec<(String, String)>> {
    const OWN: [&str; 6] =
        ["RDIST_HOME", "RDIST_HEAD", "RDIST_TOKEN", "RDIST_EXECUTOR_FD", "RDIST_LOG", "RDIST_JOB"];
    let inherited: std::collections::BTreeMap<String, String> = inherited.collect();
    let mut job: std::collections::BTreeMap<String, String> = inherited
        .iter()
        .filter(|(name, _)| name.starts_with("RDIST_") || name.starts_with("AWS_"))
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(data) = job.get_mut("RDIST_DATA") {
        // A driver may run in another folder.
        if let Ok(absolute) = std::path::absolute(&*data) {
            *data = absolute.to_string_lossy().into_owned();
        }
    }
    for variable in given {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = inherited.get(variable);
                let value = value.with_context(|| {
                    format!("--env {variable}: it is not set here; write --env {variable}=VALUE")
                })?;
                (variable.as_str(), value.clone())
            }
        };
        if name.is_empty() {
            bail!("--env {variable}: a variable needs a name");
        }
        job.insert(name.to_owned(), value);
    }
    if let Some(data) = data {
        job.insert("RDIST_DATA".to_owned(), data_folder(data)?);
    }
    Ok(job.into_iter().collect())
}

/// The folder that `--data` names, as any process finds it.
fn data_folder(given: &Path) -> anyhow::Result<String> {
    let shown = given.display();
    let folder = given.canonicalize().with_context(|| {
        format!("cannot take --data {shown}; name the folder that holds mnist/ or the like")
    })?;
    if !folder.is_dir() {
        bail!("--data {shown}: it is no folder; name the one that holds mnist/ or the like");
    }
    let folder = folder.into_os_string().into_string();
    folder.map_err(|path| anyhow::anyhow!("--data {}: the path is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_environment_has_what_jobs_need_and_no_secret_of_the_cluster() {
        let inherited = pairs(&[
            ("AWS_REGION", "x"),
            ("HOME", "/root"),
            ("LANG", "C"),
            ("RDIST_HOME", "/h"),
            ("RDIST_NUM_REPLICAS", "2"),
            ("RDIST_TOKEN", "secret"),
        ]);
        let given = ["A=1=2".to_owned(), "LANG".to_owned(), "AWS_REGION=y".to_owned()];
        let expected =
            pairs(&[("A", "1=2"), ("AWS_REGION", "y"), ("LANG", "C"), ("RDIST_NUM_REPLICAS", "2")]);
        assert_eq!(environment(inherited.into_iter(), &given, None).unwrap(), expected);
        assert!(environment(std::iter::empty(), &["NOT_SET".to_owned()], None).is_err());
        assert!(environment(std::iter::empty(), &["=1".to_owned()], None).is_err());
    }

    #[test]
    fn data_gets_an_absolute_path() {
        let inherited = pairs(&[("RDIST_DATA", "data")]);
        let environment = environment(inherited.into_iter(), &[], None).unwrap();
        assert!(Path::new(&environment[0].1).is_absolute());
    }

    #[test]
    fn data_given_for_a_job_counts_alone_and_must_be_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let with = |data: &Path| {
            let inherited = pairs(&[("RDIST_DATA", "/elsewhere")]);
            let environment = environment(inherited.into_iter(), &[], Some(data));
            environment.map_err(|error| format!("{error:#}"))
        };
        let absolute = folder.path().canonicalize().unwrap();
        let expected = pairs(&[("RDIST_DATA", absolute.to_str().unwrap())]);
        assert_eq!(with(&folder.path().join(".")).unwrap(), expected);
        let error = with(&folder.path().join("none")).unwrap_err();
        assert!(error.contains("none; name the folder") && error.contains("No such"), "{error}");
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(with(&folder.path().join("file")).unwrap_err().contains("is no folder"));
    }

    #[test]
    fn a_program_must_be_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pi");
        assert!(plain(&file, &[], &[]).is_err());
        fs::write(&file, "x").unwrap();
        let error = plain(&file, &[], &[]).unwrap_err().to_string();
        assert!(error.contains("not executable"), "{error}");
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(plain(&file, &["7".into()], &[]).unwrap().name, "pi");
        let set = Pair { name: "a".into(), value: "b".into() };
        assert!(plain(&file, &[], &[set]).is_err());
        assert!(plain(folder.path(), &[], &[]).is_err());
    }

    #[test]
    fn the_workloads_program_is_the_first_executable_one() {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let paths: Vec<_> = folders.iter().map(|folder| folder.path().to_owned()).collect();
        assert_eq!(find_in(&paths), None);
        fs::write(paths[1].join(WORKLOADS), "").unwrap();
        fs::write(paths[2].join(WORKLOADS), "").unwrap();
        fs::set_permissions(paths[2].join(WORKLOADS), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(find_in(&paths), Some(paths[2].join(WORKLOADS)));
    }
}
