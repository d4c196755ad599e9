//! Request bodies. Unknown fields and repeated keys are rejected.

use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::params::IdempotencyKeyHeader;
use super::path::PathParam;
use super::patterns::CONTROLS;
use crate::domain::lease::StreamLimit;
use crate::domain::names::{Label, NameError, StreamId};
use crate::http::api::model::problem::FieldError;
use crate::http::api::model::requests::{LimitRequest, StartRequest};
use crate::http::api::problems::{Problem, ProblemCode};
use crate::limiter::StartOptions;

/// The body of a start: an optional JSON object. An empty body may have any media type.
pub(crate) struct StartBody(StartRequest);

/// The body of a request that sets a limit: a JSON object.
pub(crate) struct LimitBody(pub(crate) StreamLimit);

/// Maximum length of `replaces`. A start takes over from few streams, so a longer list is a mistake or an attack.
const MAX_REPLACES: usize = 10;

impl StartBody {
    /// Validates all fields, so that one response names all invalid ones.
    pub(crate) fn into_options(self, key: IdempotencyKeyHeader) -> Result<StartOptions, Problem> {
        let StartRequest { device_id, device_name, content_id, replaces, at_limit } = self.0;
        let mut errors = Vec::new();
        let replaces = replaces.unwrap_or_default();
        if replaces.len() > MAX_REPLACES {
            let reason = format!("must have at most {MAX_REPLACES} stream ids, has {}", replaces.len());
            errors.push(FieldError { field: "replaces".to_owned(), reason });
        }
        let ids = replaces.iter().take(MAX_REPLACES).enumerate();
        let replaces = ids.filter_map(|(index, id)| {
            valid_or_push(&mut errors, &format!("replaces[{index}]"), Some(StreamId::parse(id)))
        });
        let options = StartOptions {
            idempotency_key: key.0,
            replaces: replaces.collect(),
            device_id: valid_or_push(&mut errors, "deviceId", device_id.as_deref().map(Label::parse)),
            device_name: valid_or_push(&mut errors, "deviceName", device_name.as_deref().map(Label::parse)),
            content_id: valid_or_push(&mut errors, "contentId", content_id.as_deref().map(Label::parse)),
            at_limit: at_limit.map(Into::into),
            token_limit: None,
        };
        if errors.is_empty() { Ok(options) } else { Err(Problem::fields(errors)) }
    }
}

/// The value if it is valid. Otherwise its error is added to `errors`.
fn valid_or_push<T>(
    errors: &mut Vec<FieldError>,
    field: &str,
    value: Option<std::result::Result<T, NameError>>,
) -> Option<T> {
    match value? {
        Ok(value) => Some(value),
        Err(error) => {
            errors.push(FieldError { field: field.to_owned(), reason: error.to_string() });
            None
        }
    }
}

impl<'a> ApiExtractor<'a> for StartBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        StartRequest::register(registry);
        if let Some(schema) = registry.schemas.get_mut(&*StartRequest::name()) {
            complete_schema(schema);
        }
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(json_request("Options of the start. May be omitted.", StartRequest::schema_ref(), false))
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        Ok(Self(read_json(request, body).await?.unwrap_or_default()))
    }
}

impl<'a> ApiExtractor<'a> for LimitBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        LimitRequest::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(json_request("The limit.", LimitRequest::schema_ref(), true))
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let limit = read_json::<LimitRequest>(request, body).await?;
        let limit = limit.and_then(|request| StreamLimit::new(request.limit));
        Ok(Self(limit.ok_or_else(|| Problem::field("limit", "must be a whole number from 1 to 50"))?))
    }
}

/// Completes the schema that poem-openapi derives: adds `null` for absent fields, and the allowed characters.
fn complete_schema(start_request: &mut MetaSchema) {
    start_request.nullable = true;
    for (name, property) in &mut start_request.properties {
        let MetaSchemaRef::Inline(property) = property else { continue };
        property.nullable = true;
        match *name {
            "replaces" => {
                property.items = Some(Box::new(MetaSchemaRef::Inline(Box::new(<StreamId as PathParam>::schema()))));
            }
            // Inline, because a reference cannot be nullable in OpenAPI 3.0.
            "atLimit" => {
                property.ty = "string";
                property.all_of.clear();
                property.enum_items = vec![json!("reject"), json!("evictOldest"), json!(null)];
            }
            _ => property.pattern = Some(format!("^[^{CONTROLS}]+$")),
        }
    }
}

fn json_request(description: &'static str, schema: MetaSchemaRef, required: bool) -> MetaRequest {
    let content = vec![MetaMediaType { content_type: "application/json", schema }];
    MetaRequest { description: Some(description), content, required }
}

/// Returns `None` for an empty body and for `null`.
async fn read_json<T: DeserializeOwned>(request: &Request, body: &mut RequestBody) -> Result<Option<T>> {
    let unreadable = |_| Problem::new(ProblemCode::InvalidRequest, "the request body could not be read");
    let body = body.take()?.into_bytes().await.map_err(unreadable)?;
    if body.is_empty() {
        return Ok(None);
    }
    check_media_type(request)?;
    Ok(parse(&body)?)
}

/// A body without `Content-Type` is read as JSON.
fn check_media_type(request: &Request) -> Result<(), Problem> {
    let Some(value) = request.headers().get(poem::http::header::CONTENT_TYPE) else { return Ok(()) };
    let essence =
        value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::new(ProblemCode::UnsupportedMediaType, "send the body as application/json"))
}

/// Returns `None` for `null`. An error names the field if serde reports it.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<Option<T>, Problem> {
    // Arrays are rejected, because serde would accept an array and read the object's fields by position.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(ProblemCode::InvalidRequest, "the body must be a JSON object, not an array"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize::<_, Option<T>>(&mut json).map_err(|error| {
        // Replaces serde's terms: it calls an array a sequence and an object a map.
        let reason = error.inner().to_string().replacen("type: sequence", "type: array", 1);
        let (field, reason) = (error.path().to_string(), reason.replacen("type: map", "type: object", 1));
        if matches!(field.as_str(), "" | ".") || !error.inner().is_data() {
            Problem::new(ProblemCode::InvalidRequest, format!("the body is not valid: {reason}"))
        } else {
            Problem::field(&field, reason.split(" at line ").next().unwrap_or_default())
        }
    })?;
    json.end()
        .map_err(|error| Problem::new(ProblemCode::InvalidRequest, format!("the body is not valid: {error}")))?;
    Ok(parsed)
}
