//! Errors that can occur when the embedded store opens its file.

use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "{0} is in use by another process; only one process at a time can open it. Use store.kind = \"dynamodb\" for several instances"
    )]
    InUse(PathBuf),
    #[error("cannot open {path}: {problem}")]
    Io { path: PathBuf, problem: String },
}
