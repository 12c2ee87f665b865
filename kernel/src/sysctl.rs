//! Kernel parameters under /proc/sys, read before they are written.

use std::{fs, io, path::PathBuf};

use crate::{Error, Result};

/// The value of a parameter, without its trailing newline, in the calling thread's namespace.
///
/// `key` is `net.ipv4.ip_forward` or, where a part has a dot of its own (an interface such as
/// `eth0.1`), `net/ipv4/conf/eth0.1/forwarding`; with a slash in it, dots are left alone.
pub fn read(key: &str) -> Result<String> {
    let what = || format!("read sysctl {key}");
    let path = path(key).map_err(|cause| Error::new(what(), cause))?;
    let text = fs::read_to_string(path).map_err(|cause| Error::new(what(), cause))?;
    Ok(text.trim_end().to_owned())
}

/// Sets a parameter if it differs; says whether it did.
pub fn ensure(key: &str, value: &str) -> Result<bool> {
    if read(key)? == value {
        return Ok(false);
    }
    let what = || format!("write sysctl {key}={value}");
    path(key)
        .and_then(|path| fs::write(path, value))
        .map_err(|cause| Error::new(what(), cause))?;
    Ok(true)
}

fn path(key: &str) -> io::Result<PathBuf> {
    let relative = if key.contains('/') {
        key.to_owned()
    } else {
        key.replace('.', "/")
    };
    if relative.starts_with('/')
        || relative
            .split('/')
            .any(|part| part == ".." || part.is_empty())
    {
        return Err(io::Error::other("not a parameter name"));
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_dots_in_names() {
        assert_eq!(
            path("net/ipv4/conf/eth0.1/forwarding").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.1/forwarding")
        );
        assert!(path("net/ipv4/../../x").is_err());
        assert!(path("/etc/passwd").is_err());
        assert!(path("net..x").is_err());
    }

    #[test]
    fn reads_a_value() {
        assert!(!read("kernel.ostype").unwrap().is_empty());
        assert!(read("net.no.such.key").unwrap_err().is_not_found());
    }
}
