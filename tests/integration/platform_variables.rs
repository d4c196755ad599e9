//! Environment variables that Kubernetes and Docker inject for a service with the name `stream-manager` or
//! `stream-manager-…`. The program ignores them, but refuses to start with any other variable whose name begins with
//! `STREAM_MANAGER` and a single underscore.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use stream_manager::config::{Config, DEFAULTS};

use crate::service::{Service, command, startup_error, temp_dir};

/// The variables that the kubelet sets for a Service (pkg/kubelet/envvars), with one or several named ports.
fn kubelet(service: &str, ports: &[(&str, u16, &str)]) -> HashMap<String, String> {
    let address = "10.96.0.17";
    let prefix = service.to_ascii_uppercase().replace('-', "_");
    let mut variables = HashMap::new();
    let mut set = |suffix: String, value: String| variables.insert(format!("{prefix}_{suffix}"), value);
    set("SERVICE_HOST".to_owned(), address.to_owned());
    for (number, (name, port, protocol)) in ports.iter().enumerate() {
        let url = format!("{}://{address}:{port}", protocol.to_ascii_lowercase());
        if number == 0 {
            set("SERVICE_PORT".to_owned(), port.to_string());
            set("PORT".to_owned(), url.clone());
        }
        if !name.is_empty() {
            set(format!("SERVICE_PORT_{}", name.to_ascii_uppercase().replace('-', "_")), port.to_string());
        }
        let link = format!("PORT_{port}_{protocol}");
        set(format!("{link}_PROTO"), protocol.to_ascii_lowercase());
        set(format!("{link}_PORT"), port.to_string());
        set(format!("{link}_ADDR"), address.to_owned());
        set(link, url);
    }
    variables
}

/// The variables of `docker run --link web:ALIAS` (moby, daemon/links).
fn docker_link(alias: &str) -> HashMap<String, String> {
    let prefix = alias.to_ascii_uppercase().replace('-', "_");
    let variables = [
        ("PORT", "tcp://172.17.0.5:8080"),
        ("PORT_8080_TCP", "tcp://172.17.0.5:8080"),
        ("PORT_8080_TCP_ADDR", "172.17.0.5"),
        ("PORT_8080_TCP_PORT", "8080"),
        ("PORT_8080_TCP_PROTO", "tcp"),
        ("PORT_8080_TCP_START", "tcp://172.17.0.5:8080"),
        ("PORT_8080_TCP_PORT_START", "8080"),
        ("PORT_8080_TCP_PORT_END", "8081"),
        ("NAME", "/gateway/web"),
        ("ENV_STREAM_MANAGER__SERVER__BIND", "0.0.0.0:8080"),
        ("ENV_http_proxy", "http://proxy:3128"),
    ];
    variables.map(|(suffix, value)| (format!("{prefix}_{suffix}"), value.to_owned())).into()
}

fn refused(variables: HashMap<String, String>) -> Option<String> {
    Config::load(None, variables).err().map(|error| error.to_string())
}

fn one(name: &str, value: &str) -> HashMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

#[test]
fn variables_of_a_kubernetes_service_are_ignored() {
    let ports = [("http", 8080, "TCP"), ("grpc-web", 9090, "TCP"), ("quic", 443, "UDP"), ("", 5000, "SCTP")];
    for service in [
        "stream-manager",
        "stream-manager-redis",
        "stream-manager-port",
        "stream-manager-service-port",
        "stream-manager-server",
        "stream-manager-1",
        "stream-manager--redis",
        "stream-manager--lease--x",
        "stream-manager2",
        "other-stream-manager",
    ] {
        for variables in [kubelet(service, &ports), kubelet(service, &ports[2..]), kubelet(service, &ports[3..])] {
            assert_eq!(refused(variables), None, "{service}");
        }
    }
}

#[test]
fn variables_of_a_docker_link_are_ignored() {
    for alias in ["stream-manager", "stream_manager", "stream-manager-db", "stream_manager_1", "web"] {
        assert_eq!(refused(docker_link(alias)), None, "{alias}");
    }
}

