//! What the claims of a token with a good signature must be, and what they say. Pure; `exp` and `nbf` were checked before.

use serde_json::Value;

use super::json::Object;
use super::{Identity, TokenError};
use crate::domain::lease::StreamLimit;

pub struct Rules {
    pub issuer: String,
    pub audience: Vec<String>,
    pub user_claim: String,
    pub limit_claim: String,
    pub admin_scope: String,
}

impl Rules {
    pub fn judge(&self, claims: &Object) -> Result<Identity, TokenError> {
        // The library would also take a list that contains it.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(wrong("iss", "is another issuer's"));
        }
        self.check_audience(claims)?;
        name(claims, "sub")?;
        let user = name(claims, &self.user_claim)?.to_owned();
        let limit = claims.get(&self.limit_claim).map(|value| {
            let refused = || wrong(&self.limit_claim, "must be a whole number from 1 to 50");
            limit(value).ok_or_else(refused)
        });
        Ok(Identity { user, admin: self.is_admin(claims), limit: limit.transpose()? })
    }

    fn check_audience(&self, claims: &Object) -> Result<(), TokenError> {
        let ours = |value: &Value| value.as_str().is_some_and(|text| self.audience.iter().any(|known| known == text));
        let for_us = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().all(Value::is_string) && all.iter().any(ours),
            Some(one) => ours(one),
            // Cognito's access tokens have none, and name the client that they were given to.
            None if claims.get("token_use").and_then(Value::as_str) == Some("access") => {
                return match claims.get("client_id") {
                    Some(client) if ours(client) => Ok(()),
                    _ => Err(wrong("client_id", "is not one of the audiences here")),
                };
            }
            None => false,
        };
        if for_us { Ok(()) } else { Err(wrong("aud", "must be there, and name an audience of this service")) }
    }

    /// Scopes are a text with spaces (RFC 8693, section 4.2) or a list, under either name that issuers use.
    fn is_admin(&self, claims: &Object) -> bool {
        ["scope", "scp"].into_iter().filter_map(|name| claims.get(name)).any(|scopes| match scopes {
            Value::String(text) => text.split(' ').any(|scope| scope == self.admin_scope),
            Value::Array(list) => list.iter().any(|scope| scope.as_str() == Some(&self.admin_scope)),
            _ => false,
        })
    }
}

fn name<'a>(claims: &'a Object, claim: &str) -> Result<&'a str, TokenError> {
    let text = claims.get(claim).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.ok_or_else(|| wrong(claim, "must be there, a text that is not empty"))
}

/// A whole number, also as digits: Cognito's attributes are texts.
fn limit(value: &Value) -> Option<StreamLimit> {
    let number = match value {
        Value::String(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        value => value.as_u64()?,
    };
    StreamLimit::new(number)
}

fn wrong(claim: &str, problem: &'static str) -> TokenError {
    TokenError::Claim(claim.to_owned(), problem)
}
