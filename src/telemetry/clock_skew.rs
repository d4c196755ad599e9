//! Clock skew between this host and the store, estimated from the `Date` header of the store's responses.
//!
//! The estimate is only reported. No decision depends on it, because the limit holds under any skew. A wrong clock only shifts
//! the time at which the slots of expired leases become free.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::lease::Timestamp;

/// Larger skew is reported.
const TOLERANCE_MS: i64 = 1000;
/// Resolution of the `Date` header.
const RESOLUTION_MS: i64 = 1000;
/// Period whose samples are combined. It is so short that clocks do not drift noticeably within it.
const WINDOW: Duration = Duration::from_secs(60);

/// Estimates the clock skew from the samples of the current and the previous window.
#[derive(Debug, Default)]
pub struct ClockSkew(Mutex<Estimator>);

/// One response of the store. `sent` and `received` are times on this host's clock. `date` is a time between them on the
/// store's clock.
#[derive(Clone, Copy, Debug)]
pub struct ClockSample {
    pub sent: Timestamp,
    pub received: Timestamp,
    pub date: Timestamp,
}

/// A change that should be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkewEvent {
    /// The skew in milliseconds; positive if this host is ahead of the store.
    Detected(i64),
    Resolved,
}

/// Bounds of the skew (this host's clock minus the store's), both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SkewRange {
    min_ms: i64,
    max_ms: i64,
}

#[derive(Debug, Default)]
struct Estimator {
    /// The start of the current window, and the intersection of the ranges of its samples.
    current: Option<(Duration, SkewRange)>,
    /// The range of the previous window. It keeps the estimate precise while the current window has few samples.
    previous: Option<SkewRange>,
    /// Whether the last event was a detection.
    skewed: bool,
    last_event: Option<Duration>,
}

impl ClockSkew {
    /// Adds a sample. `now` is the time on a monotonic clock. Returns at most one event per minute.
    pub fn observe(&self, sample: ClockSample, now: Duration) -> Option<SkewEvent> {
        let mut estimator = self.estimator();
        estimator.add(sample.range()?, now);
        estimator.event(now)
    }

    /// This host's clock minus the store's, in seconds. `None` before the first sample.
    pub(crate) fn seconds(&self) -> Option<f64> {
        self.estimator().range().map(|range| range.midpoint_ms() as f64 / 1000.0)
    }

    /// This host's clock minus the store's, in seconds. `None` unless the skew certainly exceeds the tolerance.
    pub(crate) fn seconds_off(&self) -> Option<f64> {
        let range = self.estimator().range().filter(SkewRange::is_outside_tolerance);
        range.map(|range| range.midpoint_ms() as f64 / 1000.0)
    }

    /// A panic cannot leave a partial update behind, so a poisoned lock is safe to use.
    fn estimator(&self) -> MutexGuard<'_, Estimator> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClockSample {
    /// `None` if this host's clock was set back between request and response.
    fn range(self) -> Option<SkewRange> {
        let date_ms = self.date.epoch_ms();
        let min_ms = self.sent.epoch_ms().saturating_sub(date_ms).saturating_sub(RESOLUTION_MS);
        let max_ms = self.received.epoch_ms().saturating_sub(date_ms);
        (self.received >= self.sent).then_some(SkewRange { min_ms, max_ms })
    }
}

impl SkewRange {
    /// `None` if the ranges are disjoint: a clock was set between the samples.
    fn intersection(self, other: Self) -> Option<Self> {
        let min_ms = self.min_ms.max(other.min_ms);
        let max_ms = self.max_ms.min(other.max_ms);
        (min_ms <= max_ms).then_some(Self { min_ms, max_ms })
    }

    /// Whether the whole range is outside the tolerance. With this rule, neither the resolution of `Date` nor a slow network
    /// makes a correct clock look wrong.
    fn is_outside_tolerance(&self) -> bool {
        self.min_ms > TOLERANCE_MS || self.max_ms < -TOLERANCE_MS
    }

    /// Whether the whole range is within the tolerance. Skew counts as resolved only then, so that a skew near the tolerance does not
    /// alternate between detected and resolved.
    fn is_within_tolerance(&self) -> bool {
        self.min_ms >= -TOLERANCE_MS && self.max_ms <= TOLERANCE_MS
    }

    fn midpoint_ms(self) -> i64 {
        self.min_ms.midpoint(self.max_ms)
    }
}

impl Estimator {
    fn add(&mut self, sample: SkewRange, now: Duration) {
        let (since, range) = match self.current {
            Some((since, range)) if now.saturating_sub(since) < WINDOW => match range.intersection(sample) {
                Some(both) => (since, both),
                None => {
                    self.previous = None;
                    (now, sample)
                }
            },
            current => {
                let recent = current.filter(|(since, _)| now.saturating_sub(*since) < 2 * WINDOW);
                self.previous = recent.map(|(_, range)| range);
                (now, sample)
            }
        };
        self.current = Some((since, range));
        self.previous = self.previous.filter(|previous| previous.intersection(range).is_some());
    }

    /// The best estimate: the range of the current window, narrowed by the range of the previous window.
    fn range(&self) -> Option<SkewRange> {
        let (_, current) = self.current?;
        Some(self.previous.and_then(|previous| previous.intersection(current)).unwrap_or(current))
    }

