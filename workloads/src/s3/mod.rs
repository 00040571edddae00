//! S3, Amazon's or another one that speaks it (`MinIO`): whole objects, read, written and listed.
//!
//! Endpoint, region, credentials and the style of addresses come from the environment, under the
//! names that Amazon's own tools have: `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; the bucket is a part of the path, or with
//! `AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true` of the host. What fails and may pass is tried again,
//! with pauses that grow. What data sets, models and checkpoints make of objects is left to them.

mod error;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, MultipartUpload, ObjectStoreExt as _, PutPayload, RetryConfig};
use tokio::runtime::Runtime;

pub use error::S3Error;

/// How paths of objects begin.
const SCHEME: &str = "s3://";
/// Larger objects are written in parts of so many bytes; S3 wants 5 MiB at least.
const PART_BYTES: usize = 8 << 20;
/// Objects that are read, and parts that are written, beside each other.
const AT_A_TIME: usize = 8;
/// Tries after the first one.
const RETRIES: usize = 6;
/// Amazon's first region, which other stores call theirs too.
const REGION: &str = "us-east-1";

/// An object's place, or the beginning of several: `s3://bucket/key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The bucket's name.
    pub bucket: String,
    /// The object's key; may be empty, where a bucket is meant.
    pub key: String,
}

impl Address {
    /// What a path says, where it begins with `s3://`; `None`: it is one of this machine.
    ///
    /// # Errors
    /// [`S3Error::Address`].
    pub fn of(path: &Path) -> Option<Result<Self, S3Error>> {
        let text = path.to_str()?;
        let rest = text.strip_prefix(SCHEME)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || key.starts_with('/') {
            return Some(Err(S3Error::Address(text.to_owned())));
        }
        let key = key.trim_end_matches('/').to_owned();
        Some(Ok(Self { bucket: bucket.to_owned(), key }))
    }

    /// The same bucket's object of another key.
    pub fn with(&self, key: &str) -> Self {
        Self { bucket: self.bucket.clone(), key: key.to_owned() }
    }

