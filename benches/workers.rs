//! Measures how the heartbeat rate grows with the number of workers, on the memory store and on a stub of DynamoDB. Also compares one
//! process with n workers with n processes of one worker each. With at least four cores, the service runs on the lower half of the
//! cores, and the client and the stub run on the upper half. With fewer cores, all of them run on every core, and only the CPU times and
//! the comparison of workers with processes are meaningful. Each round measures every contender once. Each ratio is calculated for
//! every round, and the output shows the median, minimum and maximum of all rounds. Run it with `just bench`, which builds the stub.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http_body_util::Empty;
use hyper::body::Bytes;
use poem::http::Request;
use stream_manager::http::pipeline::app::App;
use support::apps::apps;
use support::closed_loop::{Workload, requests_per_s};
use support::open_loop::open_loop;
use support::process::{AWS_ENVIRONMENT, SERVICE, Server, pin_self, pinned};
use support::{Series, Spread};
use tokio::runtime::{Builder, Runtime};

/// The allocator of the service.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 192;
const ROUNDS: usize = 7;
const RUN: Duration = Duration::from_secs(2);
/// Calls of each thread in a round without a network.
const CALLS: usize = 100_000;

/// The cores of the machine, and how they are divided.
struct Cores {
    total: usize,
    /// False if service and client share all cores.
    separate: bool,
}

/// One process with several workers, or several processes with one worker each.
struct Contender {
    name: String,
    workers: usize,
    servers: Vec<Server>,
    result: Series,
}

fn main() {
    let total = thread::available_parallelism().unwrap().get();
    let cores = Cores { total, separate: total >= 4 };
    println!("{total} cores");
    without_network(total);
    if cores.separate {
        pin_self(&format!("{}-{}", total / 2, total - 1));
    }
    let stub = runtime().block_on(Server::peer("dynamodb_stub", &cores.client(), &[&(total / 2).to_string()]));
    let endpoint = format!("http://{}", stub.address);
    compare(&cores, "memory", &[("STORE__KIND", "memory")]);
    compare(&cores, "DynamoDB stub", &[("STORE__KIND", "dynamodb"), ("DYNAMODB__ENDPOINT_URL", &endpoint)]);
}

impl Cores {
    /// The numbers of workers to measure.
    fn worker_counts(&self) -> Vec<usize> {
        let max = if self.separate { self.total / 2 } else { self.total };
        (0..).map(|n| 1 << n).take_while(|count| *count <= max).collect()
    }

    /// The cores of a service with this number of workers, as a `taskset` list.
    fn service(&self, workers: usize) -> String {
        if self.separate { format!("0-{}", workers - 1) } else { format!("0-{}", self.total - 1) }
    }

    /// The cores of client and stub, as a `taskset` list.
    fn client(&self) -> String {
        format!("{}-{}", if self.separate { self.total / 2 } else { 0 }, self.total - 1)
    }
}

fn compare(cores: &Cores, store: &str, settings: &[(&str, &str)]) {
    let mut contenders = Vec::new();
    for workers in cores.worker_counts() {
        contenders.push(Contender::new(format!("{workers} workers"), workers, vec![workers], cores, settings));
        if workers > 1 {
            let name = format!("{workers} processes");
            contenders.push(Contender::new(name, workers, vec![1; workers], cores, settings));
        }
    }
    for _ in 0..=ROUNDS {
        contenders.iter_mut().for_each(Contender::measure);
    }
    println!(
        "\n{store:14} {:>12} {:>22} {:>22} {:>22}",
        "heartbeats/s", "/ (n x one worker)", "/ n processes", "CPU / one worker"
    );
    let one = &contenders[0].result;
    for (n, contender) in contenders.iter().enumerate() {
        let Contender { name, workers, result, .. } = contender;
        let scaling = result.rate_ratio(one).divided_by(*workers as f64);
        let processes = contenders.get(n + 1).filter(|next| *workers > 1 && next.servers.len() == *workers);
        let processes = processes.map(|processes| result.rate_ratio(&processes.result).to_string());
        let (rate, cpu) = (result.rates().median, result.cpu_ratio(one));
        println!("{name:14} {rate:>12.0} {scaling:>22} {:>22} {cpu:>22}", processes.unwrap_or_default());
    }
    if cores.separate {
        for contender in contenders.iter().filter(|contender| contender.servers.len() == 1) {
            println!("{:14} p99 at half load {:>6.0} us", contender.name, contender.p99_us());
        }
    }
}

