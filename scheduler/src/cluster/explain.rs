//! Answers for `rdist explain`.

use super::core::ClusterCore;
use crate::id::TaskId;
use crate::placement::Reason;

impl ClusterCore {
    /// What the head knows about a task: where it was placed, or why it waits. `None` if the head
    /// never saw it, or saw it end.
    pub fn explain(&self, task: TaskId) -> Option<String> {
        let mut lines = Vec::new();
        for ((_, owner, attempt), placement) in self.ledger.of_task(task) {
            let worker = placement.worker;
            lines.push(format!("attempt {attempt} was placed on {worker} for {owner}"));
        }
        for key in self.queue.of_task(task) {
            let Some(shape) = self.queue.shape_of(&key) else { continue };
            let over = self.over_quota(shape.job, &shape.request);
            let reason =
                over.unwrap_or_else(|| Reason::find(&self.field, &shape.request, &shape.strategy));
            let behind = shape.keys().take_while(|other| *other != key).count();
            lines.push(match behind {
                0 => format!("waits in the head, first of its kind: {reason}"),
                n => format!("waits in the head behind {n} tasks of its kind: {reason}"),
            });
        }
        if let Some(recovery) = &self.recovery
            && recovery.parked.keys().any(|(parked, _)| *parked == task)
        {
            lines.push(format!("waits in the head: {}", Reason::Recovering));
        }
        lines.extend(self.explain_group(task));
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}
