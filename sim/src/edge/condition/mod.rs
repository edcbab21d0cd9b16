//! The conditions of routes: IoT Hub's routing query language, as edgeHub understands it.
//!
//! A condition is checked when the route is read: it has static types, and operands of different types are an error,
//! but for what comes from the body, whose type is known only then. A property is a string. What does not exist is
//! *undefined*, and so is all that is computed of it; a message passes when its condition is true.
//!
//! As in edgeHub, `NOT` binds tighter than a comparison, a name may hold `-` and `+`, and a path that a JSON body does
//! not have gives `null`, while a body that is not JSON gives *undefined*.

mod eval;
mod functions;
mod lexer;
mod parser;
mod subject;

use self::eval::Expr;

pub use self::subject::Subject;

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {position} of the condition")]
pub struct ConditionError {
    /// What is wrong.
    pub message: String,
    /// Counted from 1.
    pub position: usize,
}

/// A condition that can be asked of messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition(Expr);

impl Condition {
    /// Reads a condition. `twin_changes` tells whether the messages are notices of changed twins, about which there
    /// is a function of their own.
    pub fn parse(text: &str, twin_changes: bool) -> Result<Self, ConditionError> {
        parser::parse(text, twin_changes).map(Self)
    }

    /// Whether a message passes.
    #[must_use]
    pub fn holds(&self, subject: &Subject<'_>) -> bool {
        matches!(self.0.evaluate(subject), eval::Value::Bool(true))
    }
}

#[cfg(test)]
mod tests;
