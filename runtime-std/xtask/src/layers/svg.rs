//! The picture of the layers: one line per module, lowest at the bottom, arrows from a module to
//! those it imports.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::House;

/// Sizes in pixels: a module's line, a box, the space above the first line and that between two
/// crates.
const LINE: usize = 30;
const BOX_WIDTH: usize = 116;
const BOX_HEIGHT: usize = 22;
const TOP: usize = 44;
const PANEL: usize = 380;

/// Draws the crates side by side. An arrow that follows from others is left out; one that goes up
/// is red.
pub fn draw(houses: &[House]) -> String {
    let most = houses
        .iter()
        .map(|house| house.rows.iter().flatten().count())
        .max();
    let (width, height) = (PANEL * houses.len(), TOP + LINE * most.unwrap_or(0) + 16);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>Modules of brooklet, each importing only what stands below it</title>\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path d=\"M0 0 8 4 0 8z\" fill=\"#555\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (i, house) in houses.iter().enumerate() {
        panel(&mut svg, house, PANEL * i + 20, height - 16);
    }
    svg.push_str("</svg>\n");
    svg
}

/// One crate, whose boxes begin at `left` and end at `bottom`. (Writing to a string cannot fail.)
fn panel(svg: &mut String, house: &House, left: usize, bottom: usize) {
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"24\" font-weight=\"bold\">{}</text>",
        house.name
    );
    let middle = |place: usize| bottom - LINE * place - LINE / 2;
    let mut place = 0;
    for (i, row) in house.rows.iter().enumerate() {
        let (top, shade) = (
            bottom - LINE * (place + row.len()),
            ["#f4f4f0", "#e8ecf2"][i % 2],
        );
        let _ = writeln!(
            svg,
            "<rect x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{}\" fill=\"{shade}\"/>",
            left - 10,
            BOX_WIDTH + 20,
            LINE * row.len()
        );
        for module in row {
            let y = middle(place);
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"4\" fill=\"#fff\" stroke=\"#777\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{module}</text>",
                y - BOX_HEIGHT / 2,
                left + BOX_WIDTH / 2,
                y + 4
            );
            place += 1;
        }
    }
    let places = places(house);
    let right = left + BOX_WIDTH;
    for (from, to) in arrows(&places) {
        let (start, end) = (middle(from), middle(to));
        let bulge = right + 24 + 9 * from.abs_diff(to).min(24);
        let color = if to > from { "#c00" } else { "#555" };
        let _ = writeln!(
            svg,
            "<path d=\"M{right} {start}C{bulge} {start} {bulge} {end} {} {end}\" fill=\"none\" stroke=\"{color}\" \
             marker-end=\"url(#head)\"/>",
            right + 2
        );
    }
}

/// The graph by places in the order.
fn places(house: &House) -> BTreeMap<usize, Vec<usize>> {
    let places = |names: Vec<&str>| names.iter().filter_map(|name| house.place(name)).collect();
    let graph = house.graph().into_iter();
    graph
        .filter_map(|(from, to)| Some((house.place(from)?, places(to))))
        .collect()
}

/// The imports that do not follow from others: those of lower modules that a lower module of the
/// same list imports are left out.
fn arrows(graph: &BTreeMap<usize, Vec<usize>>) -> Vec<(usize, usize)> {
    let mut arrows = Vec::new();
    for (&from, to) in graph {
        let lower: Vec<usize> = to.iter().copied().filter(|&to| to < from).collect();
        for &end in to {
            if end > from
                || !lower
                    .iter()
                    .any(|&via| via > end && reaches(graph, via, end))
            {
                arrows.push((from, end));
            }
        }
    }
    arrows
}

/// Returns true if a chain of downward imports leads from one place to the other.
fn reaches(graph: &BTreeMap<usize, Vec<usize>>, from: usize, end: usize) -> bool {
    let next = graph.get(&from).into_iter().flatten();
    next.filter(|&&next| next < from && next >= end)
        .any(|&next| next == end || reaches(graph, next, end))
}
