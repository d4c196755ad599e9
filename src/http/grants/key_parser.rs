//! Parses key files: PEM with keys in PKCS#8 or public keys, a JWK, or a JWKS.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde::Deserialize;
use serde_json::Value;

use super::{FileAlgorithm, KeyProblem, MAX_KEY_ID_BYTES, PublicPoint};

/// A key that verifies grants. Also signs them if it is a private key or a secret.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) algorithm: Algorithm,
    pub(super) decoding_key: DecodingKey,
    /// `None` for a public key.
    pub(super) encoding_key: Option<EncodingKey>,
    /// `None` for a secret.
    pub(super) point: Option<PublicPoint>,
    /// The thumbprint of RFC 7638. It is different for different keys.
    pub(super) thumbprint: String,
}

/// A key in a file.
struct FileKey {
    curve: Curve,
    /// The public key: the byte 4 and both coordinates for P-256, 32 bytes for Ed25519.
    point: Vec<u8>,
    /// The private key in PKCS#8.
    private: Option<Vec<u8>>,
    id: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    Ed25519,
}

#[derive(Deserialize)]
struct JwkFields {
    kty: String,
    crv: String,
    x: String,
    y: Option<String>,
    d: Option<String>,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
}

const P256_POINT_BYTES: usize = 65;
const ED25519_POINT_BYTES: usize = 32;
const UNCOMPRESSED: u8 = 4;

impl Key {
    /// A secret for HS256.
    pub(super) fn from_secret(secret: &[u8]) -> Option<Self> {
        let encoding_key = EncodingKey::from_secret(secret);
        let jwk = Jwk::from_encoding_key(&encoding_key, Algorithm::HS256).ok()?;
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        Some(Self {
            id: thumbprint.clone(),
            algorithm: Algorithm::HS256,
            decoding_key: DecodingKey::from_secret(secret),
            encoding_key: Some(encoding_key),
            point: None,
            thumbprint,
        })
    }

    /// The private key in a file that contains exactly one.
    pub(super) fn parse_signing(file: &[u8], algorithm: FileAlgorithm) -> Result<Self, KeyProblem> {
        let keys: Vec<FileKey> = parse(file)?.into_iter().filter(|key| key.private.is_some()).collect();
        let key = match <[FileKey; 1]>::try_from(keys) {
            Ok([key]) => key,
            Err(keys) if keys.is_empty() => return Err(KeyProblem::NoPrivateKey),
            Err(_) => return Err(KeyProblem::NotOneKey),
        };
        match (algorithm, key.curve) {
            (FileAlgorithm::Es256, Curve::P256) | (FileAlgorithm::EdDsa, Curve::Ed25519) => key.into_key(),
            (FileAlgorithm::Es256, _) => Err(KeyProblem::NotP256),
            (FileAlgorithm::EdDsa, _) => Err(KeyProblem::NotEd25519),
        }
    }

    /// All keys in a file, public or private. Only a JWKS may be empty.
    pub(super) fn parse_published(file: &[u8]) -> Result<Vec<Self>, KeyProblem> {
        parse(file)?.into_iter().map(FileKey::into_key).collect()
    }
}

fn parse(file: &[u8]) -> Result<Vec<FileKey>, KeyProblem> {
    if !file.trim_ascii_start().starts_with(b"{") {
        return parse_pem(file);
    }
    let json: Value = serde_json::from_slice(file).map_err(|_| KeyProblem::Format)?;
    match json.get("keys") {
        Some(Value::Array(keys)) => keys.iter().map(FileKey::from_jwk).collect(),
        Some(_) => Err(KeyProblem::Format),
        None => Ok(vec![FileKey::from_jwk(&json)?]),
    }
}

fn parse_pem(file: &[u8]) -> Result<Vec<FileKey>, KeyProblem> {
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(file);
    let keys = sections.map(|section| match section.map_err(|_| KeyProblem::Format)? {
        (SectionKind::PrivateKey, der) => FileKey::from_pkcs8(&der),
        (SectionKind::PublicKey, der) => FileKey::from_public_key_info(&der),
        (SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey, _) => Err(KeyProblem::NotPkcs8),
        _ => Err(KeyProblem::UnsupportedKey),
    });
    let keys: Vec<FileKey> = keys.collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(KeyProblem::Format) } else { Ok(keys) }
}

