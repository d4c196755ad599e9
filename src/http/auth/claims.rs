//! Checks the claims of a token whose signature, `exp` and `nbf` are already verified.

use std::collections::BTreeMap;

use serde_json::Value;

use super::strict_object::StrictObject;
use super::{Identity, TokenError};
use crate::domain::labels::{LabelName, LabelValue, Labels};
use crate::domain::lease::StreamLimit;
use crate::domain::names;

pub(crate) struct ClaimsPolicy {
    pub(crate) issuer: String,
    pub(crate) audience: Vec<String>,
    pub(crate) user_claim: String,
    pub(crate) limit_claim: String,
    pub(crate) labels_claim: Option<String>,
    pub(crate) admin_scope: String,
}

/// The content of valid claims.
pub(crate) struct ValidClaims {
    pub(crate) identity: Identity,
    /// Whether the limit claim was ignored because it is not a limit. The token stays valid, because a 401 would not stop
    /// the player: it may keep playing after a 401.
    pub(crate) ignored_limit: bool,
}

impl ClaimsPolicy {
    pub(crate) fn validate(&self, claims: &StrictObject) -> Result<ValidClaims, TokenError> {
        // `jsonwebtoken` also accepts a list that contains the issuer, so the claim is checked again.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(invalid("iss", "is not the trusted issuer"));
        }
        self.check_audience(claims)?;
        required_string(claims, "sub")?;
        let user = names::normalize(required_string(claims, &self.user_claim)?).into_owned();
        let limit_claim = claims.get(&self.limit_claim).filter(|value| !value.is_null());
        let limit = limit_claim.and_then(parse_limit);
        let labels = self.labels(claims)?;
        let identity = Identity { user, admin: self.is_admin(claims), limit, labels };
        Ok(ValidClaims { identity, ignored_limit: limit_claim.is_some() && limit.is_none() })
    }

    /// A malformed claim is an error. If it were ignored, the rules for its labels would not apply.
    fn labels(&self, claims: &StrictObject) -> Result<Labels, TokenError> {
        let Some(claim) = &self.labels_claim else { return Ok(Labels::default()) };
        match claims.get(claim) {
            None | Some(Value::Null) => Ok(Labels::default()),
            Some(value) => {
                parse_labels(value).ok_or_else(|| invalid(claim, "must be an object with at most 8 labels"))
            }
        }
    }

    fn check_audience(&self, claims: &StrictObject) -> Result<(), TokenError> {
        let accepted =
            |value: &Value| value.as_str().is_some_and(|text| self.audience.iter().any(|audience| audience == text));
        let is_valid = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().all(Value::is_string) && all.iter().any(accepted),
            Some(one) => accepted(one),
            // Cognito's access tokens have a `client_id` instead of an audience.
            None if claims.get("token_use").and_then(Value::as_str) == Some("access") => {
                return match claims.get("client_id") {
                    Some(client) if accepted(client) => Ok(()),
                    _ => Err(invalid("client_id", "is not an accepted audience")),
                };
            }
            None => false,
        };
        if is_valid { Ok(()) } else { Err(invalid("aud", "must be an accepted audience")) }
    }

    /// Issuers send scopes as a space-separated string (RFC 8693, section 4.2) or as a list, in `scope` or in `scp`.
    fn is_admin(&self, claims: &StrictObject) -> bool {
        ["scope", "scp"].into_iter().filter_map(|name| claims.get(name)).any(|scopes| match scopes {
            Value::String(text) => text.split(' ').any(|scope| scope == self.admin_scope),
            Value::Array(list) => list.iter().any(|scope| scope.as_str() == Some(&self.admin_scope)),
            _ => false,
        })
    }
}

fn required_string<'a>(claims: &'a StrictObject, claim: &str) -> Result<&'a str, TokenError> {
    let text = claims.get(claim).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.ok_or_else(|| invalid(claim, "must be a non-empty string"))
}

/// Accepts a whole number from 0. Also accepts a zero fraction, as in `3.0`, because some JSON libraries have only
/// floating-point numbers, and a string of decimal digits, because Cognito sends custom attributes as strings. A number
/// above 50 counts as 50.
fn parse_limit(value: &Value) -> Option<StreamLimit> {
    let number = match value {
        Value::String(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().unwrap_or(u64::MAX)
        }
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => whole,
            (None, Some(float)) if float >= 0.0 && float.fract() == 0.0 => float as u64,
            _ => return None,
        },
        _ => return None,
    };
    Some(StreamLimit::capped(number))
}

fn parse_labels(value: &Value) -> Option<Labels> {
    let label = |(name, value): (&String, &Value)| {
        Some((LabelName::parse(name).ok()?, LabelValue::parse(value.as_str()?).ok()?))
    };
    let labels = value.as_object()?.iter().map(label).collect::<Option<BTreeMap<_, _>>>()?;
    Labels::new(labels).ok()
}

fn invalid(claim: &str, reason: &'static str) -> TokenError {
    TokenError::Claim(claim.to_owned(), reason)
}
