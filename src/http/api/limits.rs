//! The operations on a user's limit.

use std::sync::Arc;

use poem_openapi::OpenApi;

use crate::domain::names::UserName;
use crate::http::api::caller::{Administrator, Caller};
use crate::http::api::extract::body::LimitBody;
use crate::http::api::extract::path::Path;
use crate::http::api::json::Json;
use crate::http::api::model::responses::{Limit, LimitSource};
use crate::http::api::problems::Problem;
use crate::http::api::responses::{Failure, LimitResponse, NoContentResponse, SetLimitProblems, UserProblems};
use crate::http::api::tags::Tag;
use crate::limiter::{Limiter, UserLimit};

pub(crate) struct LimitsApi {
    pub(crate) limiter: Arc<Limiter>,
}

#[OpenApi]
impl LimitsApi {
    /// Get a user's limit
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
    /// The limit must be 1 to 50. A lower limit ends no streams, but starts are denied until fewer streams than the limit
    /// are live. If authentication is enabled, only an administrator may set it. A limit in the user's token overrides
    /// it.
    #[oai(path = "/v1/users/:userName/limit", method = "put", operation_id = "setLimit", tag = "Tag::Limits")]
    async fn set_limit(
        &self,
        _administrator: Administrator,
        #[oai(name = "userName")] user: Path<UserName>,
        body: LimitBody,
    ) -> Result<LimitResponse, Failure<SetLimitProblems>> {
        let user = user.0;
        self.limiter.set_limit(&user, Some(body.0)).await.map_err(Problem::from)?;
        Ok(LimitResponse::Limit(Json(Limit {
            user_name: user.to_string(),
            limit: body.0.get(),
            source: LimitSource::User,
        })))
    }

    /// Reset a user's limit to the default
    #[oai(path = "/v1/users/:userName/limit", method = "delete", operation_id = "resetLimit", tag = "Tag::Limits")]
    async fn reset_limit(
        &self,
        _administrator: Administrator,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<NoContentResponse, Failure<UserProblems>> {
        self.limiter.set_limit(&user.0, None).await.map_err(Problem::from)?;
        Ok(NoContentResponse::Done)
    }
}
