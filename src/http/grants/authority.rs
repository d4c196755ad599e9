//! Signs the grants of leases, verifies grants, and keeps the keys up to date.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use super::claims::{self, SignedClaims};
use super::key_parser::Key;
use super::key_ring::KeyRing;
use super::key_watch::KeyFiles;
use super::{Grant, GrantError, GrantKeyError, GrantKeys, GrantSettings, PublicKey};
use crate::clock::Clock;
use crate::domain::lease::{Lease, Timestamp};
use crate::domain::names::UserName;
use crate::telemetry::metrics::Metrics;

/// A changed key file is in use at most this time and the time to read the files later.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

pub struct GrantAuthority {
    pub(crate) settings: GrantSettings,
    subject_key: Option<hmac::Key>,
    keys: RwLock<KeyRing>,
    /// `None` for secrets, which never change. The lock serializes reloads.
    files: Option<Mutex<KeyFiles>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

impl GrantAuthority {
    /// # Errors
    /// A key is missing, unreadable or unsuitable. The message is one line.
    pub async fn open(
        settings: GrantSettings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, GrantKeyError> {
        let (keys, files) = match settings.keys.clone() {
            GrantKeys::Files { algorithm, key_file, published } => {
                let files = KeyFiles::open(algorithm, key_file, published).await?;
                (key_ring(&settings, files.signing(), files.published())?, Some(Mutex::new(files)))
            }
            GrantKeys::Secrets { secret, published } => {
                let key = |secret: &SecretString| Key::from_secret(secret.expose_secret().as_bytes());
                let published: Vec<Key> = published.iter().filter_map(key).collect();
                (key_ring(&settings, key(&secret).as_ref(), published.iter())?, None)
            }
        };
        let hash_key = |key: &SecretString| hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes());
        let subject_key = settings.subject_key.as_ref().map(hash_key);
        log_loaded(&keys, true);
        Ok(Self { settings, subject_key, keys: RwLock::new(keys), files, clock, metrics })
    }

    /// Reloads changed key files periodically. Never returns.
    pub async fn reload_regularly(&self) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            self.reload().await;
        }
    }

    /// Uses the keys of changed files. Unusable files and unusable combinations of keys are logged, and the previous keys stay in
    /// use.
    pub async fn reload(&self) {
        let Some(files) = &self.files else { return };
        let mut files = files.lock().await;
        if !files.refresh().await {
            return;
        }
        match key_ring(&self.settings, files.signing(), files.published()) {
            Ok(keys) => {
                let was_published = self.keys().has_signing_key_of(&keys);
                log_loaded(&keys, was_published);
                self.replace_keys(keys);
            }
            Err(error) => {
                warn!(event = "grant_keys_reload_failed", %error, "grant keys unusable; the previous keys stay in use");
            }
        }
    }

    /// Whether grants contain a hash instead of the user name.
    pub(crate) fn hashes_subjects(&self) -> bool {
        self.subject_key.is_some()
    }

    /// The grant of a live lease. `None` if signing fails, which is logged. The stream then plays without a grant.
    pub(crate) fn sign(&self, user: &UserName, lease: &Lease, now: Timestamp) -> Option<String> {
        let subject = self.subject(user);
        let claims = SignedClaims {
            iss: &self.settings.issuer,
            aud: &self.settings.audience,
            sub: &subject,
            jti: lease.stream_id.uuid(),
            iat: claims::seconds(now),
            exp: claims::expiry_s(lease.expires_at, self.settings.leeway_s),
            content: lease.content_id.as_ref().map(|content| content.as_str()),
            labels: Some(&lease.labels).filter(|labels| !labels.is_empty()),
        };
        let signed = self.keys().sign(&claims);
        match signed {
            Ok(grant) => {
                self.metrics.grants_signed.inc();
                Some(grant)
            }
            Err(error) => {
                error!(event = "grant_signing_failed", %error, "grant not signed; the response has none");
                None
            }
        }
    }

    /// Checks signature, issuer, audience and expiry.
    pub(crate) fn verify(&self, token: &str) -> Result<Arc<Grant>, GrantError> {
        let grant = self.keys().verify(token)?;
        if grant.expires_at > self.clock.now() { Ok(grant) } else { Err(GrantError::Expired) }
    }

    /// The keys that others verify grants with, in a stable order. Empty for secrets.
    pub(crate) fn public_keys(&self) -> Vec<PublicKey> {
        self.keys().public_keys()
    }

    fn subject<'a>(&self, user: &'a UserName) -> Cow<'a, str> {
        match &self.subject_key {
            None => Cow::Borrowed(user.as_str()),
            Some(key) => Cow::Owned(BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(key, user.as_str().as_bytes()))),
        }
    }

    fn replace_keys(&self, keys: KeyRing) {
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let previous = std::mem::replace(&mut *current, keys);
        drop(current);
        // Dropped without the lock, because the remembered grants take some milliseconds.
        drop(previous);
    }

    fn keys(&self) -> RwLockReadGuard<'_, KeyRing> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_ring<'a>(
    settings: &GrantSettings,
    signing: Option<&Key>,
    published: impl Iterator<Item = &'a Key>,
) -> Result<KeyRing, GrantKeyError> {
    let signing = signing.ok_or(GrantKeyError::Unusable)?;
    KeyRing::new(signing, published, settings.key_id.as_deref(), &settings.issuer, &settings.audience)
}

/// `was_published` is false if the signing key replaces another one and was not published before, so that caches of the JWKS may not
/// have it yet.
fn log_loaded(keys: &KeyRing, was_published: bool) {
    let (key_id, published) = (keys.signing_key_id(), keys.published_keys());
    info!(event = "grant_keys_loaded", key_id, published, was_published, "grant keys loaded");
}
