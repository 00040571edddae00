//! Gradients to a master (workload 2): each replica computes the gradient of its chunk, the master
//! replica takes the optimiser step with their mean and hands the new parameters back. Workload 2
//! did so once for each epoch; `train.exchange` says after how many batches.

use std::ops::Range;

use rdist::prelude::*;

use super::error::{JobError, Loss, loss};
use super::fleet::Fleet;
use super::replica::{Product, State};
use super::{Course, Progress, Scheme, Standing};
use crate::metric::Tally;

/// See the module.
#[derive(Default)]
pub(super) struct GradientMaster {
    /// The replica that steps.
    master: Option<u32>,
}

impl Scheme for GradientMaster {
    async fn train(
        &mut self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
        positions: Range<u64>,
    ) -> Result<Option<Progress>, JobError> {
        let Some(master) = self.master(fleet, standing).await? else { return Ok(None) };
        let mut parameters = standing.parameters.clone();
        let mut tally = Tally::default();
        for chunk in course.rounds(&positions, fleet.len()) {
            let from = chunk.start;
            let mut works = course.works(standing.epochs, chunk, fleet.len());
            works.retain(|work| work.from < work.to);
            let gradients = fleet
                .spread(&works, |replica, work| replica.gradient(&parameters, work).submit())
                .await?;
            let Some(gradients) = gradients else { return Ok(None) };
            let counted: Tally = gradients.iter().map(|product| product.tally).sum();
            let values: Vec<_> = gradients.into_iter().map(|product| product.values).collect();
            let rate = course.rates.at(standing.epochs, course.within(from));
            let stepped: Result<Product> = master.apply(&values, rate, counted).call().await;
            match stepped {
                Ok(product) => parameters = product.values,
                Err(error) => match loss(&error) {
                    Some(Loss::Input) => return Ok(None),
                    Some(Loss::Replica) | None => {
                        // Its optimiser is lost with it: the next one goes on from the epoch's
                        // start, where the driver has it.
                        fleet.lose(self.master.take().unwrap_or_default(), &error)?;
                        return Ok(None);
                    }
                },
            }
            // `spread` may have replaced nobody, but lost the master itself.
            if self.lost_master(fleet) {
                return Ok(None);
            }
            tally += counted;
        }
        let state: Result<State> = master.state().call().await;
        match state {
            Ok(state) => Ok(Some(Progress { parameters, optimiser: state.optimiser, tally })),
            Err(error) => {
                fleet.lose(self.master.take().unwrap_or_default(), &error)?;
                Ok(None)
            }
        }
    }
}

impl GradientMaster {
    fn lost_master(&self, fleet: &mut Fleet) -> bool {
        !fleet.members().iter().any(|member| Some(member.number) == self.master)
    }

    /// The master, standing where the epoch starts.
    async fn master(
        &mut self,
        fleet: &mut Fleet,
        standing: &Standing,
    ) -> Result<Option<ActorHandle<super::replica::Replica>>, JobError> {
        if self.lost_master(fleet) {
            self.master = fleet.members().first().map(|member| member.number);
            if let Some(number) = self.master {
                println!("replica {number} is the master");
            }
        }
        let chosen = fleet.members().iter().find(|member| Some(member.number) == self.master);
        let Some(handle) = chosen.map(|member| member.handle.clone()) else { return Ok(None) };
        let state = State {
            version: 0,
            parameters: standing.parameters.get()?,
            optimiser: standing.optimiser.clone(),
        };
        match handle.adopt(&state).call().await {
            Ok(()) => Ok(Some(handle)),
            Err(error) => {
                fleet.lose(self.master.take().unwrap_or_default(), &error)?;
                Ok(None)
            }
        }
    }
}
