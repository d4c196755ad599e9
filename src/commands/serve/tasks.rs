//! Supervises the background tasks, which must run until shutdown.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// Reports the end of each task, whether it returns, panics or is aborted.
pub struct BackgroundTasks {
    sender: UnboundedSender<&'static str>,
    receiver: UnboundedReceiver<&'static str>,
}

/// Sends the name of its task when it is dropped, which also happens while a panic unwinds the task.
struct EndGuard {
    name: &'static str,
    sender: UnboundedSender<&'static str>,
}

impl BackgroundTasks {
    pub fn new() -> Self {
        let (sender, receiver) = unbounded_channel();
        Self { sender, receiver }
    }

    pub fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let guard = EndGuard { name, sender: self.sender.clone() };
        tokio::spawn(async move {
            let _guard = guard;
            task.await
        })
    }

    /// Waits for the first task that ends, and returns its name.
    pub async fn ended(&mut self) -> &'static str {
        match self.receiver.recv().await {
            Some(name) => name,
            // Never happens: `self` holds a sender.
            None => std::future::pending().await,
        }
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        // Sending fails after shutdown, because the receiver has been dropped. Tasks may end then.
        _ = self.sender.send(self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_task_that_returns_is_reported() {
        let mut tasks = BackgroundTasks::new();
        tasks.spawn("running", std::future::pending::<()>());
        tasks.spawn("returns", async {});
        assert_eq!(tasks.ended().await, "returns");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_reported() {
        let mut tasks = BackgroundTasks::new();
        tasks.spawn("panics", async { panic!("on purpose") });
        assert_eq!(tasks.ended().await, "panics");
    }

    #[tokio::test]
    async fn running_tasks_are_not_reported() {
        let mut tasks = BackgroundTasks::new();
        tasks.spawn("running", std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_millis(50), tasks.ended()).await.is_err());
    }
}
