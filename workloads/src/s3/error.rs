//! What goes wrong with S3, told by what to do about it.

use std::error::Error;

use object_store::client::{HttpError, HttpErrorKind};

use super::Address;

/// Why an object could not be read, written or listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum S3Error {
    /// No address.
    #[error("{0:?} is no address in S3; write s3://BUCKET/KEY")]
    Address(String),
    /// The environment does not say how to get there.
    #[error(
        "{address} cannot be reached as the environment is: {reason}; S3 is set up with \
         AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where the job \
         is submitted"
    )]
    Settings {
        /// What was wanted.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody answers.
    #[error(
        "{endpoint} cannot be reached, where {address} was looked for: {reason}; does the store \
         run, and does AWS_ENDPOINT_URL name it as this machine sees it?"
    )]
    Unreachable {
        /// Where.
        endpoint: String,
        /// What was wanted.
        address: String,
        /// What happened, after all tries.
        reason: String,
    },
    /// The credentials are not accepted, or not for this.
    #[error(
        "{endpoint} refuses the credentials for {address}: {reason}; AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY must be a key of that store that may use this bucket"
    )]
    Refused {
        /// Where.
        endpoint: String,
        /// What was wanted.
        address: String,
        /// What it said.
        reason: String,
    },
    /// The bucket is not there.
    #[error("there is no bucket {bucket} at {endpoint}; make it, or name another one")]
    NoBucket {
        /// Where.
        endpoint: String,
        /// Its name.
        bucket: String,
    },
    /// The object is not there.
    #[error(
        "{address} is not there, at {endpoint}; bucket and key must be right to the letter, and \
         AWS_ENDPOINT_URL says at which store"
    )]
    NotFound {
        /// Where.
        endpoint: String,
        /// What was wanted.
        address: String,
    },
    /// More than anybody can want.
    #[error("{address} and what follows it have {bytes} bytes, more than the {most} expected")]
    TooLarge {
        /// The first object.
        address: String,
        /// Of all together.
        bytes: u64,
        /// What is accepted.
        most: u64,
    },
    /// The store failed at it.
    #[error(
        "{endpoint} failed with {address}: {reason}; its own log may say more, and the job can be \
         submitted again when it is well"
    )]
    Failed {
        /// Where.
        endpoint: String,
        /// What was wanted.
        address: String,
        /// What it said.
        reason: String,
    },
}

impl S3Error {
    pub(super) fn of(error: &object_store::Error, endpoint: &str, wanted: &Address) -> Self {
        let (text, reason) = (chain(error), reason(error));
        let (endpoint, address) = (endpoint.to_owned(), wanted.to_string());
        let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
        let is_missing = matches!(error, object_store::Error::NotFound { .. });
        // A listing of nothing is empty: where there is nothing to list, the bucket is missing.
        if says(&["NoSuchBucket"]) || (is_missing && text.contains("list-type=2")) {
            return Self::NoBucket { endpoint, bucket: wanted.bucket.clone() };
        }
        if is_missing || says(&["NoSuchKey"]) {
            return Self::NotFound { endpoint, address };
        }
        let refused = matches!(
            error,
            object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
        );
        let codes = ["SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "NotSignedUp"];
        if refused || says(&codes) {
            return Self::Refused { endpoint, address, reason };
        }
        match http(error) {
            Some(HttpErrorKind::Connect | HttpErrorKind::Timeout | HttpErrorKind::Request) => {
                Self::Unreachable { endpoint, address, reason }
            }
            _ => Self::Failed { endpoint, address, reason },
        }
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this)
    })
}

/// The error and all its causes in words.
fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn http(error: &(dyn Error + 'static)) -> Option<HttpErrorKind> {
    causes(error).find_map(|each| each.downcast_ref::<HttpError>()).map(HttpError::kind)
}

/// What it comes to: the code and message of the store's answer, else the innermost cause.
pub(super) fn reason(error: &(dyn Error + 'static)) -> String {
    let text = chain(error);
    let between = |open: &str, close: &str| {
        let (_, rest) = text.split_once(open)?;
        rest.split_once(close).map(|(inner, _)| inner.trim().to_owned())
    };
    let said = [between("<Code>", "</Code>"), between("<Message>", "</Message>")];
    let said: Vec<String> = said.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if said.is_empty() {
        let innermost = causes(error).last();
        return innermost.map_or_else(String::new, ToString::to_string);
    }
    said.join(", ")
}
