//! Rate limits for starts and heartbeats: one token bucket per user and instance. They are checked before the store is used,
//! because a denied start also costs store requests.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;

use crate::clock::Clock;
use crate::domain::names::UserName;
use crate::http::api::problems::{Problem, ProblemCode};

#[derive(Clone, Copy, Debug)]
pub struct RateSettings {
    /// `None` means unlimited.
    pub starts_per_minute: Option<NonZeroU32>,
    pub heartbeats_per_minute: Option<NonZeroU32>,
    /// Maximum number of users with a bucket. A user whose bucket was evicted gets a new, full bucket.
    pub max_users: usize,
}

pub struct RateLimits {
    starts: Option<Buckets>,
    heartbeats: Option<Buckets>,
}

impl RateLimits {
    pub fn new(settings: RateSettings, clock: &Arc<dyn Clock>) -> Self {
        let buckets = |per_minute: Option<NonZeroU32>| {
            per_minute.map(|per_minute| Buckets {
                quota: Quota::per_minute(per_minute),
                clock: MonotonicClock(Arc::clone(clock)),
                by_user: Cache::new(settings.max_users),
            })
        };
        Self { starts: buckets(settings.starts_per_minute), heartbeats: buckets(settings.heartbeats_per_minute) }
    }

    pub fn unbounded() -> Self {
        Self { starts: None, heartbeats: None }
    }

    /// # Errors
    /// 429 if the user sent too many starts.
    pub(crate) fn start(&self, user: &UserName) -> Result<(), Problem> {
        self.starts.as_ref().map_or(Ok(()), |buckets| buckets.take(user, "starts"))
    }

    /// # Errors
    /// 429 if the user sent too many heartbeats.
    pub(crate) fn heartbeat(&self, user: &UserName) -> Result<(), Problem> {
        self.heartbeats.as_ref().map_or(Ok(()), |buckets| buckets.take(user, "heartbeats"))
    }
}

struct Buckets {
    quota: Quota,
    clock: MonotonicClock,
    by_user: Cache<UserName, Arc<Bucket>>,
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Nanos>>;

impl Buckets {
    fn take(&self, user: &UserName, requests: &str) -> Result<(), Problem> {
        // governor's own keyed limiter is not used, because its map grows with each new user.
        let new = || Ok::<_, Problem>(Arc::new(RateLimiter::direct_with_clock(self.quota, self.clock.clone())));
        let bucket = self.by_user.get_or_insert_with(user, new)?;
        bucket.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            let detail = format!("at most {} {requests} per minute per user", self.quota.burst_size());
            let mut problem = Problem::new(ProblemCode::TooManyRequests, detail);
            // The clock has advanced since the check, so the wait can be 0.
            problem.extensions.retry_after_s = Some(seconds_rounded_up(wait).max(1));
            problem
        })
    }
}

fn seconds_rounded_up(wait: Duration) -> u32 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Adapts the service's clock to governor.
#[derive(Clone)]
struct MonotonicClock(Arc<dyn Clock>);

impl governor::clock::Clock for MonotonicClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.monotonic().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    #[test]
    fn starts_are_limited_per_user_and_refill_over_time() {
        let clock = Arc::new(ManualClock::default());
        let settings =
            RateSettings { starts_per_minute: NonZeroU32::new(6), heartbeats_per_minute: None, max_users: 10 };
        let rates = RateLimits::new(settings, &(Arc::clone(&clock) as _));
        let (ann, bob) = (user("ann"), user("bob"));
        assert!((0..6).all(|_| rates.start(&ann).is_ok()));
        let refused = rates.start(&ann).unwrap_err();
        assert_eq!((refused.code, refused.extensions.retry_after_s), (ProblemCode::TooManyRequests, Some(10)));
        assert!(rates.start(&bob).is_ok(), "each user has its own bucket");
        assert!((0..100).all(|_| rates.heartbeat(&ann).is_ok()), "heartbeats are unlimited");
        clock.advance_ms(9_999);
        assert!(rates.start(&ann).is_err());
        clock.advance_ms(1);
        assert!(rates.start(&ann).is_ok() && rates.start(&ann).is_err());
    }

    #[test]
    fn the_number_of_buckets_is_limited() {
        let settings =
            RateSettings { starts_per_minute: NonZeroU32::new(1), heartbeats_per_minute: None, max_users: 100 };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let rates = RateLimits::new(settings, &clock);
        for n in 0..10_000 {
            assert!(rates.start(&user(&format!("user-{n}"))).is_ok());
        }
        assert!(rates.starts.as_ref().unwrap().by_user.len() <= 100);
    }
}
