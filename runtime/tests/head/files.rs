//! Files that travel with jobs, and what is remembered of jobs for how long.

use std::fs;
use std::path::PathBuf;

use rdist::client::{Client, ClientError, ClientRefusal, Files, JobRequest};
use rdist::config::HeadConfig;
use rdist::head::Head;
use rdist::scheduler::id::JobId;

use crate::Place;

impl Place {
    fn blobs(&self) -> usize {
        fs::read_dir(self.home.blobs()).unwrap().count()
    }

    /// A folder of files, and a job that takes it along.
    fn job_with(&self, files: &[(&str, &str)]) -> JobRequest {
        let folder = self.folder.path().join("working");
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files = Files::of_folder(&folder, 1_000).unwrap();
        JobRequest { files: Some(files), ..self.job("with files") }
    }
}

#[tokio::test]
async fn of_a_folder_only_what_changed_is_sent() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    client.submit(place.job("without")).await.unwrap();
    assert_eq!(place.blobs(), 1, "the program");
    let request = place.job_with(&[("a", "1"), ("b/c", "2"), ("b/same as a", "1")]);
    client.submit(request.clone()).await.unwrap();
    assert_eq!(place.blobs(), 4, "two contents and their list");
    client.submit(request).await.unwrap();
    assert_eq!(place.blobs(), 4, "it has all of it");
    client.submit(place.job_with(&[("b/c", "3")])).await.unwrap();
    assert_eq!(place.blobs(), 6, "one content and a list");
}

#[tokio::test]
async fn files_that_cannot_travel_are_named_and_no_job_begins() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let mut files = Files::default();
    files.add_file("missing", PathBuf::from("/nowhere/at all"));
    let request = JobRequest { driver_files: Some(files), ..place.job("files") };
    let error = client.submit(request).await.unwrap_err();
    assert!(error.to_string().contains("/nowhere/at all"), "{error}");
    let mut files = Files::default();
    files.add_bytes("../outside", *b"x");
    let request = JobRequest { driver_files: Some(files), ..place.job("files") };
    let error = client.submit(request).await.unwrap_err();
    assert!(error.to_string().contains("../outside"), "{error}");
    assert!(client.jobs().await.unwrap().is_empty());
}

async fn stopped(client: &Client, job: JobRequest) -> JobId {
    let job = client.submit(job).await.unwrap();
    client.stop_job(job).await.unwrap();
    job
}

#[tokio::test]
async fn the_history_of_jobs_survives_the_head_and_is_bounded() {
    let place = Place::new();
    let config = || HeadConfig { kept_jobs: 2, ..place.config() };
    let head = Head::start(config()).unwrap();
    let client = place.client().await;
    let active = client.submit(place.job("active")).await.unwrap();
    for name in ["one", "two", "three", "four"] {
        stopped(&client, place.job(name)).await;
    }
    let names = async |client: &Client| -> Vec<String> {
        client.jobs().await.unwrap().into_iter().map(|job| job.name).collect()
    };
    assert_eq!(names(&client).await, ["active", "three", "four"]);
    assert!(!rdist::head::updates_path(&place.home, JobId(2)).exists());
    assert!(rdist::head::updates_path(&place.home, JobId(4)).exists());
    drop(client);
    head.kill().unwrap();

    let _head = Head::start(config()).unwrap();
    let client = place.client().await;
    assert_eq!(names(&client).await, ["active", "three", "four"]);
    let gone = client.watch(JobId(2), true).await.unwrap_err();
    let refusal = ClientRefusal::NoJob(JobId(2));
    assert!(matches!(&gone, ClientError::Refused(why) if *why == refusal), "{gone}");
    // An active job is never forgotten, and no number is given out again.
    assert_eq!(stopped(&client, place.job("five")).await, JobId(6));
    assert_eq!(names(&client).await, ["active", "four", "five"]);
    client.stop_job(active).await.unwrap();
    assert_eq!(names(&client).await, ["four", "five"]);
}
