//! The secret by which nodes join: a line of the token file.

use std::path::Path;

use anyhow::{Context, anyhow};

use super::private;

const USER: &str = "system:bootstrap:weft";
const GROUP: &str = "system:bootstrappers";

/// The secret that is there, or a new one.
///
/// # Errors
/// The file cannot be read or written, or is open to others.
pub fn secret(path: &Path) -> anyhow::Result<String> {
    let mut text = private::read(path)?.unwrap_or_default();
    let there = text.lines().find_map(|line| {
        let (secret, rest) = line.trim().split_once(',')?;
        (rest.split(',').next() == Some(USER)).then(|| secret.to_owned())
    });
    if let Some(secret) = there {
        return Ok(secret);
    }
    let mut bytes = [0; 16];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| anyhow!("the system gives no random bytes"))
        .with_context(|| format!("make a token for {}", path.display()))?;
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += &format!("{secret},{USER},,\"{GROUP}\"\n");
    private::write(path, &text)?;
    Ok(secret)
}
