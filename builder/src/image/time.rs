//! Times as image documents have them: RFC 3339 with as many digits as needed (Go's `time.RFC3339Nano`).

use std::time::Duration;

use serde::{Serialize, Serializer};

/// A time in an image document. Times of base images keep their zone, as Go keeps it; ours are UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    instant: jiff::Timestamp,
    /// The zone as written, such as `+02:00`; `None` is UTC.
    zone: Option<String>,
}

impl Timestamp {
    /// A time since the Unix epoch, as the clock gives it. Times beyond the year 9999 become its end.
    pub fn from_clock(since_epoch: Duration) -> Self {
        let instant = i64::try_from(since_epoch.as_secs())
            .ok()
            .zip(i32::try_from(since_epoch.subsec_nanos()).ok())
            .and_then(|(seconds, nanos)| jiff::Timestamp::new(seconds, nanos).ok())
            .unwrap_or(jiff::Timestamp::MAX);
        Self {
            instant,
            zone: None,
        }
    }

    /// Whole seconds since the Unix epoch, as `SOURCE_DATE_EPOCH` gives them; clamped to the years that can be written.
    pub fn from_seconds(seconds: i64) -> Self {
        let instant = jiff::Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        Self {
            instant,
            zone: None,
        }
    }

    /// Reads an RFC 3339 time.
    pub fn parse(text: &str) -> Option<Self> {
        let instant = text.parse().ok()?;
        let tail = text.len().checked_sub(6).and_then(|at| text.get(at..))?;
        let has_zone = tail.starts_with(['+', '-']) && !matches!(tail, "+00:00" | "-00:00");
        Some(Self {
            instant,
            zone: has_zone.then(|| tail.to_owned()),
        })
    }

    /// The earlier of two.
    #[must_use]
    pub fn min(self, other: &Self) -> Self {
        if self.instant <= other.instant {
            self
        } else {
            other.clone()
        }
    }

    /// RFC 3339 in UTC without fraction, as annotations have it.
    pub fn to_seconds_text(&self) -> String {
        jiff::Timestamp::from_second(self.instant.as_second())
            .unwrap_or(self.instant)
            .to_string()
    }

    fn local_text(&self, zone: &str) -> Option<String> {
        let (hours, minutes) = zone.get(1..)?.split_once(':')?;
        let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
        let sign = if zone.starts_with('-') { -1 } else { 1 };
        let offset = jiff::tz::Offset::from_seconds(sign * seconds).ok()?;
        Some(format!("{}{zone}", offset.to_datetime(self.instant)))
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.zone.as_deref().and_then(|zone| self.local_text(zone)) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}", self.instant),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_as_go_does() {
        for (text, expected) in [
            ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
            ("2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00Z"),
            ("2020-01-01T00:00:00.120Z", "2020-01-01T00:00:00.12Z"),
            (
                "2024-02-29T23:59:59.000000001Z",
                "2024-02-29T23:59:59.000000001Z",
            ),
            ("2020-01-01T00:00:00+00:00", "2020-01-01T00:00:00Z"),
            (
                "2020-01-01T00:00:00.50+02:00",
                "2020-01-01T00:00:00.5+02:00",
            ),
            ("2020-01-01T00:00:00-03:30", "2020-01-01T00:00:00-03:30"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), expected);
        }
        for text in [
            "",
            "yesterday",
            "2020-01-01",
            "é2020",
            "2020-13-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn clock_times_have_nanoseconds_and_epochs_do_not() {
        let time = Timestamp::from_clock(Duration::new(1_700_000_000, 123_456_000));
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.123456Z");
        assert_eq!(time.to_seconds_text(), "2023-11-14T22:13:20Z");
        let epoch = Timestamp::from_seconds(0);
        assert_eq!(epoch.to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(time.min(&epoch), epoch);
        assert_eq!(
            Timestamp::from_seconds(i64::MAX).instant,
            jiff::Timestamp::MAX
        );
        assert_eq!(
            Timestamp::from_clock(Duration::MAX).instant,
            jiff::Timestamp::MAX
        );
    }
}
