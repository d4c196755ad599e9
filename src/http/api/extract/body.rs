//! Request bodies. Unknown fields are ignored, so that a newer player works with an older service. Texts that are only
//! displayed are cleaned. `null` and empty texts mean absent. Repeated fields and wrong types are rejected.

use std::collections::BTreeMap;

use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use super::field_names::field_names;
use super::json_body::{parse, read, read_content, read_json};
use super::params::IdempotencyKeyHeader;
use super::path::PathParam;
use super::patterns::{BIDIRECTIONAL_CONTROLS, CONTROLS};
use crate::domain::labels::{LabelName, LabelValue, Labels, TooManyLabels};
use crate::domain::lease::StreamLimit;
use crate::domain::names::{ContentId, DeviceId, DisplayText, Message, NameError, StreamId};
use crate::http::api::model::problem::FieldError;
use crate::http::api::model::requests::{EvictionRequest, HeartbeatRequest, LimitRequest, StartRequest};
use crate::http::api::problems::Problem;
use crate::limiter::StartOptions;

/// The body of a start: an optional JSON object. An empty body may have any media type.
pub(crate) struct StartBody(StartRequest);

/// The body of a heartbeat: the content that is played now. A heartbeat must not fail because of its body. The media type is
/// therefore ignored, and so is a body that is not a JSON object with a `contentId`.
pub(crate) struct HeartbeatBody(pub(crate) Option<ContentId>);

/// The body of an eviction: an optional JSON object.
pub(crate) struct EvictionBody {
    /// `None` means all streams.
    pub(crate) stream_ids: Option<Vec<StreamId>>,
    pub(crate) message: Option<Message>,
}

/// The body of a request that sets a limit: a JSON object.
pub(crate) struct LimitBody {
    pub(crate) limit: StreamLimit,
    pub(crate) end_excess: bool,
}

/// Maximum length of `replaces`. A start replaces only a few streams, so a longer list is a mistake or an attack.
const MAX_REPLACES: usize = 10;
/// Maximum length of `streamIds`. A user has at most this many streams.
const MAX_EVICTIONS: usize = StreamLimit::MAX as usize;

impl StartBody {
    /// Validates all fields, so that one response names all invalid ones.
    pub(crate) fn into_options(self, key: IdempotencyKeyHeader) -> Result<StartOptions, Problem> {
        let StartRequest { device_id, device_name, content_id, replaces, at_limit, labels } = self.0;
        let mut errors = Vec::new();
        let replaces = parse_ids(&mut errors, "replaces", &replaces.unwrap_or_default(), MAX_REPLACES);
        let device_id = device_id.filter(|id| !id.is_empty());
        let options = StartOptions {
            idempotency_key: key.0,
            replaces,
            device_id: valid_or_push(&mut errors, "deviceId", device_id.as_deref().map(DeviceId::parse)),
            device_name: device_name.as_deref().and_then(DisplayText::clean),
            content_id: content_id.as_deref().and_then(DisplayText::clean),
            labels: parse_labels(&mut errors, labels.unwrap_or_default()),
            at_limit: at_limit.map(Into::into),
            token_limit: None,
            token_labels: Labels::default(),
        };
        if errors.is_empty() { Ok(options) } else { Err(Problem::fields(errors)) }
    }
}

/// Parses a list of stream ids. Adds an error for each invalid id and for a list that is too long.
fn parse_ids(errors: &mut Vec<FieldError>, field: &str, ids: &[String], max: usize) -> Vec<StreamId> {
    if ids.len() > max {
        let reason = format!("must have at most {max} stream ids, has {}", ids.len());
        errors.push(FieldError { field: field.to_owned(), reason });
    }
    let ids = ids.iter().take(max).enumerate();
    ids.filter_map(|(index, id)| valid_or_push(errors, &format!("{field}[{index}]"), Some(StreamId::parse(id))))
        .collect()
}

