//! How user names and device ids appear in events.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;

use super::settings::Identities;

pub(super) enum PersonalData {
    Hashed(Box<hmac::Key>),
    Plain,
    Omitted,
}

impl PersonalData {
    pub fn new(identities: &Identities) -> Self {
        match identities {
            Identities::Hashed(key) => {
                Self::Hashed(Box::new(hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes())))
            }
            Identities::Plain => Self::Plain,
            Identities::Omitted => Self::Omitted,
        }
    }

    /// A user name, as events contain it.
    pub fn user(&self, name: &str) -> Option<String> {
        self.identity(&[name])
    }

    /// A device id, as events contain it. Hashed with a prefix that no user name contains. Otherwise, a player could use a user name as
    /// its device id, and find the hash of this user in its events.
    pub fn device(&self, id: &str) -> Option<String> {
        match self {
            Self::Plain => Some(id.to_owned()),
            _ => self.identity(&["device\0", id]),
        }
    }

    fn identity(&self, parts: &[&str]) -> Option<String> {
        match self {
            Self::Hashed(key) => {
                let mut hmac = hmac::Context::with_key(key);
                parts.iter().for_each(|part| hmac.update(part.as_bytes()));
                Some(BASE64_URL_SAFE_NO_PAD.encode(hmac.sign()))
            }
            Self::Plain => Some(parts.concat()),
            Self::Omitted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_hashed_plain_or_omitted() {
        let identities = |identities| {
            let data = PersonalData::new(&identities);
            (data.user("ann"), data.device("ann"))
        };
        // printf %s ann | openssl dgst -sha256 -hmac 'a key with at least thirty-two bytes' -binary | basenc --base64url | tr -d =
        let (user, device) = identities(Identities::Hashed("a key with at least thirty-two bytes".into()));
        assert_eq!(user.as_deref(), Some("xhuZBSfG2JkkhGGekNHjitZ_3-fTmA-sz5n35Hfji68"));
        assert!(device.is_some_and(|device| Some(device) != user));
        assert_eq!(identities(Identities::Plain), (Some("ann".to_owned()), Some("ann".to_owned())));
        assert_eq!(identities(Identities::Omitted), (None, None));
    }
}
