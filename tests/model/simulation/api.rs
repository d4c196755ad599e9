//! Requests and responses of the simulated clients.

use std::fmt;

use stream_manager::domain::admission::{AtLimit, OverLimit, StartOutcome};
use stream_manager::domain::lease::{StreamLimit, Timestamp, UserLimit};
use stream_manager::domain::names::{ContentId, DeviceId, Message, StreamId, UserName};
use stream_manager::domain::rules::RuleName;
use stream_manager::limiter::{Limiter, StartOptions, Timestamped, Usage};
use stream_manager::store::{Result, Stop, StreamState};

use super::state::{ShortId, ShortTime, short_ids};

#[derive(Clone, Debug)]
pub struct ApiRequest {
    pub user: UserName,
    pub operation: Operation,
}

#[derive(Clone, Debug)]
pub enum Operation {
    /// The options, and the text of the idempotency key. `IdempotencyKey` does not expose its text.
    Start(StartOptions, Option<String>),
    Heartbeat(StreamId, Option<ContentId>),
    Stop(StreamId),
    /// Ends the listed streams, or all streams.
    Evict(Option<Vec<StreamId>>, Option<Message>),
    /// Sets the limit, and ends the streams that exceed it.
    EndExcess(StreamLimit),
    Erase,
    List,
    Get(StreamId),
    GetLimit,
    SetLimit(Option<StreamLimit>),
}

#[derive(Clone, Debug)]
pub enum ApiResponse {
    Start(Timestamped<StartOutcome>),
    Heartbeat(Timestamped<StreamState>),
    Stop(Stop),
    /// The streams that an eviction, or a request that sets a limit, has ended.
    Ended(Vec<StreamId>),
    Erased,
    List(Timestamped<Usage>),
    Get(Timestamped<StreamState>),
    GetLimit(UserLimit),
    SetLimit,
}

impl ApiRequest {
    pub async fn send(&self, limiter: &Limiter) -> Result<ApiResponse> {
        let user = &self.user;
        Ok(match &self.operation {
            Operation::Start(options, _) => ApiResponse::Start(limiter.start(user, options.clone()).await?),
            Operation::Heartbeat(id, content) => {
                ApiResponse::Heartbeat(limiter.heartbeat(user, *id, content.clone()).await?)
            }
            Operation::Stop(id) => ApiResponse::Stop(limiter.stop(user, *id).await?),
            Operation::Evict(ids, message) => {
                ApiResponse::Ended(limiter.evict(user, ids.clone(), message.clone()).await?)
            }
            Operation::EndExcess(limit) => ApiResponse::Ended(limiter.set_limit_and_end_excess(user, *limit).await?),
            Operation::Erase => {
                limiter.erase(user).await?;
                ApiResponse::Erased
            }
            Operation::List => ApiResponse::List(limiter.streams(user, None).await?),
            Operation::Get(id) => ApiResponse::Get(limiter.stream(user, *id).await?),
            Operation::GetLimit => ApiResponse::GetLimit(limiter.limit(user, None).await?),
            Operation::SetLimit(limit) => {
                limiter.set_limit(user, *limit).await?;
                ApiResponse::SetLimit
            }
        })
    }
}

impl ApiResponse {
    /// The time that the service used for the operation. Some responses do not contain it.
    pub fn now(&self) -> Option<Timestamp> {
        match self {
            Self::Start(Timestamped { now, .. }) => Some(*now),
            Self::Heartbeat(Timestamped { now, .. }) | Self::Get(Timestamped { now, .. }) => Some(*now),
            Self::List(Timestamped { now, .. }) => Some(*now),
            Self::Stop(_) | Self::Ended(_) | Self::Erased | Self::GetLimit(_) | Self::SetLimit => None,
        }
    }

    /// Whether the response is a denial that no rule causes.
    pub fn is_denied_by_limit(&self) -> bool {
        let Self::Start(Timestamped { value: StartOutcome::Denied(denial), .. }) = self else { return false };
        denial.rule.is_none()
    }

    /// The name under which responses of this kind are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start(Timestamped { value: outcome, .. }) => match outcome {
                StartOutcome::Started(started) if !started.over_limit.is_empty() => "response: over a limit",
                StartOutcome::Started(_) => "response: started",
                StartOutcome::Existing(_) => "response: existing",
                StartOutcome::Ended(_) => "response: ended",
                StartOutcome::KeyReused => "response: key reused",
                StartOutcome::Denied(denial) if denial.rule.is_some() && denial.limit.is_blocked() => {
                    "response: forbidden by a rule"
                }
                StartOutcome::Denied(denial) if denial.rule.is_some() => "response: denied by a rule",
                StartOutcome::Denied(denial) if denial.limit.is_blocked() => "response: blocked",
                StartOutcome::Denied(_) => "response: denied",
            },
            Self::Heartbeat(Timestamped { value: state, .. }) => match state {
                StreamState::Live(_) => "response: renewed",
                StreamState::Inactive(_) => "response: inactive",
                StreamState::NotFound => "response: not found",
            },
            Self::Stop(Stop::Freed) => "response: slot freed",
            Self::Stop(Stop::AlreadyGone) => "response: nothing to stop",
            Self::Ended(ended) if ended.is_empty() => "response: none ended",
            Self::Ended(_) => "response: streams ended",
            Self::Erased => "response: erased",
            Self::List(_) => "response: list",
            Self::Get(_) => "response: stream",
            Self::GetLimit(_) | Self::SetLimit => "response: limit",
        }
    }
}

