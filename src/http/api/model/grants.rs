//! The public keys of grants (RFC 7517).

use poem_openapi::Object;
use poem_openapi::types::Example;
use serde::Serialize;

use crate::http::grants::{PublicKey, PublicPoint};

/// The public keys that verify grants. The first one signs.
#[derive(Clone, Debug, Object, Serialize)]
#[oai(example)]
pub(crate) struct JwkSet {
    #[oai(validator(max_items = 20))]
    pub(crate) keys: Vec<Jwk>,
}

/// A public key (RFC 7517).
#[derive(Clone, Debug, Object, Serialize)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Jwk {
    /// The key id that grants name.
    #[oai(validator(max_length = 128))]
    pub(crate) kid: String,
    /// `EC` or `OKP`.
    #[oai(validator(max_length = 8))]
    pub(crate) kty: String,
    /// `P-256` or `Ed25519`.
    #[oai(validator(max_length = 8))]
    pub(crate) crv: String,
    #[oai(validator(max_length = 43))]
    pub(crate) x: String,
    /// Only for `P-256`.
    #[oai(validator(max_length = 43))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) y: Option<String>,
    /// `ES256` or `EdDSA`.
    #[oai(validator(max_length = 8))]
    pub(crate) alg: String,
    /// Always `sig`.
    #[oai(rename = "use", validator(max_length = 8))]
    #[serde(rename = "use")]
    pub(crate) purpose: String,
}

impl From<PublicKey> for Jwk {
    fn from(key: PublicKey) -> Self {
        let (kty, crv, alg, x, y) = match key.point {
            PublicPoint::P256 { x, y } => ("EC", "P-256", "ES256", x, Some(y)),
            PublicPoint::Ed25519 { x } => ("OKP", "Ed25519", "EdDSA", x, None),
        };
        let [kty, crv, alg, purpose] = [kty, crv, alg, "sig"].map(str::to_owned);
        Self { kid: key.key_id, kty, crv, x, y, alg, purpose }
    }
}

impl Example for JwkSet {
    fn example() -> Self {
        let point = PublicPoint::Ed25519 { x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned() };
        let key_id = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k".to_owned();
        Self { keys: vec![PublicKey { key_id, point }.into()] }
    }
}
