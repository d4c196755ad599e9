//! Runs a request's handler to completion, and responds by the deadline. If the deadline passes or the client
//! disconnects, the handler is detached instead of cancelled. For example, a stop request must take effect even if the
//! page that sent it has closed.

use std::pin::Pin;
use std::task::{Context, Poll};

use poem::Response;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::pipeline::context::RequestContext;

/// Boxed, so that a handler that has already started can move to another task.
pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// The handler runs in the connection's task until it is detached. Spawning a task for each request would be simpler, but it
/// costs two wake-ups per request.
pub(crate) struct RunToCompletion {
    /// `None` once the response is ready.
    pending: Option<(HandlerFuture, RequestContext)>,
    deadline: Instant,
    /// Created when the handler first waits, because most handlers never wait and need no timer.
    timeout: Option<Pin<Box<Sleep>>>,
    tasks: TaskTracker,
    /// Counts this request as a task, so that a graceful shutdown waits for it.
    _token: TaskTrackerToken,
}

impl RunToCompletion {
    pub(crate) fn new(
        handler: HandlerFuture,
        context: RequestContext,
        deadline: Instant,
        tasks: &TaskTracker,
    ) -> Self {
        let pending = Some((handler, context));
        Self { pending, deadline, timeout: None, _token: tasks.token(), tasks: tasks.clone() }
    }
}

impl Future for RunToCompletion {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Response> {
        let Some((mut handler, context)) = self.pending.take() else { return Poll::Pending };
        let outcome = match context.log().in_scope(|| handler.as_mut().poll(task)) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                let deadline = self.deadline;
                let timeout = self.timeout.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                if timeout.as_mut().poll(task).is_pending() {
                    self.pending = Some((handler, context));
                    return Poll::Pending;
                }
                let log = context.log().clone();
                let rest = context.log().instrument(async move {
                    if let Err(problem) = handler.await {
                        log.late_failure(&problem);
                    }
                });
                self.tasks.spawn(rest);
                Err(Problem::new(ProblemCode::StoreUnavailable, "the outcome is unknown; retry"))
            }
        };
        Poll::Ready(context.finish(outcome))
    }
}

impl Drop for RunToCompletion {
    fn drop(&mut self) {
        // After a panic, there is nothing to complete. Without a runtime, no task can be spawned.
        if !std::thread::panicking()
            && let (Some((handler, context)), Ok(runtime)) = (self.pending.take(), Handle::try_current())
        {
            let log = context.log().clone();
            self.tasks.spawn_on(log.instrument(async move { context.finish(handler.await) }), &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::Value;
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::http::pipeline::routes::Routes;

    #[tokio::test(start_paused = true)]
    async fn late_failures_are_logged_with_the_request_id() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let lines = fmt::layer().json().flatten_event(true).with_writer(Arc::new(log.reopen().unwrap()));
        let _guard =
            tracing::subscriber::set_default(tracing_subscriber::registry().with(LevelFilter::INFO).with(lines));
        let routes = Routes::new((), Vec::new(), None).unwrap();
        let (parts, ()) = poem::http::Request::new(()).into_parts();
        let context = RequestContext::new(routes.not_found(), &parts, Vec::new(), None);
        let (deadline, tasks) = (context.deadline(Duration::from_secs(1)), TaskTracker::new());
        let handler: HandlerFuture = Box::pin(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Err(Problem::new(ProblemCode::Internal, "a defect"))
        });
        let response = RunToCompletion::new(handler, context, deadline, &tasks).await;
        assert_eq!(response.status(), 503);
        tasks.close();
        tasks.wait().await;
        let log = std::fs::read_to_string(log.path()).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let late: Vec<Value> = lines.filter(|line| line["late"] == true).collect();
        assert_eq!(late.len(), 1, "{log}");
        assert_eq!((&late[0]["event"], &late[0]["code"]), (&"request_failed".into(), &"internal".into()));
        assert_eq!(late[0]["span"]["request_id"], response.header("x-request-id").unwrap());
    }
}
