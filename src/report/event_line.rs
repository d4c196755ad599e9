//! Parses a line of an event file, and converts the event to records.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::input::InputLine;
use super::record::{End, Entry, Reason, Record, RuleKey, Start, StartResult};
use super::source_names::SourceNames;
use crate::domain::lease::LimitSource;
use crate::events::cloud_event::{EndData, ErasedData, EventTime, LimitData, SPEC_VERSION, StartData};

/// The result of a line.
pub(super) enum Line<'a> {
    Event(Box<Event<'a>>),
    /// An event of a type that this version does not know.
    Unknown,
    /// The last line of a file, if it was not written completely.
    Incomplete,
    Broken,
    Blank,
}

pub(super) struct Event<'a> {
    user: Option<Cow<'a, str>>,
    time_ms: i64,
    source: u32,
    sequence: u64,
    id: u64,
    data: Data,
}

enum Data {
    Start(StartResult, StartData),
    End(Reason, EndData),
    LimitChanged,
    Erased(ErasedData),
}

/// The attributes that the report uses. In contrast to `CloudEvent`, it borrows the texts, and leaves the data for later.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    time: EventTime,
    #[serde(borrow)]
    sequence: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The years 2000 to 2199. Other times are errors, and would make the table of hours very long.
const PLAUSIBLE_MS: std::ops::Range<i64> = 946_684_800_000..7_258_118_400_000;

/// Random, so that nobody can choose names that all get into the same partition.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

pub(super) fn parse<'a>(line: &InputLine<'a>, sources: &mut SourceNames) -> Line<'a> {
    if line.text.trim_ascii().is_empty() && !line.is_too_long {
        return Line::Blank;
    }
    let parsed = if line.is_too_long { None } else { parse_event(line.text, sources) };
    match parsed {
        Some(line) => line,
        None if line.is_complete || line.is_too_long => Line::Broken,
        None => Line::Incomplete,
    }
}

fn parse_event<'a>(text: &'a [u8], sources: &mut SourceNames) -> Option<Line<'a>> {
    let event: Envelope<'a> = serde_json::from_slice(text).ok()?;
    if event.specversion != SPEC_VERSION {
        return None;
    }
    let data = event.data.get();
    let data = match event.kind.strip_prefix("stream-manager.").unwrap_or_default() {
        "stream.started" => start(StartResult::Started, data)?,
        "stream.replayed" => start(StartResult::Replayed, data)?,
        "stream.denied" => start(StartResult::Denied, data)?,
        "stream.over_limit" => start(StartResult::OverLimit, data)?,
        "stream.stopped" => end(Reason::Stopped, data)?,
        "stream.evicted" => end(Reason::Evicted, data)?,
        "stream.replaced" => end(Reason::Replaced, data)?,
        "stream.expired" => end(Reason::Expired, data)?,
        "user.limit_changed" => serde_json::from_str::<LimitData>(data).ok().map(|_| Data::LimitChanged)?,
        "user.erased" => Data::Erased(serde_json::from_str(data).ok()?),
        _ => return Some(Line::Unknown),
    };
    // First all that can fail, because only valid lines count as events of their instance.
    let (time_ms, sequence) = (plausible(event.time)?, event.sequence.parse().ok()?);
    Some(Line::Event(Box::new(Event {
        user: event.subject,
        time_ms,
        source: sources.number(&event.source),
        sequence,
        id: HASHER.hash_one(&*event.id),
        data,
    })))
}

fn start(result: StartResult, data: &str) -> Option<Data> {
    let data: StartData = serde_json::from_str(data).ok()?;
    for time in [data.started_at, data.expires_at].into_iter().flatten() {
        plausible(time)?;
    }
    Some(Data::Start(result, data))
}

fn end(reason: Reason, data: &str) -> Option<Data> {
    let data: EndData = serde_json::from_str(data).ok()?;
    plausible(data.ended_at)?;
    Some(Data::End(reason, data))
}

fn plausible(EventTime(time): EventTime) -> Option<i64> {
    let ms = time.epoch_ms();
    PLAUSIBLE_MS.contains(&ms).then_some(ms)
}

impl Event<'_> {
    /// The records of the event, each with the key of its partition: the user, or the stream if the event has no user.
    pub fn records(&self) -> Vec<(u64, Record<'_>)> {
        match &self.data {
            Data::Start(result, data) => vec![self.record(Some(data.stream_id), start_entry(*result, data))],
            Data::End(reason, data) => {
                let end = End {
                    reason: *reason,
                    stream_id: data.stream_id,
                    ended_ms: data.ended_at.0.epoch_ms(),
                    by_start: data.ended_by,
                };
                vec![self.record(Some(data.stream_id), Entry::End(end))]
            }
            Data::LimitChanged => vec![self.record(None, Entry::LimitChanged)],
            Data::Erased(data) => {
                let end = |stream_id: &Uuid| {
                    let (reason, ended_ms) = (Reason::Erased, self.time_ms);
                    let end = End { reason, stream_id: *stream_id, ended_ms, by_start: None };
                    self.record(Some(*stream_id), Entry::End(end))
                };
                std::iter::once(self.record(None, Entry::Erased)).chain(data.ended.iter().map(end)).collect()
            }
        }
    }

    fn record<'b>(&'b self, stream_id: Option<Uuid>, entry: Entry<'b>) -> (u64, Record<'b>) {
        let key = match (&self.user, stream_id) {
            (Some(user), _) => HASHER.hash_one(&**user),
            (None, Some(stream_id)) => HASHER.hash_one(stream_id),
            (None, None) => self.id,
        };
        let Self { time_ms, source, sequence, id, .. } = *self;
        (key, Record { user: self.user.as_deref(), time_ms, source, sequence, id, entry })
    }
}

fn start_entry(result: StartResult, data: &StartData) -> Entry<'_> {
    Entry::Start(Start {
        result,
        stream_id: data.stream_id,
        has_key: data.has_key,
        device_id: data.device_id.as_deref(),
        device_name: data.device_name.as_deref(),
        replaces: data.replaces.clone(),
        at_limit: data.at_limit,
        limit: data.limit,
        has_own_limit: data.limit_source != LimitSource::Default,
        rules: data.rules.iter().map(|rule| RuleKey { name: &rule.name, per: rule.per.as_deref() }).collect(),
        exceeded: data.exceeded.iter().map(|exceeded| exceeded.rule.as_deref()).collect(),
        started_ms: data.started_at.map(|time| time.0.epoch_ms()),
        expires_ms: data.expires_at.map(|time| time.0.epoch_ms()),
    })
}
