//! Compiles the eBPF programs with clang. Without clang or libbpf's headers the crate builds all the
//! same, and `ebpf` says at run time what was missing: `WEFT_EBPF_MISSING` holds the sentence, empty if
//! all is well.

use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    for file in ["overlay.bpf.c", "overlay.h", "maps.h", "inner.h"] {
        println!("cargo::rerun-if-changed=bpf/{file}");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    let object = PathBuf::from(variable("OUT_DIR")).join("overlay.o");
    let missing = match compile(&object) {
        Ok(()) => String::new(),
        Err(missing) => {
            println!("cargo::warning=the eBPF data path is left out: {missing}");
            if let Err(cause) = fs::write(&object, b"") {
                panic!("write {}: {cause}", object.display());
            }
            missing
        }
    };
    println!("cargo::rustc-env=WEFT_EBPF_MISSING={missing}");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|cause| panic!("cargo sets {name}: {cause}"))
}

/// One line on failure.
fn compile(object: &PathBuf) -> Result<(), String> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    // Debian keeps <asm/types.h> in the folder of the build machine's architecture.
    let arch = variable("HOST")
        .split('-')
        .next()
        .unwrap_or_default()
        .to_owned();
    let endian = if variable("CARGO_CFG_TARGET_ENDIAN") == "big" {
        "bpfeb"
    } else {
        "bpfel"
    };
    let output = Command::new(&clang)
        .args([
            "-O2", "-g", "-Wall", "-Wextra", "-mcpu=v3", "-target", endian,
        ])
        .arg(format!("-I/usr/include/{arch}-linux-gnu"))
        .args(["-c", "bpf/overlay.bpf.c", "-o"])
        .arg(object)
        .output()
        .map_err(|cause| format!("{clang}: {cause} (apt-get install clang)"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said
        .lines()
        .find(|line| line.contains("error:"))
        .unwrap_or("it said nothing")
        .trim();
    let package = if line.contains("bpf/") && line.contains("file not found") {
        " (apt-get install libbpf-dev)"
    } else if line.contains("file not found") {
        " (apt-get install linux-libc-dev)"
    } else {
        ""
    };
    Err(format!("{clang}: {line}{package}"))
}
