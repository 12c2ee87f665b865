//! nftables and connection tracking by netlink against the real kernel, in namespaces made for each
//! test; what it did is compared with what `nft` and `conntrack` show.

mod bed;
mod conntrack;
mod elements;
mod events;
mod ruleset;
mod transactions;
