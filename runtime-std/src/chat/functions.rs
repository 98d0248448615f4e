//! Tags and functions that Hugging Face's tokenizers give chat templates, beside the engine's own.
//!
//! - `{% generation %}` marks answers for training; it is read as a block that is always written.
//! - `strftime_now(format)` writes the time at which the template was compiled, so that a text does
//!   not change from message to message. It is the time in UTC.
//! - `tojson` writes JSON as Python's `json.dumps` does, without HTML's escapes.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

/// Deepest list in lists, and widest indentation, that are written as JSON.
const MOST_DEPTH: usize = 12;
const MOST_INDENT: usize = 16;

/// Adds the functions; `now` is what `strftime_now` writes.
pub(super) fn add(environment: &mut Environment<'_>, now: SystemTime) {
    let now = Time::of(now);
    environment.add_function("strftime_now", move |format: String| now.format(&format));
    environment.add_filter("tojson", to_json);
    environment.add_test("iterable", is_iterable);
    environment.add_function(
        "raise_exception",
        |reason: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, reason))
        },
    );
}

/// A source as the engine reads it: with LF alone for line breaks, as Jinja has them, and blocks in
/// place of `{% generation %}`.
pub(super) fn source(template: &str) -> String {
    let lines = template.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(lines.len());
    let mut rest = &lines[..];
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let (text, len) = generation(tag).unwrap_or_else(|| ("{%".into(), 2));
        out.push_str(&text);
        rest = &tag[len..];
    }
    out.push_str(rest);
    out
}

/// The block in place of a tag `generation` or `endgeneration` at the start of a text, and the
/// tag's length. What cuts blanks around it (`-`, `+`) stays.
fn generation(text: &str) -> Option<(String, usize)> {
    let signs = |text: &str| text.starts_with(['-', '+']);
    let inside = text.strip_prefix("{%")?;
    let (open, inside) = inside.split_at(usize::from(signs(inside)));
    let word = inside.trim_start();
    let (block, after) = if let Some(after) = word.strip_prefix("generation") {
        ("if true", after)
    } else {
        ("endif", word.strip_prefix("endgeneration")?)
    };
    let after = after.trim_start();
    let (close, after) = after.split_at(usize::from(signs(after)));
    let after = after.strip_prefix("%}")?;
    Some((
        format!("{{%{open} {block} {close}%}}"),
        text.len() - after.len(),
    ))
}

/// A point in time, in UTC.
#[derive(Clone, Copy)]
struct Time {
    year: i64,
    /// From 1.
    month: u64,
    /// From 1.
    day: u64,
    /// From 0.
    day_of_year: u64,
    /// From Sunday, 0.
    weekday: u64,
    seconds: u64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl Time {
    /// The time; a clock before 1970 shows its beginning.
    fn of(time: SystemTime) -> Time {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let days = since.as_secs() / 86_400;
        // Years that begin in March have their leap day at the end, and 400 of them have 146,097
        // days. Day 719,468 of that count, which begins with March of year 0, is 1 January 1970.
        let shifted = days + 719_468;
        let (era, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // Months of 31, 30, 31, 30 and 31 days, twice and a bit: 153 days in five.
        let from_march = (5 * day + 2) / 153;
        let month = (from_march + 2) % 12 + 1;
        let year = (era * 400 + year + u64::from(month <= 2)) as i64;
        let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let day_of_year = if month <= 2 {
            day - 306
        } else {
            day + 59 + u64::from(is_leap)
        };
        Time {
            year,
            month,
            day: day - (153 * from_march + 2) / 5 + 1,
            day_of_year,
            weekday: (days + 4) % 7,
            seconds: since.as_secs() % 86_400,
        }
    }

    /// The time by a format of C's `strftime`.
    fn format(self, format: &str) -> Result<String, Error> {
        let (hour, minute, second) = (
            self.seconds / 3600,
            self.seconds / 60 % 60,
            self.seconds % 60,
        );
        let hour12 = (hour + 11) % 12 + 1;
        let month = MONTHS[self.month as usize - 1];
        let day = DAYS[self.weekday as usize];
        let mut out = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                out.push(letter);
                continue;
            }
            let mut directive = letters.next();
            // GNU's flag: without leading zeros.
            let is_bare = directive == Some('-');
            if is_bare {
                directive = letters.next();
            }
            let mut number = |number: u64, width: usize| {
                let width = if is_bare { 0 } else { width };
                // A String takes all that is written.
                let _ = write!(out, "{number:0width$}");
            };
            match directive {
                Some('Y') => number(self.year as u64, 4),
                Some('y') => number(self.year as u64 % 100, 2),
                Some('m') => number(self.month, 2),
                Some('d') => number(self.day, 2),
                Some('j') => number(self.day_of_year + 1, 3),
                Some('H') => number(hour, 2),
                Some('I') => number(hour12, 2),
                Some('M') => number(minute, 2),
                Some('S') => number(second, 2),
                Some('u') => number((self.weekday + 6) % 7 + 1, 1),
                Some('w') => number(self.weekday, 1),
                Some('B') => out += month,
                Some('b' | 'h') => out += &month[..3],
                Some('A') => out += day,
                Some('a') => out += &day[..3],
                Some('e') => {
                    let _ = write!(out, "{:>2}", self.day);
                }
                Some('p') => out += if hour < 12 { "AM" } else { "PM" },
                Some('F') => out += &self.format("%Y-%m-%d")?,
                Some('T' | 'X') => out += &self.format("%H:%M:%S")?,
                Some('x' | 'D') => out += &self.format("%m/%d/%y")?,
                Some('c') => out += &self.format("%a %b %e %H:%M:%S %Y")?,
                Some('Z') => out += "UTC",
                Some('z') => out += "+0000",
                Some('%') => out.push('%'),
                other => {
                    let other: String = other.into_iter().collect();
                    return Err(Error::new(
                        ErrorKind::InvalidOperation,
                        format!("strftime_now does not know %{}", other.escape_debug()),
                    ));
                }
            }
        }
        Ok(out)
    }
}

