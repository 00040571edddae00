//! Where libtorch comes from: here, only from `LIBTORCH`.

use std::path::PathBuf;

/// A libtorch that can be linked.
pub(crate) struct Libtorch {
    /// Folder with `lib` and `include`.
    pub prefix: PathBuf,
    /// Where it was taken from, for people.
    pub source: String,
}

/// Finds libtorch.
pub(crate) fn ensure() -> anyhow::Result<Libtorch> {
    match std::env::var_os("LIBTORCH") {
        Some(prefix) => Ok(Libtorch { prefix: prefix.into(), source: "LIBTORCH".into() }),
        None => anyhow::bail!("LIBTORCH is not set"),
    }
}
