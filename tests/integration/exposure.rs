//! Without authentication, the service serves other hosts only if the operator has set `auth.mode` to "none".

use std::collections::HashMap;
use std::io::Write;

use stream_manager::config::Config;
use tokio::process::Command;

use crate::service::{Service, command, is_event, run, startup_error, stdout, temp_dir};

/// Loads a file and variables, and checks whether the service may start with them.
fn check(file: &str, variables: &[(&str, &str)]) -> Result<(), String> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let variables = variables.iter().map(|(name, value)| (format!("STREAM_MANAGER__{name}"), (*value).to_owned()));
    let config = Config::load(Some(on_disk.path()), variables.collect::<HashMap<_, _>>()).unwrap();
    config.check_exposure().map_err(|error| error.to_string())
}

#[test]
fn an_unset_auth_mode_is_refused_on_other_addresses() {
    for bind in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "[::ffff:192.0.2.1]:80"] {
        for (file, mode) in [("", None), ("", Some("")), ("[auth]\nuser_claim = \"sub\"\n", None)] {
            let mode = mode.map(|mode| ("AUTH__MODE", mode));
            let variables: Vec<_> = [("SERVER__BIND", bind)].into_iter().chain(mode).collect();
            let message = check(file, &variables).unwrap_err();
            let parts = [&format!("server.bind = {bind}"), "set auth.mode (STREAM_MANAGER__AUTH__MODE)", "\"none\""];
            assert!(parts.iter().all(|part| message.contains(part)) && !message.contains('\n'), "{message}");
        }
    }
}

#[test]
fn an_explicit_auth_mode_is_accepted_on_every_address() {
    let file = "[auth]\nmode = \"none\"\n";
    for bind in ["0.0.0.0:8080", "[::]:8080"] {
        assert_eq!(check("", &[("SERVER__BIND", bind), ("AUTH__MODE", "none")]), Ok(()));
        assert_eq!(check(file, &[("SERVER__BIND", bind), ("AUTH__MODE", "")]), Ok(()));
        let secret = ("AUTH__HS256_SECRET", "0123456789abcdef0123456789abcdef");
        let jwt = [("AUTH__MODE", "jwt"), ("AUTH__ISSUER", "i"), ("AUTH__AUDIENCE", "a"), secret];
        let variables: Vec<_> = jwt.into_iter().chain([("SERVER__BIND", bind)]).collect();
        assert_eq!(check("", &variables), Ok(()));
    }
}

#[test]
fn loopback_addresses_need_no_auth_mode() {
    for bind in ["127.0.0.1:8080", "127.0.0.11:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
        assert_eq!(check("", &[("SERVER__BIND", bind)]), Ok(()), "{bind}");
    }
}

fn public_command(folder: &std::path::Path) -> Command {
    let mut command = command(folder);
    command.env("STREAM_MANAGER__SERVER__BIND", "0.0.0.0:0").env("STREAM_MANAGER__STORE__KIND", "memory");
    command
}

#[tokio::test]
async fn serve_and_check_config_refuse_an_unset_auth_mode() {
    let folder = temp_dir();
    for name in ["serve", "check-config"] {
        let line = startup_error(public_command(folder.path()).arg(name).env("STREAM_MANAGER__AUTH__MODE", "")).await;
        assert!(line.starts_with("error: server.bind = 0.0.0.0:0 is reachable from other hosts"), "{line}");
    }
    let checked =
        run(public_command(folder.path()).arg("check-config").env("STREAM_MANAGER__AUTH__MODE", "none")).await;
    assert!(checked.status.success() && stdout(&checked).contains("mode = \"none\""));
}

#[tokio::test]
async fn commands_that_serve_nobody_need_no_auth_mode() {
    let folder = temp_dir();
    let planned = run(public_command(folder.path()).args(["plan", "--streams", "1000"])).await;
    assert!(planned.status.success(), "{planned:?}");
    let line = startup_error(public_command(folder.path()).arg("migrate")).await;
    assert!(line.contains("store.kind"), "{line}");
}

#[tokio::test]
async fn the_health_check_reads_only_the_address() {
    let folder = temp_dir();
    let service = Service::start(&mut command(folder.path())).await;
    let mut check = command(folder.path());
    // The health check of a container may run without the settings file that sets `auth.mode`, so the settings may be inconsistent.
    check.env("STREAM_MANAGER__AUTH__HS256_SECRET", "0123456789abcdef0123456789abcdef");
    check.env("STREAM_MANAGER__SERVER__BIND", format!("0.0.0.0:{}", service.address.port()));
    let output = run(check.arg("healthcheck")).await;
    assert!(output.status.success(), "{output:?}");
    let line = startup_error(check.env("STREAM_MANAGER__SERVER__BIND", "localhost")).await;
    assert!(line.contains("server.bind"), "{line}");
}

#[tokio::test]
async fn disabled_authentication_on_a_public_address_is_a_warning() {
    let folder = temp_dir();
    let warns = async |bind: &str| {
        let mut command = public_command(folder.path());
        command.env("STREAM_MANAGER__SERVER__BIND", bind).env("STREAM_MANAGER__AUTH__MODE", "none");
        let service = Service::start(&mut command).await;
        service.first_lines.iter().any(|line| line.contains("WARN") && is_event(line, "auth_disabled"))
    };
    assert!(warns("0.0.0.0:0").await);
    assert!(!warns("127.0.0.1:0").await);
}
