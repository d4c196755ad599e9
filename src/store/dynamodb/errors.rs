//! From the SDK's errors to the store's three: not applied, unknown, corrupt. The only place that reads error codes.
//!
//! "Not applied" speaks of the last attempt. The SDK retries by itself, so an earlier one may have been applied;
//! that is why every verb can be repeated, and why no refusal or ending is ever concluded from an error.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::CancellationReason;

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
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).map(str::to_owned);
    let built = matches!(error, SdkError::ConstructionFailure(_));
    let detail = with_causes(&error);
    let refusal = match code.as_deref() {
        _ if built => Refusal::Rejected,
        Some("TransactionConflictException") => Refusal::Contention,
        Some(
            "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "ThrottlingException"
            | "ThrottlingError"
            | "LimitExceededException",
        ) => Refusal::Throttled,
        Some(
            "AccessDeniedException"
            | "ExpiredTokenException"
            | "IncompleteSignatureException"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "ResourceNotFoundException"
            | "UnrecognizedClientException"
            | "ValidationException",
        ) => Refusal::Rejected,
        _ => return StoreError::Unknown(detail),
    };
    StoreError::NotApplied { refusal, detail }
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
    let refusal = if codes.iter().any(|code| matches!(*code, "ThrottlingError" | "ProvisionedThroughputExceeded")) {
        Refusal::Throttled
    } else if codes.iter().all(|code| matches!(*code, "None" | "ConditionalCheckFailed" | "TransactionConflict")) {
        Refusal::Contention
    } else {
        Refusal::Rejected
    };
    StoreError::NotApplied { refusal, detail: format!("transaction cancelled: {}", codes.join(", ")) }
}

impl From<BuildError> for StoreError {
    fn from(error: BuildError) -> Self {
        Self::NotApplied { refusal: Refusal::Rejected, detail: with_causes(&error) }
    }
}
