//! The simulated network between the AWS SDK and the table. It delays, loses, duplicates and rejects requests, as the
//! seed decides.

use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use serde_json::json;
use stream_manager::store::embedded::engine::Response as EngineResponse;
use tokio::sync::oneshot;
// Uses virtual time, so that sleeping takes no real time and the seed decides the order of events.
use tokio::time::sleep;

use super::context::CALL;
use super::dynamodb_json;
use super::faults::{Delivery, DeliveryPlan, Loss};
use super::table::{Table, TableRequest};

/// The receiver gets `None` if the connection breaks. A dropped sender means that no response ever arrives.
type ResponseSender = oneshot::Sender<Option<EngineResponse>>;

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
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap();
        let request = TableRequest { operation, body, call: CALL.try_with(|call| *call).ok() };
        let plan = self.0.context.plan(dynamodb_json::write_of(&request.operation, &request.body).is_some());
        self.0.context.count("requests");
        if plan.delivery != Delivery::Normal {
            let call = request.call.unwrap_or_default();
            self.0.context.log(format_args!("    #{call} {} {}", request.operation, plan.delivery.name()));
        }
        // A separate task keeps the request in flight if the caller is cancelled.
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(deliver(Arc::clone(&self.0), request, plan, sender));
        HttpConnectorFuture::new(async move {
            match receiver.await {
                Ok(Some(response)) => {
                    let status = response.status.try_into().unwrap();
                    let mut http_response = HttpResponse::new(status, response.body.into());
                    http_response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
                    Ok(http_response)
                }
                Ok(None) => Err(ConnectorError::io("the connection broke".into())),
                Err(_) => std::future::pending().await,
            }
        })
    }
}

async fn deliver(table: Arc<Table>, request: TableRequest, plan: DeliveryPlan, sender: ResponseSender) {
    sleep(plan.request_delay).await;
    if table.context.outage() {
        table.context.count("lost in an outage");
        return;
    }
    let response = match plan.delivery {
        Delivery::RequestLost(loss) => return report_loss(sender, loss),
        Delivery::Throttled if table.context.coin() => rejection(&request.operation, "ThrottlingError"),
        Delivery::Throttled => error(400, "ProvisionedThroughputExceededException"),
        Delivery::Conflict => rejection(&request.operation, "TransactionConflict"),
        Delivery::FailedBeforeApply => error(500, "InternalServerError"),
        Delivery::Normal
        | Delivery::ResponseLost(_)
        | Delivery::Late
        | Delivery::Duplicated
        | Delivery::FailedAfterApply => apply(&table, &request, &plan).await,
    };
    match plan.delivery {
        Delivery::ResponseLost(loss) => return report_loss(sender, loss),
        Delivery::FailedAfterApply => {
            sleep(plan.response_delay).await;
            _ = sender.send(Some(error(500, "InternalServerError")));
            return;
        }
        _ => {}
    }
    sleep(plan.response_delay).await;
    _ = sender.send(Some(response));
    if plan.delivery == Delivery::Duplicated {
        sleep(plan.duplicate_delay).await;
        let (_, changed) = table.apply(&request);
        if changed {
            table.context.count("duplicate, applied again");
        }
    }
}

async fn apply(table: &Table, request: &TableRequest, plan: &DeliveryPlan) -> EngineResponse {
    if request.operation == "Query"
        && let Some(user) = dynamodb_json::user(&request.operation, &request.body)
    {
        let before = table.items_of(&user);
        sleep(plan.read_duration).await;
        return table.query(request, &before);
    }
    let (response, changed) = table.apply(request);
    if changed && let Some(name) = plan.delivery.name_if_applied() {
        table.context.count(name);
    }
    response
}

fn report_loss(sender: ResponseSender, loss: Loss) {
    if loss == Loss::ConnectionError {
        _ = sender.send(None);
    }
}

/// DynamoDB's response to a rejected request. For a transaction, the code is in the cancellation reasons.
fn rejection(operation: &str, code: &str) -> EngineResponse {
    match (operation, code) {
        ("TransactWriteItems", code) => {
            let reasons = json!([{ "Code": code, "Message": "injected" }, { "Code": "None" }]);
            let kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
            let body = json!({ "__type": kind, "Message": "injected", "CancellationReasons": reasons });
            EngineResponse { status: 400, body: body.to_string().into_bytes() }
        }
        (_, "TransactionConflict") => error(400, "TransactionConflictException"),
        (_, _) => error(400, "ThrottlingException"),
    }
}

fn error(status: u16, code: &str) -> EngineResponse {
    let body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "injected" });
    EngineResponse { status, body: body.to_string().into_bytes() }
}
