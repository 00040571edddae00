//! Amounts: what a task asks for, and what the job may hold.

use std::collections::BTreeMap;

use rdist::scheduler::resource::Resources;
use toml::Spanned;

use super::super::document::{SizeText, Task, TimeText};
use super::super::{Limits, PlanError};
use super::Builder;
use crate::units;

impl Builder<'_> {
    pub(super) fn limits(&self, task: &Task) -> Result<Limits, PlanError> {
        let defaults = &self.document.defaults;
        let amount = |value: &Option<Spanned<f64>>, default: &Option<Spanned<f64>>, key: &str| {
            let Some(value) = value.as_ref().or(default.as_ref()) else { return Ok(None) };
            self.amount(value, key).map(Some)
        };
        let memory = match task.memory.as_ref().or(defaults.memory.as_ref()) {
            None => 0,
            Some(memory) => match memory.get_ref() {
                SizeText::Bytes(bytes) => *bytes,
                SizeText::Text(text) => match units::bytes(text) {
                    Ok(bytes) => bytes,
                    Err(what) => {
                        return self.error(memory.span(), format!("memory = \"{text}\": {what}"));
                    }
                },
            },
        };
        let time_limit = match task.time_limit.as_ref().or(defaults.time_limit.as_ref()) {
            None => None,
            Some(limit) => {
                let text = match limit.get_ref() {
                    TimeText::Text(text) => text.clone(),
                    TimeText::Seconds(seconds) => format!("{seconds}s"),
                };
                match units::duration(&text).map(|time| time.as_millis() as u64) {
                    Ok(0) => return self.error(limit.span(), "a time limit of nothing"),
                    Ok(ms) => Some(ms),
                    Err(what) => {
                        let what = format!("time_limit = \"{text}\": {what}");
                        return self.error(limit.span(), what);
                    }
                }
            }
        };
        let mut resources = BTreeMap::new();
        for (name, value) in defaults.resources.iter().chain(&task.resources) {
            resources.insert(name.clone(), self.amount(value, name)?);
        }
        Ok(Limits {
            cpus: amount(&task.cpus, &defaults.cpus, "cpus")?.unwrap_or(1.0),
            gpus: amount(&task.gpus, &defaults.gpus, "gpus")?.unwrap_or(0.0),
            memory,
            resources: Vec::from_iter(resources),
            retries: task.retries.or(defaults.retries).unwrap_or(0),
            time_limit,
            priority: task.priority.or(defaults.priority).unwrap_or(0),
        })
    }

    fn amount(&self, value: &Spanned<f64>, key: &str) -> Result<f64, PlanError> {
        const MOST: f64 = 1e9;
        match *value.get_ref() {
            amount if (0.0..=MOST).contains(&amount) => Ok(amount),
            wrong => self.error(
                value.span(),
                format!("{key} = {wrong} is no amount; write a number from 0 on"),
            ),
        }
    }

    /// What the job may hold at most.
    pub(super) fn quota(&self) -> Result<Resources, PlanError> {
        let mut quota = Resources::NONE;
        for (name, amount) in &self.document.quota {
            if let Err(what) = units::limit(&mut quota, name, &amount.get_ref().to_string()) {
                return self.error(amount.span(), format!("quota: {what}"));
            }
        }
        Ok(quota)
    }
}
