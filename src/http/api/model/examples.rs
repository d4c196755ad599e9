//! The examples of the OpenAPI document.

use std::collections::BTreeMap;

use poem_openapi::types::Example;
use uuid::Uuid;

use super::requests::{AtLimit, EvictionRequest, HeartbeatRequest, LimitRequest, StartRequest};
use super::responses::{
    Evicted, Health, Limit, LimitSource, NewLimit, RuleUse, StartedStream, Stream, StreamCount, Streams,
};
use crate::domain::lease::Timestamp;

fn labels() -> Option<BTreeMap<String, String>> {
    Some(BTreeMap::from([("quality".to_owned(), "uhd".to_owned())]))
}

impl Example for Stream {
    fn example() -> Self {
        Self {
            stream_id: Uuid::from_u128(0x6fa4_59ea_ee8a_4ca4_894e_db77_e160_355e),
            user_name: "ann".to_owned(),
            device_id: Some("tv-42".to_owned()),
            device_name: Some("Living-room TV".to_owned()),
            content_id: Some("movie-7".to_owned()),
            labels: labels(),
            started_at: Timestamp::from_epoch_ms(1_790_000_000_000).into(),
            expires_at: Timestamp::from_epoch_ms(1_790_000_090_000).into(),
            expires_in_seconds: 90,
            heartbeat_interval_seconds: 30,
            grant: None,
        }
    }
}

impl Example for StartedStream {
    fn example() -> Self {
        Self { stream: Stream::example(), limit: 3, ended: Vec::new(), over_limit: None }
    }
}

impl Example for Streams {
    fn example() -> Self {
        let count = StreamCount { user_name: "ann".to_owned(), count: 1, limit: 3, remaining: 2 };
        Self { count, streams: vec![Stream::example()], rules: vec![RuleUse::example()] }
    }
}

impl Example for RuleUse {
    fn example() -> Self {
        Self { name: "one UHD stream".to_owned(), limit: 1, count: 1, per: None }
    }
}

impl Example for StreamCount {
    fn example() -> Self {
        Self { user_name: "ann".to_owned(), count: 2, limit: 3, remaining: 1 }
    }
}

impl Example for Limit {
    fn example() -> Self {
        Self { user_name: "ann".to_owned(), limit: 5, source: LimitSource::User }
    }
}

impl Example for NewLimit {
    fn example() -> Self {
        Self { limit: Limit::example(), ended: None }
    }
}

impl Example for Evicted {
    fn example() -> Self {
        Self { ended: vec![Stream::example().stream_id] }
    }
}

impl Example for Health {
    fn example() -> Self {
        Self {
            status: "ok".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clock_difference_seconds: None,
            warnings: None,
        }
    }
}

impl Example for StartRequest {
    fn example() -> Self {
        Self {
            device_id: Some("tv-42".to_owned()),
            device_name: Some("Living-room TV".to_owned()),
            content_id: Some("movie-7".to_owned()),
            replaces: None,
            at_limit: Some(AtLimit::Reject),
            labels: labels(),
        }
    }
}

impl Example for LimitRequest {
    fn example() -> Self {
        Self { limit: 5, end_excess: None }
    }
}

impl Example for HeartbeatRequest {
    fn example() -> Self {
        Self { content_id: Some("movie-8".to_owned()) }
    }
}

impl Example for EvictionRequest {
    fn example() -> Self {
        Self { stream_ids: None, message: Some("Your subscription has ended.".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::types::ToJSON;
    use serde::Serialize;

    use super::*;
    use crate::http::api::model::grants::JwkSet;
    use crate::http::api::model::problem::{EndedBy, FieldError, ProblemBody, Restart, StreamEndReason};
    use crate::http::api::problem_code::ProblemCode;

    /// serde writes the responses, and poem-openapi describes them in the document. Both must have the same fields.
    fn assert_same_json(object: &(impl ToJSON + Serialize)) {
        assert_eq!(serde_json::to_value(object).ok(), object.to_json());
    }

    #[test]
    fn responses_have_the_documented_fields() {
        assert_same_json(&Stream::example());
        assert_same_json(&Stream { grant: Some("a.b.c".to_owned()), ..Stream::example() });
        let plain =
            Stream { device_id: None, device_name: None, content_id: None, labels: None, ..Stream::example() };
        assert_same_json(&plain);
        assert_same_json(&StartedStream { ended: vec![Uuid::nil()], ..StartedStream::example() });
        assert_same_json(&StartedStream { over_limit: Some(true), ..StartedStream::example() });
        assert_same_json(&Streams::example());
        assert_same_json(&RuleUse { per: Some("news".to_owned()), ..RuleUse::example() });
        assert_same_json(&StreamCount::example());
        for source in [LimitSource::Default, LimitSource::User, LimitSource::Token] {
            assert_same_json(&Limit { source, ..Limit::example() });
        }
        assert_same_json(&NewLimit::example());
        assert_same_json(&NewLimit { ended: Some(vec![Uuid::nil()]), ..NewLimit::example() });
        assert_same_json(&Evicted::example());
        assert_same_json(&JwkSet::example());
        assert_same_json(&Health::example());
        let warnings = Some(vec!["the clock".to_owned()]);
        assert_same_json(&Health { clock_difference_seconds: Some(-0.5), warnings, ..Health::example() });
    }

    #[test]
    fn problems_have_the_documented_fields() {
        let full = ProblemBody {
            r#type: "t".to_owned(),
            code: ProblemCode::StreamLimitReached,
            title: "t".to_owned(),
            status: 409,
            detail: "d".to_owned(),
            instance: "i".to_owned(),
            errors: Some(vec![FieldError { field: "f".to_owned(), reason: "r".to_owned() }]),
            restart: Some(Restart::Auto),
            rule: Some("r".to_owned()),
            limit: Some(1),
            count: Some(1),
            streams: Some(vec![Stream::example()]),
            slot_frees_in_seconds: Some(1),
            reason: Some(StreamEndReason::Expired),
            ended_by: Some(EndedBy { stream_id: Some(Uuid::nil()), ..EndedBy::default() }),
        };
        assert_same_json(&full);
        let (device_name, message) = (Some("tv".to_owned()), Some("m".to_owned()));
        let ended_by = Some(EndedBy { stream_id: None, device_name, message });
        let reason = Some(StreamEndReason::Evicted);
        assert_same_json(&ProblemBody { restart: Some(Restart::User), reason, ended_by, ..full.clone() });
        assert_same_json(&ProblemBody { reason: Some(StreamEndReason::Replaced), ..full });
    }
}
