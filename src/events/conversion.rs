//! Converts records to events, and events to lines.

use std::io::Write;

use uuid::Uuid;

use super::cloud_event::{
    AppliedRule, CloudEvent, EndData, ErasedData, EventTime, Exceeded, LimitData, Outcome, SPEC_VERSION, StartData,
};
use super::personal_data::PersonalData;
use super::record::{Admission, Operation, Record, StartResult};
use crate::domain::admission::{OverLimit, StartRequest};
use crate::domain::labels::{LabelValue, Labels};
use crate::domain::lease::{EndReason, Lease, StreamLimit, Timestamp, UserLimit};
use crate::domain::names::{ContentId, DeviceId, DeviceName, StreamId};
use crate::domain::rules::Rule;

const SERVICE_VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) struct Converter {
    instance: Uuid,
    source: String,
    personal_data: PersonalData,
    /// The sequence number of the last event.
    sequence: u64,
}

impl Converter {
    pub fn new(instance: Uuid, personal_data: PersonalData) -> Self {
        let source = format!("urn:stream-manager:instance:{instance}");
        Self { instance, source, personal_data, sequence: 0 }
    }

    /// Leaves a gap in the sequence numbers.
    pub fn skip(&mut self, events: u64) {
        self.sequence += events;
    }

    /// Appends the events of a record to `lines`, and returns their number.
    pub fn append(&mut self, record: Record, lines: &mut Vec<u8>) -> u64 {
        let subject = self.personal_data.user(record.user.as_str());
        let outcomes = self.outcomes(record.operation, record.now);
        let mut appended = 0;
        for outcome in outcomes {
            self.sequence += 1;
            let sequence = format!("{:020}", self.sequence);
            let event = CloudEvent {
                specversion: SPEC_VERSION.to_owned(),
                id: format!("{}-{sequence}", self.instance),
                source: self.source.clone(),
                subject: subject.clone(),
                time: EventTime(record.now),
                sequence,
                serviceversion: SERVICE_VERSION.to_owned(),
                outcome,
            };
            let start = lines.len();
            let serialized = serde_json::to_writer(&mut *lines, &event);
            // Neither can fail, because the event has only keys that are strings, and writing to memory succeeds.
            if serialized.is_err() || lines.write_all(b"\n").is_err() {
                lines.truncate(start);
                continue;
            }
            appended += 1;
        }
        appended
    }

    fn outcomes(&self, operation: Operation, now: Timestamp) -> Vec<Outcome> {
        match operation {
            Operation::Start(request, StartResult::Admitted(admission)) => self.admission(&request, admission, now),
            Operation::Start(request, StartResult::Denied { exceeded, limit, live_before }) => {
                let live = Some(count(live_before));
                let exceeded = vec![exceeded_limit(exceeded)];
                let data = self.start_data(&request, limit);
                vec![Outcome::Denied(StartData { count_before: live, count_after: live, exceeded, ..data })]
            }
            Operation::Stop(stream_id) => vec![Outcome::Stopped(unread_end(stream_id, now))],
            Operation::Evict(ended) => self.evictions(&ended, now).collect(),
            Operation::SetLimit { limit, previous, ended } => {
                let changed =
                    LimitData { limit: limit.map(StreamLimit::get), previous_limit: previous.map(StreamLimit::get) };
                self.evictions(&ended, now).chain([Outcome::LimitChanged(changed)]).collect()
            }
            Operation::Erase(ended) => {
                vec![Outcome::Erased(ErasedData { ended: ended.into_iter().map(StreamId::uuid).collect() })]
            }
        }
    }

    /// The ends of the streams that the start ended come first, so that a reader never counts more live streams than there were.
    fn admission(&self, request: &StartRequest, admission: Admission, now: Timestamp) -> Vec<Outcome> {
        let Admission { is_replay, limit, live_before, started_at, expires_at, ended, expired, over_limit } =
            admission;
        let expirations = expired.iter().map(|lease| Outcome::Expired(self.end_data(lease, lease.expires_at, None)));
        let ends = ended.iter().map(|ended| {
            let data = self.end_data(&ended.lease, now, Some(request.stream_id));
            match ended.reason {
                EndReason::Evicted => Outcome::Evicted(data),
                EndReason::Replaced => Outcome::Replaced(data),
            }
        });
        let mut outcomes: Vec<Outcome> = expirations.chain(ends).collect();
        let of_start = match (is_replay, over_limit.is_empty()) {
            (true, _) => Outcome::Replayed,
            (false, false) => Outcome::OverLimit,
            (false, true) => Outcome::Started,
        };
        outcomes.push(of_start(StartData {
            count_before: live_before.map(count),
            count_after: live_before.map(|live| count((live + 1).saturating_sub(ended.len()))),
            exceeded: over_limit.into_iter().map(exceeded_limit).collect(),
            started_at: Some(EventTime(started_at)),
            expires_at: Some(EventTime(expires_at)),
            ..self.start_data(request, limit)
        }));
        outcomes
    }

    /// The data that does not depend on the outcome.
    fn start_data(&self, request: &StartRequest, limit: UserLimit) -> StartData {
        let rules = request.rules.iter().filter(|rule| rule.applies_to(&request.labels));
        StartData {
            stream_id: request.stream_id.uuid(),
            has_key: request.fingerprint.is_some(),
            device_id: self.device(request.device_id.as_ref()),
            device_name: request.device_name.as_ref().map(DeviceName::to_string),
            content_id: request.content_id.as_ref().map(ContentId::to_string),
            labels: request.labels.clone(),
            replaces: request.replaces.iter().map(|id| id.uuid()).collect(),
            at_limit: request.at_limit,
            mode: request.limit_mode,
            limit: limit.limit.get(),
            limit_source: limit.source,
            count_before: None,
            count_after: None,
            rules: rules.map(|rule| applied_rule(rule, &request.labels)).collect(),
            exceeded: Vec::new(),
            started_at: None,
            expires_at: None,
        }
    }

