//! What is asked of servers of another make by HTTP.

use std::process::Command;

use anyhow::{Result, ensure};

/// What is answered to a request that curl makes with these arguments.
///
/// # Errors
/// Where it is not reached, or answers that something is wrong.
pub(crate) fn curl(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("curl").args(["-sS", "--fail-with-body"]).args(arguments).output()?;
    let said = || String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{}", said());
    Ok(output.stdout)
}
