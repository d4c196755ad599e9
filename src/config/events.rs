//! Checks the section `events`, and converts it to the settings of events.

use secrecy::ExposeSecret;

use super::error::ConfigError;
use super::grants::MIN_SECRET_BYTES;
use super::sections::{Config, EventSink, EventUser, GrantAlgorithm};
use crate::events::settings::{EventSettings, Identities, SinkSettings};

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let events = &config.events;
    if events.directory.as_os_str().is_empty() {
        return Err(ConfigError::invalid("events.directory", "\"\"", "must not be empty"));
    }
    let Some(key) = &events.hash_key else {
        if events.sink != EventSink::Off && events.user == EventUser::Hashed {
            let problem = "needs events.hash_key (events.user can also be \"plain\" or \"none\")";
            return Err(ConfigError::invalid("events.user", "\"hashed\"", problem));
        }
        return Ok(());
    };
    if events.user != EventUser::Hashed {
        return Err(ConfigError::hidden("events.hash_key", "is for events.user = \"hashed\""));
    }
    let key = key.expose_secret();
    if key.len() < MIN_SECRET_BYTES {
        return Err(ConfigError::hidden("events.hash_key", format!("must have at least {MIN_SECRET_BYTES} bytes")));
    }
    // The hash of a user name that looks like a token would be a valid signature of this token.
    if other_secrets(config).any(|secret| secret == key) {
        return Err(ConfigError::hidden("events.hash_key", "must differ from every other secret"));
    }
    Ok(())
}

fn other_secrets(config: &Config) -> impl Iterator<Item = &str> {
    let (auth, grants) = (&config.auth, &config.grants);
    let has_published_secrets = grants.algorithm == GrantAlgorithm::Hs256;
    let published = grants.published_keys.iter().filter(move |_| has_published_secrets);
    let secrets = [&auth.hs256_secret, &grants.secret, &grants.subject_key].into_iter().flatten().chain(published);
    secrets.map(ExposeSecret::expose_secret)
}

impl Config {
    /// `None` if events are off.
    pub fn events(&self) -> Option<EventSettings> {
        let events = self.events.clone();
        let sink = match events.sink {
            EventSink::Off => return None,
            EventSink::Stdout => SinkSettings::Stdout,
            EventSink::File => SinkSettings::File { directory: events.directory, keep_days: events.keep_days.get() },
        };
        let identities = match events.user {
            EventUser::Plain => Identities::Plain,
            EventUser::None => Identities::Omitted,
            // `check` requires the key.
            EventUser::Hashed => Identities::Hashed(events.hash_key?),
        };
        Some(EventSettings { sink, identities })
    }
}
