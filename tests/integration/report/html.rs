//! The HTML page of a report: self-contained, escaped, and with alternatives to its charts.

use stream_manager::events::cloud_event::CloudEvent;
use stream_manager::report::html::page;

use super::{report_of_events, week};

fn week_page() -> String {
    page(&report_of_events(&week(5, 60).1)).unwrap()
}

#[test]
fn the_page_loads_nothing() {
    let page = week_page();
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
    for reference in ["<script", "<link", "<img", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(reference), "{reference}");
    }
    let hosts = page.matches("://").count();
    assert_eq!(
        hosts,
        page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count(),
        "only the name of the SVG format"
    );
}

#[test]
fn each_chart_has_a_text_alternative_and_a_table() {
    let page = week_page();
    let charts: Vec<&str> = page.split("<svg ").skip(1).collect();
    assert_eq!(charts.len(), 2 * 7, "two limits, concurrency, two of time, sessions, devices; each in two widths");
    for chart in charts {
        let (start, rest) = chart.split_once('>').unwrap();
        let ids = start.split("aria-labelledby=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(start.contains("role=\"img\"") && rest.starts_with("<title id=\""), "{start}");
        for id in ids.split(' ') {
            assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
    }
    assert_eq!(page.matches("<figure>").count(), page.matches("<details>").count());
}

#[test]
fn the_style_replaces_every_colour_of_the_charts() {
    let page = week_page();
    let (style, body) = page.split_once("</style>").unwrap();
    for (attribute, quoted) in [("fill", "fill=\"#"), ("stroke", "stroke=\"#")] {
        for rest in body.split(quoted).skip(1) {
            let rule = format!("[{attribute}=\"#{}\" i]", &rest[..6]);
            assert!(style.contains(&rule), "{rule}");
        }
    }
}

#[test]
fn names_are_escaped() {
    let (_, mut events) = week(5, 60);
    for event in &mut events {
        event.subject = event.subject.take().map(|user| format!("<script>{user}</script>&\""));
    }
    let page = page(&report_of_events(&events)).unwrap();
    assert!(page.contains("&lt;script&gt;user-") && !page.contains("<script>"));
}

#[test]
fn an_empty_report_has_a_page() {
    let page = page(&report_of_events(&[])).unwrap();
    assert!(page.contains("No events") && !page.contains("<svg"));
}

#[test]
fn charts_of_one_hour_are_not_empty() {
    let (_, mut events) = week(5, 60);
    let hour = |event: &CloudEvent| event.time.0.epoch_ms() / 3_600_000;
    let first = hour(&events[0]);
    events.retain(|event| hour(event) == first);
    let page = page(&report_of_events(&events)).unwrap();
    let chart = page.split("<title id=\"starts-wide-title\"").nth(1).unwrap().split("</svg>").next().unwrap();
    assert!(chart.contains("<rect") && chart.contains("fill=\"#000011\""), "{chart}");
}
