//! MNIST in a bucket, as workload 5 had it: every file is a prefix with the parts that a disk of a
//! MinIO server shows, and among them an `xl.meta`, which belongs to no file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, bail};
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};

use crate::{BUCKETS, Server};

/// The part of the set, the file's name, and in how many parts it is uploaded.
const FILES: [(&str, &str, usize); 4] = [
    ("train", "train-images-idx3-ubyte", 4),
    ("train", "train-labels-idx1-ubyte", 2),
    ("test", "t10k-images-idx3-ubyte", 3),
    ("test", "t10k-labels-idx1-ubyte", 2),
];

/// Uploads the four MNIST files of a folder, or of `mnist/` in it, plain or gzip. Returns where
/// they are: `s3://datasets/mnist`.
///
/// # Errors
/// A file is missing or cannot be read, or the server refuses it.
pub fn upload(server: &Server, folder: &Path) -> anyhow::Result<String> {
    let below = folder.join("mnist");
    let folder = if below.is_dir() { below } else { folder.to_owned() };
    let mut store = AmazonS3Builder::new().with_bucket_name(BUCKETS[0]).with_allow_http(true);
    for (name, value) in server.environment() {
        store = store.with_config(name.to_ascii_lowercase().parse()?, value);
    }
    let store = store.build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (part, name, parts) in FILES {
        let content = read(&folder.join(name))?;
        let prefix = format!("mnist/{part}/{name}");
        runtime
            .block_on(write_parts(&store, &prefix, &content, parts))
            .with_context(|| format!("cannot upload {name} to s3://{}/{prefix}", BUCKETS[0]))?;
    }
    Ok(format!("s3://{}/mnist", BUCKETS[0]))
}

/// Puts `content` below `prefix`, as so many parts and an `xl.meta`.
///
/// # Errors
/// The store's.
pub async fn write_parts(
    store: &dyn ObjectStore,
    prefix: &str,
    content: &[u8],
    parts: usize,
) -> object_store::Result<()> {
    let size = content.len().div_ceil(parts.max(1)).max(1);
    for (index, part) in content.chunks(size).enumerate() {
        let key = format!("{prefix}/part.{:05}", index + 1);
        store.put(&key.into(), PutPayload::from(part.to_vec())).await?;
    }
    // How MinIO's own begin.
    let meta = PutPayload::from_static(b"XL2 1   ");
    store.put(&format!("{prefix}/xl.meta").into(), meta).await?;
    Ok(())
}

/// A file, else its `.gz`, unpacked.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut zipped = path.as_os_str().to_owned();
            zipped.push(".gz");
            let Ok(file) = File::open(&zipped) else {
                bail!(
                    "there is neither {0} nor {0}.gz; --data names the folder with the four MNIST \
                     files, or the one above it",
                    path.display()
                );
            };
            flate2::read::GzDecoder::new(file).read_to_end(&mut content)
        }
        Err(error) => Err(error),
    }
    .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(content)
}
