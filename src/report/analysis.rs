//! Evaluates the records of one partition after the other, user by user.

use std::collections::BTreeMap;

use super::devices::{DeviceTally, UserDevices};
use super::error::ReportError;
use super::history::History;
use super::hours::Hours;
use super::levels::LevelTally;
use super::model::{DeniedUser, InputTotals, Report, Totals, WhatIf, WhatIfRule};
use super::partitions::Group;
use super::record::{Entry, Reason, Record, Start, StartResult, move_ends_after_their_starts};
use super::rules::RuleTally;
use super::session_lengths::SessionLengths;
use super::what_if::{UserWhatIf, WhatIfTally};
use crate::domain::lease::Timestamp;
use crate::events::cloud_event::EventTime;

/// The sums of the report.
pub(super) struct Analysis {
    totals: Totals,
    /// The times of the first and the last event.
    period_ms: Option<(i64, i64)>,
    hours: Hours,
    levels: LevelTally,
    sessions: SessionLengths,
    denied_users: Vec<DeniedUser>,
    rules: BTreeMap<String, RuleTally>,
    devices: DeviceTally,
    limits: WhatIfTally,
}

const MAX_DENIED_USERS: usize = 20;
/// The service has at most 16 rules at a time. Further rules are left out.
const MAX_RULES: usize = 1000;

impl Analysis {
    /// `input` contains what was counted while the files were read.
    pub fn new(partition_bytes: u64, input: InputTotals) -> Self {
        Self {
            totals: Totals { input, ..Totals::default() },
            period_ms: None,
            hours: Hours::new(partition_bytes),
            levels: LevelTally::new(),
            sessions: SessionLengths::default(),
            denied_users: Vec::new(),
            rules: BTreeMap::new(),
            devices: DeviceTally::new(partition_bytes),
            limits: WhatIfTally::default(),
        }
    }

    /// Adds the records of a partition, which contains all records of each of its users. `ranks` are the positions of the sources.
    pub fn add_partition(&mut self, entries: &Group<'_>, ranks: &[u32]) -> Result<(), ReportError> {
        for group in entries.chunk_by(|a, b| a.0 == b.0) {
            let records: Result<Vec<Record<'_>>, _> =
                group.iter().map(|(_, record)| postcard::from_bytes(record)).collect();
            let mut records = records?;
            // Different users can have the same key. Without users, each stream is evaluated separately.
            let owner = |record: &Record<'_>| record.user.map_or(Err(record.stream_id()), |user| Ok(user.to_owned()));
            if records.iter().any(|record| record.user != records[0].user || record.user.is_none()) {
                records.sort_by_cached_key(|record| (owner(record), record.order(ranks)));
            } else {
                records.sort_by_key(|record| record.order(ranks));
            }
            let duplicates = &mut self.totals.input.duplicates;
            records.dedup_by(|a, b| {
                let is_duplicate = a.user == b.user && a.order(ranks) == b.order(ranks);
                *duplicates += u64::from(is_duplicate && a.is_event());
                is_duplicate
            });
            for records in records.chunk_by_mut(|a, b| a.user == b.user && (a.user.is_some() || owner(a) == owner(b)))
            {
                move_ends_after_their_starts(records);
                self.add_user(records)?;
            }
        }
        Ok(())
    }

    /// `instances` is the number of sources.
    pub fn finish(mut self, instances: usize) -> Result<Report, ReportError> {
        self.totals.instances = instances as u64;
        let time = |ms| EventTime(Timestamp::from_epoch_ms(ms));
        self.totals.first_event = self.period_ms.map(|(first, _)| time(first));
        self.totals.last_event = self.period_ms.map(|(_, last)| time(last));
        let has_users = self.totals.users > 0;
        let rule =
            |(rule, tally): (&String, &RuleTally)| WhatIfRule { rule: rule.clone(), limits: tally.what_if.finish() };
        let sessions = self.sessions.finish();
        let (starts, ends) = (&self.totals.starts, &self.totals.ends);
        let unknown =
            [starts.denied, starts.without_key, ends.evicted_by_starts, ends.without_start, sessions.assumed_ends];
        let what_if = WhatIf {
            is_exact: unknown.iter().all(|number| *number == 0),
            limits: self.limits.finish(),
            rules: self.rules.iter().map(rule).collect(),
        };
        Ok(Report {
            totals: self.totals,
            hours: self.hours.finish()?,
            concurrency: has_users.then(|| self.levels.finish()),
            sessions,
            most_denied_users: self.denied_users,
            rules: self.rules.into_iter().map(|(rule, tally)| tally.finish(rule)).collect(),
            devices: self.devices.finish()?,
            what_if: has_users.then_some(what_if),
        })
    }

