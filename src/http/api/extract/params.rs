//! The `Idempotency-Key` header and the query parameters.

use poem::http::HeaderName;
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaParamIn, MetaSchema, MetaSchemaRef};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde_json::json;

use crate::domain::names::{DisplayText, IdempotencyKey};
use crate::http::api::problems::Problem;

/// The `Idempotency-Key` header. An invalid or repeated header is an error. If it were ignored, the start would not be
/// safe to retry.
pub(crate) struct IdempotencyKeyHeader(pub(crate) Option<IdempotencyKey>);

/// A query parameter that is `true` or `false`. The default is `false`.
pub(crate) struct FlagQuery(pub(crate) bool);

/// The `content` query parameter. An empty one is no content, which no grant is for.
pub(crate) struct ContentQuery(pub(crate) Option<String>);

impl<'a> ApiExtractor<'a> for IdempotencyKeyHeader {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = String;
    type ParamRawType = String;

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(MetaSchema {
            min_length: Some(1),
            max_length: Some(255),
            pattern: Some("^[!-~]+$".to_owned()),
            example: Some(json!("8b1f0f6e-play-1")),
            ..MetaSchema::new("string")
        })))
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        options: ExtractParamOptions<String>,
    ) -> Result<Self> {
        let name = HeaderName::try_from(options.name)
            .map_err(|_| Problem::field(options.name, "is not a valid header name"))?;
        let mut values = request.headers().get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(value), None) => match IdempotencyKey::parse(value.as_bytes()) {
                Ok(key) => Ok(Self(Some(key))),
                Err(error) => Err(Problem::field(options.name, &error.to_string()).into()),
            },
            (Some(_), Some(_)) => Err(Problem::field(options.name, "must be sent at most once").into()),
        }
    }
}

impl<'a> ApiExtractor<'a> for FlagQuery {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = bool;
    type ParamRawType = bool;

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(bool::schema_ref())
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        options: ExtractParamOptions<bool>,
    ) -> Result<Self> {
        match single_query_value(request, options.name)?.as_deref() {
            None | Some("false") => Ok(Self(false)),
            Some("true") => Ok(Self(true)),
            Some(_) => Err(Problem::field(options.name, "must be true or false").into()),
        }
    }
}

impl<'a> ApiExtractor<'a> for ContentQuery {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = String;
    type ParamRawType = String;

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        let schema = MetaSchema { max_length: Some(DisplayText::MAX_BYTES), ..MetaSchema::new("string") };
        Some(MetaSchemaRef::Inline(Box::new(schema)))
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        options: ExtractParamOptions<String>,
    ) -> Result<Self> {
        Ok(Self(single_query_value(request, options.name)?))
    }
}

/// The value of a query parameter that may be sent once.
fn single_query_value(request: &Request, name: &str) -> Result<Option<String>> {
    let query: Vec<(String, String)> = request.params()?;
    let mut values = query.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Problem::field(name, "must be sent at most once").into()),
    }
}