    fn event(&mut self, now: Duration) -> Option<SkewEvent> {
        let range = self.range()?;
        let recent = self.last_event.is_some_and(|at| now.saturating_sub(at) < WINDOW);
        let skewed = range.is_outside_tolerance() || (self.skewed && !range.is_within_tolerance());
        if skewed == self.skewed || recent {
            return None;
        }
        self.skewed = skewed;
        self.last_event = Some(now);
        Some(if skewed { SkewEvent::Detected(range.midpoint_ms()) } else { SkewEvent::Resolved })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 1_790_000_000_000;

    /// The sample of a request that is sent `at_ms` after the start on the store's clock and takes `took_ms`, half of it in each
    /// direction. This host's clock is `ahead_ms` ahead.
    fn sample(at_ms: i64, took_ms: i64, ahead_ms: i64) -> ClockSample {
        let store = Timestamp::from_epoch_ms(START_MS + at_ms);
        let date_ms = store.plus_ms(took_ms / 2).epoch_ms() / 1000 * 1000;
        ClockSample {
            sent: store.plus_ms(ahead_ms),
            received: store.plus_ms(ahead_ms + took_ms),
            date: Timestamp::from_epoch_ms(date_ms),
        }
    }

    /// Adds the samples, each with its time in milliseconds, and returns the events.
    fn observe(samples: impl IntoIterator<Item = (i64, ClockSample)>, clock: &ClockSkew) -> Vec<SkewEvent> {
        let after = |at_ms| Duration::from_millis(u64::try_from(at_ms).unwrap());
        samples.into_iter().filter_map(|(at_ms, sample)| clock.observe(sample, after(at_ms))).collect()
    }

    fn every(every_ms: usize, from_ms: i64, to_ms: i64, took_ms: i64, ahead_ms: i64) -> Vec<(i64, ClockSample)> {
        (from_ms..to_ms).step_by(every_ms).map(|at| (at, sample(at, took_ms, ahead_ms))).collect()
    }

    #[test]
    fn skew_is_unknown_before_the_first_sample() {
        let clock = ClockSkew::default();
        assert_eq!((clock.seconds(), clock.seconds_off()), (None, None));
    }

    #[test]
    fn resolution_and_slow_networks_report_no_skew() {
        for took_ms in [0, 5, 900, 1500, 6000] {
            for ahead_ms in [-990, -500, 0, 500, 990] {
                let clock = ClockSkew::default();
                assert_eq!(observe(every(370, 0, 200_000, took_ms, ahead_ms), &clock), [], "{took_ms} {ahead_ms}");
                assert_eq!(clock.seconds_off(), None);
            }
        }
    }

    #[test]
    fn many_samples_narrow_the_estimate() {
        let clock = ClockSkew::default();
        observe(every(370, 0, 59_000, 4, 300), &clock);
        let seconds = clock.seconds().unwrap();
        assert!((seconds - 0.3).abs() < 0.02, "{seconds}");
    }

    #[test]
    fn skew_is_reported_once_and_once_more_when_resolved() {
        for ahead_ms in [3200, -3200] {
            let clock = ClockSkew::default();
            let events = observe(every(370, 0, 300_000, 4, ahead_ms), &clock);
            let [SkewEvent::Detected(skew_ms)] = events[..] else { panic!("{events:?}") };
            assert!((skew_ms - ahead_ms).abs() <= 502, "{skew_ms}: the error of one sample is at most half a second");
            let seconds = clock.seconds_off().unwrap();
            assert!((seconds - ahead_ms as f64 / 1000.0).abs() < 0.02, "{seconds}");
            assert_eq!(observe(every(370, 300_000, 600_000, 4, 0), &clock), [SkewEvent::Resolved]);
            assert_eq!(clock.seconds_off(), None);
        }
    }

    #[test]
    fn skew_near_the_tolerance_does_not_flap_between_windows() {
        let clock = ClockSkew::default();
        assert_eq!(observe(every(170, 0, 1_800_000, 4, 1100), &clock).len(), 1);
    }

    #[test]
    fn rare_samples_do_not_resolve_skew() {
        let clock = ClockSkew::default();
        let rare = (0..40).map(|n| n * 150_370).map(|at| (at, sample(at, 4, 1500)));
        let events = observe(rare, &clock);
        assert!(matches!(events[..], [SkewEvent::Detected(_)]), "{events:?}");
    }

    #[test]
    fn a_jumping_clock_is_reported_at_most_once_a_minute() {
        let clock = ClockSkew::default();
        let jumping = (0..300).map(|s| (s * 1000, sample(s * 1000, 4, if s / 7 % 2 == 0 { 5000 } else { 0 })));
        let events = observe(jumping, &clock).len();
        assert!((2..=5).contains(&events), "{events}");
    }

    #[test]
    fn a_sample_is_ignored_if_the_clock_was_set_back() {
        let clock = ClockSkew::default();
        let set_back = ClockSample { received: Timestamp::from_epoch_ms(0), ..sample(0, 0, 0) };
        assert_eq!(clock.observe(set_back, Duration::ZERO), None);
        assert_eq!(clock.seconds(), None);
    }
}
