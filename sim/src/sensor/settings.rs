//! The settings of the sensor, from its environment.

use std::time::Duration;

/// Milliseconds of an hour, a minute and a second, for the text form of a time span.
const SPAN_UNITS: [u64; 3] = [3_600_000, 60_000, 1_000];

/// A setting has a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: \"{value}\" is not {expected}")]
pub struct SettingsError {
    /// Name of the variable.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What it should be.
    pub expected: &'static str,
}

/// The settings, with the defaults of the original.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Time between two messages.
    pub message_delay: Duration,
    /// How many messages are sent; `None` for no end.
    pub message_count: Option<u64>,
    /// Where the machine's temperature begins.
    pub machine_temp_min: f64,
    /// Where it stops rising.
    pub machine_temp_max: f64,
    /// Pressure at the lowest temperature.
    pub machine_pressure_min: f64,
    /// Pressure at the highest temperature.
    pub machine_pressure_max: f64,
    /// Temperature around the machine.
    pub ambient_temp: f64,
    /// Humidity around the machine, in percent.
    pub ambient_humidity: i64,
    /// What the original's `ClientTransportType` asks for.
    pub transport: Option<String>,
}

impl Settings {
    /// Reads the variables that are set.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let number = |name, default| match variable(name) {
            None => Ok(default),
            Some(value) => value
                .trim()
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .ok_or(SettingsError { name: String::from(name), value, expected: "a number" }),
        };
        let whole = |name, default| match variable(name) {
            None => Ok(default),
            Some(value) => value.trim().parse().map_err(|_| SettingsError {
                name: String::from(name),
                value,
                expected: "a whole number",
            }),
        };
        let message_delay = match variable("MessageDelay") {
            None => Duration::from_secs(5),
            Some(value) => parse_span(&value).ok_or(SettingsError {
                name: "MessageDelay".to_owned(),
                value,
                expected: "a time span of the form hh:mm:ss",
            })?,
        };
        Ok(Self {
            message_delay,
            message_count: u64::try_from(whole("MessageCount", 500)?).ok(),
            machine_temp_min: number("machineTempMin", 21.0)?,
            machine_temp_max: number("machineTempMax", 100.0)?,
            machine_pressure_min: number("machinePressureMin", 1.0)?,
            machine_pressure_max: number("machinePressureMax", 10.0)?,
            ambient_temp: number("ambientTemp", 21.0)?,
            ambient_humidity: whole("ambientHumidity", 25)?,
            transport: variable("ClientTransportType"),
        })
    }
}

/// Reads `[d.]hh:mm:ss[.fraction]`; milliseconds are precise enough.
fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (days, clock) = match text.split_once(':')?.0.split_once('.') {
        Some((days, _)) => (parse_digits(days)?, text.split_once('.')?.1),
        None => (0, text),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let parts: Vec<u64> = clock.split(':').map(parse_digits).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = parts[..] else { return None };
    if hours > 23 || minutes > 59 || seconds > 59 || days > 10_000 {
        return None;
    }
    let milliseconds = match fraction {
        "" => 0,
        digits => parse_digits(digits).and_then(|_| parse_digits(format!("{digits:0<3}").get(..3)?))?,
    };
    let clock: u64 = [hours, minutes, seconds].iter().zip(SPAN_UNITS).map(|(part, unit)| part * unit).sum();
    Some(Duration::from_millis(days * 24 * SPAN_UNITS[0] + clock + milliseconds))
}

/// `str::parse` would accept a plus sign.
fn parse_digits(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<Settings, SettingsError> {
        Settings::from_env(|asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn the_defaults_are_those_of_the_original() {
        let settings = Settings::from_env(|_| None).unwrap();
        assert_eq!((settings.message_delay, settings.message_count), (Duration::from_secs(5), Some(500)));
        assert_eq!((settings.machine_temp_min, settings.machine_temp_max), (21.0, 100.0));
        assert_eq!((settings.machine_pressure_min, settings.machine_pressure_max), (1.0, 10.0));
        assert_eq!((settings.ambient_temp, settings.ambient_humidity), (21.0, 25));
    }

    #[test]
    fn a_count_below_zero_means_no_end() {
        assert_eq!(with("MessageCount", "-1").unwrap().message_count, None);
        assert_eq!(with("MessageCount", "0").unwrap().message_count, Some(0));
    }

    #[test]
    fn time_spans_are_read_in_their_usual_forms() {
        for (text, milliseconds) in [
            ("00:00:05", 5_000),
            ("0:0:1", 1_000),
            ("00:00:00.2", 200),
            ("00:00:00.2500000", 250),
            ("01:02:03.004", 3_723_004),
            ("1.00:00:00", 86_400_000),
            ("2.01:00:00.5", 176_400_500),
        ] {
            assert_eq!(with("MessageDelay", text).unwrap().message_delay.as_millis(), milliseconds, "{text}");
        }
    }

    #[test]
    fn values_that_cannot_be_used_are_named() {
        for (name, value) in [
            ("MessageDelay", "5"),
            ("MessageDelay", "00:00"),
            ("MessageDelay", "00:00:60"),
            ("MessageDelay", "24:00:00"),
            ("MessageDelay", "-00:00:05"),
            ("MessageDelay", "00:00:0a"),
            ("MessageDelay", "00:00:05.x"),
            ("MessageDelay", "00:00:05.00é"),
            ("MessageDelay", "é.00:00:05"),
            ("MessageDelay", ""),
            ("MessageCount", "many"),
            ("machineTempMax", "hot"),
            ("machineTempMax", "NaN"),
            ("ambientHumidity", "25.5"),
        ] {
            let error = with(name, value).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{name}: \"{value}\" is not ")), "{error}");
        }
    }
}