    fn evictions<'a>(&'a self, ended: &'a [Lease], now: Timestamp) -> impl Iterator<Item = Outcome> + 'a {
        ended.iter().map(move |lease| Outcome::Evicted(self.end_data(lease, now, None)))
    }

    fn end_data(&self, lease: &Lease, ended_at: Timestamp, by: Option<StreamId>) -> EndData {
        let session_ms = ended_at.epoch_ms().saturating_sub(lease.started_at.epoch_ms()).max(0);
        EndData {
            stream_id: lease.stream_id.uuid(),
            ended_at: EventTime(ended_at),
            started_at: Some(EventTime(lease.started_at)),
            session_seconds: Some(session_ms as f64 / 1000.0),
            device_id: self.device(lease.device_id.as_ref()),
            device_name: lease.device_name.as_ref().map(DeviceName::to_string),
            content_id: lease.content_id.as_ref().map(ContentId::to_string),
            labels: lease.labels.clone(),
            ended_by: by.map(StreamId::uuid),
        }
    }

    fn device(&self, device_id: Option<&DeviceId>) -> Option<String> {
        self.personal_data.device(device_id?.as_str())
    }
}

/// The end of a stream whose lease was not read.
fn unread_end(stream_id: StreamId, now: Timestamp) -> EndData {
    EndData {
        stream_id: stream_id.uuid(),
        ended_at: EventTime(now),
        started_at: None,
        session_seconds: None,
        device_id: None,
        device_name: None,
        content_id: None,
        labels: Labels::default(),
        ended_by: None,
    }
}

fn applied_rule(rule: &Rule, labels: &Labels) -> AppliedRule {
    AppliedRule {
        name: rule.name.to_string(),
        mode: rule.mode,
        limit: rule.max.get(),
        per: rule.per.as_ref().and_then(|per| labels.get(per)).map(LabelValue::to_string),
    }
}

fn exceeded_limit(exceeded: OverLimit) -> Exceeded {
    Exceeded { rule: exceeded.rule.map(String::from), limit: exceeded.limit.get(), count: count(exceeded.count) }
}

/// A user never has so many streams that this saturates.
fn count(streams: usize) -> u32 {
    u32::try_from(streams).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::admission::AtLimit;
    use crate::domain::lease::{LeaseTerms, LimitSource};
    use crate::domain::names::UserName;
    use crate::domain::rules::{LimitMode, RuleName};

    fn start(over_limit: Vec<OverLimit>) -> Record {
        let now = Timestamp::from_epoch_ms(1_790_000_000_000);
        let limit = StreamLimit::DEFAULT;
        let request = StartRequest {
            stream_id: StreamId::random([1; 16]),
            fingerprint: None,
            device_id: None,
            device_name: None,
            content_id: None,
            labels: Labels::default(),
            replaces: Vec::new(),
            at_limit: AtLimit::Reject,
            token_limit: None,
            default_limit: limit,
            limit_mode: LimitMode::Observe,
            hard_limit: StreamLimit::HIGHEST,
            rules: Arc::default(),
            terms: LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 3600 },
        };
        let admission = Admission {
            is_replay: false,
            limit: UserLimit { limit, source: LimitSource::Token },
            live_before: Some(3),
            started_at: now,
            expires_at: now.plus_s(90),
            ended: Vec::new(),
            expired: Vec::new(),
            over_limit,
        };
        let operation = Operation::Start(request, StartResult::Admitted(admission));
        Record { now, user: UserName::parse("ann").unwrap(), operation }
    }

    fn events(converter: &mut Converter, record: Record) -> Vec<CloudEvent> {
        let mut lines = Vec::new();
        let appended = converter.append(record, &mut lines);
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(text.lines().count() as u64, appended);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_start_over_an_observed_limit_lists_what_it_exceeds() {
        let mut converter = Converter::new(Uuid::nil(), PersonalData::Plain);
        let rule = RuleName::parse("one UHD stream").ok();
        let limit = StreamLimit::new(1).unwrap();
        let exceeded = vec![OverLimit { rule, limit, count: 2 }, OverLimit { rule: None, limit, count: 3 }];
        let events = events(&mut converter, start(exceeded));
        let Outcome::OverLimit(data) = &events[0].outcome else { panic!("{events:?}") };
        assert_eq!((data.count_before, data.count_after, data.limit_source), (Some(3), Some(4), LimitSource::Token));
        assert_eq!(data.mode, LimitMode::Observe);
        let exceeded = |rule: Option<&str>, count| Exceeded { rule: rule.map(str::to_owned), limit: 1, count };
        assert_eq!(data.exceeded, [exceeded(Some("one UHD stream"), 2), exceeded(None, 3)]);
    }

    #[test]
    fn dropped_events_leave_a_gap_in_the_sequence() {
        let mut converter = Converter::new(Uuid::nil(), PersonalData::Plain);
        let first = events(&mut converter, start(Vec::new()));
        converter.skip(5);
        let next = events(&mut converter, start(Vec::new()));
        assert_eq!(
            [&first[0].sequence, &next[0].sequence].map(String::as_str),
            ["00000000000000000001", "00000000000000000007"]
        );
        assert_eq!(next[0].id, "00000000-0000-0000-0000-000000000000-00000000000000000007");
    }
}
