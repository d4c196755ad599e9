//! Compares heartbeats with grants to heartbeats without, and the check of a grant to a heartbeat, on the memory store over HTTP. The
//! client uses 64 keep-alive connections in a closed loop. Server and client have one core each. Each round measures every contender
//! once. Each ratio is calculated for every round, and the output shows the median, minimum and maximum of all rounds.
//! Run it with `cargo bench --bench grants`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use support::Series;
use support::closed_loop::{Workload, requests_per_s};
use support::process::{CLIENT_CORE, SERVER_CORE, SERVICE, Server, pin_self, pinned};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 7;
const RUN: Duration = Duration::from_secs(2);
const SECRET: &str = "a secret that only service and CDN know";

fn main() {
    pin_self(CLIENT_CORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(compare());
}

async fn compare() {
    let folder = tempfile::tempdir().unwrap();
    let (es256, ed_dsa) = (folder.path().join("es256.pem"), folder.path().join("eddsa.pem"));
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    write_pem(&es256, pair.to_pkcs8v1().unwrap().as_ref());
    write_pem(&ed_dsa, Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap().as_ref());
    let off = service(&[]).await;
    let hs256 = service(&[("GRANTS__ALGORITHM", "HS256"), ("GRANTS__SECRET", SECRET)]).await;
    let es256 = service(&[("GRANTS__ALGORITHM", "ES256"), ("GRANTS__KEY_FILE", es256.to_str().unwrap())]).await;
    let ed_dsa = service(&[("GRANTS__ALGORITHM", "EdDSA"), ("GRANTS__KEY_FILE", ed_dsa.to_str().unwrap())]).await;
    let contenders = [
        ("heartbeat, grants off", &off, Workload::Heartbeat),
        ("heartbeat, HS256", &hs256, Workload::Heartbeat),
        ("heartbeat, ES256", &es256, Workload::Heartbeat),
        ("heartbeat, EdDSA", &ed_dsa, Workload::Heartbeat),
        ("check, HS256", &hs256, Workload::GrantCheck),
        ("check, ES256", &es256, Workload::GrantCheck),
    ];
    let mut results = contenders.map(|_| Series::default());
    for _ in 0..=ROUNDS {
        for ((_, server, workload), result) in contenders.iter().zip(&mut results) {
            let rate = requests_per_s(server.address, 0..CONNECTIONS, *workload, RUN);
            result.measure(&[server.id()], RUN, rate).await;
        }
    }
    println!("{:24} {:>10} {:>24} {:>16}", "", "requests/s", "over heartbeat, off", "CPU us/request");
    for ((name, ..), result) in contenders.iter().zip(&results) {
        let (rate, cpu) = (result.rates().median, result.cpu_us().median);
        println!("{name:24} {rate:>10.0} {:>24} {cpu:>16.1}", result.rate_ratio(&results[0]));
    }
}

async fn service(settings: &[(&str, &str)]) -> Server {
    let settings = [&[("STORE__KIND", "memory")], settings].concat();
    Server::service(pinned(SERVER_CORE, SERVICE), &settings).await
}

fn write_pem(path: &Path, pkcs8: &[u8]) {
    let text = BASE64_STANDARD.encode(pkcs8);
    std::fs::write(path, format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")).unwrap();
}
