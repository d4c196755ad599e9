//! The attack: the same clients against instances that are killed, frozen and have wrong clocks, each behind a network of
//! its own that hurts what goes to the store. Afterwards every answer is held against the whole history.
//!
//! `cargo test --test race -- --attack --seconds 60 --seed 7`; needs `faketime` (`apt-get install faketime`).

mod checker;
mod coverage;
mod evidence;
pub mod history;
mod proxy;
mod shift;
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::evidence::Evidence;
use self::history::{History, Kind};
use self::proxy::{ATTEMPT, Proxy};
use self::shift::{FURTHEST_MS, ShiftedClock};
use crate::api::Api;
use crate::board::{Board, GRACE, Notes};
use crate::process::{Instance, LEASE_S, Launch};
use crate::standin::StandIn;
use crate::table::Table;
use crate::{Arguments, INSTANCES, USERS, finale, process};

/// How many in a hundred writes to the store are hurt; of the reads, a quarter of that.
const HURT_PERCENT: u64 = 20;
/// How long the clocks are far apart, and then how long less so.
const TURN_S: u64 = 6;
/// Longer than the latest that a request can be, and than the store takes for what has piled up.
const DRAINED_WITHIN: Duration = Duration::from_secs(20);

pub async fn attack(arguments: Arguments, directory: &Path) -> bool {
    let Arguments { seconds, seed, clients, .. } = arguments;
    println!("attack: seed {seed}, {seconds} s, {clients} clients, {USERS} users, {INSTANCES} instances");
    let clocks: Option<Vec<_>> =
        (0..INSTANCES).map(|number| ShiftedClock::new(directory, number).map(Arc::new)).collect();
    let Some(clocks) = clocks else {
        println!("clocks are NOT shifted: there is no libfaketimeMT.so.1; install it: apt-get install faketime");
        return false;
    };
    println!(
        "clocks are shifted: up to {FURTHEST_MS} ms ahead and behind, and one drifts between the two (faketime)"
    );
    StandIn::install().await;
    let [store_port, ports @ ..] = process::free_ports::<{ 1 + 3 * INSTANCES }>();
    let mut stand_in = StandIn::start(store_port, directory).await;
    process::migrate(store_port).await;
    let (mut instances, mut proxies) = (Vec::new(), Vec::new());
    for number in 0..INSTANCES {
        let [public, management, network] = [ports[3 * number], ports[3 * number + 1], ports[3 * number + 2]];
        clocks[number].set(shift_ms(number, Duration::ZERO));
        let proxy = Proxy::start(network, store_port, seed.wrapping_mul(31).wrapping_add(number as u64)).await;
        let mut environment = clocks[number].environment();
        let attempt = ATTEMPT.as_millis().to_string();
        environment.push(("STREAM_MANAGER__DYNAMODB__CONNECT_TIMEOUT_MS", attempt.clone()));
        environment.push(("STREAM_MANAGER__DYNAMODB__ATTEMPT_TIMEOUT_MS", attempt));
        let (ports, directory) = ([public, management], directory.to_owned());
        instances
            .push(Instance::start(Launch { number, ports, store_port: proxy.port, directory, environment }).await);
        proxies.push(proxy);
    }
    let board = Arc::new(Board::default());
    let history = Arc::new(History::new(clocks));
    let api = Arc::new(Api::new(Arc::clone(&board), instances, Some(Arc::clone(&history))));
    let table = Table::new(store_port);
    let (stop_players, stop_watching) = (CancellationToken::new(), CancellationToken::new());
    let watch = crate::watch(&table, &board, &stop_watching);

    let begin = Instant::now();
    board.trouble_begins("attack");
    let players = crate::players(&api, seed, clients, &stop_players);
    let until = begin + Duration::from_secs(seconds);
    proxies.iter().for_each(|proxy| proxy.hurt(HURT_PERCENT));
    tokio::join!(strike(&api, &history, &proxies, seed, until), drift(&history, begin, until));
    proxies.iter().for_each(|proxy| proxy.hurt(0));
    history.clocks.iter().for_each(|clock| clock.set(0));
    println!("{:>5.1} s  all faults are over", begin.elapsed().as_secs_f64());
    drain(&proxies, &board).await;
    board.store_is_back();
    crate::recover(&api).await;
    let recovered = board.lock().recovered();
    board.expect(recovered >= 3 * INSTANCES, || format!("no full service within {GRACE:?} after the faults"));
    stop_players.cancel();
    crate::all_end(players, "a client", &board).await;
    drain(&proxies, &board).await;
    finale::all_users_have_their_limit(&api, &table, USERS).await;
    stop_watching.cancel();
    crate::all_end(watch, "the observer", &board).await;
    board.expect(stand_in.runs(), || "the stand-in has died".to_owned());
    crate::instances_end_well(&api, directory).await;

    let mut notes = board.lock();
    check(&mut notes, &history, &proxies);
    crate::verdict::sum_up(&mut notes);
    crate::verdict::conclude(&notes)
}

