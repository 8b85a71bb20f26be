//! The only composition root: every part of a process, put together once.

use std::sync::Arc;
use std::time::Duration;

use aig_cache::{Bus, MemoryBus};
use aig_domain::Clock;
use aig_domain::crypto::KeyRing;
use aig_domain::links::Links;
use aig_fetch::{TrustedClient, TrustedConfig, UntrustedFetcher, UrlPolicy};
use aig_files::{Directory, Files};
use aig_inference::{Chat, ChatConfig, Defaults};
use aig_providers::Registry;
use aig_queue::{Broker, MemoryBroker};
use aig_store::Store;
use aig_tasks::Tasks;
use anyhow::Context as _;
use tokio_util::task::TaskTracker;

use crate::datadir::DataDir;
use crate::{Config, Metrics};

/// How long the lanes and the connections have to end once the roles have.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// The parts of a process. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// How it was configured.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The database.
    pub store: Store,
    /// The doorbell of the workers.
    pub broker: Arc<dyn Broker>,
    /// Signals between parts.
    pub bus: Arc<dyn Bus>,
    /// Result files.
    pub files: Arc<dyn Files>,
    /// Providers and models.
    pub providers: Arc<Registry>,
    /// The models of requests that name none.
    pub defaults: Arc<Defaults>,
    /// The secret keys.
    pub ring: Arc<KeyRing>,
    /// What clients reach this gateway by, without a slash at the end.
    pub public_url: String,
    /// Makes links to results.
    pub links: Links,
    /// Calls URLs that tenants gave.
    pub fetcher: UntrustedFetcher,
    /// The task engine.
    pub tasks: Tasks,
    /// Chat calls.
    pub chat: Chat,
    /// Everything that must end before the process does runs on it.
    pub tracker: TaskTracker,
    /// The metrics of this process.
    pub metrics: Metrics,
}

impl App {
    /// Puts the parts together. `address` is where the API is reached when no public URL is configured.
    ///
    /// # Errors
    /// When a part does not start, with what to do about it.
    pub async fn build(
        config: Config,
        folder: &DataDir,
        address: &str,
        clock: Arc<dyn Clock>,
        tracker: TaskTracker,
    ) -> anyhow::Result<Self> {
        let ring = Arc::new(folder.key_ring(config.secret_key.as_ref())?);
        let store = Store::connect(&config.store(), Arc::clone(&clock), &tracker)
            .await
            .context("the database cannot be opened")?;
        let files: Arc<dyn Files> = Arc::new(
            Directory::open(&config.files())
                .await
                .with_context(|| format!("result files cannot be kept in {}", config.files().display()))?,
        );
        let client =
            TrustedClient::new(&TrustedConfig::default()).context("the client for providers cannot be set up")?;
        let fetcher = UntrustedFetcher::new(UrlPolicy::new(config.private_targets()))
            .context("the fetcher for tenants' URLs cannot be set up")?;
        let providers =
            Registry::new(config.providers.clone(), &client, &fetcher, Arc::clone(&clock), &config.deadlines)
                .context("the providers cannot be set up")?;
        let (broker, bus): (Arc<dyn Broker>, Arc<dyn Bus>) =
            (Arc::new(MemoryBroker::new()), Arc::new(MemoryBus::new()));
        let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
        let links = Links::new(config.media_url.as_deref().unwrap_or(&public_url), Arc::clone(&ring));
        let providers = Arc::new(providers);
        let defaults = Arc::new(config.defaults.clone());
        let chat_config = ChatConfig {
            keep_alive: config.chat.keep_alive,
            idle: config.chat.idle,
            total: config.chat.total,
            head: config.chat.head,
            slow_reader: config.chat.slow_reader,
        };
        Ok(Self {
            tasks: Tasks::new(
                store.clone(),
                Arc::clone(&broker),
                Arc::clone(&bus),
                Arc::clone(&clock),
                links.clone(),
                tracker.clone(),
            ),
            chat: Chat::new(
                Arc::clone(&providers),
                store.ledger().clone(),
                Arc::clone(&defaults),
                chat_config,
                tracker.clone(),
            ),
            metrics: Metrics::install()?,
            config: Arc::new(config),
            clock,
            store,
            broker,
            bus,
            files,
            providers,
            defaults,
            ring,
            public_url,
            links,
            fetcher,
            tracker,
        })
    }

    /// Makes the database ready for this process: its schema, and the check that both belong to one secret key.
    ///
    /// # Errors
    /// When the schema cannot be brought up to date, or the database was made with another secret key.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        self.store.migrate().await.context("the database's schema cannot be brought up to date")?;
        self.store.check_secret_keys(&self.ring.fingerprints()).await.context(
            "this process has another secret key than the database was made with; \
             give it the right one in AIG_SECRET_KEY, or put back the file secret-key",
        )
    }

    /// Ends what the roles left: settles, writes in line, connections.
    pub async fn close(&self) {
        self.tracker.close();
        let close = async {
            self.broker.close().await;
            self.store.close().await;
            self.tracker.wait().await;
        };
        if tokio::time::timeout(CLOSE_GRACE, close).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "not everything ended in time");
        }
    }
}
