//! From the SDK's errors to the store's three: not applied, unknown, corrupt. The only place that reads error codes.
//!
//! "Not applied" speaks of the last attempt. The SDK retries by itself, so an earlier one may have been applied;
//! that is why every verb can be repeated, and why no refusal or ending is ever concluded from an error.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::operation::describe_time_to_live::DescribeTimeToLiveError;
use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::operation::query::QueryError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::CancellationReason;
use aws_smithy_runtime_api::client::interceptors::context::Error;

use crate::store::{Refusal, StoreError};

/// How a transaction came back that did not succeed.
pub enum Cancelled {
    /// DynamoDB decided against it; the reasons are in the order of the actions.
    Reasons(Vec<CancellationReason>),
    Failed(StoreError),
}

/// An error with its causes, on one line. The SDK's own `DisplayErrorContext` adds a page of `Debug`.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(|error| error.to_string().replace('\n', " ")).collect();
    texts.join(": ")
}

/// Anything not listed here is unknown: it may have been applied.
pub fn store_error<E>(error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    let refusal = match error {
        SdkError::ConstructionFailure(_) => Some(Refusal::Rejected),
        _ => code.and_then(refusal),
    };
    let detail = with_causes(&error);
    match refusal {
        Some(refusal) => StoreError::NotApplied { refusal, detail },
        None => StoreError::Unknown(detail),
    }
}

/// The table of error codes.
fn refusal(code: &str) -> Option<Refusal> {
    Some(match code {
        "TransactionConflictException" => Refusal::Contention,
        "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "ThrottlingException"
        | "ThrottlingError"
        | "LimitExceededException" => Refusal::Throttled,
        "AccessDeniedException"
        | "ExpiredTokenException"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "ResourceNotFoundException"
        | "UnrecognizedClientException"
        | "ValidationException" => Refusal::Rejected,
        _ => return None,
    })
}

/// What [`outcome`] says of errors, and `ok`.
pub const OUTCOMES: [&str; 6] = ["ok", "condition_failed", "conflict", "throttled", "rejected", "unknown"];

/// In one word for the metrics. `error` is what the service answered; nothing when it did not answer.
pub fn outcome(error: Option<&Error>) -> &'static str {
    let Some(error) = error else { return "unknown" };
    if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.downcast_ref() {
        let reasons = cancelled.cancellation_reasons();
        let has = |code| reasons.iter().any(|reason| reason.code() == Some(code));
        return match cancellation_refusal(reasons) {
            Refusal::Throttled => "throttled",
            Refusal::Rejected => "rejected",
            Refusal::Contention if has("TransactionConflict") => "conflict",
            Refusal::Contention => "condition_failed",
        };
    }
    match code(error) {
        Some("ConditionalCheckFailedException") => "condition_failed",
        Some(code) => match refusal(code) {
            Some(Refusal::Contention) => "conflict",
            Some(Refusal::Throttled) => "throttled",
            Some(Refusal::Rejected) => "rejected",
            None => "unknown",
        },
        None => "unknown",
    }
}

/// The SDK hands interceptors an error without its type.
fn code(error: &Error) -> Option<&str> {
    fn of<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static>(error: &Error) -> Option<&str> {
        error.downcast_ref::<E>().and_then(ProvideErrorMetadata::code)
    }
    of::<UpdateItemError>(error)
        .or_else(|| of::<TransactWriteItemsError>(error))
        .or_else(|| of::<QueryError>(error))
        .or_else(|| of::<GetItemError>(error))
        .or_else(|| of::<DescribeTableError>(error))
        .or_else(|| of::<DescribeTimeToLiveError>(error))
}

pub fn cancelled(error: SdkError<TransactWriteItemsError>) -> Cancelled {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            Cancelled::Reasons(cancelled.cancellation_reasons().to_vec())
        }
        _ => Cancelled::Failed(store_error(error)),
    }
}

/// Whether the action at `index` was refused by its own condition.
pub fn condition_failed(reasons: &[CancellationReason], index: usize) -> bool {
    reasons.get(index).and_then(CancellationReason::code) == Some("ConditionalCheckFailed")
}

/// What a cancelled transaction means when none of its conditions decides the answer.
pub fn cancellation_error(reasons: &[CancellationReason]) -> StoreError {
    let codes: Vec<&str> = reasons.iter().filter_map(CancellationReason::code).collect();
    let detail = format!("transaction cancelled: {}", codes.join(", "));
    StoreError::NotApplied { refusal: cancellation_refusal(reasons), detail }
}

fn cancellation_refusal(reasons: &[CancellationReason]) -> Refusal {
    let mut codes = reasons.iter().filter_map(CancellationReason::code);
    if codes.clone().any(|code| matches!(code, "ThrottlingError" | "ProvisionedThroughputExceeded")) {
        Refusal::Throttled
    } else if codes.all(|code| matches!(code, "None" | "ConditionalCheckFailed" | "TransactionConflict")) {
        Refusal::Contention
    } else {
        Refusal::Rejected
    }
}

impl From<BuildError> for StoreError {
    fn from(error: BuildError) -> Self {
        Self::NotApplied { refusal: Refusal::Rejected, detail: with_causes(&error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::types::error::TransactionCanceledException;

    #[test]
    fn a_cancelled_transaction_is_counted_by_its_reasons() {
        for (codes, expected) in [
            (["ConditionalCheckFailed", "None"], "condition_failed"),
            (["None", "TransactionConflict"], "conflict"),
            (["ConditionalCheckFailed", "TransactionConflict"], "conflict"),
            (["ThrottlingError", "TransactionConflict"], "throttled"),
            (["None", "ItemCollectionSizeLimitExceeded"], "rejected"),
        ] {
            let reasons = codes.map(|code| CancellationReason::builder().code(code).build());
            let cancelled = TransactionCanceledException::builder().set_cancellation_reasons(Some(reasons.into()));
            let error = TransactWriteItemsError::TransactionCanceledException(cancelled.build());
            assert_eq!(outcome(Some(&Error::erase(error))), expected, "{codes:?}");
        }
        assert_eq!(outcome(None), "unknown", "no answer");
    }
}
