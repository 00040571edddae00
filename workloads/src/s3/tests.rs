//! Against a real server on this machine.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use rdist_s3_server::Server;

use super::*;

struct Store {
    server: Server,
    // After the server, which serves it.
    _folder: tempfile::TempDir,
}

impl Store {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { server: Server::start(folder.path()).unwrap(), _folder: folder }
    }

    fn bucket(&self, name: &str, changes: &[(&'static str, &str)]) -> Result<Bucket, S3Error> {
        let mut variables: HashMap<&str, String> = self.server.environment().into();
        variables.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let address = Address { bucket: name.to_owned(), key: String::new() };
        Bucket::with(&address, |name| {
            variables.get(name).cloned().filter(|value| !value.is_empty())
        })
    }
}

fn keys(objects: &[Listed]) -> Vec<&str> {
    objects.iter().map(|object| object.key.as_str()).collect()
}

#[test]
fn addresses_are_buckets_and_keys() {
    let of = |text: &str| Address::of(Path::new(text));
    let address = of("s3://b/a/c").unwrap().unwrap();
    assert_eq!((address.bucket.as_str(), address.key.as_str()), ("b", "a/c"));
    assert_eq!(address.join("d").to_string(), "s3://b/a/c/d");
    assert_eq!(of("s3://b").unwrap().unwrap().join("d").to_string(), "s3://b/d");
    assert_eq!(of("s3://b/a/").unwrap().unwrap().to_string(), "s3://b/a");
    assert!(of("a/b").is_none() && of("/s3://b").is_none());
    for wrong in ["s3://", "s3:///a", "s3://b//a"] {
        assert!(of(wrong).unwrap().is_err(), "{wrong}");
    }
}

#[test]
fn objects_come_back_as_they_were_and_are_listed_by_how_they_begin() {
    let store = Store::start();
    let bucket = store.bucket("models", &[]).unwrap();
    // More than two parts, the last one shorter.
    let large: Vec<u8> = (0..2 * PART_BYTES + 12_345).map(|n| (n % 251) as u8).collect();
    bucket.write("a/large", large.clone()).unwrap();
    for (key, content) in [("a/l", "1"), ("a/later/x", "23"), ("b/l", "4"), ("a/k", "5")] {
        bucket.write(key, content.into()).unwrap();
    }
    assert_eq!(bucket.read_one("a/large").unwrap(), large);
    let listed = bucket.list("a/l").unwrap();
    assert_eq!(keys(&listed), ["a/l", "a/large", "a/later/x"]);
    assert_eq!(listed[1].bytes, large.len() as u64);
    assert_eq!(bucket.list("c").unwrap(), []);

    let small = [listed[0].clone(), listed[2].clone()];
    assert_eq!(bucket.read(&small, 3).unwrap(), b"123");
    assert!(matches!(bucket.read(&small, 2), Err(S3Error::TooLarge { bytes: 3, .. })));

    bucket.write("a/l", b"new".to_vec()).unwrap();
    bucket.copy("a/l", "c/l").unwrap();
    bucket.remove("a/l").unwrap();
    bucket.remove("a/l").unwrap();
    assert_eq!(bucket.read_one("c/l").unwrap(), b"new");
    assert!(matches!(bucket.read_one("a/l"), Err(S3Error::NotFound { .. })));
}

#[test]
fn more_keys_than_a_page_are_all_listed_in_order() {
    let store = Store::start();
    let folder = store._folder.path().join("datasets/many");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..1_005 {
        std::fs::write(folder.join(format!("{number:04}")), "x").unwrap();
    }
    let listed = store.bucket("datasets", &[]).unwrap().list("many/").unwrap();
    assert_eq!(listed.len(), 1_005);
    assert!(listed.is_sorted_by(|a, b| a.key < b.key));
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let store = Store::start();
    let missing = store.bucket("nowhere", &[]).unwrap();
    let error = missing.list("x").unwrap_err();
    assert!(matches!(&error, S3Error::NoBucket { bucket, .. } if bucket == "nowhere"), "{error:?}");
    assert!(error.to_string().contains("http://127.0.0.1"), "{error}");

    for wrong in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        let refused = store.bucket("models", &[(wrong, "wrong")]).unwrap();
        let error = refused.list("x").unwrap_err();
        assert!(matches!(error, S3Error::Refused { .. }), "{wrong}: {error:?}");
        assert!(error.to_string().contains(wrong), "{error}");
    }

    let unset = store.bucket("models", &[("AWS_SECRET_ACCESS_KEY", "")]).err().unwrap();
    assert!(unset.to_string().contains("AWS_SECRET_ACCESS_KEY is not set"), "{unset}");

    // A port on which nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = format!("http://{nobody}");
    let away = store.bucket("models", &[("AWS_ENDPOINT_URL", &away)]).unwrap();
    let error = away.read_one("x").unwrap_err();
    assert!(matches!(error, S3Error::Unreachable { .. }), "{error:?}");
    let text = error.to_string();
    for piece in [&nobody.to_string(), "s3://models/x", "AWS_ENDPOINT_URL"] {
        assert!(text.contains(piece), "{piece}: {text}");
    }
}

#[test]
fn what_fails_for_a_while_is_tried_again() {
    const FAILURES: usize = 3;
    let store = Store::start();
    let [(_, real), ..] = store.server.environment();
    let real = real.trim_start_matches("http://").to_owned();
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", relay.local_addr().unwrap());
    let relayed = std::thread::spawn(move || {
        for _ in 0..FAILURES {
            let (mut client, _) = relay.accept().unwrap();
            let _ = client.read(&mut [0; 4_096]).unwrap();
            client
                .write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .unwrap();
        }
        let (client, _) = relay.accept().unwrap();
        let server = TcpStream::connect(real).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let up = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut { server }, &mut { client });
        up.join().unwrap();
    });
    let bucket = store.bucket("models", &[("AWS_ENDPOINT_URL", &address)]).unwrap();
    bucket.write("x", b"there".to_vec()).unwrap();
    drop(bucket);
    relayed.join().unwrap();
    assert_eq!(store.bucket("models", &[]).unwrap().read_one("x").unwrap(), b"there");
}
