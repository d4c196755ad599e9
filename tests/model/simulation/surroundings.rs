//! What happens around the players: an operator, support, crashes, outages and TTL, by seed; and the test at the end
//! that nobody is stuck.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use stream_manager::domain::admission::StartOutcome;
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::limiter::{StartOptions, Timestamped};
use stream_manager::store::StoppedBy;
// Virtual time: it costs none, and is what the seed says.
use tokio::time::sleep;

use super::asks::{Answer, Ask, Verb};
use super::clock::SkewedClock;
use super::faults::ms;
use super::instances::{INSTANCES, Instances};
use super::violation::Rule;

pub struct Surroundings {
    pub instances: Arc<Instances>,
    pub users: Vec<UserName>,
    pub until: Duration,
}

const PATIENCE: Duration = Duration::from_secs(5);

impl Surroundings {
    fn goes_on(&self) -> bool {
        self.instances.world.started.elapsed() < self.until
    }

    fn someone(&self, from: usize, random: &mut StdRng) -> UserName {
        self.users[random.random_range(from..self.users.len())].clone()
    }

    /// Changes limits; the first user never has one of their own, so that plain starts stay plain.
    pub async fn operator(self: Arc<Self>, mut random: StdRng) {
        while self.goes_on() {
            sleep(ms(&mut random, 2_000, 9_000)).await;
            let limit = [1, 2, 3, 4, 0][random.random_range(0..5)];
            let ask = Ask { user: self.someone(1, &mut random), verb: Verb::SetLimit(StreamLimit::new(limit)) };
            _ = self.instances.call(random.random_range(0..INSTANCES), &ask, PATIENCE).await;
        }
    }

    /// Ends streams of others, also such as are long dead, and looks at what is left.
    pub async fn support(self: Arc<Self>, mut random: StdRng) {
        while self.goes_on() {
            sleep(ms(&mut random, 800, 4_000)).await;
            let user = self.someone(0, &mut random);
            let Some(stream_id) = self.some_stream(&user, &mut random) else { continue };
            let verb = match random.random_range(0..3) {
                0 => Verb::List,
                _ => Verb::Stop(stream_id, StoppedBy::Evictor),
            };
            _ = self.instances.call(random.random_range(0..INSTANCES), &Ask { user, verb }, PATIENCE).await;
        }
    }

    /// One of the latest, or preferably one that still counts although TTL has deleted it.
    fn some_stream(&self, user: &UserName, random: &mut StdRng) -> Option<StreamId> {
        let state = self.instances.world.state(user);
        let ids = self.instances.world.ids(user);
        let latest = &ids[ids.len().saturating_sub(6)..];
        let stream_id = *latest.get(random.random_range(0..latest.len().max(1)))?;
        let without_lease = state.members.iter().find(|id| state.lease(**id).is_none());
        Some(without_lease.copied().unwrap_or(stream_id))
    }

    pub async fn crashes(self: Arc<Self>, mut random: StdRng) {
        while self.goes_on() {
            sleep(ms(&mut random, 6_000, 25_000)).await;
            let instance = random.random_range(0..INSTANCES);
            self.instances.crash(instance);
            sleep(ms(&mut random, 50, 3_000)).await;
            self.instances.restart(instance, random.random());
        }
    }

    pub async fn outages(self: Arc<Self>, mut random: StdRng) {
        while self.goes_on() {
            sleep(ms(&mut random, 15_000, 50_000)).await;
            self.instances.world.set_outage(true);
            self.instances.world.count("outages");
            sleep(ms(&mut random, 300, 4_000)).await;
            self.instances.world.set_outage(false);
        }
    }

    pub async fn ttl(self: Arc<Self>, mut random: StdRng, clock: SkewedClock) {
        while self.goes_on() {
            sleep(ms(&mut random, 300, 3_000)).await;
            self.instances.sweep(&self.users, clock);
        }
    }

    /// Once all has expired, every user can start as many streams as the limit, and no more, on every instance.
    pub async fn nobody_is_stuck(&self) {
        let world = &self.instances.world;
        world.note("all faults end");
        world.calm();
        sleep(Duration::from_secs(40)).await;
        for instance in 0..INSTANCES {
            for user in &self.users {
                let limit = world.state(user).limit(world.policy.default_limit).get();
                let mut started = Vec::new();
                for n in 0..=limit {
                    match self.plain(instance, user).await {
                        Ok(StartOutcome::Started(new)) if n < limit => started.push(new.lease.stream_id),
                        Ok(StartOutcome::Denied(_)) if n == limit => {}
                        other => {
                            let what = format!("{user} on instance {instance}, start {n} of {limit}: {other:?}");
                            return world.broken(Rule::Stuck.broken(what));
                        }
                    }
                }
                for stream_id in started {
                    let ask = Ask { user: user.clone(), verb: Verb::Stop(stream_id, StoppedBy::Player) };
                    if let Err(error) = self.instances.call(instance, &ask, PATIENCE).await {
                        return world.broken(Rule::Stuck.broken(format!("{ask}: {error:?}")));
                    }
                }
            }
        }
    }

    async fn plain(&self, instance: usize, user: &UserName) -> Result<StartOutcome, String> {
        let ask = Ask { user: user.clone(), verb: Verb::Start(StartOptions::default(), None) };
        match self.instances.call(instance, &ask, PATIENCE).await {
            Ok(Answer::Start(Timestamped { value: answer, .. })) => Ok(answer),
            other => Err(format!("{other:?}")),
        }
    }
}
