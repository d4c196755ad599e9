//! Errors in the settings.

use std::net::SocketAddr;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the settings: {0}")]
    Unreadable(String),
    #[error("{key} = {value}: {problem}")]
    Invalid {
        key: String,
        /// `…` if the value may be secret.
        value: String,
        problem: String,
    },
    #[error(
        "{0} is set, but variables for settings start with STREAM_MANAGER__, such as STREAM_MANAGER__SERVER__BIND"
    )]
    SingleUnderscore(String),
    #[error(
        "server.bind = {0} is reachable from other hosts, but auth.mode is not set: set auth.mode (STREAM_MANAGER__AUTH__MODE) to \
         \"jwt\" to require tokens, or to \"none\" to let every caller act for every user"
    )]
    AuthModeNotSet(SocketAddr),
}

impl ConfigError {
    pub(super) fn invalid(key: &str, value: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { key: key.to_owned(), value: value.into(), problem: problem.into() }
    }

    /// Like [`Self::invalid`], but hides the value because it may be secret.
    pub(super) fn hidden(key: &str, problem: impl Into<String>) -> Self {
        Self::invalid(key, "…", problem)
    }
}
