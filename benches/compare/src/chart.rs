//! The bar chart: CPU per unit, relative to the limit, over TLS and of HTTP to nginx, grouped by scenario.

use std::fmt::Write;

use super::result::Results;
use super::scenario::{self, Scenario, Shape};
use super::summary::{Summary, ratio};

/// Who is drawn, with the colour's name in the style below.
const PEERS: [(&str, &str); 6] = [
    ("tidegate", "tidegate"),
    ("nginx", "nginx"),
    ("haproxy-splice", "HAProxy, splice"),
    ("haproxy-auto", "HAProxy, auto"),
    ("haproxy", "HAProxy"),
    ("envoy", "Envoy"),
];
/// What the bars are relative to: the first of these that was measured. The limit has neither TLS nor HTTP.
const BASES: [(&str, &str); 3] =
    [("limit", "a bare proxy without features"), ("nginx", "nginx"), ("haproxy", "HAProxy")];

/// Whether a scenario belongs to a part of the chart.
type Belongs = fn(&Scenario) -> bool;
/// Parts of the chart, and the scenarios of each.
const SECTIONS: [(&str, Belongs); 4] = [
    ("Plain TCP", |scenario| scenario.tls.is_none() && scenario.http.is_none() && !scenario.udp),
    ("Over TLS 1.3", |scenario| scenario.tls.is_some()),
    ("HTTP", |scenario| scenario.http.is_some()),
    ("UDP", |scenario| scenario.udp),
];

const WIDTH: f64 = 860.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 88.0;
/// Of a section: its title and the axis.
const TITLE: f64 = 46.0;
const BAR: f64 = 13.0;
const GAP: f64 = 16.0;
/// Longer bars are cut; their figures are not.
const LONGEST: f64 = 5.0;

/// Scenarios whose bars are relative to the same.
struct Section {
    title: String,
    /// By scenario: who, and how much.
    groups: Vec<(&'static str, Vec<(usize, f64)>)>,
}

impl Section {
    fn of(results: &Results, peers: &[(usize, &str, &str)], what: &str, belongs: Belongs) -> Option<Section> {
        let scenarios: Vec<&Scenario> = scenario::ALL
            .iter()
            .filter(|scenario| matches!(scenario.shape, Shape::Short | Shape::Closed | Shape::Bulk))
            .filter(|scenario| belongs(scenario))
            .collect();
        let cost = |peer: &str, scenario: &Scenario| Summary::of(results, peer, 1, scenario.name).cost;
        let measured = |peer: &str| scenarios.iter().any(|scenario| cost(peer, scenario).is_some());
        let (base, base_name) = BASES.into_iter().find(|(peer, _)| measured(peer))?;
        let groups = scenarios.iter().filter_map(|scenario| {
            let of = |&(colour, peer, _): &(usize, &str, &str)| {
                Some((colour, ratio(cost(peer, scenario), cost(base, scenario))?))
            };
            let bars: Vec<(usize, f64)> = peers.iter().filter_map(of).collect();
            (!bars.is_empty()).then_some((scenario.name, bars))
        });
        Some(Section { title: format!("{what}, relative to {base_name} = 1"), groups: groups.collect() })
    }

