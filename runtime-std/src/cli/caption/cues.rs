//! From captions to cues that a person can read: two lines of 42 columns at most.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::captions::Caption;

/// Most columns of a line, as subtitles of films have them.
const COLUMNS: usize = 42;

/// Most lines of a cue.
const LINES: usize = 2;

/// Lines that are shown at once, with times in milliseconds.
#[derive(Debug, PartialEq)]
pub struct Cue {
    pub start: u64,
    pub end: u64,
    pub lines: Vec<String>,
}

/// The cues of a caption, none of which begins before `from`. A long caption gives several, each
/// for as long as its share of the columns.
pub fn cues(caption: &Caption, from: u64) -> Vec<Cue> {
    let lines = lines(&caption.text);
    let widths: Vec<usize> = lines.iter().map(|line| line.width()).collect();
    let all = widths.iter().sum::<usize>().max(1) as f64;
    let length = caption.end - caption.start;
    let (mut start, mut passed) = (ms(caption.start).max(from), 0);
    let cues = lines.chunks(LINES).zip(widths.chunks(LINES));
    cues.map(|(lines, widths)| {
        passed += widths.iter().sum::<usize>();
        let end = ms(caption.start + length * passed as f64 / all);
        let cue = Cue {
            start,
            // Players show no cue of no length.
            end: end.max(start + 1),
            lines: lines.to_vec(),
        };
        start = cue.end;
        cue
    })
    .collect()
}

fn ms(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

/// Lines of a text, as even as they can be without getting more.
fn lines(text: &str) -> Vec<String> {
    let widest = wrapped(text, COLUMNS);
    let even = text.width().div_ceil(widest.len().max(1));
    (even..COLUMNS)
        .map(|columns| wrapped(text, columns))
        .find(|lines| lines.len() == widest.len())
        .unwrap_or(widest)
}

/// Lines of `columns`, if no word is longer. Words of more than [`COLUMNS`] are cut: some languages
/// have no blanks.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut width, mut last) = (0, 0);
    for word in text.split_whitespace() {
        let is_long = word.width() > COLUMNS;
        let most = columns.max(1);
        if width > 0 {
            if width + 1 + if is_long { 1 } else { word.width() } > most {
                lines.push(String::new());
                (width, last) = (0, last + 1);
            } else {
                lines[last].push(' ');
                width += 1;
            }
        }
        for character in word.chars() {
            let columns = character.width().unwrap_or(0);
            if is_long && width > 0 && width + columns > most {
                lines.push(String::new());
                (width, last) = (0, last + 1);
            }
            lines[last].push(character);
            width += columns;
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caption(start: f64, end: f64, text: &str) -> Caption {
        Caption {
            start,
            end,
            text: text.into(),
        }
    }

    #[test]
    fn lines_are_even_and_cues_share_the_time() {
        let text = "Printing, in the only sense with which we are at present concerned, differs from \
            most if not from all the arts and crafts represented in the Exhibition.";
        let cues = cues(&caption(10.0, 18.0, text), 0);
        let lines: Vec<_> = cues.iter().map(|cue| cue.lines.join("|")).collect();
        assert_eq!(
            lines,
            [
                "Printing, in the only sense with which|we are at present concerned, differs",
                "from most if not from all the arts and|crafts represented in the Exhibition."
            ]
        );
        assert_eq!((cues[0].start, cues[1].end), (10_000, 18_000));
        assert_eq!(cues[0].end, cues[1].start);
        assert!((13_900..14_100).contains(&cues[0].end));
    }

    #[test]
    fn a_text_without_blanks_is_cut_by_its_columns() {
        let cues = cues(&caption(0.0, 4.0, &"字".repeat(50)), 0);
        let lines: Vec<_> = cues.iter().flat_map(|cue| &cue.lines).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.width() <= COLUMNS));
    }

    proptest! {
        /// No word is lost, no line is too long, no cue is empty or before the one before it.
        #[test]
        fn cues_hold_the_whole_text_in_order(
            text in "[a-z字é]{0,60}( [a-z.]{1,12}){0,40}",
            start in 0.0f64..1e5,
            length in 0.0f64..30.0,
            from in 0u64..200_000_000,
        ) {
            let cues = cues(&caption(start, start + length, &text), from);
            let all: String = cues.iter().flat_map(|cue| cue.lines.concat().chars().collect::<Vec<_>>()).collect();
            let blanks = |text: &str| text.replace(' ', "");
            prop_assert_eq!(blanks(&all), blanks(&text));
            let mut end = from;
            for cue in cues {
                prop_assert!(cue.start >= end && cue.end > cue.start);
                prop_assert!((1..=LINES).contains(&cue.lines.len()));
                prop_assert!(cue.lines.iter().all(|line| (1..=COLUMNS).contains(&line.width())));
                end = cue.end;
            }
        }
    }
}
