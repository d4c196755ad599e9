//! A request's way to its answer: within its time, and to its end even if the client goes away. Costs no task of its own as long
//! as somebody waits for it. Knows nothing of what is asked.

use std::pin::Pin;
use std::task::{Context, Poll};

use poem::Response;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::pipeline::context::RequestContext;

/// What is done for a request, on the heap, so that it can become a task in its middle.
pub type Operation = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// Who hangs up, or has no more time to wait, cuts nothing off: what is left becomes a task.
pub struct RunToCompletion {
    /// None after the answer.
    left: Option<(Operation, RequestContext)>,
    deadline: Instant,
    /// Not before the operation has to wait.
    late: Option<Pin<Box<Sleep>>>,
    tasks: TaskTracker,
    /// Counts among the tasks already, so that an orderly end waits for it.
    _counted: TaskTrackerToken,
}

impl RunToCompletion {
    pub fn new(operation: Operation, exchange: RequestContext, deadline: Instant, tasks: &TaskTracker) -> Self {
        Self {
            left: Some((operation, exchange)),
            deadline,
            late: None,
            _counted: tasks.token(),
            tasks: tasks.clone(),
        }
    }
}

impl Future for RunToCompletion {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        let Some((mut operation, exchange)) = self.left.take() else { return Poll::Pending };
        let outcome = match exchange.span().in_scope(|| operation.as_mut().poll(context)) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                let deadline = self.deadline;
                let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                if late.as_mut().poll(context).is_pending() {
                    self.left = Some((operation, exchange));
                    return Poll::Pending;
                }
                self.tasks.spawn(operation.instrument(exchange.span().clone()));
                Err(Problem::new(ProblemCode::StoreUnavailable, "the outcome is not known: repeat the request"))
            }
        };
        Poll::Ready(exchange.answer(outcome))
    }
}

impl Drop for RunToCompletion {
    fn drop(&mut self) {
        // A panic has ended it. Without a runtime nothing can go on.
        if !std::thread::panicking()
            && let (Some((operation, exchange)), Ok(runtime)) = (self.left.take(), Handle::try_current())
        {
            let span = exchange.span().clone();
            self.tasks.spawn_on(async move { exchange.answer(operation.await) }.instrument(span), &runtime);
        }
    }
}