/// The test `iterable`. The engine takes None for an empty list, as no Python does.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && minijinja::tests::is_iterable(value)
}

/// The filter `tojson`. Other arguments of Python's, such as `ensure_ascii`, are the default or
/// refused.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let _: Option<Value> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(
            indent
                .as_usize()
                .filter(|indent| *indent <= MOST_INDENT)
                .ok_or_else(|| refused("an indentation is from 0 to 16 blanks"))?,
        ),
    };
    let mut out = String::new();
    write_json(&mut out, value, indent, 0)?;
    Ok(out)
}

fn refused(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn write_json(
    out: &mut String,
    value: &Value,
    indent: Option<usize>,
    depth: usize,
) -> Result<(), Error> {
    if depth > MOST_DEPTH {
        return Err(refused("a value is too deep for JSON"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::String => write_text(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let elements = value.try_iter()?.map(|element| (None, element));
            write_all(out, ['[', ']'], elements, indent, depth)?;
        }
        ValueKind::Map => {
            let mut entries = Vec::new();
            for key in value.try_iter()? {
                let element = value.get_item(&key)?;
                entries.push((Some(key.to_string()), element));
            }
            write_all(out, ['{', '}'], entries.into_iter(), indent, depth)?;
        }
        _ => return Err(refused("a value is none of those that JSON has")),
    }
    Ok(())
}

fn write_all(
    out: &mut String,
    [open, close]: [char; 2],
    elements: impl Iterator<Item = (Option<String>, Value)>,
    indent: Option<usize>,
    depth: usize,
) -> Result<(), Error> {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    out.push(open);
    let mut is_empty = true;
    for (key, element) in elements {
        if !is_empty {
            out.push_str(if indent.is_some() { "," } else { ", " });
        }
        is_empty = false;
        line(out, depth + 1);
        if let Some(key) = key {
            write_text(out, &key);
            out.push_str(": ");
        }
        write_json(out, &element, indent, depth + 1)?;
    }
    if !is_empty {
        line(out, depth);
    }
    out.push(close);
    Ok(())
}

/// A string of JSON (RFC 8259, section 7).
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..' ' => {
                let _ = write!(out, "\\u{:04x}", letter as u32);
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    fn rendered(template: &str, seconds: u64) -> Result<String, String> {
        let mut environment = Environment::new();
        add(&mut environment, UNIX_EPOCH + Duration::from_secs(seconds));
        let values = context! { m => context! { a => vec![1, 2], b => "<é\"\n", c => () } };
        environment
            .render_str(&source(template), values)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let all = "{{ strftime_now('%Y-%m-%d %H:%M:%S %a %A %b %B %j %e %-d %p %I %y %%') }}";
        for (seconds, expected) in [
            (
                0,
                "1970-01-01 00:00:00 Thu Thursday Jan January 001  1 1 AM 12 70 %",
            ),
            // Leap days, and the days around them.
            (
                951_782_400,
                "2000-02-29 00:00:00 Tue Tuesday Feb February 060 29 29 AM 12 00 %",
            ),
            (
                951_868_799,
                "2000-02-29 23:59:59 Tue Tuesday Feb February 060 29 29 PM 11 00 %",
            ),
            (
                4_107_542_400,
                "2100-03-01 00:00:00 Mon Monday Mar March 060  1 1 AM 12 00 %",
            ),
            (
                1_735_689_599,
                "2024-12-31 23:59:59 Tue Tuesday Dec December 366 31 31 PM 11 24 %",
            ),
            (
                1_753_531_200,
                "2025-07-26 12:00:00 Sat Saturday Jul July 207 26 26 PM 12 25 %",
            ),
        ] {
            assert_eq!(rendered(all, seconds).unwrap(), expected);
        }
        let error = rendered("{{ strftime_now('%Q') }}", 0).unwrap_err();
        assert!(error.contains("does not know %Q"), "{error}");
    }

    #[test]
    fn json_is_written_as_python_does() {
        assert_eq!(
            rendered("{{ m | tojson }}", 0).unwrap(),
            r#"{"a": [1, 2], "b": "<é\"\n", "c": null}"#
        );
        assert_eq!(
            rendered("{{ m.a | tojson(indent=2) }}{{ [] | tojson(indent=2) }}", 0).unwrap(),
            "[\n  1,\n  2\n][]"
        );
        assert!(rendered("{{ m | tojson(indent=99) }}", 0).is_err());
        assert!(rendered("{{ nothing | tojson }}", 0).is_err());
    }

    #[test]
    fn generation_is_a_block_and_line_breaks_are_lf() {
        assert_eq!(
            source("a\r\n{%- generation -%} b {%endgeneration+%}\rc{% if x %}{% generations %}{%"),
            "a\n{%- if true -%} b {% endif +%}\nc{% if x %}{% generations %}{%"
        );
        let text = "{%- generation %} x {% endgeneration -%} y";
        assert_eq!(rendered(text, 0).unwrap(), " x y");
    }
}
