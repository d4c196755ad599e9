//! The settings of events.

use std::fmt;
use std::path::PathBuf;

use secrecy::SecretString;

#[derive(Clone, Debug)]
pub struct EventSettings {
    pub sink: SinkSettings,
    pub identities: Identities,
}

/// Where events are written.
#[derive(Clone, Debug)]
pub enum SinkSettings {
    Stdout,
    /// One file per day (UTC).
    File {
        directory: PathBuf,
        /// Older files are deleted.
        keep_days: u64,
    },
}

/// How events identify users and devices.
#[derive(Clone, Debug)]
pub enum Identities {
    /// HMAC-SHA-256 with this key, in base64url without padding.
    Hashed(SecretString),
    Plain,
    /// Events contain neither the user nor the device id.
    Omitted,
}

impl fmt::Display for SinkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File { directory, .. } => write!(f, "{}", directory.display()),
        }
    }
}
