//! The broker of the embedded composition: queues in this process, gone with it, which is harmless.
//!
//! Promises what every broker does (`tests/suite/contract.rs`), and order on top of it. Its other tests are at the end.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{Broker, BrokerError, Delivery, Message, Receipt, Subscription};

/// How many messages one queue holds. A listener that is told a thousand times to come needs no further telling.
const CAPACITY: usize = 1000;

/// A broker in this process.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    queues: Arc<Mutex<Queues>>,
}

#[derive(Default)]
struct Queues {
    by_name: HashMap<String, Arc<Queue>>,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    rung: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Message>,
    closed: bool,
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new() -> Self {
        Self::default()
    }

    fn queue(&self, name: &str) -> Result<Arc<Queue>, BrokerError> {
        let mut queues = lock(&self.queues);
        if queues.closed {
            return Err(BrokerError::Closed);
        }
        Ok(Arc::clone(queues.by_name.entry(name.to_owned()).or_default()))
    }
}

/// Our critical sections cannot panic, so a poisoned lock still guards a whole value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        let queue = self.queue(&message.queue)?;
        let mut state = lock(&queue.state);
        if state.waiting.len() >= CAPACITY {
            return Err(BrokerError::Full(message.queue));
        }
        state.waiting.push_back(message);
        drop(state);
        queue.rung.notify_waiters();
        Ok(())
    }

    async fn subscribe(&self, queue: &str, prefetch: usize) -> Result<Box<dyn Subscription>, BrokerError> {
        Ok(Box::new(MemorySubscription { queue: self.queue(queue)?, prefetch, out: Arc::default() }))
    }

    async fn waiting(&self, queue: &str) -> Result<u64, BrokerError> {
        Ok(lock(&self.queue(queue)?.state).waiting.len() as u64)
    }

    async fn check(&self) -> Result<(), BrokerError> {
        if lock(&self.queues).closed { Err(BrokerError::Closed) } else { Ok(()) }
    }

    async fn close(&self) {
        let mut queues = lock(&self.queues);
        queues.closed = true;
        for queue in queues.by_name.values() {
            lock(&queue.state).closed = true;
            queue.rung.notify_waiters();
        }
    }
}

struct MemorySubscription {
    queue: Arc<Queue>,
    prefetch: usize,
    /// How many of its messages are out.
    out: Arc<Mutex<usize>>,
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Option<Delivery> {
        let queue = Arc::clone(&self.queue);
        loop {
            // Listens before it looks, so that no bell is missed.
            let mut rung = pin!(queue.rung.notified());
            rung.as_mut().enable();
            if let Some(delivery) = self.try_next() {
                return Some(delivery);
            }
            if lock(&queue.state).closed {
                return None;
            }
            rung.await;
        }
    }

    fn try_next(&mut self) -> Option<Delivery> {
        let mut out = lock(&self.out);
        if *out >= self.prefetch {
            return None;
        }
        let message = lock(&self.queue.state).waiting.pop_front()?;
        *out += 1;
        let (queue, out) = (Arc::clone(&self.queue), Arc::clone(&self.out));
        let receipt = MemoryReceipt { queue, out, unacked: Some(message.clone()) };
        Some(Delivery { message: Some(message), receipt: Box::new(receipt) })
    }
}

struct MemoryReceipt {
    queue: Arc<Queue>,
    out: Arc<Mutex<usize>>,
    unacked: Option<Message>,
}

#[async_trait]
impl Receipt for MemoryReceipt {
    async fn ack(&mut self) -> Result<(), BrokerError> {
        if self.unacked.take().is_some() {
            *lock(&self.out) -= 1;
            self.queue.rung.notify_waiters();
        }
        Ok(())
    }
}

impl Drop for MemoryReceipt {
    fn drop(&mut self) {
        if let Some(message) = self.unacked.take() {
            *lock(&self.out) -= 1;
            lock(&self.queue.state).waiting.push_front(message);
            self.queue.rung.notify_waiters();
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
    async fn bounded_everywhere_a_queue_takes_a_thousand_messages() {
        let broker = MemoryBroker::new();
        for _ in 0..CAPACITY {
            broker.publish(message("a")).await.unwrap();
        }
        assert!(matches!(broker.publish(message("b")).await, Err(BrokerError::Full(_))));
        assert_eq!(broker.waiting("video").await.unwrap(), CAPACITY as u64);
    }
}
