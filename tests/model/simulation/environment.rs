//! The environment of the players: an operator, support staff, erasures, crashes, outages and TTL. The seed controls them.
//! After the run, the environment checks that every user can start exactly as many streams as their limit, or as the hard limit in
//! observe mode.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use stream_manager::domain::admission::StartOutcome;
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::{Message, StreamId, UserName};
use stream_manager::domain::rules::LimitMode;
use stream_manager::limiter::{StartOptions, Timestamped};
// Uses virtual time, so that sleeping takes no real time and the seed decides the order of events.
use tokio::time::sleep;

use super::api::{ApiRequest, ApiResponse, Operation};
use super::checker::violation::ViolationKind;
use super::clock::SkewedClock;
use super::faults::random_ms;
use super::instances::{INSTANCES, Instances};
use super::table::SIMULATED_TOMBSTONE_S;

pub struct Environment {
    pub instances: Arc<Instances>,
    pub users: Vec<UserName>,
    /// A user that only [`Environment::visits`] uses. This user is inactive for long enough that TTL can delete the
    /// tombstones.
    pub visitor: UserName,
    pub until: Duration,
}

const TIMEOUT: Duration = Duration::from_secs(5);

impl Environment {
    fn is_running(&self) -> bool {
        self.instances.context.started.elapsed() < self.until
    }

    fn random_user(&self, first: usize, random: &mut StdRng) -> UserName {
        self.users[random.random_range(first..self.users.len())].clone()
    }

    async fn call(&self, user: UserName, operation: Operation, random: &mut StdRng) {
        let request = ApiRequest { user, operation };
        _ = self.instances.call(random.random_range(0..INSTANCES), &request, TIMEOUT).await;
    }

    /// Changes limits, and blocks users. The first user keeps the default limit, so that optimistic starts also occur.
    pub async fn operator(self: Arc<Self>, mut random: StdRng) {
        while self.is_running() {
            sleep(random_ms(&mut random, 1_500, 6_000)).await;
            let limit = StreamLimit::new([0, 0, 1, 2, 3, 4][random.random_range(0..6)]);
            let limit = limit.filter(|_| random.random_range(0..5) > 0);
            let operation = match limit {
                Some(limit) if random.random_range(0..3) > 0 => Operation::EndExcess(limit),
                limit => Operation::SetLimit(limit),
            };
            let user = self.random_user(1, &mut random);
            self.call(user.clone(), operation, &mut random).await;
            if limit.is_some_and(StreamLimit::is_blocked) {
                sleep(random_ms(&mut random, 500, 2_500)).await;
                self.call(user, Operation::SetLimit(None), &mut random).await;
            }
        }
    }

    /// Lists streams, evicts all streams, or evicts some of the user's last streams, which may have ended already.
    pub async fn support(self: Arc<Self>, mut random: StdRng) {
        while self.is_running() {
            sleep(random_ms(&mut random, 800, 4_000)).await;
            let user = self.random_user(0, &mut random);
            let mut recent = Vec::new();
            for _ in 0..random.random_range(1..4) {
                recent.extend(self.recent_stream(&user, &mut random));
            }
            let message = Message::clean("Support has ended this stream.").filter(|_| random.random());
            let operation = match random.random_range(0..9) {
                0..3 => Operation::List,
                3 => Operation::Evict(None, message),
                _ => Operation::Evict(Some(recent), message),
            };
            self.call(user, operation, &mut random).await;
        }
    }

    /// Erases users.
    pub async fn erasures(self: Arc<Self>, mut random: StdRng) {
        while self.is_running() {
            sleep(random_ms(&mut random, 4_000, 20_000)).await;
            let user = self.random_user(0, &mut random);
            self.erase(&user, &mut random).await;
        }
    }

    /// The visitor starts a few streams, is erased, and returns later, sometimes after TTL has deleted the tombstone.
    pub async fn visits(self: Arc<Self>, mut random: StdRng) {
        while self.is_running() {
            for _ in 0..random.random_range(1..4) {
                _ = self.start(random.random_range(0..INSTANCES), &self.visitor).await;
                sleep(random_ms(&mut random, 10, 3_000)).await;
            }
            // After a long pause, all streams may have expired, and TTL may have deleted their leases.
            let long_pause = random.random_range(0..4) == 0;
            sleep(random_ms(&mut random, 10, if long_pause { 20_000 } else { 500 })).await;
            self.erase(&self.visitor, &mut random).await;
            let long_absence = random.random_range(0..3) > 0;
            let (min_ms, max_ms) =
                if long_absence { (1_000 * u64::from(SIMULATED_TOMBSTONE_S), 33_000) } else { (5, 4_000) };
            sleep(random_ms(&mut random, min_ms, max_ms)).await;
        }
    }

