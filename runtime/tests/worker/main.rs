//! A real worker with real executors over real sockets; its head is played by the tests.
#![allow(clippy::unwrap_used, missing_docs)]

mod head;
mod program;
mod twice;

use std::time::Duration;

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test: the entry of the processes that the worker starts.
#[test]
fn executor_child() {
    let Ok(descriptor) = std::env::var(rdist::EXECUTOR_FD) else { return };
    rdist::__private::execute(&descriptor, program::main_of_job);
}

/// Waits for what must come true.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}
