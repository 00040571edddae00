//! The most that a job may hold at a time, over the whole cluster.
//!
//! The head keeps it. What counts, a task, an actor or a bundle that asks for something limited, is
//! never started by the worker that owns it, but is spilled; the head places it when that leaves
//! the job within its quota, and counts it until the worker says that it has ended. So the quota
//! holds without the head too: nothing new of the job starts then. A task that waits for objects
//! gives back its CPUs, of the quota as of its worker, for it may wait for tasks of its own job; so
//! does one that was placed and waits for long for what it needs to start (`local::assigned`). What
//! was started meanwhile overlaps with it when it goes on. A head that has restarted gives nothing
//! of a quota before it knows what every worker holds of it. What a worker that was given up still
//! runs, until it hears that, is not counted.

use crate::hash::FastMap;
use crate::id::JobId;
use crate::placement::Reason;
use crate::resource::{Amount, Resources};

/// Quotas of the jobs that have one. What a quota does not name is not limited.
#[derive(Debug, Default)]
pub(crate) struct Quotas(FastMap<JobId, Resources>);

impl Quotas {
    /// Limits a job, or, where nothing is named, sets it free.
    pub(crate) fn set(&mut self, job: JobId, quota: Resources) {
        match quota.is_none() {
            true => self.0.remove(&job),
            false => self.0.insert(job, quota),
        };
    }

    pub(crate) fn forget(&mut self, job: JobId) {
        self.0.remove(&job);
    }

    pub(crate) fn has(&self, job: JobId) -> bool {
        !self.0.is_empty() && self.0.contains_key(&job)
    }

    /// Whether the quota of that job limits who asks for that.
    pub(crate) fn counts(&self, job: JobId, request: &Resources) -> bool {
        if self.0.is_empty() {
            return false;
        }
        self.0.get(&job).is_some_and(|quota| limits(quota, request).next().is_some())
    }

    /// Why a job that holds `used` may not hold so much more; `None`: it may.
    pub(crate) fn refuses(
        &self,
        job: JobId,
        used: Option<&Resources>,
        request: &Resources,
    ) -> Option<Reason> {
        let quota = self.0.get(&job)?;
        let used = |name: &str| used.map_or(Amount::ZERO, |used| amount(used, name));
        let (resource, limit, wanted) =
            limits(quota, request).find(|(name, limit, wanted)| used(name) + *wanted > *limit)?;
        let (resource, used) = (resource.to_owned(), used(resource));
        Some(Reason::Quota { resource, wanted, limit, used })
    }
}

/// What is limited of that which is asked for: its name, the limit, and how much is asked for.
fn limits<'a>(
    quota: &'a Resources,
    request: &'a Resources,
) -> impl Iterator<Item = (&'a str, Amount, Amount)> {
    let named = ["CPU", "GPU", "memory"].into_iter();
    let all = named.chain(quota.custom().map(|(name, _)| name));
    all.map(|name| (name, amount(quota, name), amount(request, name)))
        .filter(|(_, limit, wanted)| !limit.is_zero() && !wanted.is_zero())
}

fn amount(of: &Resources, name: &str) -> Amount {
    match name {
        "CPU" => of.cpu,
        "GPU" => of.gpu,
        "memory" => of.memory,
        custom => of.get(custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_limited() {
        let (job, mut quotas) = (JobId(1), Quotas::default());
        let mut quota = Resources::cpus(4.0);
        quota.set("license", Amount::whole(1));
        quotas.set(job, quota);
        let mut request = Resources::NONE;
        request.gpu = Amount::whole(8);
        assert!(!quotas.counts(job, &request));
        assert_eq!(quotas.refuses(job, Some(&Resources::cpus(9.0)), &request), None);
        request.cpu = Amount::whole(3);
        assert!(quotas.counts(job, &request) && !quotas.counts(JobId(2), &request));
        assert_eq!(quotas.refuses(job, None, &request), None);
        assert_eq!(quotas.refuses(job, Some(&Resources::cpus(1.0)), &request), None);
        let reason = quotas.refuses(job, Some(&Resources::cpus(1.5)), &request).unwrap();
        let text = "waits for 3 CPU of its job's quota of 4, of which 1.5 is in use";
        assert_eq!(reason.to_string(), text);
        request.set("license", Amount::whole(2));
        let reason = quotas.refuses(job, None, &request).unwrap();
        assert_eq!(reason.to_string(), "needs 2 license; the quota of its job is 1");
        quotas.set(job, Resources::NONE);
        assert!(!quotas.has(job));
    }
}
