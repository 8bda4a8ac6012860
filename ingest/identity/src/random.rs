//! Random bytes of the operating system.

use ring::rand::{SecureRandom, SystemRandom};

use crate::error::SignOnError;

/// So many bytes that nobody can foretell.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], SignOnError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SignOnError::NoRandomness)?;
    Ok(bytes)
}
