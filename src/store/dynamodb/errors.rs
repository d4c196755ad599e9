//! Converts the SDK's errors into [`StoreError`]. Only this file interprets error codes.
//!
//! [`StoreError::NotApplied`] describes only the last attempt. The SDK retries automatically, so an earlier attempt may
//! have been applied. Every operation must therefore be safe to repeat, and no error may be interpreted as a denial or as
//! an ended stream.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::operation::describe_time_to_live::DescribeTimeToLiveError;
use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::operation::query::QueryError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::CancellationReason;
use aws_smithy_runtime_api::client::interceptors::context::Error;

use super::codec::Item;
use crate::store::{Refusal, StoreError};

/// Why a transaction failed.
pub(crate) enum TransactionError {
    /// DynamoDB cancelled the transaction. The reasons are in the order of the actions.
    Cancelled(Vec<CancellationReason>),
    /// Another error. `invalid` is set for a validation error.
    Failed { error: StoreError, invalid: bool },
}

/// Formats an error and its causes on one line. The SDK's `DisplayErrorContext` would add long `Debug` output.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let messages: Vec<String> = causes.map(|error| error.to_string().replace('\n', " ")).collect();
    messages.join(": ")
}

/// Converts an SDK error. For a code that this file does not list, the outcome is unknown, because the request may have
/// been applied.
pub(crate) fn store_error<E>(error: SdkError<E>) -> StoreError
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

const VALIDATION_ERROR: &str = "ValidationException";

/// The refusal for an error code, if the code proves that the request was not applied.
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
        | VALIDATION_ERROR => Refusal::Rejected,
        _ => return None,
    })
}

/// The metric label of a request whose condition failed. Such failures are a normal part of the protocol.
pub(crate) const CONDITION_FAILED: &str = "condition_failed";

/// All values of the metric label: `ok`, and all values that [`outcome`] returns.
pub(crate) const OUTCOMES: [&str; 6] = ["ok", CONDITION_FAILED, "conflict", "throttled", "rejected", "unknown"];

/// The metric label of a failed request. `error` is DynamoDB's error response, or `None` if there was no response.
pub(crate) fn outcome(error: Option<&Error>) -> &'static str {
    let Some(error) = error else { return "unknown" };
    if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.downcast_ref() {
        let reasons = cancelled.cancellation_reasons();
        let has = |code| reasons.iter().any(|reason| reason.code() == Some(code));
        return match cancellation_refusal(reasons) {
            Refusal::Throttled | Refusal::ThrottledTransaction => "throttled",
            Refusal::Rejected => "rejected",
            Refusal::Contention if has("TransactionConflict") => "conflict",
            Refusal::Contention => CONDITION_FAILED,
        };
    }
    match code(error) {
        Some("ConditionalCheckFailedException") => CONDITION_FAILED,
        Some(code) => match refusal(code) {
            Some(Refusal::Contention) => "conflict",
            Some(Refusal::Throttled | Refusal::ThrottledTransaction) => "throttled",
            Some(Refusal::Rejected) => "rejected",
            None => "unknown",
        },
        None => "unknown",
    }
}

/// The error code. Interceptors get the error without its type, so each type is tried.
pub(crate) fn code(error: &Error) -> Option<&str> {
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

impl From<SdkError<TransactWriteItemsError>> for TransactionError {
    fn from(error: SdkError<TransactWriteItemsError>) -> Self {
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                Self::Cancelled(cancelled.cancellation_reasons().to_vec())
            }
            other => {
                let invalid = other.and_then(ProvideErrorMetadata::code) == Some(VALIDATION_ERROR);
                Self::Failed { error: store_error(error), invalid }
            }
        }
    }
}

impl From<TransactionError> for StoreError {
    /// Drops the failed conditions of a cancelled transaction. Use this only if they do not determine the outcome.
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Cancelled(reasons) => {
                let codes: Vec<&str> = reasons.iter().filter_map(CancellationReason::code).collect();
                let detail = format!("transaction cancelled: {}", codes.join(", "));
                Self::NotApplied { refusal: cancellation_refusal(&reasons), detail }
            }
            TransactionError::Failed { error, .. } => error,
        }
    }
}

impl TransactionError {
    /// Whether DynamoDB found the transaction invalid, for example because a stored attribute has the wrong type.
    pub(crate) fn is_validation_error(&self) -> bool {
        match self {
            Self::Cancelled(reasons) => reasons.iter().any(|reason| reason.code() == Some("ValidationError")),
            Self::Failed { invalid, .. } => *invalid,
        }
    }

    /// Whether the transaction was cancelled only because of failed conditions or conflicts with other transactions.
    pub(crate) fn is_contention(&self) -> bool {
        matches!(self, Self::Cancelled(reasons) if cancellation_refusal(reasons) == Refusal::Contention)
    }

    /// Whether the condition of the action at `index` failed.
    pub(crate) fn condition_failed(&self, index: usize) -> bool {
        self.reason(index).and_then(CancellationReason::code) == Some("ConditionalCheckFailed")
    }

    /// The stored item that made the condition of the action at `index` fail.
    pub(crate) fn stored_item(&self, index: usize) -> Option<&Item> {
        self.reason(index).and_then(CancellationReason::item)
    }

    fn reason(&self, index: usize) -> Option<&CancellationReason> {
        match self {
            Self::Cancelled(reasons) => reasons.get(index),
            Self::Failed { .. } => None,
        }
    }
}

fn cancellation_refusal(reasons: &[CancellationReason]) -> Refusal {
    let mut codes = reasons.iter().filter_map(CancellationReason::code);
    if codes.clone().any(|code| matches!(code, "ThrottlingError" | "ProvisionedThroughputExceeded")) {
        Refusal::ThrottledTransaction
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
    fn cancelled_transactions_are_counted_by_their_reasons() {
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
        assert_eq!(outcome(None), "unknown", "no response");
    }
}
