//! Bounds of the numbers on command lines.
//!
//! Every number has bounds, and whatever lies outside is refused with a sentence that names them:
//! nothing is allocated by what a number claims.

use std::fmt::Display;
use std::str::FromStr;

use clap::builder::TypedValueParser;

/// Most tokens of a window, of sinks, or of a text: more than any model was trained for, and little
/// enough that sums of a few do not overflow.
pub const MOST_TOKENS: usize = 1 << 30;

/// Returns a parser of whole numbers from `least` to `most`.
pub fn whole(least: usize, most: usize) -> impl TypedValueParser<Value = usize> {
    within(least, most)
}

/// Returns a parser of numbers from `least` to `most`, NaN excluded.
pub fn real(least: f32, most: f32) -> impl TypedValueParser<Value = f32> {
    within(least, most)
}

/// Returns a parser of positive numbers.
pub fn positive() -> impl TypedValueParser<Value = f64> {
    within(f64::MIN_POSITIVE, f64::MAX)
}

fn within<T>(least: T, most: T) -> impl TypedValueParser<Value = T>
where
    T: FromStr + PartialOrd + Display + Clone + Copy + Send + Sync + 'static,
{
    move |text: &str| -> Result<T, String> { parse(text, least, most) }
}

fn parse<T: FromStr + PartialOrd + Display + Copy>(
    text: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    let number = text.trim().parse().ok();
    let inside = number.filter(|number| least <= *number && *number <= most);
    inside.ok_or_else(|| format!("it must be {}", range(least, most)))
}

/// The range in words; bounds that are only those of a type are left out.
fn range<T: Display>(least: T, most: T) -> String {
    let (least, most) = (shown(&least), shown(&most));
    match (least, most) {
        (Some(least), Some(most)) => format!("from {least} to {most}"),
        (Some(least), None) => format!("{least} or more"),
        (None, Some(most)) => format!("at most {most}"),
        (None, None) => "more than 0".to_owned(),
    }
}

fn shown(bound: &impl Display) -> Option<String> {
    let text = bound.to_string();
    (text.len() <= "-18446744073709551616".len()).then_some(text)
}

/// A number that may be left open by -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open(pub Option<u64>);

/// Reads a number of tokens; -1 stands for no end.
pub fn limit(text: &str) -> Result<Open, String> {
    open(text, "-1 for no end")
}

/// Reads a seed; -1 stands for one of the clock.
pub fn seed(text: &str) -> Result<Open, String> {
    open(text, "-1 for one of the clock")
}

fn open(text: &str, meaning: &str) -> Result<Open, String> {
    match text.trim() {
        "-1" => Ok(Open(None)),
        text => match text.parse() {
            Ok(number) => Ok(Open(Some(number))),
            Err(_) => Err(format!("it must be from 0 to {}, or {meaning}", u64::MAX)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept_and_said() {
        assert_eq!(parse("7", 1, 9), Ok(7));
        assert_eq!(parse::<usize>(" 9 ", 1, 9), Ok(9));
        for text in ["0", "10", "-1", "1e3", "", "18446744073709551616"] {
            assert_eq!(parse(text, 1, 9), Err("it must be from 1 to 9".into()));
        }
        for text in ["nan", "inf", "-0.5", "x"] {
            let error = parse(text, 0.0f32, f32::MAX).unwrap_err();
            assert_eq!(error, "it must be 0 or more", "{text}");
        }
        let error = parse("0", f64::MIN_POSITIVE, f64::MAX).unwrap_err();
        assert_eq!(error, "it must be more than 0");
        assert_eq!(
            (limit("-1"), seed("0")),
            (Ok(Open(None)), Ok(Open(Some(0))))
        );
        assert!(limit("-2").unwrap_err().ends_with("-1 for no end"));
    }
}
