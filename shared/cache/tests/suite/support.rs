//! Limiters and buses of either form.

use std::time::Duration;

/// How long something may take that takes a moment, on a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(10);

/// Makes one test per form out of an `async fn(&Form)`.
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod memory { $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&super::memory()).await; })+ }
    };
}
pub(crate) use both;
