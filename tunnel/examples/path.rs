//! Runs a user-space path by hand, to be measured or looked at:
//! `path DEVICE BIND MODE OWN-SUBNET PEER-ADDRESS=PEER-SUBNET…`; link, addresses and routes of the device are yours to set. Ends with
//! its standard input, and prints the counters.
//!
//! Example: `ip netns exec n1 path flannel0 192.168.66.11:8285 offload 10.9.1.0/24 192.168.66.12:8285=10.9.2.0/24`

use std::{env, error::Error, io::Read as _, sync::Arc};

use arc_swap::ArcSwap;
use tunnel::{
    Counters, DropReason, Own, Peer, Table, Wire,
    user::{Mode, Settings, UserPath, probe},
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [device, bind, mode, own, peers @ ..] = &arguments[..] else {
        return Err(
            "usage: path DEVICE BIND offload|plain OWN-SUBNET PEER-ADDRESS=PEER-SUBNET…".into(),
        );
    };
    println!("{}", probe()?);
    let peers: Vec<_> = peers
        .iter()
        .map(|text| peer(text))
        .collect::<Result<_, _>>()?;
    let own = Own {
        v4: Some(own.parse()?),
        ..Own::default()
    };
    let settings = Settings {
        device: device.clone(),
        bind: bind.parse()?,
        wire: Wire::Ip,
        mode: if mode == "plain" {
            Mode::Plain
        } else {
            Mode::Offload
        },
        workers: env::var("WORKERS").ok().and_then(|text| text.parse().ok()),
        mtu: 1472,
    };
    let counters = Arc::<Counters>::default();
    let table = Arc::new(ArcSwap::from_pointee(Table::new(own, peers)));
    let path = UserPath::start(&settings, table, Arc::clone(&counters))?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    println!(
        "sent {:?}, received {:?}",
        counters.sent(),
        counters.received()
    );
    for reason in DropReason::ALL {
        if counters.dropped(reason) > 0 {
            println!("dropped {}: {}", reason.name(), counters.dropped(reason));
        }
    }
    println!("ended: {:?}; notes: {:?}", path.ended(), path.notes());
    Ok(())
}

fn peer(text: &str) -> Result<Peer, Box<dyn Error>> {
    let (address, subnet) = text.split_once('=').ok_or("PEER-ADDRESS=PEER-SUBNET")?;
    Ok(Peer {
        address: address.parse()?,
        v4: Some(subnet.parse()?),
        v6: None,
        mac: None,
        finishes_checksums: true,
    })
}
