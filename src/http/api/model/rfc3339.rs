//! Timestamps in JSON: RFC 3339, UTC, with milliseconds and `Z`. poem-openapi's support for chrono writes neither
//! milliseconds nor `Z`.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde::Serialize;
use serde_json::Value;

use crate::domain::lease::Timestamp;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rfc3339(String);

impl From<Timestamp> for Rfc3339 {
    fn from(timestamp: Timestamp) -> Self {
        let time = DateTime::from_timestamp_millis(timestamp.epoch_ms()).unwrap_or_default();
        Self(time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Type for Rfc3339 {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_date-time".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "date-time")))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

/// For the examples in the OpenAPI document.
impl ToJSON for Rfc3339 {
    fn to_json(&self) -> Option<Value> {
        self.0.to_json()
    }
}

/// Never called, because no request contains a timestamp. The `Object` macro requires it.
impl ParseFromJSON for Rfc3339 {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        String::parse_from_json(value).map(Self).map_err(ParseError::propagate)
    }
}
