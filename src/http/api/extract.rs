//! What a request carries: names in the path, bodies, the idempotency key. Each is checked whole, and a refusal names
//! every field that is wrong.

use poem::http::HeaderName;
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaMediaType, MetaParamIn, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::domain::lease::StreamLimit;
use crate::domain::names::{IdempotencyKey, Label, NameError, StreamId, UserName};
use crate::http::api::model::{FieldError, LimitBody, StartBody};
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::route_context::RouteContext;
use crate::limiter::StartOptions;

/// A name in the path. By hand and not by poem-openapi's own, whose errors know neither the parameter's name nor a plain
/// reason; called like it because its macro goes by the name.
pub struct Path<T>(pub T);

/// What can stand in the path.
pub trait PathParam: Sized + Send {
    const NAME: &'static str;

    fn schema() -> MetaSchema;

    fn parse(text: &str) -> std::result::Result<Self, NameError>;
}

/// The body of a start: none at all, empty whatever its type, or a JSON object.
pub struct StartInput(StartBody);

/// The body of a limit: a JSON object.
pub struct LimitInput(pub StreamLimit);

/// The `Idempotency-Key` header, if there is one.
pub struct IdempotencyKeyHeader(pub Option<IdempotencyKey>);

/// Whether a stop is an eviction: the query's `evict`.
pub struct EvictQuery(pub bool);

/// For patterns in the document, in JavaScript's regular expressions. That texts are in NFC, and that bytes are counted,
/// no pattern can say.
const CONTROLS: &str = r"\u0000-\u001f\u007f-\u009f";
const BIDIRECTIONAL_CONTROLS: &str = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069";
const WHITE_SPACE: &str = r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";

/// More than this is a mistake or an attack: a user holds at most 50 streams.
const MAX_REPLACES: usize = 10;

impl StartInput {
    /// Checks every field, so that one answer names all that is wrong.
    pub fn into_options(self, key: IdempotencyKeyHeader) -> Result<StartOptions, Problem> {
        let StartBody { device_id, device_name, content_id, replaces, at_limit } = self.0;
        let mut errors = Vec::new();
        let replaces = replaces.unwrap_or_default();
        if replaces.len() > MAX_REPLACES {
            let reason = format!("must name at most {MAX_REPLACES} streams, names {}", replaces.len());
            errors.push(FieldError { field: "replaces".to_owned(), reason });
        }
        let ids = replaces.iter().take(MAX_REPLACES).enumerate();
        let replaces = ids
            .filter_map(|(index, id)| checked(&mut errors, &format!("replaces[{index}]"), Some(StreamId::parse(id))));
        let options = StartOptions {
            idempotency_key: key.0,
            replaces: replaces.collect(),
            device_id: checked(&mut errors, "deviceId", device_id.as_deref().map(Label::parse)),
            device_name: checked(&mut errors, "deviceName", device_name.as_deref().map(Label::parse)),
            content_id: checked(&mut errors, "contentId", content_id.as_deref().map(Label::parse)),
            at_limit: at_limit.map(Into::into),
            token_limit: None,
        };
        if errors.is_empty() { Ok(options) } else { Err(Problem::fields(errors)) }
    }
}

fn checked<T>(
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

impl<'a, T: PathParam> ApiExtractor<'a> for Path<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    const PARAM_IS_REQUIRED: bool = true;
    type ParamType = String;
    type ParamRawType = String;

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Path)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(T::schema())))
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<String>) -> Result<Self> {
        let part =
            RouteContext::path_param(request, T::NAME).ok_or_else(|| Problem::field(T::NAME, "must be UTF-8"))?;
        T::parse(&part).map(Self).map_err(|error| Problem::field(T::NAME, &error.to_string()).into())
    }
}

impl PathParam for UserName {
    const NAME: &'static str = "userName";

    fn schema() -> MetaSchema {
        let description = "Whose streams are counted: opaque and case-sensitive, percent-encoded. 1 to 256 bytes of \
                           UTF-8 in NFC, without control or bidirectional control characters and without white space \
                           at either end.";
        let outer = format!("[^{CONTROLS}{BIDIRECTIONAL_CONTROLS}{WHITE_SPACE}]");
        MetaSchema {
            description: Some(description),
            pattern: Some(format!("^{outer}([^{CONTROLS}{BIDIRECTIONAL_CONTROLS}]*{outer})?$")),
            min_length: Some(1),
            max_length: Some(Self::MAX_BYTES),
            example: Some(json!("ann")),
            ..MetaSchema::new("string")
        }
    }

