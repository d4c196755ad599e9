//! The environment of the players: an operator, support staff, crashes, outages and TTL, as the seed decides. After the
//! run, it checks that every user can start exactly as many streams as their limit.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use stream_manager::domain::admission::StartOutcome;
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::limiter::{StartOptions, Timestamped};
use stream_manager::store::StoppedBy;
// Uses virtual time, so that sleeping takes no real time and the seed decides the order of events.
use tokio::time::sleep;

use super::api::{ApiRequest, ApiResponse, Operation};
use super::checker::violation::ViolationKind;
use super::clock::SkewedClock;
use super::faults::random_ms;
use super::instances::{INSTANCES, Instances};

pub struct Environment {
    pub instances: Arc<Instances>,
    pub users: Vec<UserName>,
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

    /// Changes limits. The first user keeps the default limit, so that optimistic starts also occur.
    pub async fn operator(self: Arc<Self>, mut random: StdRng) {
        while self.is_running() {
            sleep(random_ms(&mut random, 2_000, 9_000)).await;
            // A limit of 0 deletes the stored limit.
            let limit = [1, 2, 3, 4, 0][random.random_range(0..5)];
            let operation = Operation::SetLimit(StreamLimit::new(limit));
            let request = ApiRequest { user: self.random_user(1, &mut random), operation };
            _ = self.instances.call(random.random_range(0..INSTANCES), &request, TIMEOUT).await;
        }
    }

    /// Evicts recent streams, including streams that ended long ago, and lists streams.
    pub async fn support(self: Arc<Self>, mut random: StdRng) {
        while self.is_running() {
            sleep(random_ms(&mut random, 800, 4_000)).await;
            let user = self.random_user(0, &mut random);
            let Some(stream_id) = self.recent_stream(&user, &mut random) else { continue };
            let operation = match random.random_range(0..3) {
                0 => Operation::List,
                _ => Operation::Stop(stream_id, StoppedBy::Evictor),
            };
            let request = ApiRequest { user, operation };
            _ = self.instances.call(random.random_range(0..INSTANCES), &request, TIMEOUT).await;
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
            sleep(random_ms(&mut random, 300, 3_000)).await;
            self.instances.sweep(&self.users, clock);
        }
    }

    /// Disables the faults, waits until all leases have expired, and checks that every user can start exactly as many
    /// streams as their limit on every instance.
    pub async fn check_all_can_start(&self) {
        let context = &self.instances.context;
        context.log("all faults end");
        context.disable_faults();
        sleep(Duration::from_secs(40)).await;
        for instance in 0..INSTANCES {
            for user in &self.users {
                if let Err(details) = self.check_can_start(instance, user).await {
                    return context.violate(ViolationKind::Stuck.with(details));
                }
            }
        }
    }

    async fn check_can_start(&self, instance: usize, user: &UserName) -> Result<(), String> {
        let context = &self.instances.context;
        let limit = context.state(user).limit(context.policy.default_limit).get();
        let mut started = Vec::new();
        for n in 0..=limit {
            match self.start(instance, user).await {
                Ok(StartOutcome::Started(new)) if n < limit => started.push(new.lease.stream_id),
                Ok(StartOutcome::Denied(_)) if n == limit => {}
                other => return Err(format!("{user} on instance {instance}, start {n} of {limit}: {other:?}")),
            }
        }
        for stream_id in started {
            let request = ApiRequest { user: user.clone(), operation: Operation::Stop(stream_id, StoppedBy::Player) };
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