    /// Erases a user. Repeats the request if it fails.
    async fn erase(&self, user: &UserName, random: &mut StdRng) {
        let request = ApiRequest { user: user.clone(), operation: Operation::Erase };
        for _ in 0..3 {
            if self.instances.call(random.random_range(0..INSTANCES), &request, TIMEOUT).await.is_ok() {
                break;
            }
            sleep(random_ms(random, 20, 1_500)).await;
        }
    }

    /// Picks a member whose lease was deleted by TTL, if there is one. Otherwise, picks one of the user's last six
    /// streams.
    fn recent_stream(&self, user: &UserName, random: &mut StdRng) -> Option<StreamId> {
        let state = self.instances.context.state(user);
        let ids = self.instances.context.created_ids(user);
        let recent = &ids[ids.len().saturating_sub(6)..];
        let stream_id = *recent.get(random.random_range(0..recent.len().max(1)))?;
        let without_lease = state.members.iter().find(|id| state.lease(**id).is_none());
        Some(without_lease.copied().unwrap_or(stream_id))
    }

    pub async fn crashes(self: Arc<Self>, mut random: StdRng) {
        while self.is_running() {
            sleep(random_ms(&mut random, 6_000, 25_000)).await;
            let instance = random.random_range(0..INSTANCES);
            self.instances.crash(instance);
            sleep(random_ms(&mut random, 50, 3_000)).await;
            self.instances.restart(instance, random.random());
        }
    }

    pub async fn outages(self: Arc<Self>, mut random: StdRng) {
        while self.is_running() {
            sleep(random_ms(&mut random, 15_000, 50_000)).await;
            self.instances.context.set_outage(true);
            self.instances.context.count("outages");
            sleep(random_ms(&mut random, 300, 4_000)).await;
            self.instances.context.set_outage(false);
        }
    }

    pub async fn ttl(self: Arc<Self>, mut random: StdRng, clock: SkewedClock) {
        while self.is_running() {
            sleep(random_ms(&mut random, 300, 6_000)).await;
            self.sweep(clock);
        }
    }

    fn sweep(&self, clock: SkewedClock) {
        let users: Vec<UserName> = self.users.iter().chain([&self.visitor]).cloned().collect();
        self.instances.sweep(&users, clock);
    }

    /// Disables the faults, waits until all leases have expired, and checks that every user can start exactly as many
    /// streams as each instance allows. During this wait, TTL deletes nothing.
    pub async fn check_all_can_start(&self, ttl_clock: SkewedClock) {
        let context = &self.instances.context;
        context.log("all faults end");
        context.disable_faults();
        sleep(Duration::from_secs(40)).await;
        if context.coin() {
            self.sweep(ttl_clock);
        }
        for instance in 0..INSTANCES {
            for user in self.users.iter().chain([&self.visitor]) {
                if let Err(details) = self.check_can_start(instance, user).await {
                    return context.violate(ViolationKind::Stuck.with(details));
                }
            }
        }
    }

    async fn check_can_start(&self, instance: usize, user: &UserName) -> Result<(), String> {
        let context = &self.instances.context;
        let policy = self.instances.policy(instance);
        let limit = context.state(user).limit(None, policy.default_limit).get();
        let highest = if policy.limit_mode == LimitMode::Observe { policy.hard_limit.get() } else { limit };
        let mut started = Vec::new();
        for n in 0..=highest {
            match self.start(instance, user).await {
                Ok(StartOutcome::Started(new)) if n < highest && new.over_limit.is_empty() == (n < limit) => {
                    started.push(new.lease.stream_id);
                }
                Ok(StartOutcome::Denied(_)) if n == highest => {}
                other => {
                    return Err(format!(
                        "{user} on instance {instance}, start {n} of {highest}, limit {limit}: {other:?}"
                    ));
                }
            }
        }
        for stream_id in started {
            let request = ApiRequest { user: user.clone(), operation: Operation::Stop(stream_id) };
            if let Err(error) = self.instances.call(instance, &request, TIMEOUT).await {
                return Err(format!("{request}: {error:?}"));
            }
        }
        Ok(())
    }

    async fn start(&self, instance: usize, user: &UserName) -> Result<StartOutcome, String> {
        let operation = Operation::Start(StartOptions::default(), None);
        let request = ApiRequest { user: user.clone(), operation };
        match self.instances.call(instance, &request, TIMEOUT).await {
            Ok(ApiResponse::Start(Timestamped { value: outcome, .. })) => Ok(outcome),
            other => Err(format!("{other:?}")),
        }
    }
}
