//! The durability setting of the embedded store. It is compiled in every build, because the settings always contain it.

use serde::{Deserialize, Serialize};

/// How strictly writes are flushed to disk. In both modes, writes survive a process crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// A power failure can lose the last writes, but does not corrupt the file.
    Normal,
    /// A power failure loses no writes. Several times slower than `Normal`.
    Full,
}
