//! The broker of the embedded composition: queues in this process, gone with it, which is harmless.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{Broker, BrokerError, Delivery, Message, Receipt, Subscription};

/// How many messages one queue holds. A listener that is told a thousand times to come needs no further telling.
const CAPACITY: usize = 1000;

/// A broker in this process.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    queues: Arc<Mutex<HashMap<String, Arc<Queue>>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    rung: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Message>,
    out: usize,
    closed: bool,
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new() -> Self {
        Self::default()
    }

    fn queue(&self, name: &str) -> Arc<Queue> {
        Arc::clone(lock(&self.queues).entry(name.to_owned()).or_default())
    }
}

/// Our critical sections cannot panic, so a poisoned lock still guards a whole value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        let queue = self.queue(&message.queue);
        let mut state = lock(&queue.state);
        if state.closed {
            return Err(BrokerError::Closed);
        }
        if state.waiting.len() >= CAPACITY {
            return Err(BrokerError::Full(message.queue));
        }
        state.waiting.push_back(message);
        drop(state);
        queue.rung.notify_one();
        Ok(())
    }

    async fn subscribe(&self, queue: &str, prefetch: usize) -> Result<Box<dyn Subscription>, BrokerError> {
        Ok(Box::new(MemorySubscription { queue: self.queue(queue), prefetch }))
    }

    async fn waiting(&self, queue: &str) -> Result<u64, BrokerError> {
        Ok(lock(&self.queue(queue).state).waiting.len() as u64)
    }

    async fn close(&self) {
        for queue in lock(&self.queues).values() {
            lock(&queue.state).closed = true;
            queue.rung.notify_waiters();
            queue.rung.notify_one();
        }
    }
}

struct MemorySubscription {
    queue: Arc<Queue>,
    prefetch: usize,
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.try_next() {
                return Some(delivery);
            }
            if lock(&self.queue.state).closed {
                // Whoever else listens has to hear it too.
                self.queue.rung.notify_one();
                return None;
            }
            // A bell that rang since the look above is remembered, so none is missed.
            self.queue.rung.notified().await;
        }
    }

    fn try_next(&mut self) -> Option<Delivery> {
        let mut state = lock(&self.queue.state);
        if state.out >= self.prefetch {
            return None;
        }
        let message = state.waiting.pop_front()?;
        state.out += 1;
        let more = !state.waiting.is_empty();
        drop(state);
        if more {
            self.queue.rung.notify_one();
        }
        let receipt = MemoryReceipt { queue: Arc::clone(&self.queue), unacked: Some(message.clone()) };
        Some(Delivery { message: Some(message), receipt: Box::new(receipt) })
    }
}

struct MemoryReceipt {
    queue: Arc<Queue>,
    unacked: Option<Message>,
}

#[async_trait]
impl Receipt for MemoryReceipt {
    async fn ack(&mut self) -> Result<(), BrokerError> {
        if self.unacked.take().is_some() {
            lock(&self.queue.state).out -= 1;
            self.queue.rung.notify_one();
        }
        Ok(())
    }
}

impl Drop for MemoryReceipt {
    fn drop(&mut self) {
        if let Some(message) = self.unacked.take() {
            let mut state = lock(&self.queue.state);
            state.out -= 1;
            state.waiting.push_front(message);
            drop(state);
            self.queue.rung.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> Message {
        Message { queue: "video".into(), trace: vec![id.into()] }
    }

    fn id(delivery: &Delivery) -> String {
        delivery.message.as_ref().unwrap().trace[0].clone()
    }

    #[tokio::test]
    async fn messages_come_in_order_and_an_unacked_one_comes_again() {
        let broker = MemoryBroker::new();
        broker.publish(message("a")).await.unwrap();
        broker.publish(message("b")).await.unwrap();
        let mut listener = broker.subscribe("video", 2).await.unwrap();
        let first = listener.next().await.unwrap();
        assert_eq!(id(&first), "a");
        drop(first);
        let again = listener.next().await.unwrap();
        assert_eq!(id(&again), "a");
        again.ack().await.unwrap();
        assert_eq!(id(&listener.next().await.unwrap()), "b");
    }

    #[tokio::test]
    async fn prefetch_bounds_what_is_out() {
        let broker = MemoryBroker::new();
        for name in ["a", "b"] {
            broker.publish(message(name)).await.unwrap();
        }
        let mut listener = broker.subscribe("video", 1).await.unwrap();
        let first = listener.next().await.unwrap();
        assert!(listener.try_next().is_none());
        first.ack().await.unwrap();
        assert_eq!(id(&listener.next().await.unwrap()), "b");
    }

    #[tokio::test]
    async fn bounded_everywhere_a_queue_takes_a_thousand_messages() {
        let broker = MemoryBroker::new();
        for _ in 0..CAPACITY {
            broker.publish(message("a")).await.unwrap();
        }
        assert!(matches!(broker.publish(message("b")).await, Err(BrokerError::Full(_))));
        assert_eq!(broker.waiting("video").await.unwrap(), CAPACITY as u64);
    }

    #[tokio::test]
    async fn closing_ends_every_listener() {
        let broker = MemoryBroker::new();
        let mut listeners = [broker.subscribe("video", 1).await.unwrap(), broker.subscribe("video", 1).await.unwrap()];
        broker.close().await;
        for listener in &mut listeners {
            assert!(listener.next().await.is_none());
        }
        assert!(matches!(broker.publish(message("a")).await, Err(BrokerError::Closed)));
    }
}
