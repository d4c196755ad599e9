//! A chart with its title, its text alternative, its legend and its numbers as a table.

use maud::{Markup, PreEscaped, html};

use super::chart::{Chart, ChartError, Width};

pub(super) struct Figure<'a> {
    /// Unique in the page.
    pub id: &'a str,
    pub title: &'a str,
    /// Describes what the chart shows, for readers who cannot see it.
    pub description: String,
    pub legend: &'a [&'a str],
    pub chart: Chart<'a>,
    pub table: Table<'a>,
}

pub(super) struct Table<'a> {
    pub caption: &'a str,
    pub header: &'a [&'a str],
    /// The first cell is the header of its row.
    pub rows: Vec<Vec<String>>,
}

impl Figure<'_> {
    pub fn render(&self) -> Result<Markup, ChartError> {
        Ok(html! {
            figure {
                figcaption { strong { (self.title) } ". " (self.description) }
                @if self.legend.len() > 1 {
                    ul.legend aria-hidden="true" {
                        @for (index, series) in self.legend.iter().enumerate() {
                            li { span class=(format!("series-{}", index + 1)) {} (series) }
                        }
                    }
                }
                (self.svg(Width::Wide, "wide")?)
                (self.svg(Width::Narrow, "narrow")?)
                details { summary { "Numbers: " (self.table.caption) } (self.table.render()) }
            }
        })
    }

    /// The chart with a title and a description for screen readers. One of the two widths is hidden.
    fn svg(&self, width: Width, class: &str) -> Result<Markup, ChartError> {
        let svg = self.chart.svg(width)?;
        let (title_id, description_id) = (format!("{}-{class}-title", self.id), format!("{}-{class}-text", self.id));
        let attributes = html! {
            title id=(title_id) { (self.title) }
            desc id=(description_id) { (self.description) }
        };
        let start = format!("<svg class=\"{class}\" role=\"img\" aria-labelledby=\"{title_id} {description_id}\" ");
        let svg = svg.replacen("<svg ", &start, 1).replacen('>', &format!(">{}", attributes.into_string()), 1);
        Ok(PreEscaped(svg))
    }
}

impl Table<'_> {
    pub fn render(&self) -> Markup {
        html! {
            // Focusable, so that a keyboard can scroll it.
            div.scroll tabindex="0" role="region" aria-label=(self.caption) {
                table {
                    caption { (self.caption) }
                    thead { tr { @for cell in self.header { th scope="col" { (cell) } } } }
                    tbody {
                        @for row in &self.rows {
                            tr {
                                @for (index, cell) in row.iter().enumerate() {
                                    @if index == 0 { th scope="row" dir="auto" { (cell) } } @else { td { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
