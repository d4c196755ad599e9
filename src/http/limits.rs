//! The operations on a user's own limit.

use std::sync::Arc;

use poem_openapi::OpenApi;

use super::answers::{DoneAnswer, Failure, LimitAnswer, SetLimitProblems, UserProblems};
use super::auth::caller::{Administrator, Caller};
use super::input::{LimitInput, Path};
use super::payload::Json;
use super::streams::{Tag, store_problem};
use super::wire::{LimitObject, LimitSource};
use crate::limiter::{Limiter, UserLimit};
use crate::names::UserName;

pub struct LimitsApi {
    pub limiter: Arc<Limiter>,
}

#[OpenApi]
impl LimitsApi {
    /// Ask for a user's limit
    #[oai(path = "/v1/users/:userName/limit", method = "get", operation_id = "getLimit", tag = "Tag::Limits")]
    async fn get_limit(
        &self,
        caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<LimitAnswer, Failure<UserProblems>> {
        let user = user.0;
        let limit = self.limiter.limit(&user, caller.token_limit).await.map_err(store_problem)?;
        let UserLimit { limit, source } = limit;
        Ok(LimitAnswer::Limit(Json(LimitObject {
            user_name: user.to_string(),
            limit: limit.get(),
            source: source.into(),
        })))
    }

    /// Set a user's limit
    ///
    /// 1 to 50. Lowering it ends nobody, and refuses starts until there is room. Where tokens are asked for, only an
    /// administrator's may set it; a limit that a user's token says goes before it.
    #[oai(path = "/v1/users/:userName/limit", method = "put", operation_id = "setLimit", tag = "Tag::Limits")]
    async fn set_limit(
        &self,
        _administrator: Administrator,
        #[oai(name = "userName")] user: Path<UserName>,
        body: LimitInput,
    ) -> Result<LimitAnswer, Failure<SetLimitProblems>> {
        let user = user.0;
        self.limiter.set_limit(&user, Some(body.0)).await.map_err(store_problem)?;
        Ok(LimitAnswer::Limit(Json(LimitObject {
            user_name: user.to_string(),
            limit: body.0.get(),
            source: LimitSource::User,
        })))
    }

    /// Give a user the default limit again
    #[oai(path = "/v1/users/:userName/limit", method = "delete", operation_id = "resetLimit", tag = "Tag::Limits")]
    async fn reset_limit(
        &self,
        _administrator: Administrator,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<DoneAnswer, Failure<UserProblems>> {
        self.limiter.set_limit(&user.0, None).await.map_err(store_problem)?;
        Ok(DoneAnswer::Done)
    }
}
