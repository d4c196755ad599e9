//! The report as one HTML page with charts. It loads nothing from other files or hosts.

mod chart;
mod figure;
mod sections;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use thiserror::Error;

use self::chart::ChartError;
use super::model::Report;
use super::text::{DEFINITIONS, accuracy, count, hours_of, minute, notes};
use crate::text_table::percent;

/// A chart could not be drawn.
#[derive(Debug, Error)]
#[error("cannot draw a chart")]
pub struct HtmlError(#[from] ChartError);

pub fn page(report: &Report) -> Result<String, HtmlError> {
    let period = period(report);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Streams, " (period) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    h1 { "Concurrent streams" }
                    p { (period) }
                    (totals(report))
                    @for note in notes(report).lines() { p.note { (note) } }
                    @if report.totals.events > 0 {
                        h2 { "What if?" }
                        p { (accuracy(report)) }
                        @if report.what_if.is_some() {
                            p {
                                "Users with their own limit keep it, and the rows include their denials. "
                                "The rules do not apply. For a rule, the user's "
                                "limit and the other rules do not apply."
                            }
                            ul { @for (term, definition) in DEFINITIONS { li { em { (term) } ": " (definition) "." } } }
                        }
                        (sections::what_if(report)?)
                        (sections::concurrency(report)?)
                        (sections::denied_users(report))
                        (sections::rules(report))
                        (sections::hours(report)?)
                        (sections::sessions(report)?)
                        (sections::devices(report)?)
                    }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn period(report: &Report) -> String {
    match (report.totals.first_event, report.totals.last_event) {
        (Some(first), Some(last)) => format!("{} to {} UTC", minute(first), minute(last)),
        _ => "No events".to_owned(),
    }
}

fn totals(report: &Report) -> Markup {
    let starts = &report.totals.starts;
    let numbers = [
        ("Users", count(report.totals.users)),
        ("Starts", count(report.starts())),
        ("Over the limit", count(starts.over_limit)),
        ("Denied", count(starts.denied)),
        ("Sessions", count(report.sessions.count)),
        ("Hours watched", hours_of(report.sessions.watching_seconds)),
        ("Sessions without an end event", percent(report.sessions.assumed_ends_percent)),
        ("Events", count(report.totals.events)),
    ];
    html! { dl.totals { @for (name, number) in &numbers { div { dt { (name) } dd { (number) } } } } }
}
