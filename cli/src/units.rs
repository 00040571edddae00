//! Sizes, times and pairs as people write them, and as people read them.

use std::time::Duration;

use rdist::scheduler::resource::{Amount, Resources};
use rdist::transport::Tuning;

/// `name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// Before the first `=`.
    pub name: String,
    /// After it.
    pub value: String,
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// `name=value`; the value may be empty and may hold `=`.
pub(crate) fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok(Pair { name: name.trim().to_owned(), value: value.to_owned() })
        }
        _ => Err("write it as name=value".to_owned()),
    }
}

/// A number of things, possibly a fraction: not negative, and finite.
pub(crate) fn amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("write a number that is not negative, such as 4 or 0.5".to_owned()),
    }
}

/// Adds to the most that a job may hold: of `CPU`, `GPU` or `memory`, in any case, or of a custom
/// resource.
pub(crate) fn limit(quota: &mut Resources, name: &str, text: &str) -> Result<(), String> {
    let wrong = |why: String| format!("{name}={text}: {why}");
    let is_memory = name.eq_ignore_ascii_case("memory");
    let amount = match is_memory {
        true => Amount::whole(bytes(text).map_err(wrong)?),
        false => Amount::from_f64(amount(text).map_err(wrong)?),
    };
    if amount.is_zero() {
        return Err(wrong("it could never hold any; leave it out for no limit".to_owned()));
    }
    match name {
        _ if is_memory => quota.memory = amount,
        _ if name.eq_ignore_ascii_case("CPU") => quota.cpu = amount,
        _ if name.eq_ignore_ascii_case("GPU") => quota.gpu = amount,
        custom => quota.set(custom, amount),
    }
    Ok(())
}

/// `10.0.0.5:7421`, `machine.example:7421`.
pub(crate) fn host_port(text: &str) -> Result<String, String> {
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    match text.rsplit_once(':') {
        Some((host, number)) if !host.is_empty() && port(number) => Ok(text.to_owned()),
        _ => Err("write an address that others can dial, such as 10.0.0.5:7421".to_owned()),
    }
}

/// `4GiB`, `500MB`, `1.5g`, `4096`. Letters alone and with `i` are powers of 1024; with `B`
/// alone, of 1000.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let error = || "write a size such as 512MiB, 4GB or a number of bytes".to_owned();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number = amount(text[..split].trim()).map_err(|_| error())?;
    let unit = text[split..].trim().to_ascii_lowercase();
    let (letter, rest) = unit.split_at(unit.len().min(1));
    let power = match letter {
        "" | "b" if rest.is_empty() => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(error()),
    };
    let base: f64 = match rest {
        "b" => 1000.0,
        "" | "i" | "ib" => 1024.0,
        _ => return Err(error()),
    };
    Ok((number * base.powi(power)) as u64)
}

/// `30`, `30s`, `1.5h`, `7d`, `200ms`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let error = || "write a time such as 30s, 5m, 2h or 7d".to_owned();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number = amount(text[..split].trim()).map_err(|_| error())?;
    let seconds = match text[split..].trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(error()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| error())
}

/// A time after which who is silent counts as lost.
pub(crate) fn silence(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if Tuning::DEAD_AFTER.contains(&time) {
        return Ok(time);
    }
    Err("write a time from 500ms, less than which busy machines are silent, to 1h".to_owned())
}

/// Bytes for people: `1.5 GiB`.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A span of time for people: `0.42 s`, `12.3 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn show_seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 10.0 => format!("{:.2} s", seconds.max(0.0)),
        0..60 => format!("{seconds:.1} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// A number for people: thousands apart, no more digits than it is worth.
pub(crate) fn show_number(number: f64) -> String {
    if number.abs() >= 1_000.0 {
        let digits = format!("{:.0}", number.abs());
        let mut grouped = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        return if number < 0.0 { format!("-{grouped}") } else { grouped };
    }
    let digits = if number.fract() == 0.0 { 0 } else { 4 };
    format!("{number:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, value) in [
            ("0", 0),
            ("4096", 4096),
            ("17B", 17),
            ("1k", 1024),
            ("1kb", 1000),
            ("512MiB", 512 << 20),
            ("1.5 GiB", 3 << 29),
            ("2Gi", 2 << 30),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for text in ["", "GiB", "-1", "4 parsecs", "1kg", "nan", "inf", "1bb"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_to_dial_are_read() {
        assert_eq!(host_port("a.example:7421").as_deref(), Ok("a.example:7421"));
        for text in ["", "a.example", ":7421", "a:0", "a:70000", "a:b"] {
            assert!(host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read() {
        for (text, value) in
            [("5", 5_000), ("200ms", 200), ("1.5s", 1_500), ("2 m", 120_000), ("7d", 604_800_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(value)), "{text}");
        }
        for text in ["", "s", "-1s", "1w", "1e300d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn silence_is_neither_too_short_nor_endless() {
        assert_eq!(silence("8s"), Ok(Duration::from_secs(8)));
        for text in ["0", "100ms", "2h", "soon"] {
            assert!(silence(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_are_read() {
        let expected = Pair { name: "a.b".into(), value: "c=d".into() };
        assert_eq!(pair("a.b=c=d"), Ok(expected));
        assert!(pair("a").is_err() && pair("=a").is_err());
    }

    #[test]
    fn values_are_shown_for_people() {
        assert_eq!(show_bytes(1023), "1023 B");
        assert_eq!(show_bytes(3 << 29), "1.5 GiB");
        assert_eq!(show_seconds(0.421), "0.42 s");
        assert_eq!(show_seconds(59.4), "59.4 s");
        assert_eq!(show_seconds(200.0), "3 min 20 s");
        assert_eq!(show_seconds(7_500.0), "2 h 5 min");
        assert_eq!(show_number(0.97125), "0.9712");
        assert_eq!(show_number(3.0), "3");
        assert_eq!(show_number(12_345.6), "12,346");
        assert_eq!(show_number(-1_000.0), "-1,000");
    }
}