/// What is done to one instance after the other. The first blows are one of each kind, the others come by the seed.
async fn strike(api: &Arc<Api>, history: &Arc<History>, proxies: &[Arc<Proxy>], seed: u64, until: Instant) {
    let mut random = StdRng::seed_from_u64(seed ^ 0xa77a);
    let mut blows = JoinSet::new();
    let instances: [Arc<Mutex<()>>; INSTANCES] = std::array::from_fn(|_| Arc::default());
    for number in 0.. {
        sleep(Duration::from_millis(random.random_range(300..1200))).await;
        let kind = match if number < 3 { number } else { random.random_range(0..3) } {
            0 => Kind::Frozen,
            1 => Kind::Killed,
            _ => Kind::CutOff,
        };
        let instance = random.random_range(0..INSTANCES);
        let lasts = match kind {
            Kind::Frozen => LEASE_S * 1000 + random.random_range(200..1500),
            _ => random.random_range(200..1200),
        };
        // Time for what comes after it.
        if Instant::now() + Duration::from_millis(lasts + 1000) > until {
            break;
        }
        // One thing at a time is done to each.
        let alone = Arc::clone(&instances[instance]).lock_owned().await;
        let blow = Blow { kind, instance, lasts: Duration::from_millis(lasts), _alone: alone };
        blows.spawn(blow.fall(Arc::clone(api), Arc::clone(history), Arc::clone(&proxies[instance])));
        // Now and then two instances are in trouble at once.
        if random.random_bool(0.7) {
            ends(&mut blows, api).await;
        }
    }
    ends(&mut blows, api).await;
    sleep_until(until).await;
}

struct Blow {
    kind: Kind,
    instance: usize,
    lasts: Duration,
    _alone: OwnedMutexGuard<()>,
}

impl Blow {
    async fn fall(self, api: Arc<Api>, history: Arc<History>, proxy: Arc<Proxy>) {
        let (from, target) = (Instant::now(), &api.instances[self.instance]);
        match self.kind {
            Kind::Frozen => target.stand_still(self.lasts).await,
            Kind::Killed => {
                target.kill().await;
                sleep(self.lasts).await;
                target.start_again().await;
            }
            Kind::CutOff => proxy.refuse(self.lasts).await,
        }
        history.spell(self.kind, self.instance, from);
    }
}

async fn ends(blows: &mut JoinSet<()>, api: &Api) {
    while let Some(blow) = blows.join_next().await {
        api.board.expect(blow.is_ok(), || format!("a blow went wrong: {blow:?}"));
    }
}

async fn drift(history: &History, begin: Instant, until: Instant) {
    while Instant::now() < until {
        sleep(Duration::from_millis(100)).await;
        for (number, clock) in history.clocks.iter().enumerate() {
            clock.set(shift_ms(number, begin.elapsed()));
        }
    }
}

/// Ahead, behind, and to and fro between the two by a tenth of a second in each. By turns as far as can be, where
/// nobody's lease is safe from the one ahead, and so little that a lease can be renewed while another takes it for dead.
fn shift_ms(number: usize, elapsed: Duration) -> i64 {
    let furthest = if elapsed.as_secs() / TURN_S % 2 == 0 { FURTHEST_MS } else { FURTHEST_MS / 5 };
    match number {
        0 => furthest,
        1 => -furthest,
        _ => {
            let way = i64::try_from(elapsed.as_millis()).unwrap_or(0) / 10 + FURTHEST_MS;
            ((way % (4 * FURTHEST_MS) - 2 * FURTHEST_MS).abs() - FURTHEST_MS).clamp(-furthest, furthest)
        }
    }
}

async fn drain(proxies: &[Arc<Proxy>], board: &Board) {
    let begin = Instant::now();
    while proxies.iter().any(|proxy| proxy.under_way() > 0) && begin.elapsed() < DRAINED_WITHIN {
        // Late requests are over soon; the clients' go on, and are never all over at once for long.
        if begin.elapsed() > 4 * ATTEMPT && board.lock().troubles.last().is_some_and(|trouble| trouble.back.is_none())
        {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    board.expect(begin.elapsed() < DRAINED_WITHIN, || "requests to the store do not end".to_owned());
}

fn check(notes: &mut Notes, history: &History, proxies: &[Arc<Proxy>]) {
    let mut calls = history.calls();
    calls.sort_by_key(|call| call.begin);
    let spells = history.spells();
    let traffic: Vec<_> = proxies.iter().map(|proxy| std::mem::take(&mut *proxy.traffic())).collect();
    let evidence = Evidence::new(history, &calls, &spells, &traffic, USERS);
    for call in calls.iter() {
        if let Err(why) = checker::judge(call, &evidence) {
            notes.violation(format!("not to be explained: {why}: {call}"));
        }
    }
    notes.holds = evidence.holds();
    coverage::sum_up(notes, &calls, &spells, &traffic);
}
