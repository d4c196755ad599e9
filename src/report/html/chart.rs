//! Draws charts as SVG. The colours are placeholders that `style.css` replaces, so that a chart fits the light and the dark theme.

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::text_table::number;

pub(super) type ChartError = DrawingAreaErrorKind<io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Values by category, drawn as groups of bars or as lines.
pub(super) struct Chart<'a> {
    pub kind: Kind,
    /// Their labels. Labels that do not fit are left out, and those that are empty.
    pub categories: &'a [String],
    /// One list of values for each series, with a value for each category. At most as many as [`SERIES`].
    pub series: &'a [Vec<f64>],
    /// Follows the numbers of the vertical axis.
    pub unit: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bars,
    Lines,
}

#[derive(Clone, Copy)]
pub(super) enum Width {
    /// For a screen at least 40 rem wide.
    Wide,
    Narrow,
}

const TEXT: RGBColor = RGBColor(0, 0, 1);
const LINE: RGBColor = RGBColor(0, 0, 2);
const SERIES: [RGBColor; 3] = [RGBColor(0, 0, 0x11), RGBColor(0, 0, 0x12), RGBColor(0, 0, 0x13)];
const FONT_SIZE: i32 = 17;
/// The width of the space for the numbers of the vertical axis.
const AXIS_WIDTH: i32 = 72;

impl Width {
    fn size(self) -> (u32, u32) {
        match self {
            Self::Wide => (1000, 300),
            Self::Narrow => (400, 280),
        }
    }

    /// The most labels below a chart, so that they do not overlap.
    fn max_labels(self, longest: usize) -> usize {
        let (width, _) = self.size();
        let label_width = (longest + 2) * FONT_SIZE as usize * 45 / 100;
        (width as usize - AXIS_WIDTH as usize) / label_width.max(1)
    }
}

impl Chart<'_> {
    pub fn svg(&self, width: Width) -> Result<String, ChartError> {
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, width.size()).into_drawing_area(), width)?;
        Ok(svg)
    }

    fn draw(&self, area: &Area<'_>, width: Width) -> Result<(), ChartError> {
        let highest = self.series.iter().flatten().copied().fold(0.0, f64::max);
        let highest = if highest > 0.0 { highest * 1.05 } else { 1.0 };
        let categories = self.categories.len().max(1) as f64;
        let mut chart = ChartBuilder::on(area)
            .margin_top(10)
            .margin_right(24)
            .x_label_area_size(FONT_SIZE * 2)
            .y_label_area_size(AXIS_WIDTH)
            .build_cartesian_2d(0.0..categories, 0.0..highest)?;
        let font = ("sans-serif", FONT_SIZE).into_font().color(&TEXT);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(LINE)
            .axis_style(LINE)
            .x_labels(0)
            .y_labels(5)
            .y_label_formatter(&|value| format!("{}{}", number(*value), self.unit))
            .label_style(font.clone())
            .draw()?;
        for (index, (values, color)) in self.series.iter().zip(SERIES).enumerate() {
            match self.kind {
                Kind::Bars => {
                    let bar = |(category, value): (usize, &f64)| {
                        let (left, right) = self.bar(category, index);
                        Rectangle::new([(left, 0.0), (right, *value)], color.filled())
                    };
                    chart.draw_series(values.iter().enumerate().map(bar))?;
                }
                Kind::Lines => {
                    let point = |(category, value): (usize, &f64)| (category as f64 + 0.5, *value);
                    let points = values.iter().enumerate().map(point);
                    chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
                }
            }
        }
        let labels: Vec<(usize, &String)> =
            self.categories.iter().enumerate().filter(|(_, label)| !label.is_empty()).collect();
        let longest = labels.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
        let step = labels.len().div_ceil(width.max_labels(longest).max(1)).max(1);
        let style = font.pos(Pos::new(HPos::Center, VPos::Top));
        for (index, label) in labels.into_iter().step_by(step) {
            let (x, y) = chart.backend_coord(&(index as f64 + 0.5, 0.0));
            area.draw(&Text::new(label.as_str(), (x, y + 8), style.clone()))?;
        }
        area.present()
    }

    /// The left and right edge of the bar of a series. The bars of a category touch each other.
    fn bar(&self, category: usize, series: usize) -> (f64, f64) {
        const GROUP_WIDTH: f64 = 0.76;
        let width = GROUP_WIDTH / self.series.len() as f64;
        let left = category as f64 + (1.0 - GROUP_WIDTH) / 2.0 + width * series as f64;
        (left, left + width)
    }
}
