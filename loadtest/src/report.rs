//! A run as one HTML page: verdict, figures, plots. Nothing is fetched from anywhere.
//!
//! Owns layout and colours, for light and dark. Refuses figures of its own: the page shows what the
//! JSON holds, which it also carries.
//! Invariant: the page is complete without scripts and without a network.

use std::fmt::Write as _;

use kuva::prelude::*;

use crate::scenario::{Outcome, Plot as Curves};

/// Colours of lines, apart from each other on white and on black, for the colour-blind too.
const COLOURS: [&str; 5] = ["#2a7ab8", "#d9722b", "#3a9d6e", "#b0569f", "#8a8a2f"];
/// kuva writes colours into the SVG; this one is replaced by the colour of the page's text.
const INK: &str = "#123456";
const GRID: &str = "#654321";

/// The page of a run.
#[must_use]
pub fn page(outcome: &Outcome) -> String {
    let title = format!("Watershed {}", outcome.name);
    let class = if outcome.verdict.passed {
        "passed"
    } else {
        "failed"
    };
    let verdict = crate::scenario::verdict(&outcome.verdict);
    let mut lines = verdict.lines();
    let headline = escape(lines.next().unwrap_or_default());
    let findings: String = lines
        .map(|line| format!("<li>{}</li>", escape(line.trim())))
        .collect();
    let plots: String = plots(outcome).iter().map(figure).collect();
    let json = serde_json::to_string_pretty(outcome).unwrap_or_default();
    format!(
        "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>{title}</title><style>{STYLE}</style></head><body><main>
<h1>{title}</h1>
<p class=\"verdict {class}\">{headline}</p><ul class=\"findings\">{findings}</ul>
<h2>Figures</h2>{figures}
<h2>Plots</h2><div class=\"plots\">{plots}</div>
<h2>Settings</h2>{settings}
<details><summary>The result as JSON</summary><pre>{json}</pre></details>
</main></body></html>
",
        title = escape(&title),
        figures = figures(outcome),
        settings = settings(outcome),
        json = escape(&json),
    )
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2733;--soft:#5d6b7a;--line:#d8dee5;--page:#fbfcfd;--card:#fff;
--good:#1f7a4d;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ee;--soft:#9aa8b6;--line:#34404c;--page:#12181e;
--card:#1a222a;--good:#5cc998;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:62rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;margin:0 0 .75rem}h2{font-size:1.15rem;margin:2.25rem 0 .5rem}
.verdict{font-weight:600;border-left:.3rem solid;padding:.5rem .9rem;background:var(--card)}
.passed{color:var(--good)}.failed{color:var(--bad)}
.findings:empty{display:none}.findings{font-size:.9rem;color:var(--bad)}
table{border-collapse:collapse;width:100%;background:var(--card)}
td{padding:.4rem .75rem;border-bottom:1px solid var(--line);vertical-align:top}
td.value{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th{text-align:right;padding:.4rem .75rem;font-size:.85rem;color:var(--soft)}td.other{color:var(--soft)}
td.from{color:var(--soft);font-size:.85rem}
.plots{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
figure{margin:0;max-width:46rem;background:var(--card);border:1px solid var(--line);padding:.5rem}
figure svg{width:100%;height:auto;display:block;color:var(--ink)}
pre{overflow:auto;background:var(--card);padding:1rem;font-size:.8rem}
summary{cursor:pointer;margin-top:2rem;color:var(--soft)}
";

fn figures(outcome: &Outcome) -> String {
    let mut table = String::from("<table>");
    if let Some(compared) = &outcome.compared {
        let (own, other) = (escape(outcome.endpoint()), escape(compared.endpoint()));
        let _ = write!(
            table,
            "<tr><th></th><th>{own}</th><th>{other}</th><th></th></tr>"
        );
    }
    for metric in &outcome.metrics {
        let from = metric
            .derived_from
            .as_ref()
            .map(|from| format!("derived: {from}"));
        let other = outcome.compared.as_ref().map(|_| {
            let other = outcome.compared_to(&metric.name);
            let other = other.map(crate::scenario::Metric::display);
            let other = escape(&other.unwrap_or_default());
            format!("<td class=\"value other\">{other}</td>")
        });
        let _ = write!(
            table,
            "<tr><td>{}</td><td class=\"value\">{}</td>{}<td class=\"from\">{}</td></tr>",
            escape(&metric.name),
            escape(&metric.display()),
            other.unwrap_or_default(),
            escape(&from.unwrap_or_default()),
        );
    }
    table + "</table>"
}

fn settings(outcome: &Outcome) -> String {
    let mut table = String::from("<table>");
    for (name, value) in &outcome.settings {
        let _ = write!(
            table,
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(name),
            escape(value)
        );
    }
    table + "</table>"
}

/// The plots, each with the lines of the run that is compared.
fn plots(outcome: &Outcome) -> Vec<Curves> {
    let mut plots = outcome.plots.clone();
    let Some(compared) = &outcome.compared else {
        return plots;
    };
    for plot in &mut plots {
        let other = compared.plots.iter().find(|own| own.title == plot.title);
        let series = other.into_iter().flat_map(|own| own.series.clone());
        plot.series
            .extend(series.map(|own| crate::scenario::Series {
                name: format!("{} ({})", own.name, compared.endpoint()),
                ..own
            }));
    }
    plots
}

fn figure(plot: &Curves) -> String {
    let bars = plot.is_bars();
    let has_points = |series: &&crate::scenario::Series| bars || series.points.len() > 1;
    let series: Vec<_> = plot.series.iter().filter(has_points).collect();
    if series.is_empty() {
        return String::new();
    }
    let parts = if bars {
        vec![columns(&series).into()]
    } else {
        lines(plot, &series)
    };
    let mut layout = Layout::auto_from_plots(&parts)
        .with_width(620.0)
        .with_height(360.0)
        .with_title(plot.title.as_str())
        .with_x_label(plot.x.as_str())
        .with_y_label(plot.y.as_str())
        .with_y_axis_min(0.0)
        .with_font_family("system-ui, sans-serif")
        .with_legend_position(LegendPosition::OutsideBottomColumns)
        .with_theme(theme());
    if plot.log_x {
        layout = layout.with_log_x();
    }
    if bars && series.len() > 2 {
        layout = layout.with_x_tick_rotate(-20.0); // names of two servers do not fit side by side
    }
    let svg = render_to_svg(parts, layout);
    let svg = svg
        .replace(INK, "currentColor")
        .replace(GRID, "var(--line)");
    format!("<figure>{}</figure>", scalable(&svg))
}

fn lines(plot: &Curves, series: &[&crate::scenario::Series]) -> Vec<Plot> {
    let single = series.len() == 1;
    let coloured = series.iter().zip(COLOURS.iter().cycle());
    let lines = coloured.map(|(series, colour)| {
        let points = series
            .points
            .iter()
            .map(|(x, y)| (if plot.log_x { x.max(1e-3) } else { *x }, *y));
        let line = LinePlot::new().with_data(points.collect::<Vec<_>>());
        let line = line.with_color(*colour).with_stroke_width(2.0);
        if single {
            line
        } else {
            line.with_legend(series.name.as_str())
        }
        .into()
    });
    lines.collect()
}

/// A column for each series, of its one value, which its name tells too.
fn columns(series: &[&crate::scenario::Series]) -> BarPlot {
    let coloured = series.iter().zip(COLOURS.iter().cycle());
    let columns = coloured.filter_map(|(series, colour)| {
        let (_, value) = series.points.first()?;
        let name = format!("{}: {value:.1}", series.name);
        Some((name, *value, *colour))
    });
    BarPlot::new().with_width(0.5).with_colored_bars(columns)
}

/// Turns the fixed size of a drawing into a view box, so that the page decides how large it is.
fn scalable(svg: &str) -> String {
    let size = |name: &str| {
        let start = svg.find(&format!(" {name}=\""))? + name.len() + 3;
        let (value, _) = svg[start..].split_once('"')?;
        Some(value)
    };
    let (Some(width), Some(height)) = (size("width"), size("height")) else {
        return svg.to_owned();
    };
    let fixed = format!(" width=\"{width}\" height=\"{height}\"");
    svg.replacen(&fixed, &format!(" viewBox=\"0 0 {width} {height}\""), 1)
}

fn theme() -> Theme {
    Theme {
        background: "none".into(),
        axis_color: INK.into(),
        grid_color: GRID.into(),
        tick_color: INK.into(),
        text_color: INK.into(),
        legend_bg: "none".into(),
        legend_border: "none".into(),
        ..Theme::light()
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Series, Unit};

    fn outcome() -> Outcome {
        let mut outcome = Outcome::new("steady", vec![("target".into(), "a<b".into())]);
        outcome.add("memory", 2048.0, Unit::Bytes);
        outcome.plots.push(Curves {
            title: "Rates".into(),
            x: "time".into(),
            y: "events".into(),
            log_x: false,
            series: vec![Series {
                name: "s".into(),
                points: vec![(0.0, 1.0), (1.0, 2.0)],
            }],
        });
        outcome
    }

    #[test]
    fn a_page_fetches_nothing_and_escapes_what_it_shows() {
        let page = page(&outcome());
        assert!(page.contains("a&lt;b") && !page.contains("a<b"));
        assert!(page.contains("<svg") && page.contains("2.00 KiB"));
        let links = page.replace("http://www.w3.org/", "");
        assert!(
            !links.contains("http://") && !links.contains("https://") && !links.contains("<script")
        );
    }

    #[test]
    fn plots_take_the_colours_of_the_page() {
        let page = page(&outcome());
        assert!(page.contains("currentColor") && page.contains("var(--line)"));
        assert!(!page.contains(INK) && !page.contains(GRID));
    }

    #[test]
    fn plots_scale_with_the_page() {
        let page = page(&outcome());
        let (_, svg) = page.split_once("<svg").unwrap();
        let (head, _) = svg.split_once('>').unwrap();
        assert!(head.contains("viewBox=\"0 0 620"), "{head}");
        assert!(!head.contains("width="), "{head}");
    }

    #[test]
    fn a_plot_without_points_is_left_out() {
        let mut outcome = outcome();
        outcome.plots[0].series[0].points.truncate(1);
        assert!(!page(&outcome).contains("<figure>"));
    }
}