    /// What is below it under this name.
    pub fn join(&self, name: &str) -> Self {
        match self.key.as_str() {
            "" => self.with(name),
            key => self.with(&format!("{key}/{name}")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if !self.key.is_empty() {
            write!(f, "/{}", self.key)?;
        }
        Ok(())
    }
}

/// An object as a listing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A bucket, and a connection to where it is. Calls block.
pub struct Bucket {
    name: String,
    endpoint: String,
    store: AmazonS3,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Bucket {
    /// The bucket of `address`, by the environment. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`S3Error::Settings`]: the environment does not say enough, or what it says is wrong.
    pub fn open(address: &Address) -> Result<Self, S3Error> {
        Self::with(address, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`open`](Self::open), by an environment of the caller's.
    ///
    /// # Errors
    /// The same.
    pub fn with(
        address: &Address,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, S3Error> {
        let wrong = |reason: String| S3Error::Settings { address: address.to_string(), reason };
        let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&address.bucket)
            .with_region(region.unwrap_or_else(|| REGION.to_owned()))
            .with_retry(retries());
        for name in PASSED_ON {
            if let (Some(value), Ok(key)) = (variable(name), name.to_ascii_lowercase().parse()) {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(endpoint) = &endpoint {
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.to_ascii_lowercase().starts_with("http://"));
            let signed = variable("AWS_SKIP_SIGNATURE").is_none();
            // Amazon's machines get their credentials from where they run; others cannot.
            if let Some(missing) = CREDENTIALS.iter().find(|name| variable(name).is_none())
                && signed
            {
                return Err(wrong(format!("{missing} is not set")));
            }
        }
        let store = builder.build().map_err(|error| wrong(error::reason(&error)))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = Some(runtime.map_err(|error| wrong(error.to_string()))?);
        let endpoint = endpoint.unwrap_or_else(|| "S3".to_owned());
        Ok(Self { name: address.bucket.clone(), endpoint, store, runtime })
    }

    /// The objects whose keys begin with `prefix`, sorted by key. `prefix` need not end where a
    /// name does.
    ///
    /// # Errors
    /// Those of [`S3Error`].
    pub fn list(&self, prefix: &str) -> Result<Vec<Listed>, S3Error> {
        let work =
            async {
                let (mut all, mut page_token) = (Vec::new(), None);
                loop {
                    let options = PaginatedListOptions { page_token, ..Default::default() };
                    let page = self.store.list_paginated(Some(prefix), options).await?;
                    all.extend(page.result.objects.into_iter().map(|object| Listed {
                        key: object.location.to_string(),
                        bytes: object.size,
                    }));
                    page_token = page.page_token;
                    if page_token.is_none() {
                        return Ok(all);
                    }
                }
            };
        let mut all = self.wait(prefix, work)?;
        all.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }

    /// The contents of objects, one behind the other.
    ///
    /// # Errors
    /// Those of [`S3Error`]; also where they are larger than `most` bytes together.
    pub fn read(&self, objects: &[Listed], most: u64) -> Result<Vec<u8>, S3Error> {
        let bytes: u64 = objects.iter().fold(0, |sum, each| sum.saturating_add(each.bytes));
        let first = objects.first().map_or("", |each| each.key.as_str());
        if bytes > most {
            let address = self.address(first).to_string();
            return Err(S3Error::TooLarge { address, bytes, most });
        }
        let work = async {
            let keys: Vec<String> = objects.iter().map(|object| object.key.clone()).collect();
            let read =
                |text: String| async move { self.store.get(&key(&text)?).await?.bytes().await };
            let mut reads = stream::iter(keys).map(read).buffered(AT_A_TIME);
            let mut content = Vec::with_capacity(bytes as usize);
            while let Some(part) = reads.try_next().await? {
                content.extend_from_slice(&part);
            }
            Ok(content)
        };
        self.wait(first, work)
    }

    /// The content of one object.
    ///
    /// # Errors
    /// Those of [`S3Error`].
    pub fn read_one(&self, key_text: &str) -> Result<Vec<u8>, S3Error> {
        let work = async { self.store.get(&key(key_text)?).await?.bytes().await };
        Ok(self.wait(key_text, work)?.to_vec())
    }

    /// Writes an object; whoever reads it sees the old one whole or the new one whole. Large ones
    /// go in parts.
    ///
    /// # Errors
    /// Those of [`S3Error`].
    pub fn write(&self, key_text: &str, content: Vec<u8>) -> Result<(), S3Error> {
        let work = async {
            let (key, content) = (key(key_text)?, PutPayload::from(content));
            if content.content_length() <= PART_BYTES {
                return self.store.put(&key, content).await.map(|_| ());
            }
            let mut upload = self.store.put_multipart(&key).await?;
            match write_parts(&mut *upload, content).await {
                Ok(()) => upload.complete().await.map(|_| ()),
                Err(error) => {
                    // What was written takes room, and nobody sees it. The first error counts.
                    let _ = upload.abort().await;
                    Err(error)
                }
            }
        };
        self.wait(key_text, work)
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// Those of [`S3Error`].
    pub fn remove(&self, key_text: &str) -> Result<(), S3Error> {
        let work = async {
            match self.store.delete(&key(key_text)?).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                outcome => outcome,
            }
        };
        self.wait(key_text, work)
    }

    /// Copies an object within the bucket.
    ///
    /// # Errors
    /// Those of [`S3Error`].
    pub fn copy(&self, from: &str, to: &str) -> Result<(), S3Error> {
        self.wait(from, async { self.store.copy(&key(from)?, &key(to)?).await })
    }

    fn address(&self, key: &str) -> Address {
        Address { bucket: self.name.clone(), key: key.to_owned() }
    }

    /// Does it in a thread of its own: the caller's may belong to another runtime.
    fn wait<T: Send>(
        &self,
        about: &str,
        work: impl Future<Output = object_store::Result<T>> + Send,
    ) -> Result<T, S3Error> {
        let done = std::thread::scope(|scope| {
            let runtime = self.runtime.as_ref()?;
            Some(scope.spawn(move || runtime.block_on(work)).join())
        });
        match done {
            Some(Ok(outcome)) => {
                outcome.map_err(|error| S3Error::of(&error, &self.endpoint, &self.address(about)))
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err(S3Error::Address(about.to_owned())),
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Without waiting, which is not allowed inside another runtime.
            runtime.shutdown_background();
        }
    }
}

/// Without these, a store that is not Amazon's lets nobody in.
const CREDENTIALS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
/// What the environment says to the client as it is.
const PASSED_ON: [&str; 10] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ALLOW_HTTP",
];

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: RETRIES,
        retry_timeout: Duration::from_secs(60),
    }
}

fn key(text: &str) -> object_store::Result<Key> {
    Ok(Key::parse(text)?)
}

async fn write_parts(
    upload: &mut dyn MultipartUpload,
    content: PutPayload,
) -> object_store::Result<()> {
    let pieces = content.iter().flat_map(|piece| {
        let starts = (0..piece.len()).step_by(PART_BYTES);
        starts.map(|start| piece.slice(start..piece.len().min(start + PART_BYTES)))
    });
    let parts: Vec<_> = pieces.map(|piece| upload.put_part(piece.into())).collect();
    stream::iter(parts).buffer_unordered(AT_A_TIME).try_for_each(|()| async { Ok(()) }).await
}

#[cfg(test)]
mod tests;
