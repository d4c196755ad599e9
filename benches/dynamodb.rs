//! Compares heartbeats over HTTP on the DynamoDB store with a loop that sends the same `UpdateItem` through the bare SDK. Both
//! have 64 requests in flight, and use a stub of DynamoDB that returns canned responses. The measured process has one core. The
//! stub and the client share the other core. Each round measures both contenders once. Each ratio is calculated for every round, and
//! the output shows the median, minimum and maximum of all rounds. Run it with `just bench`, which builds the stub.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::io::{BufRead, BufReader, Write, stdin};
use std::process::Stdio;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure};
use futures_util::future::join_all;
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::store::dynamodb::{codec, expressions};
use support::Series;
use support::closed_loop::{Workload, requests_per_s};
use support::fixtures::{NOW, TABLE, TERMS};
use support::process::{AWS_ENVIRONMENT, CLIENT_CORE, SERVER_CORE, SERVICE, Server, pin_self, pinned};

#[allow(dead_code, reason = "the stub uses the rest of this module")]
#[path = "../tests/instruction_counts/canned_responses.rs"]
mod canned_responses;

const CONCURRENCY: usize = 64;
const ROUNDS: usize = 7;
const RUN: Duration = Duration::from_secs(2);

fn main() {
    // The service also uses this scheduler when it has one core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[..] {
        [_, mode, endpoint] if mode == "sdk-loop" => runtime.block_on(sdk_loop(endpoint)),
        _ => {
            pin_self(CLIENT_CORE);
            runtime.block_on(compare());
        }
    }
}

async fn compare() {
    let stub = Server::peer("dynamodb_stub", CLIENT_CORE, &[]).await;
    let endpoint = format!("http://{}", stub.address);
    let mut command = pinned(SERVER_CORE, SERVICE);
    command.envs(AWS_ENVIRONMENT);
    let service =
        Server::service(command, &[("STORE__KIND", "dynamodb"), ("DYNAMODB__ENDPOINT_URL", &endpoint)]).await;
    let mut command = pinned(SERVER_CORE, std::env::current_exe().unwrap());
    command.args(["sdk-loop", &endpoint]).envs(AWS_ENVIRONMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut sdk = command.spawn().unwrap();
    let (mut requests, mut rates) = (sdk.stdin.take().unwrap(), BufReader::new(sdk.stdout.take().unwrap()).lines());

    let (mut http_results, mut sdk_results) = (Series::default(), Series::default());
    for _ in 0..=ROUNDS {
        let rate = requests_per_s(service.address, 0..CONCURRENCY, Workload::Heartbeat, RUN);
        http_results.measure(&[service.id()], RUN, rate).await;
        let rate = async {
            writeln!(requests, "run").unwrap();
            rates.next().unwrap().unwrap().parse().unwrap()
        };
        sdk_results.measure(&[sdk.id()], RUN, rate).await;
    }
    drop(requests);
    sdk.wait().unwrap();
    for (name, result) in [("heartbeat over HTTP", &http_results), ("bare SDK loop", &sdk_results)] {
        println!("{name:20} {:>8.0}/s {:>8.1} us of CPU each", result.rates().median, result.cpu_us().median);
    }
    println!("rate / bare SDK loop: {}", http_results.rate_ratio(&sdk_results));
    println!("share of CPU time outside the SDK: {}", http_results.cpu_overhead(&sdk_results));
}

/// For each line of standard input, runs one measurement and prints the updates per second.
async fn sdk_loop(endpoint: &str) {
    let config = aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12()).endpoint_url(endpoint).load().await;
    let client = aws_sdk_dynamodb::Client::new(&config);
    for _ in stdin().lines() {
        let start = Instant::now();
        let tasks = (0..CONCURRENCY).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut updates = 0_u64;
                while start.elapsed() < RUN {
                    update(&client).await;
                    updates += 1;
                }
                updates
            })
        });
        let updates: u64 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
        println!("{}", updates as f64 / start.elapsed().as_secs_f64());
    }
}

/// Sends the request that the store sends for a heartbeat.
async fn update(client: &aws_sdk_dynamodb::Client) {
    let (user, stream_id) =
        (UserName::parse("user-0000").unwrap(), StreamId::parse(canned_responses::STREAM_ID).unwrap());
    let expires_at = TERMS.expires_at(NOW);
    let names = ["expiresAt", "ttl", "record", "endReason"].map(|name| (format!("#{name}"), name.to_owned()));
    let update = client
        .update_item()
        .table_name(TABLE)
        .set_key(Some(codec::lease_key(&user, stream_id)))
        .update_expression(expressions::HEARTBEAT_UPDATE)
        .condition_expression(expressions::HEARTBEAT_CONDITION)
        .set_expression_attribute_names(Some(names.into()))
        .expression_attribute_values(":now", codec::timestamp(NOW))
        .expression_attribute_values(":new", codec::timestamp(expires_at))
        .expression_attribute_values(":ttl", codec::number(TERMS.ttl_s(expires_at)))
        .return_values(ReturnValue::AllOld)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    assert!(update.send().await.unwrap().attributes.is_some());
}