    fn parse(text: &str) -> std::result::Result<Self, NameError> {
        Self::parse(text)
    }
}

impl PathParam for StreamId {
    const NAME: &'static str = "streamId";

    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some("The id that start answered: a UUID, in any case."),
            example: Some(json!("6fa459ea-ee8a-4ca4-894e-db77e160355e")),
            ..MetaSchema::new_with_format("string", "uuid")
        }
    }

    fn parse(text: &str) -> std::result::Result<Self, NameError> {
        Self::parse(text)
    }
}

impl<'a> ApiExtractor<'a> for StartInput {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        StartBody::register(registry);
        if let Some(schema) = registry.schemas.get_mut(&*StartBody::name()) {
            describe_start(schema);
        }
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(json_request("What is started. May be left out.", StartBody::schema_ref(), false))
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let body = body.take()?.into_bytes().await.map_err(unreadable)?;
        if body.is_empty() {
            return Ok(Self(StartBody::default()));
        }
        check_media_type(request)?;
        Ok(Self(parse(&body)?.unwrap_or_default()))
    }
}

impl<'a> ApiExtractor<'a> for LimitInput {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        LimitBody::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(json_request("The limit.", LimitBody::schema_ref(), true))
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let body = body.take()?.into_bytes().await.map_err(unreadable)?;
        if !body.is_empty() {
            check_media_type(request)?;
        }
        let limit = if body.is_empty() { None } else { parse::<LimitBody>(&body)? };
        let limit = limit.and_then(|body| StreamLimit::new(body.limit));
        Ok(Self(limit.ok_or_else(|| Problem::field("limit", "must be a whole number from 1 to 50"))?))
    }
}

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

    /// By hand and not by poem-openapi's header parameter, which takes a value that is not ASCII for no value, and
    /// the first of two for the only one: either would quietly make a start that cannot be repeated safely.
    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        options: ExtractParamOptions<String>,
    ) -> Result<Self> {
        let name = HeaderName::try_from(options.name).map_err(|_| Problem::field(options.name, "is not a header"))?;
        let mut values = request.headers().get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(value), None) => match IdempotencyKey::parse(value.as_bytes()) {
                Ok(key) => Ok(Self(Some(key))),
                Err(error) => Err(Problem::field(options.name, &error.to_string()).into()),
            },
            (Some(_), Some(_)) => Err(Problem::field(options.name, "must be sent once").into()),
        }
    }
}

impl<'a> ApiExtractor<'a> for EvictQuery {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = bool;
    type ParamRawType = bool;

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(bool::schema_ref())
    }

    /// By hand and not by poem-openapi's query parameter, which takes the first of two, and explains itself in terms of
    /// its own types.
    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        options: ExtractParamOptions<bool>,
    ) -> Result<Self> {
        let query: Vec<(String, String)> = request.params()?;
        let mut values = query.iter().filter(|(name, _)| name == options.name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (None, _) | (Some("false"), None) => Ok(Self(false)),
            (Some("true"), None) => Ok(Self(true)),
            (Some(_), None) => Err(Problem::field(options.name, "must be true or false").into()),
            (Some(_), Some(_)) => Err(Problem::field(options.name, "must be given once").into()),
        }
    }
}

/// Adds what poem-openapi cannot derive: that `null` means absent, and what a text may hold.
fn describe_start(schema: &mut MetaSchema) {
    schema.nullable = true;
    for (name, property) in &mut schema.properties {
        let MetaSchemaRef::Inline(property) = property else { continue };
        property.nullable = true;
        match *name {
            "replaces" => {
                property.items = Some(Box::new(MetaSchemaRef::Inline(Box::new(<StreamId as PathParam>::schema()))));
            }
            // A reference would not be nullable.
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

fn unreadable(_: impl std::error::Error) -> Problem {
    Problem::new(ProblemCode::InvalidRequest, "the request body could not be read")
}

/// A body without a media type is read as JSON.
fn check_media_type(request: &Request) -> Result<(), Problem> {
    let Some(value) = request.headers().get(poem::http::header::CONTENT_TYPE) else { return Ok(()) };
    let essence =
        value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::new(ProblemCode::UnsupportedMediaType, "send the body as application/json"))
}

/// `None` for `null`. Refuses unknown fields and repeated keys, and names the field where it knows it.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<Option<T>, Problem> {
    // serde would also read an object's fields from an array, by position.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(ProblemCode::InvalidRequest, "the body must be a JSON object, is an array"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize::<_, Option<T>>(&mut json).map_err(|error| {
        // serde's words for what JSON calls array and object.
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
