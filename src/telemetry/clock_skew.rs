//! How far this host's clock is from the store's, from the `Date` of its answers: plain data, and time is a parameter.
//! It never changes a decision. The limit holds whatever the clocks say; a wrong one shifts when leases may be taken.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::lease::Timestamp;

/// Beyond this the host's clock is off.
const TOLERANCE_MS: i64 = 1000;
/// `Date` has whole seconds.
const RESOLUTION_MS: i64 = 1000;
/// For how long answers are put together: short enough for a clock not to drift meanwhile.
const WINDOW: Duration = Duration::from_secs(60);

/// What the answers of the last minutes, three at most, say together. Shared by those who watch and those who tell.
#[derive(Debug, Default)]
pub struct ClockSkew(Mutex<Watch>);

/// One answer of the store: this host's clock when the request left and when the answer was there, and what the
/// store's clock said in between.
#[derive(Clone, Copy, Debug)]
pub struct DatedAnswer {
    pub sent: Timestamp,
    pub received: Timestamp,
    pub date: Timestamp,
}

/// What the log should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkewEvent {
    /// By so many milliseconds; more than 0 is ahead of the store.
    Detected(i64),
    Resolved,
}

/// Host minus store: no less and no more than this, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    least_ms: i64,
    most_ms: i64,
}

#[derive(Debug, Default)]
struct Watch {
    now: Option<(Duration, Interval)>,
    /// The window before, so that a new one does not begin by knowing less.
    before: Option<Interval>,
    said_off: bool,
    said_at: Option<Duration>,
}

impl ClockSkew {
    /// Takes an answer into account, at `now` on a clock that never goes back. Says at most once a minute that the
    /// host's clock went wrong or came right.
    pub fn observe(&self, answer: DatedAnswer, now: Duration) -> Option<SkewEvent> {
        let mut watch = self.watch();
        watch.narrow(answer.interval()?, now);
        watch.turn(now)
    }

    /// Host minus store, in seconds. None until an answer had a date.
    pub fn seconds(&self) -> Option<f64> {
        self.watch().known().map(|known| known.middle_ms() as f64 / 1000.0)
    }

    /// The same when the host's clock is certainly off.
    pub fn seconds_off(&self) -> Option<f64> {
        let known = self.watch().known().filter(Interval::is_off);
        known.map(|known| known.middle_ms() as f64 / 1000.0)
    }

    /// Only whole values are written under the lock, so a poisoned one guards good data.
    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DatedAnswer {
    /// None when the host's clock was set back meanwhile.
    fn interval(self) -> Option<Interval> {
        let date_ms = self.date.epoch_ms();
        let least_ms = self.sent.epoch_ms().saturating_sub(date_ms).saturating_sub(RESOLUTION_MS);
        let most_ms = self.received.epoch_ms().saturating_sub(date_ms);
        (self.received >= self.sent).then_some(Interval { least_ms, most_ms })
    }
}

impl Interval {
    /// None when they have nothing in common: a clock was set between them.
    fn and(self, other: Self) -> Option<Self> {
        let least_ms = self.least_ms.max(other.least_ms);
        let most_ms = self.most_ms.min(other.most_ms);
        (least_ms <= most_ms).then_some(Self { least_ms, most_ms })
    }

    /// All of it, so that neither the resolution nor a slow network makes a good clock look wrong.
    fn is_off(&self) -> bool {
        self.least_ms > TOLERANCE_MS || self.most_ms < -TOLERANCE_MS
    }

    /// All of it, so that a clock near the tolerance is not called right as often as it is called off.
    fn is_right(&self) -> bool {
        self.least_ms >= -TOLERANCE_MS && self.most_ms <= TOLERANCE_MS
    }

    fn middle_ms(self) -> i64 {
        self.least_ms.midpoint(self.most_ms)
    }
}

impl Watch {
    fn narrow(&mut self, seen: Interval, now: Duration) {
        let (since, before) = match self.now {
            Some((since, interval)) if now.saturating_sub(since) < WINDOW => match interval.and(seen) {
                Some(both) => {
                    self.now = Some((since, both));
                    return self.forget_what_disagrees(both);
                }
                None => (now, None),
            },
            Some((since, interval)) if now.saturating_sub(since) < 2 * WINDOW => (now, Some(interval)),
            _ => (now, None),
        };
        self.now = Some((since, seen));
        self.before = before;
        self.forget_what_disagrees(seen);
    }

    fn forget_what_disagrees(&mut self, seen: Interval) {
        self.before = self.before.filter(|before| before.and(seen).is_some());
    }

    fn known(&self) -> Option<Interval> {
        let (_, now) = self.now?;
        Some(self.before.and_then(|before| before.and(now)).unwrap_or(now))
    }

