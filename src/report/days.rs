//! The hours of a report, summed by day.

use super::model::Hour;
use crate::domain::lease::Timestamp;
use crate::events::cloud_event::EventTime;

pub(super) struct Day {
    pub day: EventTime,
    pub starts: u64,
    pub denied: u64,
    pub over_limit: u64,
    /// The most streams at one moment of the day, and the hour in which they played.
    pub peak_streams: u64,
    pub peak_hour: EventTime,
}

const DAY_MS: i64 = 24 * 3_600_000;

pub(super) fn days(hours: &[Hour]) -> Vec<Day> {
    let day_of = |hour: &Hour| hour.hour.0.epoch_ms().div_euclid(DAY_MS);
    let day = |hours: &[Hour]| {
        let sum = |of: fn(&Hour) -> u64| hours.iter().map(of).sum();
        // The first one of several equal hours.
        let peak = hours.iter().rev().max_by_key(|hour| hour.peak_streams).unwrap_or(&hours[0]);
        Day {
            day: EventTime(Timestamp::from_epoch_ms(day_of(&hours[0]) * DAY_MS)),
            starts: sum(|hour| hour.starts),
            denied: sum(|hour| hour.denied),
            over_limit: sum(|hour| hour.over_limit),
            peak_streams: peak.peak_streams,
            peak_hour: peak.hour,
        }
    };
    hours.chunk_by(|a, b| day_of(a) == day_of(b)).map(day).collect()
}
