//! The command `stream-manager report` never overwrites a file of the user, and explains wrong input.

use std::fs;
use std::path::Path;

use super::{lines, week};
use crate::service::{command, run, stdout, temp_dir};

/// Runs a report in a folder with `events.jsonl`. Returns the exit code and both outputs.
async fn report(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(command(folder).arg("report").args(arguments)).await;
    (output.status.code(), stdout(&output) + &String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_page_does_not_overwrite_other_files() {
    let folder = temp_dir();
    let events = lines(&week(5, 3).1);
    fs::write(folder.path().join("events.jsonl"), &events).unwrap();
    fs::write(folder.path().join("other.txt"), "mine").unwrap();
    for (target, file, content) in [
        ("events.jsonl", "events.jsonl", events.as_str()),
        ("./events.jsonl", "events.jsonl", events.as_str()),
        ("other.txt", "other.txt", "mine"),
    ] {
        let (code, output) = report(folder.path(), &["--html", target, "events.jsonl"]).await;
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains("exists and is not a report; name another file after --html"), "{output}");
        assert_eq!(fs::read_to_string(folder.path().join(file)).unwrap(), content);
    }
    let (code, _) = report(folder.path(), &["--html", "-", "events.jsonl"]).await;
    assert_eq!((code, folder.path().join("-").exists()), (Some(1), false));
}

#[tokio::test]
async fn a_page_replaces_an_earlier_page() {
    let folder = temp_dir();
    fs::write(folder.path().join("events.jsonl"), lines(&week(5, 3).1)).unwrap();
    let page = folder.path().join("page.html");
    fs::write(&page, "<!DOCTYPE html>old").unwrap();
    let (code, output) = report(folder.path(), &["--html", "page.html", "events.jsonl"]).await;
    assert_eq!(code, Some(0), "{output}");
    let written = fs::read_to_string(&page).unwrap();
    assert!(written.starts_with("<!DOCTYPE html>") && written.ends_with("</html>"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file remains");
}

#[tokio::test]
async fn files_without_events_are_an_error() {
    let folder = temp_dir();
    fs::write(folder.path().join("app.log"), "started\nstopped\n").unwrap();
    fs::write(folder.path().join("empty.jsonl"), "").unwrap();
    let (code, output) = report(folder.path(), &["app.log"]).await;
    assert_eq!(code, Some(1));
    assert!(output.contains("no line of app.log is an event of stream-manager"), "{output}");
    let (code, output) = report(folder.path(), &["empty.jsonl"]).await;
    assert_eq!((code, output.as_str()), (Some(0), "No events.\n"));
}

#[tokio::test]
async fn a_folder_is_refused_with_its_files() {
    let folder = temp_dir();
    fs::create_dir(folder.path().join("events")).unwrap();
    let (code, output) = report(folder.path(), &["events"]).await;
    assert_eq!(code, Some(1));
    assert!(output.contains("events is a directory; pass its files: events/*.jsonl"), "{output}");
}