/// Parses labels. Adds an error for each invalid label, or one error if there are too many.
fn parse_labels(errors: &mut Vec<FieldError>, labels: BTreeMap<String, String>) -> Labels {
    let mut refuse = |field: &str, reason: String| errors.push(FieldError { field: field.to_owned(), reason });
    if labels.len() > Labels::MAX {
        let reason = TooManyLabels { max: Labels::MAX, actual: labels.len() }.to_string();
        refuse("labels", reason);
        return Labels::default();
    }
    let mut valid = BTreeMap::new();
    for (name, value) in labels {
        // An invalid name is not part of the field name, because a client may have sent any text.
        match (LabelName::parse(&name), LabelValue::parse(&value)) {
            (Ok(name), Ok(value)) => _ = valid.insert(name, value),
            (Ok(name), Err(error)) => refuse(&format!("labels.{name}"), error.to_string()),
            (Err(error), _) => {
                let shown = &name[..name.floor_char_boundary(LabelValue::MAX_BYTES)];
                refuse("labels", format!("the name of the label {shown:?} {error}"));
            }
        }
    }
    Labels::new(valid).unwrap_or_default()
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
        register_body::<StartRequest>(registry);
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
        register_body::<LimitRequest>(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(json_request("The limit.", LimitRequest::schema_ref(), true))
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let request = read_json::<LimitRequest>(request, body).await?;
        let end_excess = request.as_ref().and_then(|request| request.end_excess).unwrap_or_default();
        let limit = request.and_then(|request| StreamLimit::new(request.limit));
        let limit = limit.ok_or_else(|| Problem::field("limit", "must be a whole number from 0 to 50"))?;
        Ok(Self { limit, end_excess })
    }
}

impl<'a> ApiExtractor<'a> for HeartbeatBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register_body::<HeartbeatRequest>(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(json_request("What changed. May be omitted.", HeartbeatRequest::schema_ref(), false))
    }

    async fn from_request(_: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let body = read(body).await.unwrap_or_default();
        // Most heartbeats have no body. Skips the parser, because creating its error would cost a sixth of a heartbeat's
        // instructions.
        if body.is_empty() {
            return Ok(Self(None));
        }
        let heartbeat: Option<HeartbeatRequest> = parse(&body).ok().flatten();
        Ok(Self(heartbeat.and_then(|heartbeat| heartbeat.content_id).as_deref().and_then(DisplayText::clean)))
    }
}

impl<'a> ApiExtractor<'a> for EvictionBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register_body::<EvictionRequest>(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(json_request("The streams to end. May be omitted.", EvictionRequest::schema_ref(), false))
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let body = read_content(request, body).await?.unwrap_or_else(|| b"{}".to_vec());
        let EvictionRequest { stream_ids, message } = parse(&body)?.unwrap_or_default();
        let mut errors = Vec::new();
        if stream_ids.is_none()
            && let Some(misspelled) = field_names(&body).into_iter().find(|name| is_misspelled_stream_ids(name))
        {
            // Rejects the field. If it were ignored, the request would end all streams.
            let reason = "is not a known field; send the ids as \"streamIds\": [\"…\"]".to_owned();
            errors.push(FieldError { field: misspelled, reason });
        }
        let stream_ids = stream_ids.map(|ids| parse_ids(&mut errors, "streamIds", &ids, MAX_EVICTIONS));
        let message = message.as_deref().and_then(DisplayText::clean);
        if errors.is_empty() { Ok(Self { stream_ids, message }) } else { Err(Problem::fields(errors).into()) }
    }
}

/// Whether a field is probably a misspelled `streamIds`.
fn is_misspelled_stream_ids(name: &str) -> bool {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let letters = letters.to_ascii_lowercase();
    name != "streamIds" && (letters.contains("stream") || letters.ends_with("id") || letters.ends_with("ids"))
}

/// Registers the schema that poem-openapi derives, and completes it: `null` means absent, and names have patterns. Although
/// the service accepts `null` as the body, the schema does not allow it, because generated clients could then not omit the body.
fn register_body<T: Type>(registry: &mut Registry) {
    T::register(registry);
    let Some(schema) = registry.schemas.get_mut(&*T::name()) else { return };
    for (name, property) in &mut schema.properties {
        let MetaSchemaRef::Inline(property) = property else { continue };
        property.nullable = !schema.required.contains(name);
        match *name {
            "replaces" | "streamIds" => {
                property.items = Some(Box::new(MetaSchemaRef::Inline(Box::new(<StreamId as PathParam>::schema()))));
            }
            "deviceId" => property.pattern = Some(format!("^[^{CONTROLS}{BIDIRECTIONAL_CONTROLS}]*$")),
            "labels" => {
                let value = MetaSchema {
                    min_length: Some(1),
                    max_length: Some(LabelValue::MAX_BYTES),
                    pattern: Some(format!("^[^{CONTROLS}{BIDIRECTIONAL_CONTROLS}]*$")),
                    ..MetaSchema::new("string")
                };
                property.additional_properties = Some(Box::new(MetaSchemaRef::Inline(Box::new(value))));
            }
            _ => {}
        }
    }
}

fn json_request(description: &'static str, schema: MetaSchemaRef, required: bool) -> MetaRequest {
    let content = vec![MetaMediaType { content_type: "application/json", schema }];
    MetaRequest { description: Some(description), content, required }
}
