//! From words to an expression whose types fit.

use super::ConditionError;
use super::eval::{Expr, Operator, Path, Step, Type};
use super::functions::Function;
use super::lexer::{Kind, Token, words};

/// How deep expressions may be nested; what is deeper is refused, so that the stack has an end.
const MAX_DEPTH: usize = 64;
const BODY_PREFIX: &str = "$body.";

pub(super) fn parse(text: &str, twin_changes: bool) -> Result<Expr, ConditionError> {
    let words = words(text)?;
    let mut parser = Parser { words: &words, text, next: 0, depth: 0, twin_changes };
    let (expression, _) = parser.binary(0)?;
    match parser.peek() {
        Kind::End => Ok(expression),
        Kind::Sign(")") => Err(parser.error("a closing ) without its (")),
        _ => Err(parser.error("an operator is missing")),
    }
}

struct Parser<'a> {
    words: &'a [Token],
    text: &'a str,
    next: usize,
    depth: usize,
    twin_changes: bool,
}

type Typed = (Expr, Type);

/// The operators with two sides, from the loosest to the tightest.
const LEVELS: [&[&str]; 7] = [
    &["??"],
    &["OR"],
    &["AND"],
    &["=", "!=", "<>"],
    &["<", "<=", ">", ">="],
    &["+", "-", "||"],
    &["*", "/", "%"],
];

impl Parser<'_> {
    fn peek(&self) -> &Kind {
        self.words.get(self.next).map_or(&Kind::End, |token| &token.kind)
    }

    fn position(&self) -> usize {
        self.words.get(self.next).map_or(1, |token| token.position)
    }

    fn error(&self, message: impl Into<String>) -> ConditionError {
        ConditionError { message: message.into(), position: self.position() }
    }

    fn accept(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        let Kind::Sign(sign) = *self.peek() else { return None };
        let found = signs.contains(&sign).then_some(sign);
        self.next += usize::from(found.is_some());
        found
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), ConditionError> {
        self.accept(&[sign]).map(drop).ok_or_else(|| self.error(format!("a {sign} is missing")))
    }

    /// An expression of operators from `level` on; all associate to the left.
    fn binary(&mut self, level: usize) -> Result<Typed, ConditionError> {
        let Some(signs) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let position = self.position();
            let Some(sign) = self.accept(signs) else { return Ok(left) };
            // A chain is as deep as it is long.
            self.deeper()?;
            let right = self.binary(level + 1)?;
            left = combine(sign, left, right).map_err(|message| ConditionError { message, position })?;
        }
    }

    fn deeper(&mut self) -> Result<(), ConditionError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("there are too many operators")) } else { Ok(()) }
    }

    fn unary(&mut self) -> Result<Typed, ConditionError> {
        let position = self.position();
        let Some(sign) = self.accept(&["-", "NOT"]) else { return self.primary() };
        self.deeper()?;
        let (operand, given) = self.unary()?;
        let refused = |wanted| ConditionError {
            message: format!("{sign} needs a {wanted}, not a {}", given.name()),
            position,
        };
        match sign {
            "-" if matches!(given, Type::Number | Type::Any) => {
                Ok((Expr::Negate(Box::new(operand)), Type::Number))
            }
            "-" => Err(refused("number")),
            _ if matches!(given, Type::Bool | Type::Null | Type::Any) => {
                Ok((Expr::Not(Box::new(operand)), Type::Bool))
            }
            _ => Err(refused("boolean")),
        }
    }

    fn primary(&mut self) -> Result<Typed, ConditionError> {
        let kind = self.peek().clone();
        let before = self.next;
        self.next += 1;
        match kind {
            Kind::String(text) => Ok((Expr::String(text), Type::String)),
            Kind::Number(number) => Ok((Expr::Number(number), Type::Number)),
            Kind::Bool(value) => Ok((Expr::Bool(value), Type::Bool)),
            Kind::Null => Ok((Expr::Null, Type::Null)),
            Kind::Undefined => Ok((Expr::Undefined, Type::Undefined)),
            Kind::Name(name) if *self.peek() == Kind::Sign("(") => self.call(&name, before),
            Kind::Name(name) => Ok((Expr::Property(name), Type::String)),
            Kind::SystemName(name) => self.system_name(name, before, false),
            Kind::Sign("{") => {
                let Kind::SystemName(name) = self.peek().clone() else {
                    return Err(self.error("{ } hold a name that begins with $"));
                };
                self.next += 1;
                let found = self.system_name(name, before + 1, true)?;
                self.expect("}")?;
                Ok(found)
            }
            Kind::Sign("(") => {
                self.deeper()?;
                let inner = self.binary(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            _ => {
                self.next = before;
                Err(self.error("a value is missing"))
            }
        }
    }

    /// A property of the application goes before a system property of the same name, unless that stands in braces.
    fn system_name(&mut self, name: String, at: usize, escaped: bool) -> Result<Typed, ConditionError> {
        let is_body =
            name.get(..BODY_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(BODY_PREFIX));
        let has_brackets = name.contains(['[', ']']);
        if is_body {
            let path = json_path(&name[BODY_PREFIX.len()..])
                .ok_or_else(|| self.error_at(at, format!("{name} is no path into the body")))?;
            let application = (!escaped && !has_brackets).then_some(name);
            return Ok((Expr::Body { path, application }, Type::Any));
        }
        if has_brackets {
            return Ok((Expr::Undefined, Type::String));
        }
        let system = name.trim_start_matches('$').to_owned();
        let application = (!escaped).then_some(name);
        Ok((Expr::System { name: system, application }, Type::String))
    }

    fn error_at(&self, word: usize, message: String) -> ConditionError {
        ConditionError { message, position: self.words.get(word).map_or(1, |token| token.position) }
    }

    fn call(&mut self, name: &str, at: usize) -> Result<Typed, ConditionError> {
        self.expect("(")?;
        self.deeper()?;
        if name.eq_ignore_ascii_case("twin_change_includes") && self.twin_changes {
            return self.twin_change_includes();
        }
        let function = Function::named(name)
            .ok_or_else(|| self.error_at(at, format!("there is no function \"{name}\"")))?;
        let (mut arguments, mut types) = (Vec::new(), Vec::new());
        if *self.peek() != Kind::Sign(")") {
            loop {
                let (argument, given) = self.binary(0)?;
                arguments.push(argument);
                types.push(given);
                if self.accept(&[","]).is_none() {
                    break;
                }
            }
        }
        self.expect(")")?;
        if !function.takes(&types) {
            let given: Vec<_> = types.iter().map(|given| given.name()).collect();
            let message = format!("the function {name} does not take ({})", given.join(", "));
            return Err(self.error_at(at, message));
        }
        Ok((Expr::Call(function, arguments), function.result()))
    }

    /// Its argument is a path, which is not evaluated.
    fn twin_change_includes(&mut self) -> Result<Typed, ConditionError> {
        let from = self.position() - 1;
        while !matches!(self.peek(), Kind::Sign(")") | Kind::End) {
            self.next += 1;
        }
        let path: String = self.text.chars().skip(from).take(self.position() - 1 - from).collect();
        let path =
            json_path(path.trim()).ok_or_else(|| self.error(format!("{path:?} is no path into the twin")))?;
        self.expect(")")?;
        Ok((Expr::Includes(path), Type::Bool))
    }
}

/// `a.b[0].c`.
fn json_path(text: &str) -> Option<Path> {
    let mut path = Vec::new();
    for part in text.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, Some(index.strip_suffix(']')?.parse().ok()?)),
            None => (part, None),
        };
        if name.is_empty() || name.contains([']', '[']) || name.contains(char::is_whitespace) {
            return None;
        }
        path.push(Step::Name(name.to_owned()));
        path.extend(index.map(Step::Index));
    }
    Some(path)
}

