//! What many tasks leave when they have ended: tables that are mostly empty, and keep their memory
//! until they are told to give it back.

use super::LocalCore;

impl LocalCore {
    /// Whether large tables are mostly empty.
    pub fn has_slack(&self) -> bool {
        self.tasks.has_slack()
    }

    /// Gives the room in all tables back. What is left in them moves: for times in which there is
    /// nothing else to do.
    pub fn give_slack_back(&mut self) {
        self.tasks.give_slack_back();
        self.objects.shrink_to_fit();
        self.executors.values_mut().for_each(|executor| executor.holds.shrink_to_fit());
    }
}
