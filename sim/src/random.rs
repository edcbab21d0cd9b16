//! Random bytes for keys, identifiers and noise.
//!
//! The generator is the one of TLS. It asks the kernel directly; others look for `/dev/urandom` in a static binary.

use rustls::crypto::{GetRandomFailed, ring};

/// As many random bytes as asked for.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], GetRandomFailed> {
    let mut bytes = [0; N];
    ring::default_provider().secure_random.fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(bytes::<16>().unwrap(), bytes::<16>().unwrap());
    }
}
