//! The machine: a temperature that climbs, a pressure that follows it, and the air around.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::random;

/// One measurement, in the original's form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    /// The machine.
    pub machine: Machine,
    /// The air around it.
    pub ambient: Ambient,
    /// When it was measured.
    pub time_created: Timestamp,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// In degrees Celsius.
    pub temperature: f64,
    /// In bar.
    pub pressure: f64,
}

/// The air around the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ambient {
    /// In degrees Celsius.
    pub temperature: f64,
    /// In percent.
    pub humidity: i64,
}

/// A source of numbers in `[0, 1)`.
pub trait Randomness {
    /// The next number.
    fn next(&mut self) -> f64;
}

/// Numbers for a simulation, not for secrets: SplitMix64 from a seed of the operating system.
#[derive(Debug)]
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new() -> Self {
        // Any seed will do when the system gives none.
        Self(random::bytes().map(u64::from_ne_bytes).unwrap_or_default())
    }
}

impl Randomness for Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // The upper 53 bits fill the mantissa exactly.
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The state of the machine.
#[derive(Debug)]
pub struct Model<R> {
    settings: Settings,
    temperature: f64,
    randomness: R,
}

impl<R: Randomness> Model<R> {
    /// A machine at its lowest temperature.
    pub fn new(settings: Settings, randomness: R) -> Self {
        Self { temperature: settings.machine_temp_min, settings, randomness }
    }

    /// Brings the machine back to its lowest temperature.
    pub fn reset(&mut self) {
        self.temperature = self.settings.machine_temp_min;
    }

    /// Lets the machine work a little, and measures.
    pub fn measure(&mut self, now: Timestamp) -> Body {
        let Settings { machine_temp_max, ambient_temp, ambient_humidity, .. } = self.settings;
        self.temperature += match self.temperature > machine_temp_max {
            true => self.randomness.next() - 0.5,
            false => self.randomness.next() * 1.5 - 0.25,
        };
        let ambient = Ambient {
            temperature: ambient_temp + self.randomness.next() - 0.5,
            // A whole number from one below to one above.
            humidity: ambient_humidity - 1 + (self.randomness.next() * 3.0) as i64,
        };
        let machine = Machine { temperature: self.temperature, pressure: self.pressure() };
        Body { machine, ambient, time_created: now }
    }

    /// In proportion to the temperature.
    fn pressure(&self) -> f64 {
        let Settings {
            machine_temp_min, machine_temp_max, machine_pressure_min, machine_pressure_max, ..
        } = self.settings;
        let range = machine_temp_max - machine_temp_min;
        if range == 0.0 {
            return machine_pressure_min;
        }
        machine_pressure_min
            + (self.temperature - machine_temp_min) * (machine_pressure_max - machine_pressure_min) / range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(f64);

    impl Randomness for Always {
        fn next(&mut self) -> f64 {
            self.0
        }
    }

    fn settings() -> Settings {
        Settings::from_env(|_| None).unwrap()
    }

    #[test]
    fn the_temperature_climbs_to_its_limit_and_stays_around_it() {
        let mut model = Model::new(settings(), Noise::new());
        let mut highest = f64::MIN;
        for _ in 0..2000 {
            let body = model.measure(Timestamp::UNIX_EPOCH);
            highest = highest.max(body.machine.temperature);
            assert!((24..=26).contains(&body.ambient.humidity), "{body:?}");
            assert!((20.5..21.5).contains(&body.ambient.temperature), "{body:?}");
        }
        assert!(highest > 99.0, "{highest}");
    }

    #[test]
    fn a_step_is_the_originals() {
        let mut climbing = Model::new(settings(), Always(1.0));
        let body = climbing.measure(Timestamp::UNIX_EPOCH);
        assert_eq!(body.machine.temperature, 22.25);
        assert!((body.machine.pressure - (1.0 + 1.25 * 9.0 / 79.0)).abs() < 1e-9);
        climbing.measure(Timestamp::UNIX_EPOCH);
        climbing.reset();
        assert_eq!(climbing.measure(Timestamp::UNIX_EPOCH).machine.temperature, 22.25);
        let mut hot = Model::new(Settings { machine_temp_max: 20.0, ..settings() }, Always(0.0));
        assert_eq!(hot.measure(Timestamp::UNIX_EPOCH).machine.temperature, 20.5);
        let mut flat = Model::new(Settings { machine_temp_max: 21.0, ..settings() }, Always(0.0));
        assert_eq!(flat.measure(Timestamp::UNIX_EPOCH).machine.pressure, 1.0);
    }

    #[test]
    fn the_body_is_written_as_the_original_writes_it() {
        let body = Body {
            machine: Machine { temperature: 21.5, pressure: 1.25 },
            ambient: Ambient { temperature: 20.75, humidity: 25 },
            time_created: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"machine":{"temperature":21.5,"pressure":1.25},"ambient":{"temperature":20.75,"humidity":25},"timeCreated":"1970-01-01T00:00:00Z"}"#
        );
    }

    #[test]
    fn noise_stays_in_its_range() {
        let mut noise = Noise(0);
        let numbers: Vec<f64> = (0..1000).map(|_| noise.next()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        assert!((numbers.iter().sum::<f64>() / 1000.0 - 0.5).abs() < 0.05);
    }
}