    fn height(&self) -> f64 {
        TITLE + self.groups.iter().map(|(_, bars)| bars.len() as f64 * BAR + GAP).sum::<f64>()
    }
}

/// An SVG that follows the reader's choice of light or dark.
pub(crate) fn svg(results: &Results) -> String {
    let measured = |peer: &str| results.runs.iter().any(|run| run.peer == peer && run.outcome.is_ok());
    let peers: Vec<(usize, &str, &str)> = PEERS
        .into_iter()
        .enumerate()
        .filter(|(_, (peer, _))| measured(peer))
        .map(|(index, (peer, name))| (index, peer, name))
        .collect();
    let sections: Vec<Section> =
        SECTIONS.into_iter().filter_map(|(what, belongs)| Section::of(results, &peers, what, belongs)).collect();
    let mut svg = String::new();
    // Writing to a String cannot fail.
    let _ = draw(&mut svg, results, &peers, &sections);
    svg
}

fn draw(svg: &mut String, results: &Results, peers: &[(usize, &str, &str)], sections: &[Section]) -> std::fmt::Result {
    let machine = &results.machine;
    let height = TOP + sections.iter().map(Section::height).sum::<f64>() + 8.0;
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\">\n{STYLE}\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n\
         <text class=\"ink\" x=\"20\" y=\"30\" font-size=\"17\" font-weight=\"600\">CPU time per unit of work</text>\n\
         <text class=\"faint\" x=\"20\" y=\"50\">shorter is better. One worker, Linux {}, {}</text>",
        escape(&machine.kernel),
        escape(machine.date.get(..10).unwrap_or(&machine.date)),
    )?;
    let mut x = 20.0;
    for &(colour, peer, name) in peers {
        let version = results.peers.iter().find(|known| known.name == peer).map_or("", |known| &known.version);
        let label = format!("{name} {}", version.split('-').next().unwrap_or_default());
        writeln!(svg, "<rect class=\"c{colour}\" x=\"{x:.0}\" y=\"66\" width=\"12\" height=\"12\" rx=\"2\"/>")?;
        writeln!(svg, "<text class=\"ink\" x=\"{:.0}\" y=\"76\">{}</text>", x + 17.0, escape(&label))?;
        x += 36.0 + 6.3 * label.chars().count() as f64;
    }
    let mut top = TOP;
    for section in sections {
        draw_section(svg, section, top)?;
        top += section.height();
    }
    writeln!(svg, "</svg>")
}

fn draw_section(svg: &mut String, section: &Section, top: f64) -> std::fmt::Result {
    let ratios = section.groups.iter().flat_map(|(_, bars)| bars).map(|&(_, ratio)| ratio);
    let longest = ratios.fold(1.5, f64::max).min(LONGEST);
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let mut y = top + TITLE;
    writeln!(
        svg,
        "<text class=\"ink\" x=\"20\" y=\"{:.0}\" font-weight=\"600\">{}</text>",
        top + 22.0,
        escape(&section.title)
    )?;
    for tick in 1..=longest as u32 {
        let x = LEFT + f64::from(tick) * scale;
        let class = if tick == 1 { "one" } else { "grid" };
        writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{:.0}\"/>",
            y - 6.0,
            top + section.height() - GAP + 4.0
        )?;
        writeln!(svg, "<text class=\"faint\" x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{tick}</text>", y - 9.0)?;
    }
    for (name, bars) in &section.groups {
        let middle = y + bars.len() as f64 * BAR / 2.0 + 4.0;
        writeln!(
            svg,
            "<text class=\"ink\" x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 10.0
        )?;
        for &(colour, ratio) in bars {
            let length = ratio.min(longest) * scale;
            writeln!(
                svg,
                "<rect class=\"c{colour}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\"/>\n\
                 <text class=\"ink figure\" x=\"{:.1}\" y=\"{:.1}\" font-size=\"10.5\">{ratio:.2}{}</text>",
                BAR - 2.0,
                LEFT + length + 5.0,
                y + BAR - 3.5,
                if ratio > longest { " ▸" } else { "" },
            )?;
            y += BAR;
        }
        y += GAP;
    }
    Ok(())
}

const STYLE: &str = "<style>\n\
    .paper { fill: #ffffff } .ink { fill: #1f2328 } .faint { fill: #59636e }\n\
    .figure { paint-order: stroke; stroke: #ffffff; stroke-width: 3px }\n\
    .grid { stroke: #d9dee3 } .one { stroke: #59636e; stroke-dasharray: 4 3 }\n\
    .c0 { fill: #0b7285 } .c1 { fill: #74b816 } .c2 { fill: #4c6ef5 } .c3 { fill: #91a7ff } .c4 { fill: #c5d0f5 } .c5 { fill: #c2255c }\n\
    @media (prefers-color-scheme: dark) {\n\
    .paper { fill: #0d1117 } .ink { fill: #e6edf3 } .faint { fill: #9198a1 }\n\
    .figure { stroke: #0d1117 }\n\
    .grid { stroke: #2b3138 } .one { stroke: #9198a1 }\n\
    .c0 { fill: #22b8cf } .c1 { fill: #82c91e } .c2 { fill: #748ffc } .c3 { fill: #4c5fb0 } .c4 { fill: #36406e } .c5 { fill: #f06595 }\n\
    }\n</style>";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
