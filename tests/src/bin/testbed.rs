//! `testbed sweep`: removes what dead runs of tests and demos have left on this machine.

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sweep"] => {
            for name in tests::sweep::sweep()? {
                println!("removed {name}");
            }
            Ok(())
        }
        _ => bail!("usage: testbed sweep"),
    }
}
