//! The functions of conditions. Lengths and places in strings are counted in UTF-16 units, as edgeHub counts them.

use super::eval::{Type, Value};

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Abs,
    Exp,
    Power,
    Square,
    Ceiling,
    Floor,
    Sign,
    Sqrt,
    AsNumber,
    IsBool,
    IsDefined,
    IsNull,
    IsNumber,
    IsString,
    Concat,
    Length,
    Lower,
    Upper,
    Substring,
    IndexOf,
    StartsWith,
    EndsWith,
    Contains,
}

/// The names of edgeHub, and those of IoT Hub where it has others.
const NAMES: [(&str, Function); 26] = [
    ("abs", Function::Abs),
    ("exp", Function::Exp),
    ("power", Function::Power),
    ("square", Function::Square),
    ("ceiling", Function::Ceiling),
    ("floor", Function::Floor),
    ("sign", Function::Sign),
    ("sqrt", Function::Sqrt),
    ("as_number", Function::AsNumber),
    ("is_bool", Function::IsBool),
    ("is_boolean", Function::IsBool),
    ("is_defined", Function::IsDefined),
    ("is_null", Function::IsNull),
    ("is_number", Function::IsNumber),
    ("is_string", Function::IsString),
    ("concat", Function::Concat),
    ("length", Function::Length),
    ("lower", Function::Lower),
    ("upper", Function::Upper),
    ("substring", Function::Substring),
    ("index_of", Function::IndexOf),
    ("starts_with", Function::StartsWith),
    ("startswith", Function::StartsWith),
    ("ends_with", Function::EndsWith),
    ("endswith", Function::EndsWith),
    ("contains", Function::Contains),
];

impl Function {
    /// The function of a name in any case.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, function)| *function)
    }

    /// Whether it takes arguments of these types.
    pub(super) fn takes(self, given: &[Type]) -> bool {
        use Type::{Number, String};

        let fits = |wanted: &[Type]| {
            wanted.len() == given.len() && wanted.iter().zip(given).all(|(wanted, given)| given.fits(*wanted))
        };
        match self {
            Self::Abs | Self::Exp | Self::Square | Self::Ceiling | Self::Floor | Self::Sign | Self::Sqrt => {
                fits(&[Number])
            }
            Self::Power => fits(&[Number, Number]),
            Self::AsNumber => fits(&[String]) || fits(&[Number]),
            Self::IsBool | Self::IsDefined | Self::IsNull | Self::IsNumber | Self::IsString => {
                given.len() == 1
            }
            Self::Concat => given.len() >= 2 && given.iter().all(|given| given.fits(String)),
            Self::Length | Self::Lower | Self::Upper => fits(&[String]),
            Self::Substring => fits(&[String, Number]) || fits(&[String, Number, Number]),
            Self::IndexOf | Self::StartsWith | Self::EndsWith | Self::Contains => fits(&[String, String]),
        }
    }

    /// The type of what it gives.
    pub(super) fn result(self) -> Type {
        match self {
            Self::IsBool | Self::IsDefined | Self::IsNull | Self::IsNumber | Self::IsString => Type::Bool,
            Self::StartsWith | Self::EndsWith | Self::Contains => Type::Bool,
            Self::Concat | Self::Lower | Self::Upper | Self::Substring => Type::String,
            _ => Type::Number,
        }
    }

    /// What it gives; undefined for values of the wrong type, which only the body can have.
    pub(super) fn apply(self, arguments: &[Value]) -> Value {
        use Value::{Bool, Null, Number, String, Undefined};

        match (self, arguments) {
            (Self::Abs, [Number(number)]) => Value::number(number.abs()),
            (Self::Exp, [Number(number)]) => Value::number(number.exp()),
            (Self::Square, [Number(number)]) => Value::number(number * number),
            (Self::Ceiling, [Number(number)]) => Value::number(number.ceil()),
            (Self::Floor, [Number(number)]) => Value::number(number.floor()),
            (Self::Sign, [Number(number)]) if *number == 0.0 => Number(0.0),
            (Self::Sign, [Number(number)]) => Value::number(number.signum()),
            (Self::Sqrt, [Number(number)]) => Value::number(number.sqrt()),
            (Self::Power, [Number(base), Number(exponent)]) => Value::number(base.powf(*exponent)),
            (Self::AsNumber, [Number(number)]) => Number(*number),
            (Self::AsNumber, [String(text)]) => as_number(text),
            (Self::IsDefined, [value]) => Bool(*value != Undefined),
            (Self::IsNull, [value]) => Bool(*value == Null),
            (Self::IsBool, [Undefined]) => Undefined,
            (Self::IsBool, [value]) => Bool(matches!(value, Bool(_))),
            (Self::IsNumber, [value]) => Bool(matches!(value, Number(number) if number.is_finite())),
            (Self::IsString, [value]) => Bool(matches!(value, String(_))),
            (Self::Concat, values) => concat(values),
            (Self::Length, [String(text)]) => Number(text.encode_utf16().count() as f64),
            (Self::Lower, [String(text)]) => String(text.to_lowercase()),
            (Self::Upper, [String(text)]) => String(text.to_uppercase()),
            (Self::Substring, [String(text), Number(start)]) => substring(text, *start, None),
            (Self::Substring, [String(text), Number(start), Number(length)]) => {
                substring(text, *start, Some(*length))
            }
            (Self::IndexOf, [String(text), String(part)]) => {
                let place = text.find(part.as_str()).map(|place| text[..place].encode_utf16().count());
                Number(place.map_or(-1.0, |place| place as f64))
            }
            (Self::StartsWith, [String(text), String(part)]) => Bool(text.starts_with(part.as_str())),
            (Self::EndsWith, [String(text), String(part)]) => Bool(text.ends_with(part.as_str())),
            (Self::Contains, [String(text), String(part)]) => Bool(text.contains(part.as_str())),
            _ => Undefined,
        }
    }
}

fn as_number(text: &str) -> Value {
    let text = text.trim();
    // What Rust would take for a number beyond digits, sign, point and exponent is none here.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse().ok().filter(|_| is_number).map_or(Value::Undefined, Value::number)
}

fn concat(values: &[Value]) -> Value {
    let mut text = String::new();
    for value in values {
        let Value::String(part) = value else { return Value::Undefined };
        text.push_str(part);
    }
    Value::String(text)
}

fn substring(text: &str, start: f64, length: Option<f64>) -> Value {
    let units: Vec<u16> = text.encode_utf16().collect();
    let count = units.len() as f64;
    let good = match length {
        None => (0.0..=count).contains(&start),
        Some(length) => (0.0..count).contains(&start) && length >= 0.0 && length <= count - start,
    };
    if !good {
        return Value::Undefined;
    }
    // Both are within the length of the text, and only their fractions are cut off.
    let (start, length) = (start as usize, length.map(|length| length as usize));
    let end = length.map_or(units.len(), |length| (start + length).min(units.len()));
    Value::String(String::from_utf16_lossy(&units[start..end]))
}
