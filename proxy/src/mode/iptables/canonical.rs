//! Whether two rules are the same although two versions of iptables print them differently: other
//! quotes, another order of matches, defaults written out or not, one mark operation for another.

/// Whether two rules, without `-A CHAIN`, mean the same.
pub(super) fn same(a: &str, b: &str) -> bool {
    a == b || canonical(a) == canonical(b)
}

/// What a rule jumps or goes to.
pub(super) fn target(rule: &str) -> Option<&str> {
    let (_, rest) = rule
        .rsplit_once("-j ")
        .or_else(|| rule.rsplit_once("-g "))?;
    rest.split(' ').next()
}

/// The options of a rule in a fixed form, sorted.
fn canonical(rule: &str) -> Vec<String> {
    let mut options: Vec<Vec<String>> = Vec::new();
    let mut negated = false;
    for (word, quoted) in words(rule) {
        match word.as_str() {
            "!" if !quoted => negated = true,
            option if !quoted && option.starts_with('-') => {
                let name = if negated { format!("! {word}") } else { word };
                options.push(vec![name]);
                negated = false;
            }
            _ => match options.last_mut() {
                Some(option) => option.push(word),
                None => options.push(vec![word]),
            },
        }
    }
    let mut lines: Vec<_> = options
        .into_iter()
        .filter_map(|option| simplified(&option))
        .collect();
    lines.sort_unstable();
    lines
}

fn simplified(option: &[String]) -> Option<String> {
    let argument = option.get(1).map_or("", String::as_str);
    match option[0].trim_start_matches("! ") {
        // Every match has an option of its own beside its name; and these are defaults.
        "-m" | "--rsource" => return None,
        "--mask"
            if ["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
                .contains(&argument) =>
        {
            return None;
        }
        "--reject-with" if argument.ends_with("port-unreachable") => return None,
        "-s" | "-d" => {
            let net = argument
                .strip_suffix("/32")
                .or_else(|| argument.strip_suffix("/128"))
                .unwrap_or(argument);
            return Some(format!("{} {net}", option[0]));
        }
        "--probability" => {
            let value: f64 = argument.parse().ok()?;
            // The kernel has 31 bits; some versions print fewer digits.
            return Some(format!("--probability {value:.6}"));
        }
        "--or-mark" => return Some(format!("--set-xmark {argument}/{argument}")),
        "--xor-mark" => return Some(format!("--set-xmark {argument}/0x0")),
        _ => {}
    }
    Some(option.join(" "))
}

/// Words of a line, and whether each was quoted.
fn words(line: &str) -> Vec<(String, bool)> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut begun, mut quoted, mut inside) = (false, false, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if inside => word.extend(letters.next()),
            '"' => {
                inside = !inside;
                (begun, quoted) = (true, true);
            }
            ' ' if !inside => {
                if begun {
                    words.push((std::mem::take(&mut word), quoted));
                }
                (begun, quoted) = (false, false);
            }
            letter => {
                word.push(letter);
                begun = true;
            }
        }
    }
    if begun {
        words.push((word, quoted));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_meaning_in_two_forms() {
        for (a, b) in [
            (
                "-d 10.96.0.1/32 -p tcp -m comment --comment \"ns/s:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-X",
                "-p tcp -d 10.96.0.1 -m tcp --dport 80 -m comment --comment \"ns/s:http cluster IP\" -j KUBE-SVC-X",
            ),
            (
                "-m comment --comment ns/s -j X",
                "-m comment --comment \"ns/s\" -j X",
            ),
            (
                "-j MARK --or-mark 0x4000",
                "-j MARK --set-xmark 0x4000/0x4000",
            ),
            (
                "-j MARK --xor-mark 0x4000",
                "-j MARK --set-xmark 0x4000/0x0",
            ),
            (
                "-m statistic --mode random --probability 0.33333333349 -j X",
                "-m statistic --mode random --probability 0.33333333302 -j X",
            ),
            ("-j REJECT", "-j REJECT --reject-with icmp-port-unreachable"),
            (
                "-m recent --set --name A --mask 255.255.255.255 --rsource -j X",
                "-m recent --name A --set -j X",
            ),
        ] {
            assert!(same(a, b), "{a}\n{b}");
        }
    }

    #[test]
    fn two_meanings() {
        for (a, b) in [
            ("-d 10.96.0.1/32 -j X", "-d 10.96.0.1/31 -j X"),
            ("! -s 10.0.0.0/8 -j X", "-s 10.0.0.0/8 -j X"),
            ("-s 10.0.0.0/8 -j X", "-d 10.0.0.0/8 -j X"),
            ("-j X", "-g X"),
            (
                "-m comment --comment \"a b\" -j X",
                "-m comment --comment \"a c\" -j X",
            ),
            (
                "-j MARK --set-xmark 0x4000/0x4000",
                "-j MARK --set-xmark 0x4000/0x0",
            ),
            (
                "-m recent --set --name A --mask 255.255.255.0 -j X",
                "-m recent --set --name A -j X",
            ),
            ("-m comment --comment \"-j ACCEPT\" -j DROP", "-j ACCEPT"),
        ] {
            assert!(!same(a, b), "{a}\n{b}");
        }
    }

    #[test]
    fn targets() {
        assert_eq!(
            target("-m comment --comment \"a -j b\" -j KUBE-SERVICES"),
            Some("KUBE-SERVICES")
        );
        assert_eq!(target("-j DNAT --to-destination 10.0.0.1:80"), Some("DNAT"));
        assert_eq!(target("-m comment --comment x"), None);
    }
}
