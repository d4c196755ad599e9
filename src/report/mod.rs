//! Evaluates event files: who starts how many streams, and what another limit would have denied.
//!
//! Reads the files once and writes a compact record of each event to temporary files, partitioned by user. Then evaluates one user
//! at a time, so that the memory use does not grow with the files.

mod analysis;
mod days;
mod devices;
mod error;
mod event_line;
mod history;
mod hours;
pub mod html;
mod input;
mod levels;
mod model;
mod partitions;
mod record;
mod replay;
mod rules;
mod session_lengths;
mod source_names;
pub mod text;
mod what_if;

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use self::analysis::Analysis;
pub use self::error::ReportError;
use self::event_line::Line;
use self::input::Input;
pub use self::model::*;
use self::partitions::Partitions;
use self::source_names::SourceNames;

/// A partition of at most this size is loaded into memory. A larger one is divided again.
const PARTITION_BYTES: u64 = 16 << 20;

/// Evaluates the events in the files, which are plain or compressed with gzip, in any order. `-` is standard input. Advances the
/// `progress`.
///
/// # Errors
/// A file cannot be read, or there is no space for temporary files. Broken lines and damaged compressed files are no errors: the
/// report contains their number.
pub fn evaluate(files: &[PathBuf], progress: &ProgressBar) -> Result<Report, ReportError> {
    progress.set_length(files.iter().map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum());
    set_style(progress, "reading {wide_bar} {bytes}/{total_bytes} {eta}");
    let mut partitions = Partitions::new(PARTITION_BYTES);
    let (mut sources, mut totals) = (SourceNames::default(), InputTotals::default());
    for file in files {
        read(file, progress, &mut partitions, &mut sources, &mut totals)?;
    }
    set_style(progress, "analysing {wide_bar} {percent} %");
    progress.reset();
    progress.set_length(partitions.bytes());
    let mut analysis = Analysis::new(PARTITION_BYTES, totals);
    let ranks = sources.ranks();
    partitions.for_each(&mut |bytes, entries| {
        analysis.add_partition(entries, &ranks)?;
        progress.inc(bytes);
        Ok(())
    })?;
    let report = analysis.finish(sources.len())?;
    progress.finish_and_clear();
    Ok(report)
}

fn read(
    path: &Path,
    progress: &ProgressBar,
    partitions: &mut Partitions,
    sources: &mut SourceNames,
    totals: &mut InputTotals,
) -> Result<(), ReportError> {
    let failed = |source| ReportError::Read { path: path.to_owned(), source };
    let mut input = Input::open(path, progress).map_err(failed)?;
    while let Some(line) = input.next_line().map_err(failed)? {
        match event_line::parse(&line, sources) {
            Line::Event(event) => {
                event.records().iter().try_for_each(|(key, record)| partitions.push(*key, record))?
            }
            Line::Unknown => totals.unknown_types += 1,
            Line::Incomplete => totals.incomplete_last_lines += 1,
            Line::Broken => totals.broken_lines += 1,
            Line::Blank => {}
        }
    }
    totals.damaged_files += u64::from(input.is_damaged());
    Ok(())
}

fn set_style(progress: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        progress.set_style(style);
    }
}