    /// Adds the events of one user, or of one stream if the events have no users.
    fn add_user(&mut self, records: &[Record<'_>]) -> Result<(), ReportError> {
        self.count_events(records);
        let history = History::new(records);
        self.totals.ends.without_start += history.ends_without_start;
        for session in &history.sessions {
            self.hours.add_session(session)?;
            self.sessions.add(session);
        }
        let user = records[0].user;
        let (mut devices, mut denied) = (UserDevices::default(), DeniedUser::default());
        for (index, start) in history.starts().filter(|(_, start)| start.result != StartResult::Replayed) {
            self.hours.add_start(records[index].time_ms, start.result);
            devices.add(start, &mut self.devices);
            denied.starts += 1;
            denied.denied += u64::from(start.result == StartResult::Denied);
            denied.over_limit += u64::from(start.result == StartResult::OverLimit);
        }
        let has_starts = history.starts().next().is_some();
        self.devices.add_user(&devices, user.is_some() && has_starts)?;
        let Some(user) = user else { return Ok(()) };
        self.totals.users += 1;
        let highest = self.levels.add_user(&history);
        denied.highest_attempted = highest.attempted;
        denied.devices = devices.count();
        self.add_denied_user(user, denied);
        self.add_limits(&history, highest.attempted);
        self.add_rules(&history, highest.attempted);
        Ok(())
    }

    fn count_events(&mut self, records: &[Record<'_>]) {
        let totals = &mut self.totals;
        for record in records {
            let (first, last) = self.period_ms.unwrap_or((record.time_ms, record.time_ms));
            self.period_ms = Some((first.min(record.time_ms), last.max(record.time_ms)));
            match &record.entry {
                Entry::Start(start) => {
                    let starts = &mut totals.starts;
                    match start.result {
                        StartResult::Started => starts.started += 1,
                        StartResult::Replayed => starts.replayed += 1,
                        StartResult::Denied => starts.denied += 1,
                        StartResult::OverLimit => starts.over_limit += 1,
                    }
                    starts.without_key += u64::from(!start.has_key);
                }
                Entry::End(end) => {
                    let ends = &mut totals.ends;
                    match end.reason {
                        Reason::Stopped => ends.stopped += 1,
                        Reason::Evicted => ends.evicted += 1,
                        Reason::Replaced => ends.replaced += 1,
                        Reason::Expired => ends.expired += 1,
                        Reason::Erased => ends.erased += 1,
                    }
                    ends.evicted_by_starts += u64::from(end.reason == Reason::Evicted && end.by_start.is_some());
                }
                Entry::LimitChanged => totals.limit_changes += 1,
                Entry::Erased => totals.erasures += 1,
            }
            if record.is_event() {
                totals.events += 1;
                totals.input.events_without_user += u64::from(record.user.is_none());
            }
        }
    }

    fn add_denied_user(&mut self, user: &str, denied: DeniedUser) {
        let users = &mut self.denied_users;
        if denied.exceeding() == 0 {
            return;
        }
        users.push(DeniedUser { user: user.to_owned(), ..denied });
        users.sort_by(|a, b| b.exceeding().cmp(&a.exceeding()).then_with(|| a.user.cmp(&b.user)));
        users.truncate(MAX_DENIED_USERS);
    }

    fn add_limits(&mut self, history: &History<'_>, highest_attempted: usize) {
        // A start that a rule denied would be denied with any limit.
        let includes = |start: &Start<'_>| start.denied_by().is_none_or(|rule| rule.is_none());
        let may_exceed = highest_attempted > 1 || history.starts().any(|(_, start)| start.has_own_limit);
        let mut user = UserWhatIf::default();
        user.add(history, true, may_exceed, includes);
        self.limits.add_user(&user);
    }

    fn add_rules(&mut self, history: &History<'_>, highest_attempted: usize) {
        let mut keys: Vec<_> = history.starts().flat_map(|(_, start)| start.rules.iter().copied()).collect();
        keys.sort_unstable();
        keys.dedup();
        for rule in keys.chunk_by(|a, b| a.name == b.name) {
            let name = rule[0].name;
            if self.rules.len() == MAX_RULES && !self.rules.contains_key(name) {
                continue;
            }
            let mut user = UserWhatIf::default();
            for key in rule {
                let includes = |start: &Start<'_>| {
                    let is_denied_by_another = start.denied_by().is_some_and(|rule| rule != Some(name));
                    start.rules.contains(key) && !is_denied_by_another
                };
                user.add(history, false, highest_attempted > 1, includes);
            }
            self.rules.entry(name.to_owned()).or_default().add_user(history, name, &user);
        }
    }
}
