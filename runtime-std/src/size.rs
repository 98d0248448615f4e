//! Numbers of bytes as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Reads `64MiB`, `1.5GB`, `512k` and `67108864`; binary units are `KiB`, `MiB`,
/// `GiB`, `TiB` or, short, `K`, `M`, `G`, `T`; decimal ones `kB`, `MB`, `GB`, `TB`. Case does not
/// matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

/// The text does not name a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a size in bytes: write for example 64MiB, 1.5GB or 67108864; units are KiB, MiB, GiB, TiB, kB, MB, GB and TB"
)]
pub struct SizeError;

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Size, SizeError> {
        let text = text.trim();
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit: u128 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(SizeError),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // Twenty digits hold every size, and nine decimal places are enough for any.
        if number.is_empty() || number == "." || whole.len() > 20 || fraction.len() > 9 {
            return Err(SizeError);
        }
        let digits: u128 = format!("0{whole}{fraction}")
            .parse()
            .map_err(|_| SizeError)?;
        let bytes = digits.checked_mul(unit).ok_or(SizeError)? / 10u128.pow(fraction.len() as u32);
        usize::try_from(bytes).map(Size).map_err(|_| SizeError)
    }
}

impl fmt::Display for Size {
    /// The largest binary unit of which there is at least one, with one decimal place below a
    /// hundred of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        let places = usize::from(value < 100.0);
        write!(f, "{value:.places$} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let cases = [
            ("0", 0),
            ("67108864", 67108864),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("64M", 64 << 20),
            ("1.5GB", 1_500_000_000),
            ("1.5GiB", 3 << 29),
            ("1TiB", 1 << 40),
            ("2t", 2 << 40),
            ("0.5TB", 500_000_000_000),
            (".5k", 512),
            ("2.B", 2),
            ("0.1K", 102),
            ("18446744073709551615", usize::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            ".",
            "MiB",
            "-1",
            "1.2.3",
            "64 apples",
            "1e9",
            "18446744073709551616",
            "99999999999999999999GiB",
            "99999999999999999999.999999999TiB",
        ] {
            assert_eq!(text.parse::<Size>(), Err(SizeError), "{text}");
        }
    }

    #[test]
    fn writes_what_people_read() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (64 << 20, "64.0 MiB"),
            (98362432, "93.8 MiB"),
            (200 << 20, "200 MiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
