//! Heartbeats through HTTP on the DynamoDB store against a bare loop of the SDK that sends the same `UpdateItem`, at the same
//! concurrency, to the same stub, which always has one answer. Who is measured has one core, stub and client have the other. Both
//! take turns; a ratio is that of one round's rates, the median of the rounds with the least and the greatest.
//! `cargo build --profile bench -p peers && cargo bench --bench dynamodb`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod service;

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure};
use service::closed_loop::{Connection, request};
use service::cores::{CLIENT, MEASURED, Peer, cpu_seconds, pin_self, pinned, spread};
use service::{Service, free_port};
use stream_manager::domain::lease::{LeaseTerms, Timestamp};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::store::dynamodb::{codec, expressions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[allow(dead_code, reason = "the stub uses the rest of it")]
#[path = "../tests/instruction_counts/answers.rs"]
mod answers;

const CONCURRENCY: usize = 64;
const ROUNDS: usize = 7;
const RUN: Duration = Duration::from_secs(2);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // As `cargo bench` starts it, there is only its own `--bench`.
    if let [_, how, address, stub] = &arguments[..]
        && how == "bare"
    {
        // The same runtime as the service's on one core.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(bare_loop(address.parse().expect("an address"), stub));
    }
    pin_self(CLIENT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(compare());
}

async fn compare() {
    let stub = Peer::start("stub", CLIENT, &[]).await;
    let endpoint = format!("http://{}", stub.address);
    let mut binary = pinned(MEASURED, env!("CARGO_BIN_EXE_stream-manager"));
    binary.stdout(Stdio::null()).envs(ENVIRONMENT);
    let ours = Service::start_by(binary, &[("STORE__KIND", "dynamodb"), ("DYNAMODB__ENDPOINT_URL", &endpoint)]).await;
    let control = free_port().await;
    let mut command = pinned(MEASURED, std::env::current_exe().expect("this program"));
    let mut bare = command.args(["bare", &control.to_string(), &endpoint]).envs(ENVIRONMENT).spawn().expect("a loop");
    service::listening(control).await;

    let (mut rates, mut cpu_us) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..=ROUNDS {
        for (who, process) in [ours.id(), bare.id()].into_iter().enumerate() {
            let before = cpu_seconds(process);
            let rate = if who == 0 { heartbeats_per_s(ours.address).await } else { updates_per_s(control).await };
            // The first round warms up.
            if round > 0 {
                rates[who].push(rate);
                cpu_us[who].push((cpu_seconds(process) - before) * 1e6 / (rate * RUN.as_secs_f64()));
            }
        }
    }
    _ = bare.kill();
    _ = bare.wait();
    for (who, name) in ["heartbeat through HTTP", "bare loop of the SDK"].into_iter().enumerate() {
        let (rate, cpu) = (spread(rates[who].iter().copied())[1], spread(cpu_us[who].iter().copied())[1]);
        println!("{name:24} {rate:>8.0}/s {cpu:>8.1} us of CPU each");
    }
    let ratio = |name: &str, [least, middle, greatest]: [f64; 3]| {
        println!("{name}: {middle:.2} ({least:.2}-{greatest:.2})");
    };
    ratio("rate over the bare loop's", spread(rates[0].iter().zip(&rates[1]).map(|(ours, bare)| ours / bare)));
    let share = cpu_us[0].iter().zip(&cpu_us[1]).map(|(ours, bare)| 1.0 - bare / ours);
    ratio("share of the CPU that is not the SDK's", spread(share));
}

/// Credentials at hand, so that nothing is asked of the network.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_REGION", "eu-central-1"),
    ("AWS_ACCESS_KEY_ID", "bench"),
    ("AWS_SECRET_ACCESS_KEY", "bench"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

async fn heartbeats_per_s(address: SocketAddr) -> f64 {
    let path = format!("/v1/users/user-0000/streams/{}/heartbeat", answers::STREAM_ID);
    let heartbeat: Arc<[u8]> = request("POST", &path).into();
    let mut connections = Vec::new();
    for _ in 0..CONCURRENCY {
        connections.push(Connection::open(address).await);
    }
    let begun = Instant::now();
    let players = connections.into_iter().map(|mut connection| {
        let heartbeat = Arc::clone(&heartbeat);
        tokio::spawn(async move {
            let mut requests = 0_u64;
            while begun.elapsed() < RUN {
                assert_eq!(connection.call(&heartbeat).await.0, 200);
                requests += 1;
            }
            requests
        })
    });
    let players: Vec<_> = players.collect();
    let mut requests = 0;
    for player in players {
        requests += player.await.expect("a player");
    }
    requests as f64 / begun.elapsed().as_secs_f64()
}

/// Asks the bare loop for one run.
async fn updates_per_s(control: SocketAddr) -> f64 {
    let mut stream = TcpStream::connect(control).await.expect("the bare loop");
    stream.write_all(b"go").await.expect("the bare loop");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the bare loop");
    answer.parse().expect("a rate")
}

/// One run of [`CONCURRENCY`] tasks for each connection on which something comes; answers the rate.
async fn bare_loop(address: SocketAddr, stub: &str) {
    let config = aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12()).endpoint_url(stub).load().await;
    let client = aws_sdk_dynamodb::Client::new(&config);
    let listener = TcpListener::bind(address).await.expect("a port");
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        if stream.read(&mut [0; 2]).await.is_ok_and(|read| read == 2) {
            let rate = rate_of(&client).await;
            stream.write_all(rate.to_string().as_bytes()).await.expect("an answer");
        }
    }
}

async fn rate_of(client: &aws_sdk_dynamodb::Client) -> f64 {
    let (begun, updates) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (client, updates) = (client.clone(), Arc::clone(&updates));
            tokio::spawn(async move {
                while begun.elapsed() < RUN {
                    update(&client).await;
                    updates.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
    updates.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

/// What the store sends for a heartbeat.
async fn update(client: &aws_sdk_dynamodb::Client) {
    let user = UserName::parse("user-0000").expect("a name");
    let stream_id = StreamId::parse(answers::STREAM_ID).expect("an id");
    let terms = LeaseTerms { duration_s: 90, retention_s: 3600 };
    let now = Timestamp::from_epoch_ms(1_790_000_000_000);
    let expires_at = terms.expires_at(now);
    let names = ["expiresAt", "ttl", "record", "endReason"].map(|name| (format!("#{name}"), name.to_owned()));
    let sent = client
        .update_item()
        .table_name("user-streams")
        .set_key(Some(codec::lease_key(&user, stream_id)))
        .update_expression(expressions::HEARTBEAT_UPDATE)
        .condition_expression(expressions::HEARTBEAT_CONDITION)
        .set_expression_attribute_names(Some(names.into()))
        .expression_attribute_values(":now", codec::instant(now))
        .expression_attribute_values(":new", codec::instant(expires_at))
        .expression_attribute_values(":ttl", codec::number(terms.ttl_s(expires_at)))
        .return_values(ReturnValue::AllOld)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    assert!(sent.send().await.expect("an answer").attributes.is_some());
}
