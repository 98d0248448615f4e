//! Text on its way out: stop texts, without allocating.

use std::io;

/// Where whole characters of text go.
pub trait TextSink {
    /// Takes the next piece.
    ///
    /// # Errors
    /// Those of whatever is behind it.
    fn text(&mut self, text: &str) -> io::Result<()>;

    /// The text of one token is complete: time to show it.
    ///
    /// # Errors
    /// Those of whatever is behind it.
    fn token(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&str) -> io::Result<()>> TextSink for F {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self(text)
    }
}

/// Looks for stop texts, and holds back what may be the beginning of one.
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    /// A filter for these texts; empty ones are ignored. Pieces of up to `longest_piece` bytes never make it allocate.
    pub fn new(stops: impl IntoIterator<Item = String>, longest_piece: usize) -> StopFilter {
        let stops: Vec<String> = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        let longest_stop = stops.iter().map(String::len).max().unwrap_or(0);
        StopFilter {
            stops,
            held: String::with_capacity(longest_stop + longest_piece),
        }
    }

    /// Passes on what cannot belong to a stop text. `true` once one is complete: what precedes it has been passed on, the rest is
    /// dropped.
    ///
    /// # Errors
    /// The sink's.
    pub fn push(&mut self, piece: &str, sink: &mut dyn TextSink) -> io::Result<bool> {
        if self.stops.is_empty() {
            sink.text(piece)?;
            return Ok(false);
        }
        self.held.push_str(piece);
        if let Some(at) = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min()
        {
            sink.text(&self.held[..at])?;
            self.held.clear();
            return Ok(true);
        }
        let free = self.held.len() - self.longest_beginning();
        if free > 0 {
            sink.text(&self.held[..free])?;
            self.held.drain(..free);
        }
        Ok(false)
    }

    /// Bytes at the end of `held` that a stop text begins with, at most.
    fn longest_beginning(&self) -> usize {
        let ends_with = |stop: &String| {
            let longest = self.held.len().min(stop.len() - 1);
            (1..=longest)
                .rev()
                .find(|&n| self.held.as_bytes().ends_with(&stop.as_bytes()[..n]))
        };
        self.stops.iter().filter_map(ends_with).max().unwrap_or(0)
    }

    /// Passes on what was held back: no stop text came of it.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(&mut self, sink: &mut dyn TextSink) -> io::Result<()> {
        if !self.held.is_empty() {
            sink.text(&self.held)?;
            self.held.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out for these pieces, and whether a stop text was met.
    fn filtered(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|&stop| stop.to_owned()), 64);
        let mut out = String::new();
        let mut sink = |text: &str| {
            out.push_str(text);
            Ok(())
        };
        for piece in pieces {
            if filter.push(piece, &mut sink).unwrap() {
                return (out, true);
            }
        }
        filter.finish(&mut sink).unwrap();
        (out, false)
    }

    #[test]
    fn stops_however_the_text_is_cut() {
        let text = "naïve aab, then </s> and the rest";
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for &cut in &cuts {
            let pieces = [&text[..cut], &text[cut..]];
            assert_eq!(filtered(&["</s>"], &pieces), ("naïve aab, then ".into(), true));
            assert_eq!(filtered(&["ab", "</s>"], &pieces), ("naïve a".into(), true));
            assert_eq!(filtered(&["ïx", "</t>"], &pieces), (text.into(), false));
            assert_eq!(filtered(&["", "rest!"], &pieces), (text.into(), false));
        }
        let single: Vec<String> = text.chars().map(String::from).collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        assert_eq!(filtered(&["aab,"], &single), ("naïve ".into(), true));
    }

    #[test]
    fn text_that_cannot_be_a_stop_is_not_held_back() {
        let mut filter = StopFilter::new(["END".to_owned()], 64);
        let mut out = String::new();
        let mut lengths = Vec::new();
        for piece in ["word ", "E", "N", "ough"] {
            filter
                .push(piece, &mut |text: &str| {
                    out.push_str(text);
                    Ok(())
                })
                .unwrap();
            lengths.push(out.len());
        }
        assert_eq!(lengths, [5, 5, 5, 11]);
        assert_eq!(out, "word ENough");
    }
}
