//! The JWKS cache: loads the JWKS from a file or a URL and keeps the last valid one. It refreshes the JWKS periodically,
//! and when a token names an unknown key.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use reqwest::{Client, redirect};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::sync::{Mutex, Semaphore};
use tracing::{info, warn};

use super::jwks::{Key, KeySet, KeySetError};
use super::{KeySource, TokenError, key_file};
use crate::clock::Clock;

const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
/// Used instead of `REFRESH_INTERVAL` while no keys are loaded.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Minimum interval between refreshes triggered by unknown keys. Each refresh is a request to the issuer, and any client
/// can invent a `kid`.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_JWKS_BYTES: usize = 256 * 1024;

/// Maximum age of the keys. Older ones are not used, because the issuer may have withdrawn them.
const MAX_STALENESS: Duration = Duration::from_secs(24 * 3600);
/// Maximum number of requests that wait for a refresh. The limit exists because each of them holds an in-flight permit.
const MAX_WAITING: usize = 16;

pub(crate) struct JwksCache {
    source: Source,
    allowed: Vec<Algorithm>,
    cached: RwLock<Option<CachedKeys>>,
    /// Serializes refreshes, so that an older response never replaces a newer one.
    refreshing: Mutex<()>,
    /// Time of the last refresh for an unknown key. The lock is held during the refresh, so that all waiting requests
    /// share one refresh.
    refreshed_for_unknown_key: Mutex<Option<Duration>>,
    waiting: Semaphore,
    clock: Arc<dyn Clock>,
}

struct CachedKeys {
    keys: Arc<KeySet>,
    /// Time just before the keys were read or requested (monotonic clock).
    fetched_at: Duration,
}

enum Source {
    Url(Client, String),
    File(PathBuf),
    /// A shared secret is never refreshed.
    Secret,
}

/// The reason why a JWKS could not be loaded.
#[derive(Debug, Error)]
pub enum JwksError {
    #[error("auth.jwks_file {0:?} cannot be read: {1}")]
    FileUnreadable(PathBuf, std::io::Error),
    #[error("auth.jwks_file {0:?} {1}")]
    FileInvalid(PathBuf, KeySetError),
    #[error("auth.jwks_url cannot be fetched: {0}")]
    UrlUnavailable(String),
    #[error("the JWKS at auth.jwks_url {0}")]
    UrlInvalid(KeySetError),
}

