//! Selects the environment variables that are settings. If a service or a linked container is called `stream-manager` or
//! `stream-manager-…`, the container platform injects variables with the same prefix into every container.

use std::collections::HashMap;

use super::error::ConfigError;

pub(super) const PREFIX: &str = "STREAM_MANAGER";

/// Removes the variables that Kubernetes and Docker inject.
///
/// # Errors
/// One of the remaining variables has a single underscore after the prefix. It is probably a misspelled setting.
pub(super) fn settings_in(mut environment: HashMap<String, String>) -> Result<HashMap<String, String>, ConfigError> {
    environment.retain(|name, value| !is_injected(name, value));
    let has_single_underscore =
        |name: &&String| after_prefix(name).is_some_and(|rest| rest.starts_with('_') && !rest.starts_with("__"));
    match environment.keys().find(has_single_underscore) {
        Some(name) => Err(ConfigError::SingleUnderscore(name.clone())),
        None => Ok(environment),
    }
}

/// The part of the name after the prefix, in upper case. `None` without the prefix.
fn after_prefix(name: &str) -> Option<String> {
    name.to_ascii_uppercase().strip_prefix(PREFIX).map(str::to_owned)
}

/// Whether Kubernetes or a Docker link sets this variable. Ignores case, because Docker copies the variable names of a
/// linked container unchanged (`…_ENV_…`).
fn is_injected(name: &str, value: &str) -> bool {
    let Some(rest) = after_prefix(name) else { return false };
    if let Some(sibling) = rest.strip_prefix("__") {
        // The variables of a Service called `stream-manager--x` start with `STREAM_MANAGER__X`. The name of a Service cannot
        // end with a hyphen, so a variable with an underscore before the suffix is a misspelled setting.
        return kubernetes_suffix(sibling, value).is_some_and(|at| at > 0 && !sibling[..at].ends_with('_'));
    }
    // `_NAME` and `_ENV_…` are from Docker links.
    rest.starts_with('_')
        && (kubernetes_suffix(&rest, value).is_some() || rest.ends_with("_NAME") || rest.contains("_ENV_"))
}

/// The position of the suffix that Kubernetes adds to the name of a Service, or that Docker adds to the name of a link.
fn kubernetes_suffix(name: &str, value: &str) -> Option<usize> {
    let ends_word = |after: &str| after.is_empty() || after.starts_with('_');
    let is_url = || {
        let scheme = value.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(scheme)))
    };
    name.match_indices('_').map(|(at, _)| at).find(|at| match &name[*at..] {
        "_SERVICE_HOST" => true,
        "_PORT" => is_url(),
        suffix => {
            suffix.strip_prefix("_SERVICE_PORT").is_some_and(ends_word)
                || suffix.strip_prefix("_PORT_").is_some_and(is_port_and_protocol)
        }
    })
}

/// The protocols of a port. Variable names contain them in upper case; values contain them in lower case, as URL schemes.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether `text` starts with a port and a protocol, such as `8080_TCP` or `8080_TCP_ADDR`.
fn is_port_and_protocol(text: &str) -> bool {
    let mut words = text.split('_');
    let is_port = words.next().is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    is_port && words.next().is_some_and(|protocol| PROTOCOLS.contains(&protocol))
}
