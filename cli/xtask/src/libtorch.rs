//! Where libtorch comes from, without anything installed by hand.
//!
//! A libtorch of the user's own comes first (`LIBTORCH`, `LIBTORCH_USE_PYTORCH`). Otherwise the
//! CPU part of PyTorch's wheel is brought from the Python package index, by `pip` where there is
//! one, else by `curl`, and kept outside `target`, so that a clean build does not fetch it again.
//! The wheel is made for CUDA, but its `libtorch_cpu.so` needs only two small CUDA libraries,
//! which come from wheels of their own; its `libtorch.so` would need all of CUDA, so a stub that
//! names the CPU libraries takes its place.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

/// The version that the `tch` crate is made for.
const VERSION: &str = "2.11.0";
/// What the cache is called; a new way of unpacking gets a new name.
const FOLDER: &str = "libtorch-2.11.0-cpu";
/// The wheels, and a piece of the file name that tells the right one from its siblings. PyTorch's
/// wheel differs by Python version only in the binding, which is not unpacked.
const WHEELS: [(&str, &str, &str); 3] = [
    ("torch", VERSION, "-cp311-cp311-manylinux_2_28_x86_64"),
    ("nvidia-cuda-runtime", "13.0.96", "manylinux_2_17_x86_64"),
    ("nvidia-cuda-cupti", "13.0.85", "manylinux_2_25_x86_64"),
];
/// Platforms whose wheels a Linux with glibc 2.28 runs, in the names that the three use.
const PLATFORMS: [&str; 4] = [
    "manylinux_2_28_x86_64",
    "manylinux_2_25_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
];
/// Libraries that a program on the CPU loads.
const LIBRARIES: [&str; 7] = [
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "torch/lib/libshm.so",
    "torch/lib/libtorch_global_deps.so",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
];

/// A libtorch that can be linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Libtorch {
    /// Folder with `lib` and `include`.
    pub prefix: PathBuf,
    /// Where it was taken from, for people.
    pub source: String,
}

impl Libtorch {
    /// What cargo must find in its environment to link this one. The value of `LIBTORCH` belongs
    /// to cargo's idea of what is built: another spelling of the same path builds the binding
    /// anew (4 minutes).
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
            return Vec::new();
        }
        vec![("LIBTORCH", self.prefix.clone().into())]
    }
}

/// Finds libtorch, and fetches it when there is none yet (about 540 MB, then 550 MB on disk).
pub(crate) fn ensure() -> anyhow::Result<Libtorch> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(own) = users_own(variable, pytorch_of_python)? {
        return Ok(own);
    }
    let prefix = cache(variable)?;
    if is_complete(&prefix) {
        return Ok(Libtorch { source: format!("the cache {}", prefix.display()), prefix });
    }
    fetch(&prefix).with_context(|| {
        format!(
            "cannot bring libtorch {VERSION} to {}; with a libtorch or PyTorch {VERSION} of your \
             own, set LIBTORCH=FOLDER or LIBTORCH_USE_PYTORCH=1",
            prefix.display()
        )
    })?;
    Ok(Libtorch { source: format!("PyPI, unpacked to {}", prefix.display()), prefix })
}

/// What the user's environment names, checked before a build of minutes trips over it.
fn users_own(
    variable: impl Fn(&str) -> Option<OsString>,
    pytorch: impl Fn() -> anyhow::Result<PathBuf>,
) -> anyhow::Result<Option<Libtorch>> {
    // The binding asks for PyTorch first, so this order is its order.
    let own = if variable("LIBTORCH_USE_PYTORCH").is_some() {
        Libtorch { prefix: pytorch()?, source: "PyTorch of python3 (LIBTORCH_USE_PYTORCH)".into() }
    } else if let Some(prefix) = variable("LIBTORCH") {
        Libtorch { prefix: prefix.into(), source: "LIBTORCH".into() }
    } else {
        return Ok(None);
    };
    let shown = own.prefix.display();
    ensure!(
        own.prefix.join("lib/libtorch_cpu.so").exists(),
        "{} names {shown}, but there is no lib/libtorch_cpu.so in it",
        own.source
    );
    let found = fs::read_to_string(own.prefix.join("build-version")).unwrap_or_default();
    let found = found.trim().split('+').next().unwrap_or_default();
    if !found.is_empty() && found != VERSION && variable("LIBTORCH_BYPASS_VERSION_CHECK").is_none()
    {
        bail!(
            "{} names libtorch {found} in {shown}, this build needs {VERSION}; \
             LIBTORCH_BYPASS_VERSION_CHECK=1 tries it all the same",
            own.source
        );
    }
    Ok(Some(own))
}

