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

    /// A user name or device id, as events contain it.
    pub fn identity(&self, name: &str) -> Option<String> {
        match self {
            Self::Hashed(key) => Some(BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(key, name.as_bytes()))),
            Self::Plain => Some(name.to_owned()),
            Self::Omitted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_hashed_plain_or_omitted() {
        let identity = |identities| PersonalData::new(&identities).identity("ann");
        // printf %s ann | openssl dgst -sha256 -hmac 'a key with at least thirty-two bytes' -binary | basenc --base64url | tr -d =
        let key = "a key with at least thirty-two bytes".into();
        assert_eq!(identity(Identities::Hashed(key)).unwrap(), "xhuZBSfG2JkkhGGekNHjitZ_3-fTmA-sz5n35Hfji68");
        assert_eq!(identity(Identities::Plain).unwrap(), "ann");
        assert_eq!(identity(Identities::Omitted), None);
    }
}
