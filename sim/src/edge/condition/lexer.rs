//! Words of a condition. At each place the longest word counts; of equally long ones the first of the grammar.

use super::ConditionError;

/// A word with the place where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) position: usize,
}

/// What a word is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    String(String),
    Number(f64),
    Bool(bool),
    Null,
    Undefined,
    /// A sign, or `AND`, `OR`, `NOT` in capitals.
    Sign(&'static str),
    /// A name that begins with `$`.
    SystemName(String),
    Name(String),
    End,
}

const SIGNS: [&str; 19] =
    ["||", "??", "!=", "<>", "<=", ">=", "<", ">", "=", "(", ")", "{", "}", ",", "+", "-", "*", "/", "%"];
/// What ends a name.
const DELIMITERS: &str = "()<>@,;:\\\"/?={} \t\n\r";

/// Splits a text into words; the last is [`Kind::End`].
pub(super) fn words(text: &str) -> Result<Vec<Token>, ConditionError> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = skip_blank(rest);
        let position = text[..text.len() - rest.len()].chars().count() + 1;
        if rest.is_empty() {
            words.push(Token { kind: Kind::End, position });
            return Ok(words);
        }
        let error = |message: String| ConditionError { message, position };
        if rest.starts_with(['"', '\'']) && string(rest).is_none() {
            return Err(error("a string without its end, or with an unknown escape".to_owned()));
        }
        let unknown =
            || error(format!("the unexpected character {:?}", rest.chars().next().unwrap_or_default()));
        let (kind, length) = longest(rest).ok_or_else(unknown)?;
        words.push(Token { kind, position });
        rest = &rest[length..];
    }
}

fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        match text.strip_prefix("/*").and_then(|comment| comment.split_once("*/")) {
            Some((_, rest)) => text = rest,
            None => return text,
        }
    }
}

fn longest(text: &str) -> Option<(Kind, usize)> {
    let candidates = [string(text), number(text), word(text), sign(text), name(text)];
    let mut best: Option<(Kind, usize)> = None;
    for candidate in candidates.into_iter().flatten() {
        if best.as_ref().is_none_or(|(_, length)| candidate.1 > *length) {
            best = Some(candidate);
        }
    }
    best
}

fn string(text: &str) -> Option<(Kind, usize)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next()?.1 {
                escaped @ ('"' | '\'' | '\\') => value.push(escaped),
                'u' => {
                    let digits: String = characters.by_ref().take(4).map(|(_, digit)| digit).collect();
                    let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4)?;
                    value.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                _ => return None,
            },
            end if end == quote => return Some((Kind::String(value), at + 1)),
            other => value.push(other),
        }
    }
    None
}

/// An integer, also a negative or hexadecimal one, or a real number.
fn number(text: &str) -> Option<(Kind, usize)> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let length = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        if length > 0 {
            let value = i64::from_str_radix(&hex[..length], 16).map_or(f64::NAN, |value| value as f64);
            return Some((Kind::Number(value), length + 2));
        }
    }
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let sign = usize::from(text.starts_with('-'));
    let whole = digits(sign);
    let mut end = sign + whole;
    if text[end..].starts_with('.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    } else if whole == 0 {
        return None;
    }
    if text[end..].starts_with(['e', 'E']) {
        let exponent = end + 1 + usize::from(text[end + 1..].starts_with(['+', '-']));
        if digits(exponent) > 0 {
            end = exponent + digits(exponent);
        }
    }
    text[..end].parse().ok().map(|value| (Kind::Number(value), end))
}

fn word(text: &str) -> Option<(Kind, usize)> {
    let length = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let word = &text[..length];
    let kind = match word {
        "true" => Kind::Bool(true),
        "false" => Kind::Bool(false),
        "null" => Kind::Null,
        "undefined" => Kind::Undefined,
        _ => Kind::Sign(["AND", "OR", "NOT"].into_iter().find(|keyword| keyword.eq_ignore_ascii_case(word))?),
    };
    Some((kind, length))
}

fn sign(text: &str) -> Option<(Kind, usize)> {
    SIGNS.into_iter().find(|sign| text.starts_with(sign)).map(|sign| (Kind::Sign(sign), sign.len()))
}

fn name(text: &str) -> Option<(Kind, usize)> {
    let path_length = text.find(|character| DELIMITERS.contains(character)).unwrap_or(text.len());
    if text.starts_with('$') && path_length > 1 {
        return Some((Kind::SystemName(text[..path_length].to_owned()), path_length));
    }
    // Brackets are for paths into the body only; such a word is nothing at all.
    let length = text[..path_length].find(['[', ']']).unwrap_or(path_length);
    (length > 0 && length == path_length).then(|| (Kind::Name(text[..length].to_owned()), length))
}