impl Contender {
    /// Starts one process per element of `processes`, with this number of workers.
    fn new(name: String, workers: usize, processes: Vec<usize>, cores: &Cores, settings: &[(&str, &str)]) -> Self {
        let start = |threads: usize| {
            let mut command = pinned(&cores.service(workers), SERVICE);
            command.envs(AWS_ENVIRONMENT).env("STREAM_MANAGER__SERVER__WORKER_THREADS", threads.to_string());
            runtime().block_on(Server::service(command, settings))
        };
        Self { name, workers, servers: processes.into_iter().map(start).collect(), result: Series::default() }
    }

    fn measure(&mut self) {
        let processes: Vec<u32> = self.servers.iter().map(Server::id).collect();
        let addresses = self.addresses();
        let rates = async {
            on_client_threads(&addresses, |address, users| {
                runtime().block_on(requests_per_s(address, users, Workload::Heartbeat, RUN))
            })
        };
        let rate = async { rates.await.into_iter().sum() };
        runtime().block_on(self.result.measure(&processes, RUN, rate));
    }

    /// The 99th percentile of the latency at half of the measured rate.
    fn p99_us(&self) -> f64 {
        let (addresses, rate) = (self.addresses(), self.result.rates().median / 2.0);
        let windows = on_client_threads(&addresses, |address, users| {
            let share = rate * users.len() as f64 / CONNECTIONS as f64;
            runtime().block_on(open_loop(address, users, share, RUN))
        });
        let mut all = Histogram::<u64>::new(3).unwrap();
        windows.iter().flatten().for_each(|window| all.add(window).unwrap());
        all.value_at_quantile(0.99) as f64 / 1e3
    }

    /// The address for each client thread.
    fn addresses(&self) -> Vec<SocketAddr> {
        let threads = thread::available_parallelism().unwrap().get().max(self.servers.len());
        (0..threads).map(|thread| self.servers[thread % self.servers.len()].address).collect()
    }
}

/// Calls `load` on one thread per address, each with its share of the users.
fn on_client_threads<T: Send>(
    addresses: &[SocketAddr],
    load: impl Fn(SocketAddr, std::ops::Range<usize>) -> T + Sync,
) -> Vec<T> {
    let share = CONNECTIONS / addresses.len();
    thread::scope(|scope| {
        let load = &load;
        let run = |(thread, address): (usize, &SocketAddr)| {
            let (address, users) = (*address, thread * share..(thread + 1) * share);
            scope.spawn(move || load(address, users))
        };
        let threads: Vec<_> = addresses.iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Measures memory contention between workers. The threads of one run share the same state as the workers of a process; the threads
/// of the other run share nothing. The difference is the time that threads wait for cache lines that other threads write. Calls the
/// service directly, without a network.
fn without_network(cores: usize) {
    println!("{:14} {:>22}", "no network", "time / not shared");
    for threads in (1..).map(|n| 1 << n).take_while(|count| *count <= cores) {
        let separate = || (0..threads).map(|_| apps(1).remove(0)).collect();
        let ratios = (0..=ROUNDS).map(|_| time_of_calls(apps(threads)) / time_of_calls(separate())).skip(1);
        println!("{:14} {:>22}", format!("{threads} threads"), Spread::of(ratios));
    }
}

/// The longest time that one of the threads, each with one of the apps, needs for its calls, in seconds.
fn time_of_calls(apps: Vec<Arc<App>>) -> f64 {
    let start = Barrier::new(apps.len());
    thread::scope(|scope| {
        let run = |(n, app): (usize, Arc<App>)| {
            let start = &start;
            scope.spawn(move || {
                runtime().block_on(async {
                    let heartbeat = heartbeat_path(&app, n).await;
                    start.wait();
                    let began = Instant::now();
                    for _ in 0..CALLS {
                        assert_eq!(app.handle(post(&heartbeat)).await.status(), 200);
                    }
                    began.elapsed().as_secs_f64()
                })
            })
        };
        let threads: Vec<_> = apps.into_iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
    })
}

/// Starts a stream and returns the path of its heartbeats.
async fn heartbeat_path(app: &Arc<App>, user: usize) -> String {
    let streams = format!("/v1/users/user-{user}/streams");
    let mut response = app.handle(post(&streams)).await;
    let body: serde_json::Value = serde_json::from_slice(&response.take_body().into_bytes().await.unwrap()).unwrap();
    format!("{streams}/{}/heartbeat", body["streamId"].as_str().unwrap())
}

fn post(path: &str) -> Request<Empty<Bytes>> {
    Request::post(path).header("host", "localhost").body(Empty::new()).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
