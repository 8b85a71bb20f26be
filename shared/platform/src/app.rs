//! The only composition root: every part of a process, put together once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aig_cache::{Bus, MemoryBus, MemoryLimiter, RateLimiter, RedisBus, RedisConfig, RedisLimiter};
use aig_domain::Clock;
use aig_domain::crypto::KeyRing;
use aig_domain::links::Links;
use aig_domain::retry::{exponential, jitter};
use aig_domain::task::QUEUES;
use aig_fetch::{TrustedClient, TrustedConfig, UntrustedFetcher, UrlPolicy};
use aig_files::{Directory, Files, S3Files};
use aig_inference::{Chat, ChatConfig, Defaults};
use aig_providers::Registry;
use aig_queue::{Broker, MemoryBroker, RabbitBroker, RabbitConfig};
use aig_store::{Store, StoreError};
use aig_tasks::Tasks;
use anyhow::Context as _;
use tokio_util::task::TaskTracker;

use crate::config::{BrokerUrl, CacheUrl, FilesUrl};
use crate::datadir::DataDir;
use crate::{Config, Metrics, Shutdown};

/// How long the lanes and the connections have to end once the roles have.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// How much of that is for what calls cost.
const CALLS_GRACE: Duration = Duration::from_secs(1);

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
    /// Counts requests.
    pub limiter: Arc<dyn RateLimiter>,
    /// How many api processes there are: each counts its share of the limits while Redis is away.
    pub live_apis: Arc<AtomicU32>,
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
    verified: Arc<AtomicBool>,
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
        let files = open_files(&config).await?;
        let client =
            TrustedClient::new(&TrustedConfig::default()).context("the client for providers cannot be set up")?;
        let fetcher = UntrustedFetcher::new(UrlPolicy::new(config.private_targets()))
            .context("the fetcher for tenants' URLs cannot be set up")?;
        let providers =
            Registry::new(config.providers.clone(), &client, &fetcher, Arc::clone(&clock), &config.deadlines)
                .context("the providers cannot be set up")?
                .with_prices(config.prices.clone());
        let broker = open_broker(&config, &tracker).await?;
        let live_apis = Arc::new(AtomicU32::new(1));
        let Cache { bus, limiter } = open_cache(&config, &clock, &live_apis, &tracker)?;
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
            capped_max_tokens: config.chat.capped_default_max_tokens,
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
            chat: Chat::new(Arc::clone(&providers), store.clone(), Arc::clone(&clock), chat_config, tracker.clone()),
            metrics: Metrics::install()?,
            verified: Arc::new(AtomicBool::new(false)),
            live_apis,
            limiter,
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
        self.check_database().await.map_err(explained)?;
        self.verified.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until the database has a schema for this process and the same secret key. Returns early when the shutdown begins.
    ///
    /// # Errors
    /// When it has not and never will: its schema is older, or it was made with another secret key.
    pub async fn verify(&self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            match self.check_database().await {
                Ok(()) => {
                    self.verified.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error @ (StoreError::OtherSecretKey { .. } | StoreError::Schema(_) | StoreError::Config(_))) => {
                    return Err(explained(error));
                }
                Err(error) => tracing::warn!(%error, "the database does not answer; trying again"),
            }
            let wait = jitter(exponential(Duration::from_millis(200), failures, Duration::from_secs(5)), 20);
            failures += 1;
            tokio::select! {
                () = shutdown.stopping() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Whether the database has been verified.
    pub fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Relaxed)
    }

    async fn check_database(&self) -> Result<(), StoreError> {
        self.store.check_schema().await?;
        self.store.check_secret_keys(&self.ring.fingerprints()).await
    }

    /// Ends what the roles left: settles, writes in line, connections.
    pub async fn close(&self) {
        self.tracker.close();
        let close = async {
            // What calls cost is written before the lanes close, if that is possible at all.
            if tokio::time::timeout(CALLS_GRACE, self.chat.ended()).await.is_err() {
                tracing::error!(calls = self.chat.under_way(), "the ends of calls were not written");
            }
            tokio::join!(self.broker.close(), self.bus.close(), self.limiter.close(), self.store.close());
            self.tracker.wait().await;
        };
        if tokio::time::timeout(CLOSE_GRACE, close).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "not everything ended in time");
        }
    }
}

/// What to do about a database that is not this process's.
fn explained(error: StoreError) -> anyhow::Error {
    let advice = match &error {
        StoreError::OtherSecretKey { .. } => {
            "this process has another secret key than the database was made with; give it the right one in AIG_SECRET_KEY, \
             or put back the file secret-key"
        }
        StoreError::Schema(_) => "the database's schema is not for this program; run `aigateway migrate`",
        _ => "the database cannot be used",
    };
    anyhow::Error::from(error).context(advice)
}

async fn open_files(config: &Config) -> anyhow::Result<Arc<dyn Files>> {
    Ok(match config.files() {
        FilesUrl::Directory(folder) => Arc::new(
            Directory::open(&folder)
                .await
                .with_context(|| format!("result files cannot be kept in {}", folder.display()))?,
        ),
        FilesUrl::S3(bucket) => Arc::new(S3Files::open(&bucket).context("AIG_FILES_URL")?),
    })
}

async fn open_broker(config: &Config, tracker: &TaskTracker) -> anyhow::Result<Arc<dyn Broker>> {
    Ok(match &config.broker {
        BrokerUrl::Memory => Arc::new(MemoryBroker::new()),
        BrokerUrl::Amqp(url) => {
            let rabbit = RabbitConfig { url: url.clone(), prefix: config.prefix.clone(), queues: &QUEUES };
            Arc::new(RabbitBroker::start(rabbit, tracker).await.context("the broker cannot be used")?)
        }
    })
}

struct Cache {
    bus: Arc<dyn Bus>,
    limiter: Arc<dyn RateLimiter>,
}

fn open_cache(
    config: &Config,
    clock: &Arc<dyn Clock>,
    live_apis: &Arc<AtomicU32>,
    tracker: &TaskTracker,
) -> anyhow::Result<Cache> {
    Ok(match &config.cache {
        CacheUrl::Memory => {
            Cache { bus: Arc::new(MemoryBus::new()), limiter: Arc::new(MemoryLimiter::new(Arc::clone(clock))) }
        }
        CacheUrl::Redis(url) => {
            let redis = RedisConfig { url: url.clone(), prefix: config.prefix.clone() };
            let limiter = RedisLimiter::new(&redis, Arc::clone(clock), Arc::clone(live_apis), tracker);
            Cache {
                bus: Arc::new(RedisBus::new(&redis, tracker).context("AIG_CACHE_URL")?),
                limiter: Arc::new(limiter.context("AIG_CACHE_URL")?),
            }
        }
    })
}
