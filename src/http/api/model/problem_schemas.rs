//! The schemas of problems in the OpenAPI document. All are derived from the schema of [`ProblemBody`]. `Problem` has only
//! the fields that all problems share. Each problem with additional fields has its own schema, which lists them as required
//! or optional.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;

use super::problem::ProblemBody;
use crate::http::api::problem_code::ProblemCode;

/// The additional fields of a problem.
struct Extension {
    code: ProblemCode,
    schema: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const EXTENSIONS: [Extension; 4] = [
    Extension {
        code: ProblemCode::InvalidRequest,
        schema: "InvalidRequestProblem",
        required: &[],
        optional: &["errors"],
    },
    Extension {
        code: ProblemCode::StreamNotFound,
        schema: "StreamNotFoundProblem",
        required: &["restart"],
        optional: &[],
    },
    Extension {
        code: ProblemCode::StreamLimitReached,
        schema: "StreamLimitReachedProblem",
        required: &["limit", "count", "streams"],
        optional: &["rule", "slotFreesInSeconds"],
    },
    Extension {
        code: ProblemCode::StreamEnded,
        schema: "StreamEndedProblem",
        required: &["reason", "restart"],
        optional: &["endedBy"],
    },
];

/// The schema of a response with one of `codes`.
pub(crate) fn schema_of(codes: &[ProblemCode]) -> MetaSchemaRef {
    match EXTENSIONS.iter().find(|extension| codes == [extension.code]) {
        Some(extension) => MetaSchemaRef::Reference(extension.schema.to_owned()),
        None => ProblemBody::schema_ref(),
    }
}

/// Each operation calls this function. Only the first call registers the schemas.
pub(crate) fn register(registry: &mut Registry) {
    if registry.schemas.contains_key(EXTENSIONS[0].schema) {
        return;
    }
    ProblemBody::register(registry);
    // The required fields of `ProblemBody` are common to all problems. Its optional fields are extensions.
    let Some(mut common) = registry.schemas.remove(&*ProblemBody::name()) else { return };
    let required = &common.required;
    let (common_properties, extensions): (Vec<_>, Vec<_>) =
        common.properties.drain(..).partition(|(name, _)| required.contains(name));
    for Extension { schema, required, optional, .. } in EXTENSIONS {
        let own = extensions.iter().filter(|(name, _)| required.contains(name) || optional.contains(name));
        let derived = MetaSchema {
            title: Some(schema.to_owned()),
            required: [&common.required, required].concat(),
            properties: common_properties.iter().chain(own).cloned().collect(),
            ..common.clone()
        };
        registry.schemas.insert(schema.to_owned(), derived);
    }
    common.properties = common_properties;
    registry.schemas.insert(ProblemBody::name().into_owned(), common);
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The schema that a response with `code` has in the document.
    fn schema(code: ProblemCode) -> MetaSchema {
        let mut registry = Registry::new();
        register(&mut registry);
        register(&mut registry);
        let MetaSchemaRef::Reference(name) = schema_of(&[code]) else { panic!("{code:?}: no reference") };
        registry.schemas.remove(&name).unwrap()
    }

    #[test]
    fn examples_have_exactly_the_documented_fields() {
        for code in ProblemCode::ALL {
            let schema = schema(code);
            let Value::Object(example) = code.example() else { panic!("{code:?}: no object") };
            for (name, _) in &schema.properties {
                // The example shows all fields of its problem.
                assert!(example.contains_key(*name), "{code:?}: {name}");
            }
            assert_eq!(example.len(), schema.properties.len(), "{code:?}");
        }
    }

    #[test]
    fn problems_require_the_fields_that_players_need() {
        for (code, fields) in [
            (ProblemCode::StreamNotFound, &["restart"][..]),
            (ProblemCode::StreamLimitReached, &["limit", "count", "streams"]),
            (ProblemCode::StreamEnded, &["reason", "restart"]),
        ] {
            let required = schema(code).required;
            assert!(
                ["type", "code", "status"].iter().chain(fields).all(|field| required.contains(field)),
                "{code:?}"
            );
        }
    }
}
