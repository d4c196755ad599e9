//! Path parameters: the user name and the stream id.

use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaParamIn, MetaSchema, MetaSchemaRef};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde_json::json;

use super::patterns::{BIDIRECTIONAL_CONTROLS, CONTROLS};
use crate::domain::names::{NameError, StreamId, UserName};
use crate::http::api::problems::Problem;
use crate::http::api::route_context::RouteContext;

/// A path parameter. poem-openapi's macro recognizes path parameters by this type name.
pub(crate) struct Path<T>(pub(crate) T);

pub(crate) trait PathParam: Sized + Send {
    const NAME: &'static str;

    fn schema() -> MetaSchema;

    fn parse(text: &str) -> std::result::Result<Self, NameError>;
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
        let not_utf8 = || Problem::field(T::NAME, "must be percent-encoded UTF-8");
        let text = RouteContext::path_param(request, T::NAME).ok_or_else(not_utf8)?;
        T::parse(&text).map(Self).map_err(|error| Problem::field(T::NAME, &error.to_string()).into())
    }
}

impl PathParam for UserName {
    const NAME: &'static str = "userName";

    fn schema() -> MetaSchema {
        let description = "The user whose streams are counted: opaque, case-sensitive, percent-encoded. 1 to 256 bytes \
                           of UTF-8 in NFC, without control characters and bidirectional control characters. Not `.` \
                           or `..`. Other normalization forms are converted to NFC.";
        MetaSchema {
            description: Some(description),
            pattern: Some(format!(r"^(?!\.{{1,2}}$)[^{CONTROLS}{BIDIRECTIONAL_CONTROLS}]+$")),
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
            description: Some("The `streamId` from the response to the start: a UUID, in upper or lower case."),
            example: Some(json!("6fa459ea-ee8a-4ca4-894e-db77e160355e")),
            ..MetaSchema::new_with_format("string", "uuid")
        }
    }

    fn parse(text: &str) -> std::result::Result<Self, NameError> {
        Self::parse(text)
    }
}
