//! Open-loop HTTP load on one thread: sends heartbeats at a fixed rate. Latency counts from the time at which a request is due.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::closed_loop::User;

/// Latencies are also evaluated per window of this length. A hypervisor may pause a core for milliseconds several times per
/// second, but most windows contain no such pause.
const WINDOW: Duration = Duration::from_millis(50);

/// Sends requests at a fixed rate, on one connection after the other. A request waits until the previous request on its connection
/// has its response. Returns one histogram per window. Polls in a busy loop, because the runtime's timers have a resolution of one
/// millisecond, and a response takes less time than that.
pub async fn open_loop(address: SocketAddr, users: Range<usize>, per_s: f64, run: Duration) -> Vec<Histogram<u64>> {
    let mut players = Vec::new();
    let connections = users.len();
    for n in users {
        let user = User::connect(address, n).await;
        let stream = user.connection.into_std();
        players.push(Player { stream, heartbeat: user.heartbeat, due: VecDeque::new(), received: 0 });
    }
    let response_bytes = players[0].response_bytes();
    let (start, interval_s, total) = (Instant::now(), 1.0 / per_s, (run.as_secs_f64() * per_s) as u64);
    let window = |due: Instant| (due - start).as_millis() / WINDOW.as_millis();
    let mut latencies: Vec<_> = (0..=window(start + run)).map(|_| Histogram::<u64>::new(3).unwrap()).collect();
    let (mut sent, mut completed, mut waiting) = (0, 0, Vec::new());
    while completed < total {
        let due = start + Duration::from_secs_f64(sent as f64 * interval_s);
        if sent < total && due <= Instant::now() {
            let n = sent as usize % connections;
            players[n].due.push_back(due);
            if players[n].due.len() == 1 {
                players[n].send();
                waiting.push(n);
            }
            sent += 1;
        }
        waiting.retain(|n| {
            let player = &mut players[*n];
            if !player.poll_response(response_bytes) {
                return true;
            }
            let due = player.due.pop_front().unwrap();
            latencies[window(due) as usize].record(due.elapsed().as_nanos() as u64).unwrap();
            completed += 1;
            !player.due.is_empty() && player.send()
        });
    }
    latencies.retain(|window| !window.is_empty());
    latencies
}

struct Player {
    stream: TcpStream,
    heartbeat: Vec<u8>,
    /// Due times of the requests without a response. Only the first of these requests has been sent.
    due: VecDeque<Instant>,
    received: usize,
}

impl Player {
    fn send(&mut self) -> bool {
        self.stream.write_all(&self.heartbeat).is_ok()
    }

    /// Reads the bytes that have arrived. Returns true once the response is complete.
    fn poll_response(&mut self, response_bytes: usize) -> bool {
        let mut response = [0; 1024];
        match self.stream.read(&mut response) {
            Ok(read) => {
                assert!(self.received > 0 || response.starts_with(b"HTTP/1.1 200 "), "{}", response.escape_ascii());
                self.received += read;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let complete = self.received == response_bytes;
        if complete {
            self.received = 0;
        }
        complete
    }

    /// The length of a heartbeat response, which is constant. Waits before it reads, so that the whole response has arrived.
    fn response_bytes(&mut self) -> usize {
        self.send();
        std::thread::sleep(Duration::from_millis(100));
        self.stream.read(&mut [0; 1024]).unwrap()
    }
}
