//! What the database said about a key, remembered for two seconds.
//!
//! So a busy key costs the database one look-up every two seconds, and a revoked one works for at most that long. An
//! unknown key is remembered too, so that guessing does not reach the database either; a failed look-up is not. Tests at
//! the end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

const GOOD_FOR: Duration = Duration::from_secs(2);
const MOST: u64 = 10_000;

/// Rows by the public ids of keys.
#[derive(Clone)]
pub struct KeyCache<T>(Cache<String, Option<Arc<T>>>);

impl<T: Send + Sync + 'static> Default for KeyCache<T> {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_live(GOOD_FOR).build())
    }
}

impl<T: Send + Sync + 'static> KeyCache<T> {
    /// Forgets one key: it was changed.
    pub fn forget(&self, public_id: &str) {
        self.0.invalidate(public_id);
    }

    /// Forgets all keys: changes may have been missed.
    pub fn forget_all(&self) {
        self.0.invalidate_all();
    }

    /// The row of `public_id`: the remembered one, else what `load` finds.
    pub async fn get<E>(
        &self,
        public_id: &str,
        load: impl Future<Output = Result<Option<T>, E>>,
    ) -> Result<Option<Arc<T>>, E> {
        if let Some(known) = self.0.get(public_id) {
            return Ok(known);
        }
        self.get_afresh(public_id, load).await
    }

    /// What `load` finds, whatever is remembered; from now on that is.
    pub async fn get_afresh<E>(
        &self,
        public_id: &str,
        load: impl Future<Output = Result<Option<T>, E>>,
    ) -> Result<Option<Arc<T>>, E> {
        let found = load.await?.map(Arc::new);
        self.0.insert(public_id.to_owned(), found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> std::future::Ready<Result<Option<u8>, &'static str>> {
        std::future::ready(Err("asked again"))
    }

    #[tokio::test]
    async fn found_and_unknown_are_remembered_and_failures_are_not() {
        let cache = KeyCache::default();
        assert_eq!(cache.get("a", unreachable()).await, Err("asked again"));
        assert_eq!(cache.get("a", async { Ok::<_, &str>(Some(1)) }).await.unwrap().as_deref(), Some(&1));
        assert_eq!(cache.get("a", unreachable()).await.unwrap().as_deref(), Some(&1));
        assert_eq!(cache.get("b", async { Ok::<_, &str>(None) }).await, Ok(None));
        assert_eq!(cache.get("b", unreachable()).await, Ok(None));
        assert_eq!(cache.get_afresh("a", unreachable()).await, Err("asked again"));
        assert_eq!(cache.get_afresh("a", async { Ok::<_, &str>(Some(2)) }).await.unwrap().as_deref(), Some(&2));
        assert_eq!(cache.get("a", unreachable()).await.unwrap().as_deref(), Some(&2));
        cache.forget("a");
        assert_eq!(cache.get("a", unreachable()).await, Err("asked again"));
        assert_eq!(cache.get("b", unreachable()).await, Ok(None));
        cache.forget_all();
        assert_eq!(cache.get("b", unreachable()).await, Err("asked again"));
    }
}
