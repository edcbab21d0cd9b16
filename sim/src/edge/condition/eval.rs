//! What an expression is, and what it gives for a message.

use std::cmp::Ordering;

use super::functions::Function;
use super::subject::Subject;

/// A step into JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Name(String),
    Index(usize),
}

pub(super) type Path = Vec<Step>;

/// An operator with two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Multiply,
    Divide,
    Remainder,
    Add,
    Subtract,
    Concat,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    And,
    Or,
    Coalesce,
}

/// An expression whose types fit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    String(String),
    Number(f64),
    Bool(bool),
    Null,
    Undefined,
    /// A property of the application.
    Property(String),
    /// A system property, unless the application has a property of that name.
    System {
        name: String,
        application: Option<String>,
    },
    /// A part of the body, unless the application has a property of that name.
    Body {
        path: Path,
        application: Option<String>,
    },
    /// Whether a changed twin has this part.
    Includes(Path),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Call(Function, Vec<Expr>),
}

/// A type that is known before there is a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Number,
    String,
    Null,
    Undefined,
    /// From the body.
    Any,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Number => "number",
            Self::String => "string",
            Self::Null => "null",
            Self::Undefined => "undefined",
            Self::Any => "value of the body",
        }
    }

    /// Whether a value of this type may stand where the other is wanted.
    pub(super) fn fits(self, wanted: Self) -> bool {
        let known = |of: Self| !matches!(of, Self::Undefined);
        self == wanted || (self == Self::Any && known(wanted)) || (wanted == Self::Any && known(self))
    }

    pub(super) fn is_logical(self) -> bool {
        matches!(self, Self::Bool | Self::Null | Self::Undefined | Self::Any)
    }
}

/// What an expression gives.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Undefined,
    Bool(bool),
    Number(f64),
    String(String),
    Null,
}

impl Value {
    pub(super) fn number(number: f64) -> Self {
        if number.is_nan() { Self::Undefined } else { Self::Number(number) }
    }

    /// The order of the types is that of edgeHub, and decides when they differ.
    fn rank(&self) -> u8 {
        match self {
            Self::Undefined => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::String(_) => 3,
            Self::Null => 4,
        }
    }

    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Undefined, _) | (_, Self::Undefined) => None,
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            (Self::Number(left), Self::Number(right)) => left.partial_cmp(right),
            (Self::String(left), Self::String(right)) => Some(left.encode_utf16().cmp(right.encode_utf16())),
            (left, right) => Some(left.rank().cmp(&right.rank())),
        }
    }
}

impl Expr {
    pub(super) fn evaluate(&self, subject: &Subject<'_>) -> Value {
        let text = |found: Option<&str>| found.map(|text| Value::String(text.to_owned()));
        match self {
            Self::String(text) => Value::String(text.clone()),
            Self::Number(number) => Value::number(*number),
            Self::Bool(value) => Value::Bool(*value),
            Self::Null => Value::Null,
            Self::Undefined => Value::Undefined,
            Self::Property(name) => text(subject.application(name)).unwrap_or(Value::Undefined),
            Self::System { name, application } => {
                let application = application.as_ref().and_then(|name| subject.application(name));
                text(application.or_else(|| subject.system(name))).unwrap_or(Value::Undefined)
            }
            Self::Body { path, application } => {
                let application = application.as_ref().and_then(|name| subject.application(name));
                text(application).unwrap_or_else(|| subject.body(path))
            }
            Self::Includes(path) => match subject.body_has(path) {
                Some(has) => Value::Bool(has),
                None => Value::Undefined,
            },
            Self::Negate(operand) => match operand.evaluate(subject) {
                Value::Number(number) => Value::Number(-number),
                _ => Value::Undefined,
            },
            Self::Not(operand) => match operand.evaluate(subject) {
                Value::Bool(value) => Value::Bool(!value),
                _ => Value::Undefined,
            },
            Self::Binary(operator, left, right) => {
                operator.apply(left.evaluate(subject), || right.evaluate(subject))
            }
            Self::Call(function, arguments) => {
                let values: Vec<_> = arguments.iter().map(|argument| argument.evaluate(subject)).collect();
                function.apply(&values)
            }
        }
    }
}

impl Operator {
    fn apply(self, left: Value, right: impl FnOnce() -> Value) -> Value {
        match self {
            Self::Multiply => numbers(&left, &right(), |left, right| left * right),
            Self::Divide => numbers(&left, &right(), |left, right| left / right),
            Self::Remainder => numbers(&left, &right(), |left, right| left % right),
            Self::Add => numbers(&left, &right(), |left, right| left + right),
            Self::Subtract => numbers(&left, &right(), |left, right| left - right),
            Self::Concat => Function::Concat.apply(&[left, right()]),
            Self::Less => ordered(&left, &right(), Ordering::is_lt),
            Self::LessOrEqual => ordered(&left, &right(), Ordering::is_le),
            Self::Greater => ordered(&left, &right(), Ordering::is_gt),
            Self::GreaterOrEqual => ordered(&left, &right(), Ordering::is_ge),
            Self::Equal => ordered(&left, &right(), Ordering::is_eq),
            Self::NotEqual => ordered(&left, &right(), Ordering::is_ne),
            Self::And => match (left, right()) {
                (Value::Bool(false), _) | (_, Value::Bool(false)) => Value::Bool(false),
                (Value::Bool(true), Value::Bool(true)) => Value::Bool(true),
                _ => Value::Undefined,
            },
            Self::Or => match (left, right()) {
                (Value::Bool(true), _) | (_, Value::Bool(true)) => Value::Bool(true),
                (Value::Bool(false), Value::Bool(false)) => Value::Bool(false),
                _ => Value::Undefined,
            },
            Self::Coalesce if left == Value::Undefined => right(),
            Self::Coalesce => left,
        }
    }
}

fn numbers(left: &Value, right: &Value, compute: impl FnOnce(f64, f64) -> f64) -> Value {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => Value::number(compute(*left, *right)),
        _ => Value::Undefined,
    }
}

fn ordered(left: &Value, right: &Value, accept: impl FnOnce(Ordering) -> bool) -> Value {
    left.compare(right).map_or(Value::Undefined, |ordering| Value::Bool(accept(ordering)))
}