impl JwksCache {
    pub(crate) async fn open(
        source: KeySource,
        allowed: Vec<Algorithm>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, JwksError> {
        let (source, cached) = match source {
            KeySource::Secret(secret) => {
                let keys = Arc::new(KeySet::from_secret(secret.expose_secret().as_bytes()));
                (Source::Secret, Some(CachedKeys { keys, fetched_at: clock.monotonic() }))
            }
            KeySource::File(path) => (Source::File(path), None),
            KeySource::Url(url) => (Source::Url(http_client(&url)?, url), None),
        };
        let cache = Self {
            source,
            allowed,
            cached: RwLock::new(cached),
            refreshing: Mutex::default(),
            refreshed_for_unknown_key: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
            clock,
        };
        match (cache.refresh().await, &cache.source) {
            // A failed fetch is not fatal, because the issuer can be temporarily unavailable. An unreadable file is a
            // configuration error.
            (Err(error), Source::Url(..)) => log_unavailable(&error),
            (Err(error), _) => return Err(error),
            (Ok(()), _) => {}
        }
        Ok(cache)
    }

    pub(crate) fn has_keys(&self) -> bool {
        self.keys().is_some()
    }

    /// Refreshes the JWKS periodically. Never returns.
    pub(crate) async fn refresh_regularly(&self) {
        loop {
            let had_keys = self.has_keys();
            tokio::time::sleep(if had_keys { REFRESH_INTERVAL } else { RETRY_INTERVAL }).await;
            match self.refresh().await {
                Ok(()) if !had_keys => info!(event = "jwks_loaded", "JWKS loaded"),
                Ok(()) => {}
                Err(error) if !had_keys => log_unavailable(&error),
                Err(error) => {
                    warn!(event = "jwks_refresh_failed", %error, "JWKS refresh failed; the cached keys stay in use");
                }
            }
        }
    }

    pub(crate) async fn refresh(&self) -> Result<(), JwksError> {
        let _guard = self.refreshing.lock().await;
        let fetched_at = self.clock.monotonic();
        let keys = match &self.source {
            Source::Secret => return Ok(()),
            Source::File(path) => {
                let json = key_file::read(path.clone(), MAX_JWKS_BYTES).await;
                let json = json.map_err(|error| JwksError::FileUnreadable(path.clone(), error))?;
                KeySet::parse(&json, &self.allowed).map_err(|error| JwksError::FileInvalid(path.clone(), error))?
            }
            Source::Url(client, url) => {
                let json = fetch(client, url).await.map_err(JwksError::UrlUnavailable)?;
                KeySet::parse(&json, &self.allowed).map_err(JwksError::UrlInvalid)?
            }
        };
        let cached = CachedKeys { keys: Arc::new(keys), fetched_at };
        *self.cached.write().unwrap_or_else(PoisonError::into_inner) = Some(cached);
        Ok(())
    }

    /// Finds the key that a token names. An unknown key causes a refresh, because the issuer may have rotated its keys.
    pub(crate) async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, TokenError> {
        let keys = self.keys().ok_or(TokenError::NoKeys)?;
        match keys.find(kid, algorithm) {
            Err(TokenError::UnknownKey) => {}
            found => return found,
        }
        // If the keys were not refreshed, the token may still be valid. The client therefore gets a 503 instead of a 401.
        if !self.refresh_for_unknown_key().await {
            return Err(TokenError::NoKeys);
        }
        self.keys().ok_or(TokenError::NoKeys)?.find(kid, algorithm)
    }

    /// Refreshes the keys, unless an unknown key already caused a refresh within the last `MIN_REFRESH_INTERVAL`. Returns
    /// true if the cached keys are from the latest refresh for an unknown key, or newer.
    async fn refresh_for_unknown_key(&self) -> bool {
        let Ok(_permit) = self.waiting.try_acquire() else { return false };
        let mut last_refresh = self.refreshed_for_unknown_key.lock().await;
        let now = self.clock.monotonic();
        let required = match *last_refresh {
            Some(at) if now.saturating_sub(at) < MIN_REFRESH_INTERVAL => at,
            _ => {
                // Set before the refresh, so that the interval also applies after a failed refresh.
                *last_refresh = Some(now);
                if let Err(error) = self.refresh().await {
                    warn!(
                        event = "jwks_unknown_key",
                        %error,
                        "a token names an unknown key and the JWKS cannot be refreshed"
                    );
                }
                now
            }
        };
        self.read_cached().as_ref().is_some_and(|cached| cached.fetched_at >= required)
    }

    fn keys(&self) -> Option<Arc<KeySet>> {
        let cached = self.read_cached();
        let cached = cached.as_ref()?;
        let age = self.clock.monotonic().saturating_sub(cached.fetched_at);
        (matches!(self.source, Source::Secret) || age < MAX_STALENESS).then(|| Arc::clone(&cached.keys))
    }

    fn read_cached(&self) -> RwLockReadGuard<'_, Option<CachedKeys>> {
        self.cached.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_unavailable(error: &JwksError) {
    warn!(event = "jwks_unavailable", %error, "JWKS not loaded; not ready until it is");
}

fn http_client(url: &str) -> Result<Client, JwksError> {
    // Redirects are disabled, because a redirect could lead to any host, even over plain HTTP.
    let client = Client::builder().connect_timeout(FETCH_TIMEOUT).timeout(FETCH_TIMEOUT);
    let client = client.redirect(redirect::Policy::none());
    // The configuration allows plain HTTP only on loopback. A proxy would send the request to another host.
    let client = if url.starts_with("http://") { client.no_proxy() } else { client };
    client.build().map_err(|error| JwksError::UrlUnavailable(with_causes(error)))
}

async fn fetch(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    let mut response = client.get(url).send().await.map_err(with_causes)?;
    if response.status() != 200 {
        return Err(format!("the response has status {}", response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(with_causes)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_JWKS_BYTES {
            return Err(format!("the response has more than {MAX_JWKS_BYTES} bytes"));
        }
    }
    Ok(body)
}

/// One line with the error and all its causes. `reqwest` itself prints only the outermost error.
fn with_causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
