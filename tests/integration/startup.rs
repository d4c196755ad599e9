//! A start that cannot be: one line that says what to do, exit code 1, no backtrace. And one with little to work with.

use std::fs;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::process::{BINARY, Service, command, command_of, folder, refusal};

/// Answers each operation as it is told; gives its address.
pub async fn dynamodb(answers: fn(&str) -> (&'static str, &'static str)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let operation = request.split("DynamoDB_20120810.").nth(1).and_then(|after| after.lines().next());
            let (status, body) = answers(operation.unwrap_or_default());
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: close");
            _ = stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        }
    });
    format!("http://{address}")
}

pub const NO_TABLE: (&str, &str) = (
    "400 Bad Request",
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"no table"}"#,
);

#[tokio::test]
async fn a_missing_table_says_which_command_makes_it() {
    let folder = folder();
    let mut command = command(folder.path());
    command
        .envs([("STREAM_MANAGER__STORE__KIND", "dynamodb"), ("RUST_BACKTRACE", "1")])
        .env("STREAM_MANAGER__DYNAMODB__ENDPOINT_URL", dynamodb(|_| NO_TABLE).await)
        .envs([("AWS_REGION", "x"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]);
    let line = refusal(&mut command).await;
    assert_eq!(line, "error: table \"user-streams\" does not exist: run `stream-manager migrate`");
}

#[tokio::test]
async fn a_file_that_cannot_hold_the_state_is_named() {
    let folder = folder();
    fs::write(folder.path().join("file"), "no folder").expect("a file");
    fs::write(folder.path().join("text.db"), "no database, and longer than its header: ".repeat(9)).expect("a file");
    fs::create_dir(folder.path().join("folder.db")).expect("a folder");
    for path in ["file/state.db", "text.db", "folder.db"] {
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__EMBEDDED__PATH", path).env("RUST_BACKTRACE", "1");
        let line = refusal(&mut command).await;
        assert!(line.starts_with("error: cannot open ") && line.contains(path), "{line}");
    }
}

#[tokio::test]
async fn out_of_file_descriptors_it_waits_without_spinning_and_goes_on_when_there_are_some() {
    let folder = folder();
    let mut limited = command_of("/bin/sh", folder.path());
    limited.args(["-c", "ulimit -n 48; exec \"$0\"", BINARY]).env("STREAM_MANAGER__STORE__KIND", "memory");
    let mut service = Service::start(&mut limited).await;
    assert!(service.first_lines.iter().any(|line| line.contains("file descriptors")), "{:?}", service.first_lines);
    let begun = Instant::now();
    let mut connections = Vec::new();
    for _ in 0..60 {
        connections.push(TcpStream::connect(service.address).await.expect("the kernel takes it"));
    }
    let refused = |line: &str| line.contains("cannot accept connections");
    for _ in 0..3 {
        while !refused(&service.log.next_line().await.expect("a line").expect("a line")) {}
    }
    drop(connections);
    assert_eq!(service.call("GET", "/health/live").await.0, 200);
    service.terminate().await;
    let lines = 3 + service.rest_of_the_log().await.iter().filter(|line| refused(line)).count() as u128;
    assert!(lines <= 2 + begun.elapsed().as_millis() / 50, "{lines} tries: it must pause between them");
}
