//! Startup failures print one line with the remedy, exit with code 1 and print no backtrace. Also tests a low limit on file
//! descriptors.

use std::fs;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::service::{BINARY, Service, command, command_of, dynamodb_command, is_event, startup_error, temp_dir};

/// Status line and body of a response.
pub type CannedResponse = (&'static str, &'static str);

/// A server that responds to each DynamoDB operation with `respond(operation)`. Returns its URL.
pub async fn fake_dynamodb(respond: fn(&str) -> CannedResponse) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let operation = request.split("DynamoDB_20120810.").nth(1).and_then(|after| after.lines().next());
            let (status, body) = respond(operation.unwrap_or_default());
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: close");
            let head = format!("{head}\r\nx-amzn-RequestId: fake-request");
            _ = stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        }
    });
    format!("http://{address}")
}

pub const NO_TABLE: CannedResponse = (
    "400 Bad Request",
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"no table"}"#,
);

#[tokio::test]
async fn a_missing_table_names_the_command_that_creates_it() {
    let folder = temp_dir();
    let mut command = dynamodb_command(folder.path(), &fake_dynamodb(|_| NO_TABLE).await);
    let line = startup_error(command.env("RUST_BACKTRACE", "1")).await;
    assert_eq!(line, "error: table \"user-streams\" does not exist: run `stream-manager migrate`");
}

#[tokio::test]
async fn an_unusable_database_file_is_named() {
    let folder = temp_dir();
    fs::write(folder.path().join("file"), "no folder").unwrap();
    fs::write(folder.path().join("text.db"), "no database, and longer than its header: ".repeat(9)).unwrap();
    fs::create_dir(folder.path().join("folder.db")).unwrap();
    for path in ["file/state.db", "text.db", "folder.db"] {
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__EMBEDDED__PATH", path).env("RUST_BACKTRACE", "1");
        let line = startup_error(&mut command).await;
        assert!(line.starts_with("error: cannot open ") && line.contains(path), "{line}");
    }
}

#[tokio::test]
async fn without_file_descriptors_accepting_pauses_and_later_resumes() {
    let folder = temp_dir();
    let mut limited = command_of("/bin/sh", folder.path());
    limited.args(["-c", "ulimit -n 48; exec \"$0\"", BINARY]).env("STREAM_MANAGER__STORE__KIND", "memory");
    let mut service = Service::start(&mut limited).await;
    let warned = service.first_lines.iter().any(|line| is_event(line, "file_descriptors_low"));
    assert!(warned, "{:?}", service.first_lines);
    let begun = Instant::now();
    let mut connections = Vec::new();
    for _ in 0..60 {
        connections.push(TcpStream::connect(service.address).await.unwrap());
    }
    for _ in 0..3 {
        service.wait_for_event("accept_failed").await;
    }
    drop(connections);
    assert_eq!(service.call("GET", "/health/live").await.0, 200);
    service.terminate().await;
    let log = service.remaining_log().await;
    let attempts = 3 + log.iter().filter(|line| is_event(line, "accept_failed")).count() as u128;
    assert!(attempts <= 2 + begun.elapsed().as_millis() / 50, "{attempts} attempts without a pause");
}