impl fmt::Display for ApiRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.user)?;
        match &self.operation {
            Operation::Start(options, key) => {
                f.write_str("start")?;
                if let Some(key) = key {
                    write!(f, " key {key}")?;
                }
                if let Some(device) = &options.device_id {
                    write!(f, " on {}", DeviceId::as_str(device))?;
                }
                if !options.replaces.is_empty() {
                    write!(f, " replaces{}", short_ids(&options.replaces))?;
                }
                if let Some(limit) = options.token_limit {
                    write!(f, " with limit {limit}")?;
                }
                for (name, value) in options.labels.overridden_by(&options.token_labels).iter() {
                    write!(f, " {name}={value}")?;
                }
                let evicts = options.at_limit == Some(AtLimit::EvictOldest);
                f.write_str(if evicts { " evicting" } else { "" })
            }
            Operation::Heartbeat(id, None) => write!(f, "heartbeat {}", ShortId(*id)),
            Operation::Heartbeat(id, Some(content)) => write!(f, "heartbeat {} with {content}", ShortId(*id)),
            Operation::Stop(id) => write!(f, "stop {}", ShortId(*id)),
            Operation::Evict(ids, message) => {
                match ids {
                    Some(ids) => write!(f, "evict{}", short_ids(ids))?,
                    None => f.write_str("evict all")?,
                }
                f.write_str(if message.is_some() { " with a message" } else { "" })
            }
            Operation::EndExcess(limit) => write!(f, "set limit {limit} and end the excess"),
            Operation::Erase => f.write_str("erase"),
            Operation::List => f.write_str("list"),
            Operation::Get(id) => write!(f, "get {}", ShortId(*id)),
            Operation::GetLimit => f.write_str("get limit"),
            Operation::SetLimit(Some(limit)) => write!(f, "set limit {limit}"),
            Operation::SetLimit(None) => f.write_str("delete limit"),
        }
    }
}

impl fmt::Display for ApiResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(Timestamped { now, value: outcome }) => match outcome {
                StartOutcome::Started(new) | StartOutcome::Existing(new) => {
                    let kind = if matches!(outcome, StartOutcome::Started(_)) { "started" } else { "existing" };
                    let (id, until) = (ShortId(new.lease.stream_id), ShortTime(new.lease.expires_at));
                    let ended = short_ids(&new.ended_ids());
                    write!(f, "{kind} {id} until {until}, ended{ended}, reaped {}", new.reaped)?;
                    for OverLimit { rule, limit, count } in &new.over_limit {
                        write!(
                            f,
                            ", over {}: {count} of {limit}",
                            rule.as_ref().map_or("the limit", RuleName::as_str)
                        )?;
                    }
                    Ok(())
                }
                StartOutcome::Ended(lease) => write!(f, "ended {}", ShortId(lease.stream_id)),
                StartOutcome::KeyReused => f.write_str("key reused"),
                StartOutcome::Denied(denial) => {
                    let ids = short_ids(denial.streams.iter().map(|lease| &lease.stream_id));
                    let rule = denial.rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
                    write!(f, "denied at {}{rule}: limit {},{ids}", ShortTime(*now), denial.limit)
                }
            },
            Self::Heartbeat(Timestamped { now, value: state }) | Self::Get(Timestamped { now, value: state }) => {
                match state {
                    StreamState::Live(lease) => write!(f, "live until {}", ShortTime(lease.expires_at)),
                    StreamState::Inactive(_) => write!(f, "inactive at {}", ShortTime(*now)),
                    StreamState::NotFound => f.write_str("not found"),
                }
            }
            Self::Stop(stop) => write!(f, "{stop:?}"),
            Self::Ended(ids) => write!(f, "ended{}", short_ids(ids)),
            Self::Erased => f.write_str("erased"),
            Self::List(Timestamped { now, value: usage }) => {
                let ids = short_ids(usage.streams.iter().map(|lease| &lease.stream_id));
                write!(f, "at {}: limit {},{ids}", ShortTime(*now), usage.limit)
            }
            Self::GetLimit(limit) => write!(f, "limit {}", limit.limit),
            Self::SetLimit => f.write_str("limit set"),
        }
    }
}
