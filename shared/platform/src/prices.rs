//! The imported prices in a running process: loaded at its start, and again all the time, so that an import needs no restart.
//!
//! Every role that makes or admits calls runs [`Prices::keep`]; nothing else sets the registry's catalogue.

use std::time::Duration;

use crate::{App, Shutdown};

/// How often until they were read once: until then, models have no imported price, and are refused under a cap.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a start waits for them. A database that does not answer by then keeps callers out by itself.
const AT_START: Duration = Duration::from_secs(1);

/// The imported prices of one process.
pub struct Prices {
    app: App,
    known: bool,
}

impl Prices {
    /// Loads the prices, unless the database takes too long for a start to wait.
    pub async fn load(app: App) -> Self {
        let mut prices = Self { app, known: false };
        // What comes too late is loaded by the first round of `keep`.
        let _ = tokio::time::timeout(AT_START, prices.reload()).await;
        prices
    }

    /// Loads them again and again, until the shutdown begins.
    pub async fn keep(mut self, shutdown: Shutdown) {
        loop {
            let every = self.app.config.price_reload;
            let wait = if self.known { every } else { every.min(AGAIN) };
            tokio::select! {
                () = shutdown.stopping() => return,
                () = tokio::time::sleep(wait) => {}
            }
            self.reload().await;
        }
    }

    async fn reload(&mut self) {
        match self.app.store.catalog().await {
            Ok(catalog) => {
                self.app.providers.set_catalog(catalog);
                self.known = true;
            }
            Err(error) => tracing::debug!(%error, "the imported prices cannot be read; the last ones stay"),
        }
    }
}
