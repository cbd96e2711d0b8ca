//! The bar chart: CPU per unit, relative to the limit, grouped by scenario.

use std::fmt::Write;

use super::result::Results;
use super::scenario::{self, Shape};
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
/// What the bars are relative to: the first of these that was measured.
const BASES: [(&str, &str); 2] = [("limit", "a bare proxy without features"), ("nginx", "nginx")];

const WIDTH: f64 = 860.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 108.0;
const BAR: f64 = 13.0;
const GAP: f64 = 16.0;
/// Longer bars are cut; their figures are not.
const LONGEST: f64 = 5.0;

/// An SVG that follows the reader's choice of light or dark.
pub(crate) fn svg(results: &Results) -> String {
    let measured = |peer: &str| results.runs.iter().any(|run| run.peer == peer && run.outcome.is_ok());
    let Some((base, base_name)) = BASES.into_iter().find(|(peer, _)| measured(peer)) else {
        return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1 1\"/>\n".into();
    };
    let peers: Vec<(usize, &str, &str)> = PEERS
        .into_iter()
        .enumerate()
        .filter(|(_, (peer, _))| measured(peer))
        .map(|(index, (peer, name))| (index, peer, name))
        .collect();
    let groups: Vec<(&str, Vec<(usize, f64)>)> = scenario::ALL
        .iter()
        .filter(|scenario| matches!(scenario.shape, Shape::Short | Shape::Closed | Shape::Bulk))
        .filter_map(|scenario| {
            let cost = |peer: &str| Summary::of(results, peer, 1, scenario.name).cost;
            let of = |&(index, peer, _): &(usize, &str, &str)| Some((index, ratio(cost(peer), cost(base))?));
            let bars: Vec<(usize, f64)> = peers.iter().filter_map(of).collect();
            (!bars.is_empty()).then_some((scenario.name, bars))
        })
        .collect();
    let longest = groups.iter().flat_map(|(_, bars)| bars).map(|&(_, ratio)| ratio).fold(1.5, f64::max).min(LONGEST);
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let height = TOP + groups.iter().map(|(_, bars)| bars.len() as f64 * BAR + GAP).sum::<f64>() + 8.0;

    let mut svg = String::new();
    // Writing to a String cannot fail.
    let _ = draw(&mut svg, results, &peers, &groups, (base_name, scale, longest, height));
    svg
}

fn draw(
    svg: &mut String,
    results: &Results,
    peers: &[(usize, &str, &str)],
    groups: &[(&str, Vec<(usize, f64)>)],
    (base, scale, longest, height): (&str, f64, f64, f64),
) -> std::fmt::Result {
    let machine = &results.machine;
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\">\n{STYLE}\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n\
         <text class=\"ink\" x=\"20\" y=\"30\" font-size=\"17\" font-weight=\"600\">CPU time per unit of work</text>\n\
         <text class=\"faint\" x=\"20\" y=\"50\">relative to {base} = 1; shorter is better. One worker, Linux {}, {}</text>",
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
    for tick in 1..=longest as u32 {
        let x = LEFT + f64::from(tick) * scale;
        let class = if tick == 1 { "one" } else { "grid" };
        writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{:.0}\"/>",
            TOP - 6.0,
            height - 12.0
        )?;
        writeln!(
            svg,
            "<text class=\"faint\" x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{tick}</text>",
            TOP - 9.0
        )?;
    }
    let mut y = TOP;
    for (name, bars) in groups {
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
    writeln!(svg, "</svg>")
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
