//! `stream-manager report`: the numbers, what other limits would deny, the input and the output.

mod command;
mod generator;
mod html;
mod input;
mod output;
mod script;
mod truth;
mod what_if;

use std::fs;
use std::path::PathBuf;

use indicatif::ProgressBar;
use stream_manager::events::cloud_event::CloudEvent;
use stream_manager::report::{Report, evaluate};
use tempfile::TempDir;

use self::generator::{EventLog, User, World};

/// The report of files with these contents.
fn report_of(contents: &[impl AsRef<[u8]>]) -> Report {
    let folder = TempDir::new().unwrap();
    let file = |(index, content): (usize, &_)| -> PathBuf {
        let path = folder.path().join(format!("events-{index}"));
        fs::write(&path, AsRef::<[u8]>::as_ref(content)).unwrap();
        path
    };
    let files: Vec<PathBuf> = contents.iter().enumerate().map(file).collect();
    evaluate(&files, &ProgressBar::hidden()).unwrap()
}

fn report_of_events(events: &[CloudEvent]) -> Report {
    report_of(&[lines(events)])
}

fn lines(events: &[CloudEvent]) -> String {
    events.iter().map(|event| format!("{}\n", serde_json::to_string(event).unwrap())).collect()
}

/// Users of a week, and all of their events in the order of time.
fn week(seed: u64, users: u64) -> (Vec<User>, Vec<CloudEvent>) {
    let (world, mut log) = (World { seed, days: 7, max_sessions: 60 }, EventLog::new(seed));
    let users: Vec<User> = (0..users).map(|number| world.user(number, &mut log)).collect();
    let mut events: Vec<CloudEvent> = users.iter().flat_map(|user| user.events.iter().cloned()).collect();
    events.sort_by_key(|event| event.time);
    (users, events)
}
