//! A small reader for the JSON of the data set: one value per text, in memory.
//!
//! It accepts what RFC 8259 accepts, save that nesting is bounded and that numbers become f64. An
//! error says at which byte of the text the reader stood, what it expected and what it found.

use crate::failure::Failure;
use std::path::Path;

/// Deeper values are refused, so that a hostile file cannot exhaust the stack.
const DEPTH_MAX: u32 = 32;

/// A JSON value.
#[derive(Debug, PartialEq)]
pub(crate) enum Json {
    /// `null`, `true` or `false`: nothing here asks which.
    Word,
    Number(f64),
    Text(String),
    List(Vec<Json>),
    /// Members in the order of the text.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The member of that name, if this is an object that has it.
    pub(crate) fn member(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a whole one that f64 holds exactly.
    pub(crate) fn whole(&self) -> Option<u64> {
        match self {
            Json::Number(n) if n.fract() == 0.0 && (0.0..9.0e15).contains(n) => Some(*n as u64),
            _ => None,
        }
    }
}

/// Reads one value. `at` is where `text` starts in `file`, for the message.
pub(crate) fn parse(file: &Path, at: usize, text: &str) -> Result<Json, Failure> {
    let mut reader = Reader { text, next: 0 };
    reader.whole_text().map_err(|expected| {
        let place = format!("offset {}", at + reader.next);
        match text[reader.next..].chars().next() {
            Some(found) => Failure::bad_input(file, place, expected, format!("{found:?}")),
            None => Failure::bad_input(file, place, expected, "the end"),
        }
    })
}

/// What the reader expected where it stands.
type Expected = &'static str;

struct Reader<'a> {
    text: &'a str,
    /// Byte offset, always on the boundary of a character.
    next: usize,
}

