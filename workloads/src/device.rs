//! What models compute on: CPUs, or a GPU of a replica's own.
//!
//! A replica that asks for a GPU is given one by the scheduler, in a process that sees that one
//! alone and calls it `cuda:0`. There the model runs forward and backward. What travels
//! (parameters, gradients, checkpoints) and optimiser steps stay on CPUs: replicas that apply the
//! same gradients have the same bits, whatever they computed those on.

use std::time::Duration;

use rdist::prelude::*;
use rdist::scheduler::resource::Amount;
use rkyv::{Archive, Deserialize, Serialize};
use tch::{Cuda, Device};

use crate::train::error::JobError;

/// How often a job that waits for a GPU says so.
const REMIND: Duration = Duration::from_secs(10);

/// Where an actor's model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Processor {
    /// On the CPUs that it is given.
    #[default]
    Cpu,
    /// On the GPU that it is given.
    Gpu,
}

impl Processor {
    /// GPUs that an actor asks for.
    pub fn gpus(self) -> f64 {
        match self {
            Self::Cpu => 0.0,
            Self::Gpu => 1.0,
        }
    }

    /// What an actor asks for, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Gpu => "GPU",
        }
    }

    /// As libtorch has it, in the process of an actor that asked for it.
    ///
    /// # Errors
    /// libtorch sees no GPU there.
    pub fn device(self) -> Result<Device, String> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Gpu => Sight::here().check().map(|()| Device::Cuda(0)),
        }
    }
}

/// `train.device` as the TOML has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// `auto`: a GPU where the cluster has them.
    Auto,
    /// `cpu`
    Cpu,
    /// `cuda`, `cuda:0`: a GPU.
    Gpu,
}

/// `train.device`, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// What is wanted.
    pub wish: Wish,
    /// File and line, or the override; for messages.
    pub place: String,
    /// In the words of the TOML.
    pub text: String,
}

impl DeviceSpec {
    /// What to ask for, once it is settled.
    pub fn processor(&self) -> Processor {
        match self.wish {
            Wish::Gpu => Processor::Gpu,
            Wish::Auto | Wish::Cpu => Processor::Cpu,
        }
    }

    /// Decides what the job computes on, by what the cluster's workers offer and what libtorch can
    /// do beside a GPU of theirs.
    ///
    /// # Errors
    /// [`JobError::Device`]: a GPU is wanted, and there is none or libtorch cannot use it.
    pub async fn settled(&self, cx: &Driver) -> Result<Self, JobError> {
        if self.wish == Wish::Cpu {
            return Ok(self.clone());
        }
        let has_gpus = cx.offers().iter().any(|(_, offer)| offer.gpu >= Amount::whole(1));
        let seen = match has_gpus {
            true => seen(cx).await?.check(),
            false => Err(NO_WORKER.to_owned()),
        };
        match (self.wish, seen) {
            (_, Ok(())) => Ok(Self { wish: Wish::Gpu, ..self.clone() }),
            (Wish::Gpu, Err(reason)) => {
                let (place, device) = (self.place.clone(), self.text.clone());
                Err(JobError::Device { place, device, reason })
            }
            (_, Err(reason)) => {
                // Where nobody speaks of GPUs there is nothing to tell.
                if has_gpus {
                    println!("train.device = \"auto\" computes on CPUs: {reason}");
                }
                Ok(Self { wish: Wish::Cpu, ..self.clone() })
            }
        }
    }
}

const NO_WORKER: &str = "no worker of the cluster has a GPU: `rdist worker join` finds those of \
    its machine, `rdist status` shows what there is";

/// What libtorch sees in one process.
#[rdist::value]
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Sight {
    /// The machine's name.
    pub machine: String,
    /// `CUDA_VISIBLE_DEVICES`
    pub visible: String,
    /// Whether it was built with CUDA.
    pub built: bool,
    /// GPUs that it can use.
    pub gpus: u64,
}

impl Sight {
    /// In this process.
    pub fn here() -> Self {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            machine: machine.trim().to_owned(),
            visible: std::env::var(rdist::machine::VISIBLE_GPUS).unwrap_or_default(),
            built: tch::utils::has_cudart(),
            gpus: if Cuda::is_available() { Cuda::device_count().unsigned_abs() } else { 0 },
        }
    }

    /// Says what is missing.
    fn check(&self) -> Result<(), String> {
        let Self { machine, visible, .. } = self;
        match (self.built, self.gpus) {
            (false, _) => Err(format!(
                "the libtorch of this program was built without CUDA, and cannot use the GPU that \
                 {machine} offers: build the program with LIBTORCH_USE_PYTORCH=1, or LIBTORCH, \
                 naming one that has it"
            )),
            (true, 0) => Err(format!(
                "{machine} offers GPU {visible:?} (CUDA_VISIBLE_DEVICES), and libtorch cannot use \
                 it there: does `nvidia-smi` work, or was the worker told `--gpus` of GPUs that \
                 it does not have?"
            )),
            _ => Ok(()),
        }
    }
}

/// Looks from a process that is given a GPU, as replicas will be.
#[rdist::task]
fn look() -> Sight {
    Sight::here()
}

/// What libtorch sees beside a GPU of the cluster; waits for one that is free.
async fn seen(cx: &Driver) -> Result<Sight> {
    let sight = look.with().cpus(0.0).gpus(1.0).submit(cx);
    let mut sight = std::pin::pin!(sight.into_future());
    loop {
        match tokio::time::timeout(REMIND, sight.as_mut()).await {
            Ok(seen) => return seen,
            Err(_) => println!("waiting for a GPU: all that workers offer are held"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let sight = |built, gpus| {
            let (machine, visible) = ("node-3".to_owned(), "1".to_owned());
            Sight { machine, visible, built, gpus }.check()
        };
        assert_eq!(sight(true, 1), Ok(()));
        let reason = sight(false, 0).unwrap_err();
        assert!(reason.contains("node-3") && reason.contains("LIBTORCH_USE_PYTORCH"), "{reason}");
        let reason = sight(true, 0).unwrap_err();
        assert!(reason.contains("offers GPU \"1\"") && reason.contains("nvidia-smi"), "{reason}");
    }

    #[test]
    fn a_gpu_is_asked_for_only_where_one_is_settled_on() {
        let spec = |wish| {
            let (place, text) = ("job.toml, line 2".to_owned(), "cuda".to_owned());
            DeviceSpec { wish, place, text }.processor()
        };
        assert_eq!(spec(Wish::Gpu).gpus(), 1.0);
        assert_eq!([spec(Wish::Auto).gpus(), spec(Wish::Cpu).gpus()], [0.0, 0.0]);
        assert_eq!(Processor::Cpu.device(), Ok(Device::Cpu));
    }
}
