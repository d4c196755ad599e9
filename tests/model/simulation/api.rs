//! Requests and responses of the simulated clients.

use std::fmt;

use stream_manager::domain::admission::{AtLimit, StartOutcome};
use stream_manager::domain::lease::{StreamLimit, Timestamp};
use stream_manager::domain::names::{DeviceId, StreamId, UserName};
use stream_manager::limiter::{Limiter, StartOptions, Timestamped, Usage, UserLimit};
use stream_manager::store::{Result, Stop, StoppedBy, StreamState};

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
    Heartbeat(StreamId),
    Stop(StreamId, StoppedBy),
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
    List(Timestamped<Usage>),
    Get(Timestamped<StreamState>),
    GetLimit(UserLimit),
    SetLimit,
}

impl ApiRequest {
    pub fn start_options(&self) -> Option<&StartOptions> {
        match &self.operation {
            Operation::Start(options, _) => Some(options),
            _ => None,
        }
    }

    pub async fn send(&self, limiter: &Limiter) -> Result<ApiResponse> {
        let user = &self.user;
        Ok(match &self.operation {
            Operation::Start(options, _) => ApiResponse::Start(limiter.start(user, options.clone()).await?),
            Operation::Heartbeat(id) => ApiResponse::Heartbeat(limiter.heartbeat(user, *id).await?),
            Operation::Stop(id, by) => ApiResponse::Stop(limiter.stop(user, *id, *by).await?.value),
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
            Self::Stop(_) | Self::GetLimit(_) | Self::SetLimit => None,
        }
    }

    /// The name of the counter for responses of this kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start(Timestamped { value: outcome, .. }) => match outcome {
                StartOutcome::Started(_) => "response: started",
                StartOutcome::Existing(_) => "response: existing",
                StartOutcome::Ended(_) => "response: ended",
                StartOutcome::KeyReused => "response: key reused",
                StartOutcome::Denied(_) => "response: denied",
            },
            Self::Heartbeat(Timestamped { value: state, .. }) => match state {
                StreamState::Live(_) => "response: renewed",
                StreamState::Inactive(_) => "response: inactive",
                StreamState::NotFound => "response: not found",
            },
            Self::Stop(Stop::Freed) => "response: slot freed",
            Self::Stop(Stop::AlreadyGone) => "response: nothing to stop",
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
                let evicts = options.at_limit == Some(AtLimit::EvictOldest);
                f.write_str(if evicts { " evicting" } else { "" })
            }
            Operation::Heartbeat(id) => write!(f, "heartbeat {}", ShortId(*id)),
            Operation::Stop(id, by) => write!(f, "stop {} by {by:?}", ShortId(*id)),
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
                    write!(f, "{kind} {id} until {until}, ended{}, reaped {}", short_ids(&new.ended), new.reaped)
                }
                StartOutcome::Ended(lease) => write!(f, "ended {}", ShortId(lease.stream_id)),
                StartOutcome::KeyReused => f.write_str("key reused"),
                StartOutcome::Denied(denial) => {
                    let ids = short_ids(denial.streams.iter().map(|lease| &lease.stream_id));
                    write!(f, "denied at {}: limit {},{ids}", ShortTime(*now), denial.limit)
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
            Self::List(Timestamped { now, value: usage }) => {
                let ids = short_ids(usage.streams.iter().map(|lease| &lease.stream_id));
                write!(f, "at {}: limit {},{ids}", ShortTime(*now), usage.limit)
            }
            Self::GetLimit(limit) => write!(f, "limit {}", limit.limit),
            Self::SetLimit => f.write_str("limit set"),
        }
    }
}