impl Reader<'_> {
    fn whole_text(&mut self) -> Result<Json, Expected> {
        let value = self.value(0)?;
        self.skip_space();
        if self.next == self.text.len() {
            Ok(value)
        } else {
            Err("the end of the value")
        }
    }

    fn rest(&self) -> &str {
        &self.text[self.next..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.next += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn take(&mut self, literal: &str) -> bool {
        let found = self.rest().starts_with(literal);
        if found {
            self.next += literal.len();
        }
        found
    }

    fn value(&mut self, depth: u32) -> Result<Json, Expected> {
        if depth == DEPTH_MAX {
            return Err("at most 32 levels");
        }
        self.skip_space();
        if self.take("{") {
            return self.object(depth);
        }
        if self.take("[") {
            return self.list(depth);
        }
        if self.take("\"") {
            return Ok(Json::Text(self.string()?));
        }
        if self.take("null") || self.take("true") || self.take("false") {
            return Ok(Json::Word);
        }
        self.number()
    }

    fn object(&mut self, depth: u32) -> Result<Json, Expected> {
        let mut members = Vec::new();
        self.skip_space();
        if self.take("}") {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            if !self.take("\"") {
                return Err("the name of a member");
            }
            let name = self.string()?;
            self.skip_space();
            if !self.take(":") {
                return Err("':'");
            }
            members.push((name, self.value(depth + 1)?));
            self.skip_space();
            if self.take("}") {
                return Ok(Json::Object(members));
            }
            if !self.take(",") {
                return Err("',' or '}'");
            }
        }
    }

    fn list(&mut self, depth: u32) -> Result<Json, Expected> {
        let mut items = Vec::new();
        self.skip_space();
        if self.take("]") {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take("]") {
                return Ok(Json::List(items));
            }
            if !self.take(",") {
                return Err("',' or ']'");
            }
        }
    }

    /// The rest of a string whose opening quote is behind us.
    fn string(&mut self) -> Result<String, Expected> {
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let plain = rest
                .find(|c: char| c == '"' || c == '\\' || c < ' ')
                .unwrap_or(rest.len());
            text.push_str(&rest[..plain]);
            self.next += plain;
            if self.take("\"") {
                return Ok(text);
            }
            if !self.take("\\") {
                return Err("the end of the string");
            }
            text.push(self.escape()?);
        }
    }

    /// The character meant by what follows a backslash.
    fn escape(&mut self) -> Result<char, Expected> {
        for (letter, meant) in [
            ("\"", '"'),
            ("\\", '\\'),
            ("/", '/'),
            ("b", '\u{8}'),
            ("f", '\u{c}'),
            ("n", '\n'),
            ("r", '\r'),
            ("t", '\t'),
        ] {
            if self.take(letter) {
                return Ok(meant);
            }
        }
        if !self.take("u") {
            return Err("an escape");
        }
        let unit = self.four_digits()?;
        if !(0xd800..0xdc00).contains(&unit) {
            return char::from_u32(unit).ok_or("the first half of a surrogate pair");
        }
        if !self.take("\\u") {
            return Err("the second half of a surrogate pair");
        }
        let low = self.four_digits()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err("the second half of a surrogate pair");
        }
        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).ok_or("a character")
    }

    fn four_digits(&mut self) -> Result<u32, Expected> {
        let digits = self
            .rest()
            .get(..4)
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or("four hexadecimal digits")?;
        self.next += 4;
        Ok(unit)
    }

    fn number(&mut self) -> Result<Json, Expected> {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !"+-.0123456789eE".contains(c))
            .unwrap_or(rest.len());
        let digits = &rest[..length];
        // Rust reads a little more than JSON has: a leading plus sign or point, and leading zeros.
        let unsigned = digits.strip_prefix('-').unwrap_or(digits).as_bytes();
        let starts_well = unsigned.first().is_some_and(u8::is_ascii_digit)
            && !(unsigned[0] == b'0' && unsigned.get(1).is_some_and(u8::is_ascii_digit));
        match digits.parse::<f64>() {
            Ok(n) if starts_well && n.is_finite() && !digits.ends_with('.') => {
                self.next += length;
                Ok(Json::Number(n))
            }
            _ => Err("a value"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Json {
        parse(Path::new("x.json"), 0, text).unwrap()
    }

    #[test]
    fn values_are_read() {
        let json = read(r#" {"a": [1, -2.5e1, null], "b": {"c": "x"}, "d": true} "#);
        let list = vec![Json::Number(1.0), Json::Number(-25.0), Json::Word];
        assert_eq!(json.member("a"), Some(&Json::List(list)));
        assert_eq!(
            json.member("b")
                .and_then(|b| b.member("c"))
                .and_then(Json::text),
            Some("x")
        );
        assert_eq!(json.member("e"), None);
        assert_eq!(read("60000").whole(), Some(60_000));
        assert_eq!(read("0.5").whole(), None);
        assert_eq!(read("-1").whole(), None);
        assert_eq!(read("{}"), Json::Object(vec![]));
        assert_eq!(read("[ ]"), Json::List(vec![]));
    }

    #[test]
    fn escapes_are_read() {
        let text = read(r#""a\"b\\c\/\n\t\u00e9\ud83d\ude00 \u2028""#);
        assert_eq!(text.text(), Some("a\"b\\c/\n\t\u{e9}\u{1f600} \u{2028}"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("", "offset 100: expected a value, found the end"),
            ("{\"a\" 1}", "offset 105: expected ':', found '1'"),
            (
                "{\"a\": 1",
                "offset 107: expected ',' or '}', found the end",
            ),
            ("[1 2]", "offset 103: expected ',' or ']', found '2'"),
            (
                "[1] x",
                "offset 104: expected the end of the value, found 'x'",
            ),
            (
                "\"a\nb\"",
                "offset 102: expected the end of the string, found '\\n'",
            ),
            ("\"\\x\"", "offset 102: expected an escape, found 'x'"),
            (
                "\"\\ud800\"",
                "expected the second half of a surrogate pair",
            ),
            ("\"\\udc00\"", "expected the first half of a surrogate pair"),
            (
                "\"\\u00g0\"",
                "offset 103: expected four hexadecimal digits",
            ),
            (
                "\"\\u+0ab\"",
                "offset 103: expected four hexadecimal digits",
            ),
            ("01", "offset 100: expected a value"),
            ("1.", "offset 100: expected a value"),
            ("+1", "offset 100: expected a value"),
            ("1e999", "offset 100: expected a value"),
            ("nul", "offset 100: expected a value, found 'n'"),
        ] {
            let message = parse(Path::new("x.json"), 100, text)
                .unwrap_err()
                .to_string();
            assert!(
                message.contains(words),
                "{text:?}: {message:?} lacks {words:?}"
            );
        }
        let deep = "[".repeat(100_000);
        let message = parse(Path::new("x.json"), 0, &deep)
            .unwrap_err()
            .to_string();
        assert!(message.contains("at most 32 levels"), "{message:?}");
    }
}