fn combine(sign: &'static str, left: Typed, right: Typed) -> Result<Typed, String> {
    let ((left, left_type), (right, right_type)) = (left, right);
    let fit = |wanted: Type| left_type.fits(wanted) && right_type.fits(wanted);
    let (operator, result, good) = match sign {
        "*" => (Operator::Multiply, Type::Number, fit(Type::Number)),
        "/" => (Operator::Divide, Type::Number, fit(Type::Number)),
        "%" => (Operator::Remainder, Type::Number, fit(Type::Number)),
        "+" => (Operator::Add, Type::Number, fit(Type::Number)),
        "-" => (Operator::Subtract, Type::Number, fit(Type::Number)),
        "||" => (Operator::Concat, Type::String, fit(Type::String)),
        "AND" => (Operator::And, Type::Bool, left_type.is_logical() && right_type.is_logical()),
        "OR" => (Operator::Or, Type::Bool, left_type.is_logical() && right_type.is_logical()),
        "??" => (Operator::Coalesce, left_type, right_type.fits(left_type)),
        "<" => (Operator::Less, Type::Bool, right_type.fits(left_type)),
        "<=" => (Operator::LessOrEqual, Type::Bool, right_type.fits(left_type)),
        ">" => (Operator::Greater, Type::Bool, right_type.fits(left_type)),
        ">=" => (Operator::GreaterOrEqual, Type::Bool, right_type.fits(left_type)),
        "=" => (Operator::Equal, Type::Bool, right_type.fits(left_type)),
        _ => (Operator::NotEqual, Type::Bool, right_type.fits(left_type)),
    };
    if !good {
        let (left, right) = (left_type.name(), right_type.name());
        return Err(format!("{sign} does not take a {left} and a {right}"));
    }
    Ok((Expr::Binary(operator, Box::new(left), Box::new(right)), result))
}