/// The folder of the PyTorch that `python3` imports.
fn pytorch_of_python() -> anyhow::Result<PathBuf> {
    let python = if std::env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
    let script = "import torch, os; print(os.path.dirname(torch.__file__))";
    let output = Command::new(python)
        .args(["-c", script])
        .output()
        .with_context(|| format!("LIBTORCH_USE_PYTORCH is set, but {python} does not start"))?;
    ensure!(
        output.status.success(),
        "LIBTORCH_USE_PYTORCH is set, but {python} cannot import torch: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The folder outside `target` that keeps what was fetched.
fn cache(variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<PathBuf> {
    if let Some(own) = variable("RDIST_LIBTORCH_CACHE") {
        return Ok(std::path::absolute(own)?);
    }
    let user = match (variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => bail!(
            "no place to keep libtorch: none of RDIST_LIBTORCH_CACHE, XDG_CACHE_HOME and HOME is \
             set"
        ),
    };
    Ok(std::path::absolute(user.join("rdist").join(FOLDER))?)
}

/// Whether an earlier fetch ended here; the version file is what a fetch writes last.
fn is_complete(prefix: &Path) -> bool {
    fs::read_to_string(prefix.join("build-version")).is_ok_and(|version| version.trim() == VERSION)
        && prefix.join("lib/libtorch_cpu.so").exists()
}

/// Fills a folder beside the cache and renames it, so that a killed fetch leaves no half cache.
fn fetch(prefix: &Path) -> anyhow::Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the wheels are known for Linux on x86_64 alone, and this is {} on {}",
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let parent = prefix.parent().context("the cache cannot be the root folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    remove_abandoned(parent)?;
    let partial = Partial(parent.join(format!("{FOLDER}.partial-{}", std::process::id())));
    let wheels = partial.0.join("wheels");
    fs::create_dir_all(&wheels).with_context(|| format!("cannot make {}", wheels.display()))?;

    eprintln!("Fetching libtorch {VERSION} for the CPU from PyPI (540 MB, once) ...");
    download(&wheels)?;
    let unpacked = partial.0.join("prefix");
    eprintln!("Unpacking it ...");
    for entry in fs::read_dir(&wheels)? {
        let wheel = entry?.path();
        unpack(&wheel, &unpacked).with_context(|| format!("cannot unpack {}", wheel.display()))?;
    }
    for library in LIBRARIES {
        let name = library.rsplit('/').next().unwrap_or(library);
        ensure!(unpacked.join("lib").join(name).exists(), "the wheels hold no {library}");
    }
    link_stub(&unpacked.join("lib"))?;
    fs::write(unpacked.join("build-version"), format!("{VERSION}\n"))?;
    if prefix.exists() && !is_complete(prefix) {
        fs::remove_dir_all(prefix)
            .with_context(|| format!("cannot remove the incomplete {}", prefix.display()))?;
    }
    match fs::rename(&unpacked, prefix) {
        // Another fetch was faster.
        Err(_) if is_complete(prefix) => Ok(()),
        outcome => outcome.with_context(|| format!("cannot rename to {}", prefix.display())),
    }
}

/// The folder of a fetch under way; it goes when the fetch ends, well or not.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // What is left over is removed by the next fetch.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what killed fetches left.
fn remove_abandoned(parent: &Path) -> anyhow::Result<()> {
    let start = format!("{FOLDER}.partial-");
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let Some(process) = name.as_deref().and_then(|name| name.strip_prefix(&start)) else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The three wheels, by `pip` (which knows the user's mirrors and proxies), else by `curl`.
fn download(folder: &Path) -> anyhow::Result<()> {
    let pip = match by_pip(folder) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    eprintln!("{pip:#}; trying curl ...");
    for (name, version, file) in WHEELS {
        by_curl(folder, name, version, file).map_err(|curl| {
            anyhow::anyhow!("neither pip nor curl could fetch {name}: {pip:#}; {curl:#}")
        })?;
    }
    Ok(())
}

fn by_pip(folder: &Path) -> anyhow::Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"]);
    pip.args(["--disable-pip-version-check", "--no-cache-dir"]);
    pip.args(["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"]);
    // The CUDA libraries' wheels are bound to no Python.
    pip.args(["--abi", "none"]);
    for platform in PLATFORMS {
        pip.args(["--platform", platform]);
    }
    pip.arg("--dest").arg(folder);
    pip.args(WHEELS.map(|(name, version, _)| format!("{name}=={version}")));
    // Its progress is for people, and standard output may be somebody's to read.
    let status = pip
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("python3 does not start")?;
    ensure!(status.success(), "python3 -m pip download ended with {status}");
    Ok(())
}

fn by_curl(folder: &Path, name: &str, version: &str, piece: &str) -> anyhow::Result<()> {
    let index = format!("https://pypi.org/pypi/{name}/{version}/json");
    let answer = Command::new("curl")
        .args(["--fail", "--silent", "--show-error", "--location", &index])
        .output()
        .context("curl does not start")?;
    ensure!(answer.status.success(), "{index}: {}", String::from_utf8_lossy(&answer.stderr).trim());
    let wheel = wheel_of_index(&answer.stdout, piece).with_context(|| index.clone())?;
    let path = folder.join(&wheel.file);
    let status = Command::new("curl")
        .args(["--fail", "--location", "--progress-bar", "--retry", "3", "--output"])
        .arg(&path)
        .arg(&wheel.url)
        .status()?;
    ensure!(status.success(), "curl {} ended with {status}", wheel.url);
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(&path)?, &mut hash)?;
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(
        found == wheel.sha256,
        "{} has SHA-256 {found}, the index says {}",
        wheel.url,
        wheel.sha256
    );
    Ok(())
}

/// A file of the package index.
#[derive(Debug, PartialEq, Eq)]
struct Wheel {
    file: String,
    url: String,
    sha256: String,
}

fn wheel_of_index(answer: &[u8], piece: &str) -> anyhow::Result<Wheel> {
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    let files = answer["urls"].as_array().context("the index answers without `urls`")?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let file = files
        .iter()
        .find(|file| {
            file["filename"].as_str().is_some_and(|name| {
                // A file name from the network becomes a path.
                name.contains(piece) && name.ends_with(".whl") && !name.contains('/')
            })
        })
        .with_context(|| format!("the index lists no wheel with `{piece}` in its name"))?;
    Ok(Wheel {
        file: text(&file["filename"]).context("no filename")?,
        url: text(&file["url"]).context("no url")?,
        sha256: text(&file["digests"]["sha256"]).context("no sha256")?,
    })
}

/// Unpacks headers and the libraries of [`LIBRARIES`], and nothing else.
fn unpack(wheel: &Path, prefix: &Path) -> anyhow::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index)?;
        // `enclosed_name` refuses members that would leave the folder.
        let Some(name) = member.enclosed_name().and_then(Path::to_str).map(str::to_owned) else {
            bail!("a member is called `{}`", member.name());
        };
        let Some(path) = place(&name) else { continue };
        if member.is_dir() {
            continue;
        }
        let path = prefix.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        std::io::copy(&mut member, &mut File::create(&path)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Where a wheel's member goes below the prefix; `None`: it is not needed.
fn place(member: &str) -> Option<PathBuf> {
    if LIBRARIES.contains(&member) {
        return Some(Path::new("lib").join(member.rsplit('/').next()?));
    }
    member.strip_prefix("torch/").filter(|rest| rest.starts_with("include/")).map(PathBuf::from)
}

/// The stub `libtorch.so` that stands for the CPU libraries beside it.
fn link_stub(lib: &Path) -> anyhow::Result<()> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(&compiler)
        .current_dir(lib)
        .args(["-shared", "-o", "libtorch.so", "-Wl,-soname,libtorch.so"])
        .args(["-Wl,--no-as-needed", "-L.", "-ltorch_cpu", "-lc10", "-Wl,-rpath,$ORIGIN"])
        .output()
        .with_context(|| {
            format!("the C compiler {} does not start; install gcc or clang", compiler.display())
        })?;
    ensure!(
        output.status.success(),
        "{} cannot link libtorch.so in {}: {}",
        compiler.display(),
        lib.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Write;

    use super::*;

    fn variables(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    fn no_pytorch() -> anyhow::Result<PathBuf> {
        bail!("no PyTorch")
    }

    #[test]
    fn cache_is_outside_the_build_folder_and_can_be_named() {
        let both = variables(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]);
        assert_eq!(cache(both).unwrap(), Path::new("/x/rdist").join(FOLDER));
        assert_eq!(
            cache(variables(&[("HOME", "/h")])).unwrap(),
            Path::new("/h/.cache/rdist").join(FOLDER)
        );
        let own = variables(&[("RDIST_LIBTORCH_CACHE", "/own"), ("HOME", "/h")]);
        assert_eq!(cache(own).unwrap(), Path::new("/own"));
        assert!(cache(variables(&[])).unwrap_err().to_string().contains("HOME"));
    }

    #[test]
    fn users_own_comes_first_and_is_checked() {
        assert_eq!(users_own(variables(&[]), no_pytorch).unwrap(), None);
        let missing = variables(&[("LIBTORCH", "/nowhere")]);
        let error = users_own(missing, no_pytorch).unwrap_err().to_string();
        assert!(error.contains("LIBTORCH") && error.contains("/nowhere"), "{error}");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        fs::create_dir(path.join("lib")).unwrap();
        fs::write(path.join("lib/libtorch_cpu.so"), "").unwrap();
        fs::write(path.join("build-version"), "2.9.1+cpu\n").unwrap();
        let pytorch = || Ok(path.clone());
        let using = &[("LIBTORCH_USE_PYTORCH", "1"), ("LIBTORCH", "/other")];
        let error = users_own(variables(using), pytorch).unwrap_err().to_string();
        assert!(error.contains("2.9.1") && error.contains(VERSION), "{error}");
        fs::write(path.join("build-version"), "2.11.0+cu130\n").unwrap();
        let own = users_own(variables(using), pytorch).unwrap().unwrap();
        assert_eq!(own.prefix, path);
    }

    #[test]
    fn unpacks_only_what_the_cpu_needs() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("w.whl");
        let mut writer = zip::ZipWriter::new(File::create(&wheel).unwrap());
        for name in [
            "torch/lib/libc10.so",
            "torch/lib/libtorch_cuda.so",
            "torch/include/ATen/ATen.h",
            "torch/nn/include/x.py",
            "nvidia/cu13/lib/libcudart.so.13",
        ] {
            writer.start_file(name, zip::write::FileOptions::default()).unwrap();
            writer.write_all(name.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        let prefix = folder.path().join("prefix");
        unpack(&wheel, &prefix).unwrap();
        assert_eq!(fs::read(prefix.join("lib/libc10.so")).unwrap(), b"torch/lib/libc10.so");
        assert!(prefix.join("lib/libcudart.so.13").exists());
        assert!(prefix.join("include/ATen/ATen.h").exists());
        assert!(!prefix.join("lib/libtorch_cuda.so").exists());
        assert!(!prefix.join("nn").exists());
    }

    #[test]
    fn chooses_the_wheel_by_its_tags() {
        let answer = br#"{"urls":[
            {"filename":"torch-2.11.0-cp311-cp311-win_amd64.whl","url":"u1",
             "digests":{"sha256":"a"}},
            {"filename":"torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl","url":"u2",
             "digests":{"sha256":"b"}}]}"#;
        let wheel = wheel_of_index(answer, WHEELS[0].2).unwrap();
        assert_eq!((wheel.url.as_str(), wheel.sha256.as_str()), ("u2", "b"));
        assert!(wheel_of_index(answer, "aarch64").is_err());
        assert!(wheel_of_index(b"<html>", "aarch64").is_err());
    }

    #[test]
    fn a_half_cache_is_no_cache_and_abandoned_fetches_go() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("lib/libtorch_cpu.so"), "").unwrap();
        assert!(!is_complete(folder.path()));
        let dead = folder.path().join(format!("{FOLDER}.partial-4294967295"));
        let live = folder.path().join(format!("{FOLDER}.partial-{}", std::process::id()));
        fs::create_dir(&dead).unwrap();
        fs::create_dir(&live).unwrap();
        remove_abandoned(folder.path()).unwrap();
        assert!(!dead.exists() && live.exists());
    }
}