#[test]
fn the_case_of_an_injected_variable_does_not_matter() {
    for name in ["stream_manager_service_host", "Stream_Manager_Redis_Service_Port_Http", "stream_manager_name"] {
        assert_eq!(refused(one(name, "x")), None, "{name}");
    }
    assert_eq!(refused(one("stream_manager_port", "TCP://10.0.0.1:80")), None);
}

#[test]
fn other_variables_with_a_single_underscore_are_refused() {
    for (name, value) in [
        ("STREAM_MANAGER_SERVER__BIND", "127.0.0.1:1"),
        ("stream_manager_limits_streams_per_user", "5"),
        ("STREAM_MANAGER_PORT", "8080"),
        ("STREAM_MANAGER_PORT", "http://10.0.0.1:80"),
        ("STREAM_MANAGER_PORT", ""),
        ("STREAM_MANAGER_REDIS_PORT", "6379"),
        ("STREAM_MANAGER_HOST", "10.0.0.1"),
        ("STREAM_MANAGER_SERVICE", "x"),
        ("STREAM_MANAGER_SERVICE_PORTS", "80"),
        ("STREAM_MANAGER_PORT_8080", "tcp://10.0.0.1:80"),
        ("STREAM_MANAGER_PORT_HTTP_TCP", "x"),
        ("STREAM_MANAGER_PORT_80_TCPS", "x"),
        ("STREAM_MANAGER_TABLENAME", "x"),
        ("STREAM_MANAGER_ENV", "production"),
        ("STREAM_MANAGER_", "x"),
    ] {
        let message = refused(one(name, value)).expect(name);
        assert!(message.starts_with(&format!("{name} is set, but variables for settings")), "{message}");
    }
}

#[test]
fn misspelled_settings_with_an_injected_suffix_are_refused() {
    for name in [
        "STREAM_MANAGER__SERVER__SERVICE_HOST",
        "STREAM_MANAGER__SERVICE_PORT",
        "STREAM_MANAGER__DYNAMODB__TABLE_NAME",
        "STREAM_MANAGER__TABLE_NAME",
        "STREAM_MANAGER__LOG_ENV_X",
        "STREAM_MANAGER__REDIS_PORT",
    ] {
        assert!(refused(one(name, "x")).expect(name).contains("unknown field"), "{name}");
    }
}

#[test]
fn no_setting_has_the_name_of_an_injected_variable() {
    let keys =
        DEFAULTS.lines().filter_map(|line| line.trim_start_matches("# ").split_once(" = ")).map(|(key, _)| key);
    let keys: Vec<&str> =
        keys.filter(|key| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')).collect();
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys {
        let injected =
            ["_service_host", "_service_port", "_port", "_name"].iter().any(|suffix| key.ends_with(suffix));
        assert!(!injected && !key.contains("_env_") && !key.contains("_port_"), "{key}");
    }
}

#[tokio::test]
async fn the_service_starts_with_the_variables_of_its_platform() {
    let folder = temp_dir();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__STORE__KIND", "memory");
    command.envs(kubelet("stream-manager", &[("http", 8080, "TCP"), ("metrics", 9464, "TCP")]));
    command.envs(docker_link("stream-manager-db"));
    command.env("STREAM_MANAGER_DB_ENV_LATIN1", OsStr::from_bytes(b"caf\xe9"));
    let service = Service::start(&mut command).await;
    assert_eq!(service.call("GET", "/health/ready").await.0, 200);
}

#[tokio::test]
async fn a_misspelled_variable_that_is_not_utf8_is_named() {
    let folder = temp_dir();
    for (name, part) in [
        ("STREAM_MANAGER_LOG_FILTER", "is set, but variables for settings start with STREAM_MANAGER__"),
        ("STREAM_MANAGER__LOG__FILTER", "is not UTF-8"),
    ] {
        let line = startup_error(command(folder.path()).env(name, OsStr::from_bytes(b"\xe9"))).await;
        assert!(line.contains(name) && line.contains(part), "{line}");
    }
}
