//! A request from an instance to the store, as recorded by the proxy: its writes, its fault and its times.

use serde_json::Value;
use tokio::time::Instant;

use super::proxy::ATTEMPT_TIMEOUT;
use crate::api::USER_PREFIX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkFault {
    /// The connection breaks after two thirds of the request. The store does not apply the request.
    TruncateRequest,
    /// The connection breaks in the middle of the response. The store has applied the request.
    TruncateResponse,
    /// The store applies the request, but the proxy drops the response.
    DropResponse,
    /// The response is delayed, sometimes beyond the attempt timeout.
    DelayResponse,
    /// The request is delayed by less than the attempt timeout.
    DelayRequest,
    /// The store receives the request after the attempt timeout, when the instance has already retried or given up.
    DeliverAfterTimeout,
}

impl NetworkFault {
    pub const ALL: [Self; 6] = [
        Self::TruncateRequest,
        Self::TruncateResponse,
        Self::DropResponse,
        Self::DelayResponse,
        Self::DelayRequest,
        Self::DeliverAfterTimeout,
    ];
}

pub struct StoreRequest {
    pub user: Option<usize>,
    pub write: bool,
    /// The stream whose lease a start creates.
    pub creates: Option<String>,
    /// The streams whose leases the request deletes.
    pub deletes: Vec<String>,
    /// The streams that the request marks as ended.
    pub ends: Vec<String>,
    pub fault: Option<NetworkFault>,
    /// When the proxy received the request.
    pub received: Instant,
    /// When the proxy began to send the request to the store.
    pub forwarded: Option<Instant>,
    /// When the store responded, and whether it applied the request.
    pub completed: Option<(Instant, bool)>,
    /// When the proxy had sent the whole response to the instance.
    pub returned: Option<Instant>,
}

impl StoreRequest {
    pub fn new(message: &[u8]) -> Self {
        let text = String::from_utf8_lossy(message);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let user = body.split_once(&format!("\"{USER_PREFIX}"));
        let digits = user.map(|(_, rest)| rest.split('"').next().unwrap_or_default());
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let actions = || body["TransactItems"].as_array().into_iter().flatten();
        let stream = |record: &Value| Some(record["S"].as_str()?.strip_prefix("stream#")?.to_owned());
        Self {
            user: digits.and_then(|digits| digits.parse().ok()),
            write: head.contains("TransactWriteItems") || head.contains("UpdateItem"),
            creates: actions().find_map(|action| stream(&action["Put"]["Item"]["record"])),
            deletes: actions().filter_map(|action| stream(&action["Delete"]["Key"]["record"])).collect(),
            ends: actions().filter_map(|action| stream(&action["Update"]["Key"]["record"])).collect(),
            fault: None,
            received: Instant::now(),
            forwarded: None,
            completed: None,
            returned: None,
        }
    }

    pub fn complete(&mut self, response: &[u8]) {
        self.completed = Some((Instant::now(), response.starts_with(b"HTTP/1.1 200")));
    }

    /// Whether the store may have applied the request between the two instants.
    pub fn applied_between(&self, since: Instant, until: Instant) -> bool {
        self.applied_and_completed_after(since) && self.forwarded.is_some_and(|at| at <= until)
    }

    /// Whether the store applied the request, and sent the response at `since` or later.
    pub fn applied_and_completed_after(&self, since: Instant) -> bool {
        self.completed.is_some_and(|(at, applied)| applied && at >= since)
    }

    pub fn applied(&self) -> bool {
        self.completed.is_some_and(|(_, applied)| applied)
    }

    /// Whether the instance may have received an error or a slow response.
    pub fn was_hit_by_fault(&self) -> bool {
        self.fault.is_some() || self.returned.is_none_or(|returned| returned - self.received > ATTEMPT_TIMEOUT / 2)
    }
}
