//! Messages that come twice count once.

/// The last message of a sender that was taken. Links keep the order: one with a lower number has
/// been taken before.
#[derive(Debug, Default)]
pub(crate) struct Taken(u64);

impl Taken {
    /// Whether the message of that number was not taken before; it is now.
    pub(crate) fn is_news(&mut self, number: u64) -> bool {
        let is_news = number > self.0;
        self.0 = self.0.max(number);
        is_news
    }
}
