//! What a client asks for in one call, and what it is answered.

use std::fmt;

use stream_manager::domain::admission::{AtLimit, StartOutcome};
use stream_manager::domain::lease::{StreamLimit, Timestamp};
use stream_manager::domain::names::{DeviceId, StreamId, UserName};
use stream_manager::limiter::{Limiter, StartOptions, Timestamped, Usage, UserLimit};
use stream_manager::store::{Result, Stop, StoppedBy, StreamState};

use super::state::{Short, Until, shorts};

#[derive(Clone, Debug)]
pub struct Ask {
    pub user: UserName,
    pub verb: Verb,
}

#[derive(Clone, Debug)]
pub enum Verb {
    /// With the name of the key, if there is one: the key itself does not tell.
    Start(StartOptions, Option<String>),
    Beat(StreamId),
    Stop(StreamId, StoppedBy),
    List,
    Look(StreamId),
    Limit,
    SetLimit(Option<StreamLimit>),
}

#[derive(Clone, Debug)]
pub enum Answer {
    Start(Timestamped<StartOutcome>),
    Beat(Timestamped<StreamState>),
    Stop(Stop),
    List(Timestamped<Usage>),
    Look(Timestamped<StreamState>),
    Limit(UserLimit),
    LimitSet,
}

impl Ask {
    pub fn start_options(&self) -> Option<&StartOptions> {
        match &self.verb {
            Verb::Start(options, _) => Some(options),
            _ => None,
        }
    }

    pub async fn of(&self, limiter: &Limiter) -> Result<Answer> {
        let user = &self.user;
        Ok(match &self.verb {
            Verb::Start(options, _) => Answer::Start(limiter.start(user, options.clone()).await?),
            Verb::Beat(id) => Answer::Beat(limiter.heartbeat(user, *id).await?),
            Verb::Stop(id, by) => Answer::Stop(limiter.stop(user, *id, *by).await?.value),
            Verb::List => Answer::List(limiter.streams(user, None).await?),
            Verb::Look(id) => Answer::Look(limiter.stream(user, *id).await?),
            Verb::Limit => Answer::Limit(limiter.limit(user, None).await?),
            Verb::SetLimit(limit) => {
                limiter.set_limit(user, *limit).await?;
                Answer::LimitSet
            }
        })
    }
}

impl Answer {
    /// The instant at which it was decided, where the answer says so.
    pub fn now(&self) -> Option<Timestamp> {
        match self {
            Self::Start(Timestamped { now, .. }) | Self::Beat(Timestamped { now, .. }) => Some(*now),
            Self::Look(Timestamped { now, .. }) | Self::List(Timestamped { now, .. }) => Some(*now),
            Self::Stop(_) | Self::Limit(_) | Self::LimitSet => None,
        }
    }

    /// What sort of answer it is, for the count of them.
    pub fn sort(&self) -> &'static str {
        match self {
            Self::Start(Timestamped { value: answer, .. }) => match answer {
                StartOutcome::Started(_) => "answered: started",
                StartOutcome::Existing(_) => "answered: existing",
                StartOutcome::Ended(_) => "answered: ended",
                StartOutcome::KeyReused => "answered: key reused",
                StartOutcome::Denied(_) => "answered: denied",
            },
            Self::Beat(Timestamped { value: answer, .. }) => match answer {
                StreamState::Live(_) => "answered: renewed",
                StreamState::Inactive(_) => "answered: over",
                StreamState::NotFound => "answered: not found",
            },
            Self::Stop(Stop::Freed) => "answered: freed",
            Self::Stop(Stop::AlreadyGone) => "answered: already gone",
            Self::List(_) => "answered: list",
            Self::Look(_) => "answered: stream",
            Self::Limit(_) | Self::LimitSet => "answered: limit",
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.user)?;
        match &self.verb {
            Verb::Start(options, key) => {
                f.write_str("start")?;
                if let Some(key) = key {
                    write!(f, " key {key}")?;
                }
                if let Some(device) = &options.device_id {
                    write!(f, " on {}", DeviceId::as_str(device))?;
                }
                if !options.replaces.is_empty() {
                    write!(f, " replaces{}", shorts(&options.replaces))?;
                }
                let evicts = options.at_limit == Some(AtLimit::EvictOldest);
                f.write_str(if evicts { " evicting" } else { "" })
            }
            Verb::Beat(id) => write!(f, "heartbeat {}", Short(*id)),
            Verb::Stop(id, by) => write!(f, "stop {} by {by:?}", Short(*id)),
            Verb::List => f.write_str("list"),
            Verb::Look(id) => write!(f, "look {}", Short(*id)),
            Verb::Limit => f.write_str("limit"),
            Verb::SetLimit(limit) => write!(f, "set limit {}", limit.map_or(0, StreamLimit::get)),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(Timestamped { now, value: answer }) => match answer {
                StartOutcome::Started(new) | StartOutcome::Existing(new) => {
                    let how = if matches!(answer, StartOutcome::Started(_)) { "started" } else { "existing" };
                    let (id, until) = (Short(new.lease.stream_id), Until(new.lease.expires_at));
                    write!(f, "{how} {id} until {until}, ended{}, reaped {}", shorts(&new.ended), new.reaped)
                }
                StartOutcome::Ended(lease) => write!(f, "ended {}", Short(lease.stream_id)),
                StartOutcome::KeyReused => f.write_str("key reused"),
                StartOutcome::Denied(denial) => {
                    let ids = shorts(denial.streams.iter().map(|lease| &lease.stream_id));
                    write!(f, "denied at {}: limit {},{ids}", Until(*now), denial.limit)
                }
            },
            Self::Beat(Timestamped { now, value: answer }) | Self::Look(Timestamped { now, value: answer }) => {
                match answer {
                    StreamState::Live(lease) => write!(f, "live until {}", Until(lease.expires_at)),
                    StreamState::Inactive(_) => write!(f, "over at {}", Until(*now)),
                    StreamState::NotFound => f.write_str("not found"),
                }
            }
            Self::Stop(stop) => write!(f, "{stop:?}"),
            Self::List(Timestamped { now, value: answer }) => {
                let ids = shorts(answer.streams.iter().map(|lease| &lease.stream_id));
                write!(f, "at {}: limit {},{ids}", Until(*now), answer.limit)
            }
            Self::Limit(limit) => write!(f, "limit {}", limit.limit),
            Self::LimitSet => f.write_str("set"),
        }
    }
}
