//! The report as plain data. Serialized, it is the JSON output.

use serde::Serialize;

use crate::events::cloud_event::EventTime;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub totals: Totals,
    /// In order of time. Hours in which no stream started or ended can be missing.
    pub hours: Vec<Hour>,
    /// `None` if the events do not contain users.
    pub concurrency: Option<Vec<Level>>,
    pub sessions: Sessions,
    /// The users with the most starts that were denied or over the limit, at most 20.
    pub most_denied_users: Vec<DeniedUser>,
    pub rules: Vec<RuleUse>,
    pub devices: Devices,
    /// `None` if the events do not contain users.
    pub what_if: Option<WhatIf>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub first_event: Option<EventTime>,
    pub last_event: Option<EventTime>,
    pub instances: u64,
    pub users: u64,
    /// The events of known types, without duplicates.
    pub events: u64,
    pub starts: StartTotals,
    pub ends: EndTotals,
    pub limit_changes: u64,
    pub erasures: u64,
    pub input: InputTotals,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartTotals {
    pub started: u64,
    pub over_limit: u64,
    pub denied: u64,
    pub replayed: u64,
    /// Starts without an idempotency key, replays excluded.
    pub without_key: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndTotals {
    pub stopped: u64,
    pub evicted: u64,
    /// The evicted streams that a start with `evictOldest` ended.
    pub evicted_by_starts: u64,
    pub replaced: u64,
    pub expired: u64,
    /// The streams that an erasure ended.
    pub erased: u64,
    /// Ends of streams whose start is not in the files. They are also counted by their type.
    pub without_start: u64,
}

/// What the files contain besides events of known types.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InputTotals {
    pub duplicates: u64,
    pub unknown_types: u64,
    pub broken_lines: u64,
    pub incomplete_last_lines: u64,
    /// Files with incomplete or invalid compressed data.
    pub damaged_files: u64,
    pub events_without_user: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hour {
    /// The beginning of the hour.
    pub hour: EventTime,
    /// Starts with any outcome, replays excluded.
    pub starts: u64,
    pub denied: u64,
    pub over_limit: u64,
    /// The most streams of all users at one moment.
    pub peak_streams: u64,
}

/// Starts and users by the number of concurrent streams of the user.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Level {
    /// The number of streams, the new one included. In the last level, also more streams.
    pub streams: usize,
    /// Starts that would have brought the user to this number of streams if nothing had been denied or evicted.
    pub starts_attempted: u64,
    /// Starts that brought the user to this number of streams.
    pub starts_reached: u64,
    /// Users whose highest attempted number is this one.
    pub users_attempted: u64,
    pub users_reached: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    pub count: u64,
    /// The time that all sessions lasted.
    pub watching_seconds: u64,
    /// Sessions without an event of their end. They are taken to have ended at the last known expiry.
    pub assumed_ends: u64,
    pub assumed_ends_percent: f64,
    pub by_length: Vec<LengthClass>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LengthClass {
    /// The shortest length in this class.
    pub from_seconds: u64,
    /// The length above the class. `None` for the last class.
    pub below_seconds: Option<u64>,
    pub known_ends: u64,
    pub assumed_ends: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedUser {
    pub user: String,
    pub starts: u64,
    pub denied: u64,
    pub over_limit: u64,
    /// The highest number of concurrent streams that the user attempted.
    pub highest_attempted: usize,
    pub devices: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleUse {
    pub rule: String,
    /// Starts to which the rule applied, replays excluded.
    pub starts: u64,
    pub denied: u64,
    pub over_limit: u64,
    pub users: u64,
    /// Users of whom the rule denied a start, or reported one as over the limit.
    pub users_exceeding: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Devices {
    /// Users by the number of their device ids. Empty if the events do not contain users or device ids.
    pub users: Vec<UsersByDevices>,
    /// The most frequent names of devices, at most 20.
    pub names: Vec<DeviceNameUse>,
    pub starts_without_id: u64,
    pub starts_without_name: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsersByDevices {
    /// In the last row, also more devices.
    pub devices: usize,
    pub users: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNameUse {
    pub device_name: String,
    pub starts: u64,
    /// Starts that were denied or over the limit.
    pub exceeding: u64,
}

/// What other limits would have denied.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatIf {
    /// Whether all starts and ends are known. False if starts were denied or evicted other streams, because it is not known how long
    /// these viewers would have watched; if sessions have no event of their end, or of their start; and if starts have no idempotency
    /// key.
    pub is_exact: bool,
    /// The default limit. Users and tokens keep their own limits. Rules do not apply.
    pub limits: Vec<WhatIfCase>,
    /// Each rule with another maximum, without the user's limit and the other rules.
    pub rules: Vec<WhatIfRule>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatIfRule {
    pub rule: String,
    pub limits: Vec<WhatIfCase>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatIfCase {
    pub limit: u8,
    pub starts: u64,
    pub denied: u64,
    pub denied_percent: f64,
    /// Streams that starts with `evictOldest` would end.
    pub evicted: u64,
    pub users: u64,
    /// Users with at least one denied start or evicted stream.
    pub users_hit: u64,
    pub users_hit_percent: f64,
    /// The time that the sessions of the denied starts, and the rest of the evicted ones, lasted.
    pub lost_watching_seconds: u64,
    pub lost_watching_percent: f64,
}

/// The share in percent with two decimal places. 0 if `whole` is 0.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 10_000.0).round() / 100.0 }
}

impl DeniedUser {
    /// The starts that were denied or over the limit.
    pub fn exceeding(&self) -> u64 {
        self.denied + self.over_limit
    }
}

impl Report {
    /// All starts, replays excluded.
    pub fn starts(&self) -> u64 {
        let StartTotals { started, over_limit, denied, .. } = self.totals.starts;
        started + over_limit + denied
    }
}
