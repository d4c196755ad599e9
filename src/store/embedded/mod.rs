//! DynamoDB in this process. `dynoxide`, which stores its data in SQLite, executes the SDK's requests on a dedicated
//! thread. The DynamoDB store therefore runs unchanged, without a port or an AWS account. Only one process at a time
//! can open the file.

#[cfg(feature = "embedded")]
mod connector;
#[cfg(feature = "embedded")]
mod database;
#[cfg(feature = "embedded")]
pub mod engine;
#[cfg(feature = "embedded")]
mod error;
#[cfg(feature = "embedded")]
mod file_lock;
mod sync_mode;

#[cfg(feature = "embedded")]
pub use self::database::Embedded;
#[cfg(feature = "embedded")]
pub use self::error::OpenError;
pub use self::sync_mode::SyncMode;
