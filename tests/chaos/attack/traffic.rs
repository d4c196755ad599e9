//! What went over the network to the store: each request, as far as it matters for what may follow from it.

use serde_json::Value;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection breaks when two thirds of the request have been sent: it is not applied.
    CutRequest,
    /// The connection breaks in the middle of the answer: it was applied.
    CutAnswer,
    /// It was applied, and no answer comes.
    DropAnswer,
    /// The answer comes late, in time or not.
    LateAnswer,
    /// The request arrives late, but in time.
    LateRequest,
    /// The request arrives when its sender has given it up, and has asked again or gone on.
    Zombie,
}

impl Fault {
    pub const ALL: [Self; 6] =
        [Self::CutRequest, Self::CutAnswer, Self::DropAnswer, Self::LateAnswer, Self::LateRequest, Self::Zombie];
}

pub struct StoreRequest {
    pub user: Option<usize>,
    pub write: bool,
    /// The stream whose lease a start puts.
    pub puts: Option<String>,
    /// The streams whose leases it deletes.
    pub deletes: Vec<String>,
    /// The streams that it marks as ended.
    pub marks: Vec<String>,
    pub fault: Option<Fault>,
    pub arrived: Instant,
    pub delivered: Option<Instant>,
    /// When the store had answered, and whether it had done it.
    pub settled: Option<(Instant, bool)>,
    /// When the whole answer was handed on.
    pub relayed: Option<Instant>,
}

impl StoreRequest {
    pub fn new(message: &[u8]) -> Self {
        let text = String::from_utf8_lossy(message);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let digits = body.split_once("\"racer-").map(|(_, rest)| rest.split('"').next().unwrap_or_default());
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let actions = || body["TransactItems"].as_array().into_iter().flatten();
        let stream = |record: &Value| Some(record["S"].as_str()?.strip_prefix("stream#")?.to_owned());
        Self {
            user: digits.and_then(|digits| digits.parse().ok()),
            write: head.contains("TransactWriteItems") || head.contains("UpdateItem"),
            puts: actions().find_map(|action| stream(&action["Put"]["Item"]["record"])),
            deletes: actions().filter_map(|action| stream(&action["Delete"]["Key"]["record"])).collect(),
            marks: actions().filter_map(|action| stream(&action["Update"]["Key"]["record"])).collect(),
            fault: None,
            arrived: Instant::now(),
            delivered: None,
            settled: None,
            relayed: None,
        }
    }

    pub fn answered(&mut self, answer: &[u8]) {
        self.settled = Some((Instant::now(), answer.starts_with(b"HTTP/1.1 200")));
    }

    /// Whether it was carried out, at some time between the two.
    pub fn applied_between(&self, since: Instant, until: Instant) -> bool {
        self.settled.is_some_and(|(at, done)| done && at >= since) && self.delivered.is_some_and(|at| at <= until)
    }

    /// Whether it was carried out.
    pub fn applied(&self) -> bool {
        self.settled.is_some_and(|(_, done)| done)
    }

    /// Whether its sender may have seen something other than a prompt answer.
    pub fn was_hurt(&self) -> bool {
        self.fault.is_some() || self.relayed.is_none_or(|relayed| relayed - self.arrived > super::proxy::ATTEMPT / 2)
    }
}
