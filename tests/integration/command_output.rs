//! The standard output, standard error and exit codes of the commands.

use std::fs::{self, File};
use std::net::TcpListener;

use serde_json::Value;

use crate::service::{Service, command, run, temp_dir};

/// Runs a command that must fail, and returns its standard error as JSON lines.
async fn json_errors(command: &mut tokio::process::Command) -> Vec<Value> {
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn a_full_standard_output_fails_the_command() {
    let folder = temp_dir();
    let service = Service::start(&mut command(folder.path())).await;
    for name in ["check-config", "openapi", "healthcheck"] {
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__SERVER__BIND", service.address.to_string());
        let output = run(command.arg(name).stdout(File::create("/dev/full").unwrap())).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert!(error.starts_with("error: cannot write to standard output: "), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: {error}");
    }
}

#[tokio::test]
async fn a_closed_pipe_is_not_an_error() {
    let folder = temp_dir();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = run(command(folder.path()).arg("check-config").stdout(writer)).await;
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[tokio::test]
async fn a_failed_start_is_logged_as_json() {
    let folder = temp_dir();
    let in_use = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__LOG__FORMAT", "json").env("STREAM_MANAGER__LOG__FILTER", "off");
    let address = in_use.local_addr().unwrap().to_string();
    let lines = json_errors(command.env("STREAM_MANAGER__SERVER__BIND", &address)).await;
    assert_eq!(lines.len(), 1, "log.filter must not hide the error: {lines:?}");
    assert_eq!((&lines[0]["event"], &lines[0]["level"]), (&"start_failed".into(), &"ERROR".into()));
    let error = lines[0]["error"].as_str().unwrap();
    assert!(error.contains(&address) && error.contains("server.bind"), "{error}");
}

#[tokio::test]
async fn invalid_settings_are_logged_in_the_configured_format() {
    let folder = temp_dir();
    let mut by_variable = command(folder.path());
    by_variable.env("STREAM_MANAGER__LOG__FORMAT", "json").env("STREAM_MANAGER__LIMITS__STREAMS_PER_USER", "99");
    fs::write(folder.path().join("json.toml"), "[log]\nformat = \"json\"\n[limits]\nstreams_per_user = 99\n")
        .unwrap();
    let mut by_file = command(folder.path());
    by_file.args(["--config", "json.toml"]);
    for command in [&mut by_variable, &mut by_file] {
        let lines = json_errors(command).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["event"], "start_failed");
        assert_eq!(lines[0]["error"], "limits.streams_per_user = 99: must be 1 to 50");
    }
}
