//! The SDK's way to the table: a network that delays, loses, repeats and refuses, by seed.

use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use serde_json::json;
use stream_manager::store::embedded::engine::Answer;
use tokio::sync::oneshot;
// Virtual time: it costs none, and is what the seed says.
use tokio::time::sleep;

use super::faults::{Fate, Plan};
use super::requests;
use super::table::{Request, Table};
use super::world::CALL;

#[derive(Clone)]
pub struct Network(pub Arc<Table>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl HttpClient for Network {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Network {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let operation = operation.unwrap_or_default().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default()).expect("JSON");
        let request = Request { operation, body, call: CALL.try_with(|call| *call).ok() };
        let plan = self.0.world.plan(requests::act(&request.operation, &request.body).is_some());
        self.0.world.count("requests");
        if plan.fate != Fate::Delivered {
            let call = request.call.unwrap_or_default();
            self.0.world.note(format_args!("    #{call} {} {}", request.operation, plan.fate.name()));
        }
        // A task of its own: what is on its way stays on its way when its caller has gone.
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(travel(Arc::clone(&self.0), request, plan, sender));
        HttpConnectorFuture::new(async move {
            match receiver.await {
                Ok(Some(answer)) => {
                    let status = answer.status.try_into().expect("a status");
                    let mut response = HttpResponse::new(status, answer.body.into());
                    response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
                    Ok(response)
                }
                Ok(None) => Err(ConnectorError::io("the connection broke".into())),
                Err(_) => std::future::pending().await,
            }
        })
    }
}

/// Answers `None` when the connection breaks, and drops the sender when nothing will ever be heard.
async fn travel(table: Arc<Table>, request: Request, plan: Plan, sender: oneshot::Sender<Option<Answer>>) {
    sleep(plan.there).await;
    if table.world.outage() {
        table.world.count("lost in an outage");
        return;
    }
    let answer = match plan.fate {
        Fate::Lost(breaks) => return hear(sender, breaks),
        Fate::Throttled if table.world.coin() => refusal(&request.operation, "ThrottlingError"),
        Fate::Throttled => error(400, "ProvisionedThroughputExceededException"),
        Fate::Conflict => refusal(&request.operation, "TransactionConflict"),
        Fate::FailedUnapplied => error(500, "InternalServerError"),
        Fate::Delivered | Fate::AnswerLost(_) | Fate::Late | Fate::Twice | Fate::FailedApplied => {
            if request.operation == "Query"
                && let Some(user) = requests::user(&request.operation, &request.body)
            {
                let before = table.shown(&user);
                sleep(plan.reading).await;
                table.query(&request, &before)
            } else {
                let (answer, applied) = table.applied(&request);
                if applied && let Some(what) = plan.fate.bites() {
                    table.world.count(what);
                }
                answer
            }
        }
    };
    match plan.fate {
        Fate::AnswerLost(breaks) => return hear(sender, breaks),
        Fate::FailedApplied => {
            sleep(plan.back).await;
            _ = sender.send(Some(error(500, "InternalServerError")));
            return;
        }
        _ => {}
    }
    sleep(plan.back).await;
    _ = sender.send(Some(answer));
    if plan.fate == Fate::Twice {
        sleep(plan.again).await;
        if table.applied(&request).1 {
            table.world.count("twice, applied again");
        }
    }
}

fn hear(sender: oneshot::Sender<Option<Answer>>, breaks: bool) {
    if breaks {
        _ = sender.send(None);
    }
}

/// What DynamoDB answers when `code` is the reason: of a transaction it is one of the cancellation reasons.
fn refusal(operation: &str, code: &str) -> Answer {
    match (operation, code) {
        ("TransactWriteItems", code) => {
            let reasons = json!([{ "Code": code, "Message": "injected" }, { "Code": "None" }]);
            let kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
            let body = json!({ "__type": kind, "Message": "injected", "CancellationReasons": reasons });
            Answer { status: 400, body: body.to_string().into_bytes() }
        }
        (_, "TransactionConflict") => error(400, "TransactionConflictException"),
        (_, _) => error(400, "ThrottlingException"),
    }
}

fn error(status: u16, code: &str) -> Answer {
    let body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "injected" });
    Answer { status, body: body.to_string().into_bytes() }
}
