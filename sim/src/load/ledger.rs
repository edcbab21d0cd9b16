//! The numbers that were acknowledged to a producer, in a file that outlives it.
//!
//! Numbers are acknowledged in order, so the last one stands for all before it. A line that was cut off counts for nothing:
//! its number is sent again.

use std::io::{self, Write};
use std::path::Path;

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    file: std::fs::File,
    last: u64,
}

impl Ledger {
    /// Opens the ledger at `path`, or begins one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let kept = match fs_err::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let whole = &kept[..kept.rfind('\n').map_or(0, |end| end + 1)];
        let mut file = fs_err::OpenOptions::new().create(true).append(true).open(path)?.into_file();
        if whole.len() < kept.len() {
            // What was cut off ends here, as a line that is no number.
            file.write_all(b"-\n")?;
        }
        Ok(Self { file, last: last_number(whole) })
    }

    /// The last number that was acknowledged; 0 when there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Notes that `number` was acknowledged.
    pub fn note(&mut self, number: u64) -> io::Result<()> {
        self.file.write_all(format!("{number}\n").as_bytes())?;
        self.last = number;
        Ok(())
    }
}

/// The highest number in the text of a ledger.
#[must_use]
pub fn last_number(text: &str) -> u64 {
    text.lines().filter_map(|line| line.parse().ok()).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_by_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.last(), 0);
        ledger.note(1).unwrap();
        ledger.note(2).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().last(), 2);
    }

    #[test]
    fn a_line_that_was_cut_off_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        fs_err::write(&path, "1\n2\n39").unwrap();
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.last(), 2);
        ledger.note(3).unwrap();
        assert_eq!(last_number(&fs_err::read_to_string(&path).unwrap().replace("39-", "-")), 3);
        assert_eq!(Ledger::open(&path).unwrap().last(), 3);
    }
}