    fn turn(&mut self, now: Duration) -> Option<SkewEvent> {
        let known = self.known()?;
        let lately = self.said_at.is_some_and(|at| now.saturating_sub(at) < WINDOW);
        let off = known.is_off() || (self.said_off && !known.is_right());
        if off == self.said_off || lately {
            return None;
        }
        self.said_off = off;
        self.said_at = Some(now);
        Some(if self.said_off { SkewEvent::Detected(known.middle_ms()) } else { SkewEvent::Resolved })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGINNING_MS: i64 = 1_790_000_000_000;

    /// The answer to a request that left when the store's clock said `at_ms` after the beginning, one half of `took_ms`
    /// there and one half back, on a host that is `ahead_ms` ahead.
    fn answer(at_ms: i64, took_ms: i64, ahead_ms: i64) -> DatedAnswer {
        let store = Timestamp::from_epoch_ms(BEGINNING_MS + at_ms);
        let date_ms = store.plus_ms(took_ms / 2).epoch_ms() / 1000 * 1000;
        DatedAnswer {
            sent: store.plus_ms(ahead_ms),
            received: store.plus_ms(ahead_ms + took_ms),
            date: Timestamp::from_epoch_ms(date_ms),
        }
    }

    /// Answers every `every_ms`; what was said and what is known at the end.
    fn watched(answers: impl IntoIterator<Item = (i64, DatedAnswer)>, clock: &ClockSkew) -> Vec<SkewEvent> {
        let after = |at_ms| Duration::from_millis(u64::try_from(at_ms).unwrap());
        answers.into_iter().filter_map(|(at_ms, answer)| clock.observe(answer, after(at_ms))).collect()
    }

    fn every(every_ms: usize, from_ms: i64, to_ms: i64, took_ms: i64, ahead_ms: i64) -> Vec<(i64, DatedAnswer)> {
        (from_ms..to_ms).step_by(every_ms).map(|at| (at, answer(at, took_ms, ahead_ms))).collect()
    }

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        let clock = ClockSkew::default();
        assert_eq!((clock.seconds(), clock.seconds_off()), (None, None));
    }

    #[test]
    fn neither_whole_seconds_nor_a_slow_network_make_a_good_clock_look_off() {
        for took_ms in [0, 5, 900, 1500, 6000] {
            for ahead_ms in [-990, -500, 0, 500, 990] {
                let clock = ClockSkew::default();
                assert_eq!(watched(every(370, 0, 200_000, took_ms, ahead_ms), &clock), [], "{took_ms} {ahead_ms}");
                assert_eq!(clock.seconds_off(), None);
            }
        }
    }

    #[test]
    fn many_answers_know_the_difference_better_than_one() {
        let clock = ClockSkew::default();
        watched(every(370, 0, 59_000, 4, 300), &clock);
        let seconds = clock.seconds().unwrap();
        assert!((seconds - 0.3).abs() < 0.02, "{seconds}");
    }

    #[test]
    fn a_wrong_clock_is_said_once_and_again_when_it_is_right() {
        for ahead_ms in [3200, -3200] {
            let clock = ClockSkew::default();
            let said = watched(every(370, 0, 300_000, 4, ahead_ms), &clock);
            let [SkewEvent::Detected(off_ms)] = said[..] else { panic!("{said:?}") };
            assert!((off_ms - ahead_ms).abs() <= 502, "{off_ms}: one answer alone knows it to a second");
            let off = clock.seconds_off().unwrap();
            assert!((off - ahead_ms as f64 / 1000.0).abs() < 0.02, "{off}");
            assert_eq!(watched(every(370, 300_000, 600_000, 4, 0), &clock), [SkewEvent::Resolved]);
            assert_eq!(clock.seconds_off(), None);
        }
    }

    #[test]
    fn a_clock_just_beyond_the_tolerance_does_not_flap_as_windows_pass() {
        let clock = ClockSkew::default();
        assert_eq!(watched(every(170, 0, 1_800_000, 4, 1100), &clock).len(), 1);
    }

    #[test]
    fn a_wrong_clock_is_not_called_right_because_answers_are_rare() {
        let clock = ClockSkew::default();
        let rare = (0..40).map(|n| n * 150_370).map(|at| (at, answer(at, 4, 1500)));
        let [SkewEvent::Detected(_)] = watched(rare, &clock)[..] else { panic!("it is off, and stays so") };
    }

    #[test]
    fn a_clock_that_jumps_to_and_fro_is_spoken_of_once_a_minute() {
        let clock = ClockSkew::default();
        let jumping = (0..300).map(|s| (s * 1000, answer(s * 1000, 4, if s / 7 % 2 == 0 { 5000 } else { 0 })));
        let said = watched(jumping, &clock).len();
        assert!((2..=5).contains(&said), "{said}");
    }

    #[test]
    fn an_answer_during_which_the_clock_was_set_back_tells_nothing() {
        let clock = ClockSkew::default();
        let set_back = DatedAnswer { received: Timestamp::from_epoch_ms(0), ..answer(0, 0, 0) };
        assert_eq!(clock.observe(set_back, Duration::ZERO), None);
        assert_eq!(clock.seconds(), None);
    }
}