impl FileKey {
    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyProblem> {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            return Self::from_p256(&pair);
        }
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| KeyProblem::UnsupportedKey)?;
        Self::from_ed25519(&pair)
    }

    fn from_p256(pair: &EcdsaKeyPair) -> Result<Self, KeyProblem> {
        let private = pair.to_pkcs8v1().map_err(|_| KeyProblem::UnsupportedKey)?;
        let key = Self::from_point(Curve::P256, pair.public_key().as_ref())?;
        Ok(Self { private: Some(private.as_ref().to_vec()), ..key })
    }

    fn from_ed25519(pair: &Ed25519KeyPair) -> Result<Self, KeyProblem> {
        let private = pair.to_pkcs8v1().map_err(|_| KeyProblem::UnsupportedKey)?;
        let key = Self::from_point(Curve::Ed25519, pair.public_key().as_ref())?;
        Ok(Self { private: Some(private.as_ref().to_vec()), ..key })
    }

    /// Reads a SubjectPublicKeyInfo (RFC 5280), whose last bytes are the point.
    fn from_public_key_info(der: &[u8]) -> Result<Self, KeyProblem> {
        let curves = [(Curve::P256, P256_POINT_BYTES), (Curve::Ed25519, ED25519_POINT_BYTES)];
        let (curve, length) = curves
            .into_iter()
            .find(|(curve, length)| der.len() > *length && curve.accepts(der))
            .ok_or(KeyProblem::UnsupportedKey)?;
        Self::from_point(curve, &der[der.len() - length..])
    }

    fn from_point(curve: Curve, point: &[u8]) -> Result<Self, KeyProblem> {
        let has_length = match curve {
            Curve::P256 => point.len() == P256_POINT_BYTES && point.first() == Some(&UNCOMPRESSED),
            Curve::Ed25519 => point.len() == ED25519_POINT_BYTES,
        };
        if !has_length || !curve.accepts(point) {
            return Err(KeyProblem::UnsupportedKey);
        }
        Ok(Self { curve, point: point.to_vec(), private: None, id: None })
    }

    fn from_jwk(json: &Value) -> Result<Self, KeyProblem> {
        let jwk = JwkFields::deserialize(json).map_err(|_| KeyProblem::UnsupportedKey)?;
        if jwk.purpose.is_some_and(|purpose| purpose != "sig") {
            return Err(KeyProblem::UnsupportedKey);
        }
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyProblem::UnsupportedKey);
        let (x, private) = (decode(&jwk.x)?, jwk.d.as_deref().map(decode).transpose()?);
        let key = match (jwk.kty.as_str(), jwk.crv.as_str(), &jwk.y, private) {
            ("EC", "P-256", Some(y), private) => {
                let point = [vec![UNCOMPRESSED], x, decode(y)?].concat();
                match private {
                    None => Self::from_point(Curve::P256, &point),
                    Some(private) => {
                        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, &point);
                        Self::from_p256(&pair.map_err(|_| KeyProblem::UnsupportedKey)?)
                    }
                }
            }
            ("OKP", "Ed25519", None, None) => Self::from_point(Curve::Ed25519, &x),
            ("OKP", "Ed25519", None, Some(private)) => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&private, &x);
                Self::from_ed25519(&pair.map_err(|_| KeyProblem::UnsupportedKey)?)
            }
            _ => Err(KeyProblem::UnsupportedKey),
        };
        if jwk.kid.as_ref().is_some_and(|id| !(1..=MAX_KEY_ID_BYTES).contains(&id.len())) {
            return Err(KeyProblem::KeyId);
        }
        Ok(Self { id: jwk.kid, ..key? })
    }

    fn into_key(self) -> Result<Key, KeyProblem> {
        let (algorithm, decoding_key) = match self.curve {
            Curve::P256 => (Algorithm::ES256, DecodingKey::from_ec_der(&self.point)),
            Curve::Ed25519 => (Algorithm::EdDSA, DecodingKey::from_ed_der(&self.point)),
        };
        let encoding_key = self.private.map(|private| match self.curve {
            Curve::P256 => EncodingKey::from_ec_der(&private),
            Curve::Ed25519 => EncodingKey::from_ed_der(&private),
        });
        let jwk = Jwk::from_decoding_key(&decoding_key, Some(algorithm)).map_err(|_| KeyProblem::UnsupportedKey)?;
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyProblem::UnsupportedKey)?;
        let point = match jwk.algorithm {
            AlgorithmParameters::EllipticCurve(point) => PublicPoint::P256 { x: point.x, y: point.y },
            AlgorithmParameters::OctetKeyPair(point) => PublicPoint::Ed25519 { x: point.x },
            _ => return Err(KeyProblem::UnsupportedKey),
        };
        let id = self.id.unwrap_or_else(|| thumbprint.clone());
        Ok(Key { id, algorithm, decoding_key, encoding_key, point: Some(point), thumbprint })
    }
}

impl Curve {
    /// Whether these bytes are a public key on this curve, alone or in a SubjectPublicKeyInfo.
    fn accepts(self, public_key: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::Ed25519 => &ED25519,
        };
        ParsedPublicKey::new(algorithm, public_key).is_ok()
    }
}
