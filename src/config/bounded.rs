//! A whole number with bounds. Deserialization checks the bounds.

use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    pub fn get(self) -> u64 {
        self.0
    }

    /// Never saturates in practice, because every `MAX` in use fits into `u32`.
    pub(super) fn to_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// Never saturates in practice, because every `MAX` in use fits into `usize`.
    pub(super) fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    pub(super) fn seconds(self) -> Duration {
        Duration::from_secs(self.0)
    }

    pub(super) fn milliseconds(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Accepts a number. Also accepts a string of digits, because the values of environment variables are strings. The integer
/// conversion of the crate `config` is not used, because it rounds 1.5 and reads `true` as 1.
impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = match Value::deserialize(deserializer)? {
            Value::String(digits) => digits.parse().ok(),
            value => value.as_u64(),
        };
        match number {
            Some(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            Some(_) => Err(D::Error::custom(format!("must be {MIN} to {MAX}"))),
            None => Err(D::Error::custom("must be a whole number")),
        }
    }
}
