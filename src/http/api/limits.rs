//! The operations on a user's own limit.

use std::sync::Arc;

use poem_openapi::OpenApi;

use crate::domain::names::UserName;
use crate::http::api::caller::{Administrator, Caller};
use crate::http::api::extract::{LimitInput, Path};
use crate::http::api::json::Json;
use crate::http::api::model::{Limit, LimitSource};
use crate::http::api::responses::{DoneResponse, Failure, LimitResponse, SetLimitProblems, UserProblems};
use crate::http::api::streams::{Tag, store_problem};
use crate::limiter::{Limiter, UserLimit};

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
    ) -> Result<LimitResponse, Failure<UserProblems>> {
        let user = user.0;
        let limit = self.limiter.limit(&user, caller.token_limit).await.map_err(store_problem)?;
        let UserLimit { limit, source } = limit;
        Ok(LimitResponse::Limit(Json(Limit {
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
    ) -> Result<LimitResponse, Failure<SetLimitProblems>> {
        let user = user.0;
        self.limiter.set_limit(&user, Some(body.0)).await.map_err(store_problem)?;
        Ok(LimitResponse::Limit(Json(Limit {
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
    ) -> Result<DoneResponse, Failure<UserProblems>> {
        self.limiter.set_limit(&user.0, None).await.map_err(store_problem)?;
        Ok(DoneResponse::Done)
    }
}
