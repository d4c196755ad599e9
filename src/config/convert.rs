//! Converts the settings into the settings types of the other modules.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use super::rules;
use super::sections::{Auth, AuthMode, Config, DynamoDb, Page};
use crate::domain::lease::{LeaseTerms, StreamLimit};
use crate::http::api::rate_limits::RateSettings;
use crate::http::auth::{KeySource, TokenSettings};
use crate::http::pages::Pages;
use crate::http::pipeline::app::Bounds;
use crate::http::pipeline::cors::CorsSettings;
use crate::http::server::ServerSettings;
use crate::limiter::Policy;
use crate::store::dynamodb::client::ClientSettings;
use crate::telemetry::logging::LogSettings;

impl Config {
    pub fn policy(&self) -> Policy {
        Policy {
            // Never capped, because the bounds of the setting are within those of `StreamLimit`.
            default_limit: StreamLimit::capped(self.limits.streams_per_user.get()),
            at_limit: self.limits.at_limit,
            limit_mode: self.limits.mode,
            hard_limit: StreamLimit::HIGHEST,
            rules: rules::rules(&self.limits.rules, self.limits.mode),
            terms: LeaseTerms {
                duration_s: self.lease.duration_s.to_u32(),
                heartbeat_interval_s: self.lease.heartbeat_interval_s.to_u32(),
                retention_s: self.lease.retention_s.to_u32(),
            },
        }
    }

    /// The configured number of worker threads. If the setting is 0, one per CPU core that this process may use.
    pub fn worker_threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.server.worker_threads.to_usize())
            .unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// The pages to serve.
    pub fn pages(&self) -> Pages {
        let is_on = |page| match page {
            Page::Loopback => self.binds_to_loopback(),
            Page::On => true,
            Page::Off => false,
        };
        Pages { demo: is_on(self.server.demo), swagger: is_on(self.server.swagger) }
    }

    /// Whether only this host can reach the public server.
    pub fn binds_to_loopback(&self) -> bool {
        // `::ffff:127.0.0.1` is also a loopback address.
        self.server.bind.ip().to_canonical().is_loopback()
    }

    pub fn bounds(&self) -> Bounds {
        Bounds {
            max_uri_bytes: self.server.max_uri_bytes.to_usize(),
            max_body_bytes: self.server.max_body_bytes.to_usize(),
            max_in_flight: self.server.max_in_flight.to_usize(),
            request_timeout: self.server.request_timeout_s.seconds(),
        }
    }

    pub fn server(&self) -> ServerSettings {
        ServerSettings {
            header_read_timeout: self.server.header_read_timeout_s.seconds(),
            write_timeout: self.server.write_timeout_s.seconds(),
            max_head_bytes: self.server.max_head_bytes.to_usize(),
            max_headers: self.server.max_headers.to_usize(),
            max_connections: self.server.max_connections.to_usize(),
            drain: self.server.drain_s.seconds(),
        }
    }

    pub fn client(&self) -> ClientSettings {
        let DynamoDb { endpoint_url, region, .. } = self.dynamodb.clone();
        ClientSettings {
            endpoint_url,
            region,
            connect_timeout: self.dynamodb.connect_timeout_ms.milliseconds(),
            attempt_timeout: self.dynamodb.attempt_timeout_ms.milliseconds(),
            operation_timeout: self.dynamodb.operation_timeout_ms.milliseconds(),
            max_attempts: self.dynamodb.max_attempts.to_u32(),
        }
    }

    pub fn cors(&self) -> CorsSettings {
        CorsSettings {
            allowed_origins: self.cors.allowed_origins.clone(),
            allowed_headers: self.cors.allowed_headers.clone(),
        }
    }

    pub fn rate(&self) -> RateSettings {
        RateSettings {
            starts_per_minute: NonZeroU32::new(self.rate.starts_per_minute.to_u32()),
            heartbeats_per_minute: NonZeroU32::new(self.rate.heartbeats_per_minute.to_u32()),
            max_users: self.rate.max_users.to_usize(),
        }
    }

    /// `None` if authentication is disabled.
    pub fn tokens(&self) -> Option<TokenSettings> {
        let Auth { mode, jwks_url, jwks_file, hs256_secret, .. } = self.auth.clone();
        let keys = match (mode, jwks_url, jwks_file, hs256_secret) {
            (AuthMode::None, ..) => return None,
            (_, Some(url), _, _) => KeySource::Url(url),
            (_, _, Some(path), _) => KeySource::File(path),
            (_, _, _, Some(secret)) => KeySource::Secret(secret),
            // Unreachable, because `checks` requires a source of keys. If it were reached, startup would fail on the empty path.
            (_, None, None, None) => KeySource::File(PathBuf::new()),
        };
        Some(TokenSettings {
            keys,
            algorithms: self.auth.algorithms.clone(),
            issuer: self.auth.issuer.clone().unwrap_or_default(),
            audience: self.auth.audience.clone(),
            user_claim: self.auth.user_claim.clone(),
            limit_claim: self.auth.limit_claim.clone(),
            labels_claim: self.auth.labels_claim.clone(),
            admin_scope: self.auth.admin_scope.clone(),
        })
    }

    pub fn log(&self) -> LogSettings {
        LogSettings { format: self.log.format, filter: self.log.filter.clone() }
    }
}
