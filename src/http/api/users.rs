//! The operations on a user: the limit, and erasure.

use std::sync::Arc;

use poem_openapi::OpenApi;

use crate::domain::lease::UserLimit;
use crate::domain::names::{StreamId, UserName};
use crate::http::api::caller::{Administrator, Caller};
use crate::http::api::extract::body::LimitBody;
use crate::http::api::extract::path::Path;
use crate::http::api::json::Json;
use crate::http::api::model::responses::{Limit, LimitSource, NewLimit};
use crate::http::api::problems::Problem;
use crate::http::api::responses::{
    BodyProblems, Failure, LimitResponse, NewLimitResponse, NoContentResponse, UserProblems,
};
use crate::http::api::tags::Tag;
use crate::limiter::Limiter;

pub(crate) struct UsersApi {
    pub(crate) limiter: Arc<Limiter>,
}

#[OpenApi]
impl UsersApi {
    /// Get a user's limit
    ///
    /// The limit that applies to starts with the same token, and its origin.
    #[oai(path = "/v1/users/:userName/limit", method = "get", operation_id = "getLimit", tag = "Tag::Limits")]
    async fn get_limit(
        &self,
        caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<LimitResponse, Failure<UserProblems>> {
        let user = user.0;
        let limit = self.limiter.limit(&user, caller.token_limit).await.map_err(Problem::from)?;
        let UserLimit { limit, source } = limit;
        Ok(LimitResponse::Limit(Json(Limit {
            user_name: user.to_string(),
            limit: limit.get(),
            source: source.into(),
        })))
    }

    /// Set a user's limit
    ///
    /// The limit must be 0 to 50. 0 blocks the user: every start is denied, whatever the user's token contains, unless the
    /// limit is in observe mode. A lower limit ends no streams unless `endExcess` is true, but starts are denied until
    /// fewer streams than the limit are live. If authentication is enabled, only an administrator may set it. A limit in
    /// the user's token overrides it, unless it is 0.
    #[oai(path = "/v1/users/:userName/limit", method = "put", operation_id = "setLimit", tag = "Tag::Limits")]
    async fn set_limit(
        &self,
        _administrator: Administrator,
        #[oai(name = "userName")] user: Path<UserName>,
        body: LimitBody,
    ) -> Result<NewLimitResponse, Failure<BodyProblems>> {
        let (user, LimitBody { limit, end_excess }) = (user.0, body);
        let ended = if end_excess {
            Some(self.limiter.set_limit_and_end_excess(&user, limit).await.map_err(Problem::from)?)
        } else {
            self.limiter.set_limit(&user, Some(limit)).await.map_err(Problem::from)?;
            None
        };
        Ok(NewLimitResponse::Limit(Json(NewLimit {
            limit: Limit { user_name: user.to_string(), limit: limit.get(), source: LimitSource::User },
            ended: ended.map(|ended| ended.into_iter().map(StreamId::uuid).collect()),
        })))
    }

    /// Reset a user's limit to the default
    ///
    /// Ends no streams. If authentication is enabled, only an administrator may reset it.
    #[oai(path = "/v1/users/:userName/limit", method = "delete", operation_id = "resetLimit", tag = "Tag::Limits")]
    async fn reset_limit(
        &self,
        _administrator: Administrator,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<NoContentResponse, Failure<UserProblems>> {
        self.limiter.set_limit(&user.0, None).await.map_err(Problem::from)?;
        Ok(NoContentResponse::Done)
    }

    /// Erase a user
    ///
    /// Ends all streams of the user and deletes everything that is stored about the user, including the limit. Returns
    /// 204 for an unknown user too. After a 5xx, repeat the request: it completes the erasure. The heartbeats of the ended
    /// streams return 404, so a player that still plays starts again. To keep the user out, set the limit to 0 instead.
    /// If authentication is enabled, only an administrator may erase a user.
    #[oai(path = "/v1/users/:userName", method = "delete", operation_id = "eraseUser", tag = "Tag::Users")]
    async fn erase_user(
        &self,
        _administrator: Administrator,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<NoContentResponse, Failure<UserProblems>> {
        self.limiter.erase(&user.0).await.map_err(Problem::from)?;
        Ok(NoContentResponse::Done)
    }
}
