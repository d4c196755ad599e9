//! How often a user may start and send heartbeats: a token bucket a user, in front of the store, since a start that is
//! denied costs the store as much as one that is not. Each instance has its own.

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
    /// None: no bound.
    pub starts_per_minute: Option<NonZeroU32>,
    pub heartbeats_per_minute: Option<NonZeroU32>,
    /// How many users are remembered. Whoever is forgotten begins with a full bucket.
    pub max_users: usize,
}

pub struct Rates {
    starts: Option<Buckets>,
    heartbeats: Option<Buckets>,
}

impl Rates {
    pub fn new(settings: RateSettings, clock: &Arc<dyn Clock>) -> Self {
        let buckets = |per_minute: Option<NonZeroU32>| {
            per_minute.map(|per_minute| Buckets {
                quota: Quota::per_minute(per_minute),
                clock: Monotonic(Arc::clone(clock)),
                of: Cache::new(settings.max_users),
            })
        };
        Self { starts: buckets(settings.starts_per_minute), heartbeats: buckets(settings.heartbeats_per_minute) }
    }

    /// No bounds at all.
    pub fn unbounded() -> Self {
        Self { starts: None, heartbeats: None }
    }

    /// # Errors
    /// 429 when the user has started too often; nothing is asked of the store then.
    pub fn start(&self, user: &UserName) -> Result<(), Problem> {
        self.starts.as_ref().map_or(Ok(()), |buckets| buckets.take(user, "starts"))
    }

    /// # Errors
    /// 429 when the user has sent too many heartbeats; nothing is asked of the store then.
    pub fn heartbeat(&self, user: &UserName) -> Result<(), Problem> {
        self.heartbeats.as_ref().map_or(Ok(()), |buckets| buckets.take(user, "heartbeats"))
    }
}

struct Buckets {
    quota: Quota,
    clock: Monotonic,
    of: Cache<UserName, Arc<Bucket>>,
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Monotonic, NoOpMiddleware<Nanos>>;

impl Buckets {
    fn take(&self, user: &UserName, what: &str) -> Result<(), Problem> {
        // Not governor's keyed limiter, whose map grows with the users that are seen.
        let new = || Ok::<_, Problem>(Arc::new(RateLimiter::direct_with_clock(self.quota, self.clock.clone())));
        let bucket = self.of.get_or_insert_with(user, new)?;
        bucket.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            let detail = format!("at most {} {what} a minute for one user", self.quota.burst_size());
            let mut problem = Problem::new(ProblemCode::TooManyRequests, detail);
            // The clock has gone on since the check; 0 would read as "at once".
            problem.extensions.retry_after_s = Some(seconds_rounded_up(wait).max(1));
            problem
        })
    }
}

fn seconds_rounded_up(wait: Duration) -> u32 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The service's clock as governor reads one.
#[derive(Clone)]
struct Monotonic(Arc<dyn Clock>);

impl governor::clock::Clock for Monotonic {
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
    fn a_user_may_start_as_often_as_is_set_and_again_when_time_has_passed() {
        let clock = Arc::new(ManualClock::default());
        let settings =
            RateSettings { starts_per_minute: NonZeroU32::new(6), heartbeats_per_minute: None, max_users: 10 };
        let rates = Rates::new(settings, &(Arc::clone(&clock) as _));
        let (ann, bob) = (user("ann"), user("bob"));
        assert!((0..6).all(|_| rates.start(&ann).is_ok()));
        let refused = rates.start(&ann).unwrap_err();
        assert_eq!((refused.code, refused.extensions.retry_after_s), (ProblemCode::TooManyRequests, Some(10)));
        assert!(rates.start(&bob).is_ok(), "each user has a bucket");
        assert!((0..100).all(|_| rates.heartbeat(&ann).is_ok()), "no bound on heartbeats is set");
        clock.advance_ms(9_999);
        assert!(rates.start(&ann).is_err());
        clock.advance_ms(1);
        assert!(rates.start(&ann).is_ok() && rates.start(&ann).is_err());
    }

    #[test]
    fn no_more_users_are_remembered_than_is_set() {
        let settings =
            RateSettings { starts_per_minute: NonZeroU32::new(1), heartbeats_per_minute: None, max_users: 100 };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let rates = Rates::new(settings, &clock);
        for n in 0..10_000 {
            assert!(rates.start(&user(&format!("user-{n}"))).is_ok());
        }
        assert!(rates.starts.as_ref().unwrap().of.len() <= 100);
    }
}
