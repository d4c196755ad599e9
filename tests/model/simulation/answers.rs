//! The oracle of answers: whether what a call answered was so at some instant between its beginning and its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use stream_manager::domain::admission::{AtLimit, Denial, StartOutcome, Started};
use stream_manager::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::StreamId;
use stream_manager::limiter::{LimitSource, StartOptions, Timestamped, Usage, UserLimit};
use stream_manager::store::{Stop, StoppedBy, StreamState};

use super::asks::{Answer, Ask, Verb};
use super::oracle::replaces;
use super::state::{Short, State, shorts};
use super::violation::{Rule, Violation};

/// All states of the user while the call ran, the one at its beginning included.
pub struct Window<'a> {
    pub states: &'a [Arc<State>],
    pub default_limit: StreamLimit,
    pub terms: LeaseTerms,
}

type Verdict = Result<(), Violation>;

impl Window<'_> {
    pub fn check(&self, ask: &Ask, answer: &Answer) -> Verdict {
        match (&ask.verb, answer) {
            (Verb::Start(options, _), Answer::Start(Timestamped { now, value: answer })) => match answer {
                StartOutcome::Started(started) => self.started(started, *now, true),
                StartOutcome::Existing(started) => self.started(started, *now, false),
                StartOutcome::Ended(lease) => self.over(lease, *now),
                StartOutcome::KeyReused => Err(Rule::EndingUnfounded.broken("no key was used for two requests")),
                StartOutcome::Denied(denial) => {
                    self.denied(denial, *now, options)?;
                    let own = options.idempotency_key.as_ref().map(|key| StreamId::from_key(&ask.user, key));
                    own.map_or(Ok(()), |own| self.own_was_not_live(own, *now))
                }
            },
            (Verb::Beat(id), Answer::Beat(Timestamped { now, value: answer })) => {
                self.looked(*id, answer, *now)?;
                match answer {
                    StreamState::Live(lease) if lease.expires_at < self.terms.expires_at(*now) => {
                        let what = format!("{} lives shorter than the heartbeat was for", Short(*id));
                        Err(Rule::SuccessUnfounded.broken(what))
                    }
                    _ => Ok(()),
                }
            }
            (Verb::Look(id), Answer::Look(Timestamped { now, value: answer })) => self.looked(*id, answer, *now),
            (Verb::Stop(id, by), Answer::Stop(stop)) => self.stopped(*id, *by, *stop),
            (Verb::List, Answer::List(Timestamped { now, value: answer })) => self.listed(answer, *now),
            (Verb::Limit, Answer::Limit(UserLimit { limit, source })) => {
                let so = |state: &State| {
                    let from = state.own_limit.map_or(LimitSource::Default, |_| LimitSource::User);
                    from == *source && state.limit(self.default_limit) == *limit
                };
                self.at_some_instant(so, Rule::ListUnfounded, || format!("limit {limit}, {source:?}"))
            }
            (Verb::SetLimit(limit), Answer::LimitSet) => self.at_some_instant(
                |state| state.own_limit == *limit,
                Rule::SuccessUnfounded,
                || format!("the limit was never {limit:?}"),
            ),
            (verb, answer) => Err(Rule::Misasked.broken(format!("{verb:?} was answered {answer:?}"))),
        }
    }

    fn at_some_instant(&self, so: impl Fn(&State) -> bool, rule: Rule, what: impl Fn() -> String) -> Verdict {
        if self.states.iter().any(|state| so(state)) { Ok(()) } else { Err(rule.broken(what())) }
    }

    fn in_some_step(&self, so: impl Fn(&State, &State) -> bool, rule: Rule, what: impl Fn() -> String) -> Verdict {
        if self.states.windows(2).any(|step| so(&step[0], &step[1])) { Ok(()) } else { Err(rule.broken(what())) }
    }

    fn started(&self, started: &Started, now: Timestamp, anew: bool) -> Verdict {
        let (lease, id) = (&started.lease, started.lease.stream_id);
        self.live(lease, now, Rule::SuccessUnfounded)?;
        if anew {
            let put = |old: &State, new: &State| old.lease(id) != Some(lease) && new.lease(id) == Some(lease);
            let what = || format!("{} was there before, or never", Short(id));
            self.in_some_step(put, Rule::SuccessUnfounded, what)?;
            if lease.expires_at < self.terms.expires_at(now) {
                return Err(Rule::SuccessUnfounded.broken(format!("{} is shorter than a lease", Short(id))));
            }
        }
        let limit = |state: &State| state.limit(self.default_limit) == started.limit;
        self.at_some_instant(limit, Rule::SuccessUnfounded, || format!("the limit was never {}", started.limit))?;
        if anew {
            let ended: BTreeSet<StreamId> = started.ended.iter().copied().collect();
            let by_it = |state: &State| state.lease(id) == Some(lease) && state.ended_by(id) == ended;
            let what = || format!("{} did not end just{}", Short(id), shorts(&started.ended));
            self.at_some_instant(by_it, Rule::SuccessUnfounded, what)?;
        }
        for ended in &started.ended {
            let by_it = |state: &State| {
                let termination = state.lease(*ended).and_then(|lease| lease.termination.as_ref());
                termination.and_then(|termination| termination.ended_by.as_ref()).is_some_and(|by| by.stream_id == id)
            };
            let what = || format!("{} was never ended by {}", Short(*ended), Short(id));
            self.at_some_instant(by_it, Rule::SuccessUnfounded, what)?;
        }
        Ok(())
    }

    /// The members and the limit are read in one item, so they were so together; each lease was so at some instant.
    fn denied(&self, denial: &Denial, now: Timestamp, asked: &StartOptions) -> Verdict {
        let ids = shorts(denial.streams.iter().map(|lease| &lease.stream_id));
        let kept = denial.streams.iter().filter(|lease| !replaces(asked, lease)).count();
        if kept < denial.limit.get() as usize {
            return Err(Rule::DenialUnfounded.broken(format!("limit {} and live:{ids}", denial.limit)));
        }
        if asked.at_limit == Some(AtLimit::EvictOldest) {
            return Err(Rule::DenialUnfounded.broken(format!("it was to evict, and was denied for{ids}")));
        }
        let full = |state: &State| {
            state.limit(self.default_limit) == denial.limit
                && denial.streams.iter().all(|lease| state.members.contains(&lease.stream_id))
        };
        let what = || format!("limit {} with members{ids} was at no instant", denial.limit);
        self.at_some_instant(full, Rule::DenialUnfounded, what)?;
        denial.streams.iter().try_for_each(|lease| self.live(lease, now, Rule::DenialUnfounded))
    }

    /// A start that was admitted before must find its own lease, not a denial.
    fn own_was_not_live(&self, own: StreamId, now: Timestamp) -> Verdict {
        let without = |state: &State| state.lease(own).is_none_or(|lease| !lease.is_live_at(now));
        let what = || format!("{} itself was live all the time", Short(own));
        self.at_some_instant(without, Rule::DenialUnfounded, what)
    }

    fn live(&self, lease: &Lease, now: Timestamp, rule: Rule) -> Verdict {
        let so = |state: &State| {
            let stored = state.lease(lease.stream_id);
            lease.is_live_at(now) && stored.is_some_and(|stored| stored == lease)
        };
        self.at_some_instant(so, rule, || format!("{} was never live so", Short(lease.stream_id)))
    }

    fn looked(&self, id: StreamId, answer: &StreamState, now: Timestamp) -> Verdict {
        match answer {
            StreamState::Live(lease) => self.live(lease, now, Rule::SuccessUnfounded),
            StreamState::Inactive(lease) => self.over(lease, now),
            StreamState::NotFound => {
                let gone = |state: &State| state.lease(id).is_none();
                self.at_some_instant(gone, Rule::EndingUnfounded, || format!("{} was always stored", Short(id)))
            }
        }
    }

    fn over(&self, lease: &Lease, now: Timestamp) -> Verdict {
        let id = lease.stream_id;
        let so = |state: &State| state.lease(id) == Some(lease) && !lease.is_live_at(now);
        self.at_some_instant(so, Rule::EndingUnfounded, || format!("{} was never over so", Short(id)))
    }

    fn stopped(&self, id: StreamId, by: StoppedBy, stop: Stop) -> Verdict {
        let holds = |state: &State| state.members.contains(&id);
        match stop {
            Stop::Freed => {
                let freed = |old: &State, new: &State| holds(old) && !holds(new);
                self.in_some_step(freed, Rule::SuccessUnfounded, || format!("{} gave no slot back", Short(id)))
            }
            Stop::AlreadyGone => {
                // Of a member whose lease TTL has deleted there is nothing left to evict.
                let no_lease = |state: &State| by == StoppedBy::Evictor && state.lease(id).is_none();
                let gone = |state: &State| !holds(state) || no_lease(state);
                let what = || format!("{} held its slot all the time", Short(id));
                self.at_some_instant(gone, Rule::SuccessUnfounded, what)
            }
        }
    }

    fn listed(&self, usage: &Usage, now: Timestamp) -> Verdict {
        let ids = || shorts(usage.streams.iter().map(|lease| &lease.stream_id));
        let so = |state: &State| {
            state.limit(self.default_limit) == usage.limit
                && usage.streams.iter().all(|lease| state.members.contains(&lease.stream_id))
        };
        self.at_some_instant(so, Rule::ListUnfounded, || format!("limit {} with members{}", usage.limit, ids()))?;
        usage.streams.iter().try_for_each(|lease| self.live(lease, now, Rule::ListUnfounded))?;
        let Some((first, rest)) = self.states.split_first() else { return Ok(()) };
        let always = first.members.iter().find(|id| {
            let live = |state: &State| {
                state.members.contains(id) && state.lease(**id).is_some_and(|lease| lease.is_live_at(now))
            };
            live(first) && rest.iter().all(|state| live(state)) && usage.streams.iter().all(|l| l.stream_id != **id)
        });
        match always {
            None => Ok(()),
            Some(id) => Err(Rule::ListUnfounded.broken(format!("{} was live all the time", Short(*id)))),
        }
    }
}

#[cfg(test)]
mod tests;
