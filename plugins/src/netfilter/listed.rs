//! Reads what `nft -j list table` prints: chains, and rules with their handles and comments.

use serde::Deserialize;
use serde_json::Value;

/// A rule of a listed table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ListedRule {
    /// The chain it stands in.
    pub chain: String,
    /// The kernel's number for it, unique in its table.
    pub handle: u64,
    /// Its comment.
    #[serde(default)]
    pub comment: Option<String>,
    #[serde(default)]
    expr: Vec<Value>,
}

impl ListedRule {
    /// The interface name of an `iifname` match.
    pub fn input_interface(&self) -> Option<&str> {
        self.expr.iter().find_map(|statement| {
            let comparison = statement.get("match")?;
            if comparison.pointer("/left/meta/key")?.as_str()? != "iifname" {
                return None;
            }
            comparison.get("right")?.as_str()
        })
    }
}

/// The chains and rules of a listed table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// Names of its chains.
    pub chains: Vec<String>,
    /// Its rules, in order.
    pub rules: Vec<ListedRule>,
}

#[derive(Deserialize)]
struct Output {
    nftables: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    chain: Option<ListedChain>,
    rule: Option<ListedRule>,
}

#[derive(Deserialize)]
struct ListedChain {
    name: String,
}

impl Listed {
    /// Reads the JSON that `nft -j list table` prints.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let mut listed = Self::default();
        for item in serde_json::from_str::<Output>(json)?.nftables {
            listed.chains.extend(item.chain.map(|chain| chain.name));
            listed.rules.extend(item.rule);
        }
        Ok(listed)
    }

    /// The rules whose comment satisfies `matches`.
    pub fn commented<'a>(
        &'a self,
        matches: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = &'a ListedRule> {
        self.rules
            .iter()
            .filter(move |rule| rule.comment.as_deref().is_some_and(&matches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rules_and_their_comments() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "bridge", "name": "nat", "handle": 1}},
            {"chain": {"family": "bridge", "table": "nat", "name": "PREROUTING", "handle": 1,
                       "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}},
            {"rule": {"family": "bridge", "table": "nat", "chain": "PREROUTING", "handle": 4,
                      "comment": "macspoofchk-abc-eth0",
                      "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "veth1"}},
                               {"jump": {"target": "cni-br-iface-abc-eth0"}}]}},
            {"rule": {"family": "bridge", "table": "nat", "chain": "PREROUTING", "handle": 9,
                      "expr": [{"counter": null}]}}]}"#;
        let listed = Listed::parse(json).unwrap();
        assert_eq!(listed.chains, ["PREROUTING"]);
        let found: Vec<_> = listed.commented(|c| c == "macspoofchk-abc-eth0").collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].handle, 4);
        assert_eq!(found[0].input_interface(), Some("veth1"));
        assert_eq!(listed.rules[1].input_interface(), None);
    }
}
