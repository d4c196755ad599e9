//! A future that goes on when whoever waits for it goes away. Until then it costs no task of its own. Knows nothing of what
//! it does.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Who hangs up, or has no more time to wait, cuts nothing off: what is left becomes a task.
pub struct ToItsEnd<T: Send + 'static> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    tasks: TaskTracker,
    /// Counts among the tasks already, so that an orderly end waits for it.
    _counted: TaskTrackerToken,
}

impl<T: Send + 'static> ToItsEnd<T> {
    pub fn new(future: impl Future<Output = T> + Send + 'static, tasks: TaskTracker) -> Self {
        Self { future: Some(Box::pin(future)), _counted: tasks.token(), tasks }
    }
}

impl<T: Send + 'static> Future for ToItsEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let output = ready!(future.as_mut().poll(context));
        self.future = None;
        Poll::Ready(output)
    }
}

impl<T: Send + 'static> Drop for ToItsEnd<T> {
    fn drop(&mut self) {
        // A panic has ended it. Without a runtime nothing can go on.
        if !std::thread::panicking()
            && let (Some(future), Ok(runtime)) = (self.future.take(), Handle::try_current())
        {
            self.tasks.spawn_on(future, &runtime);
        }
    }
}
