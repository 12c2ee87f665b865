//! Names outside the cluster, and search lists: with an upstream on loopback that keeps a list of what it was asked.

use hickory_proto::rr::rdata::SOA;
use tokio::net::UdpSocket;

use super::*;

/// A server of other people's names.
struct Upstream {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = asked.clone();
        let task = tokio::spawn(async move {
            let mut packet = [0; 4096];
            loop {
                let (size, client) = socket.recv_from(&mut packet).await.unwrap();
                let query = Message::from_vec(&packet[..size]).unwrap();
                let answer = answer_to(&query);
                list.lock()
                    .unwrap()
                    .push(query.queries[0].name.to_lowercase().to_ascii());
                socket
                    .send_to(&answer.to_vec().unwrap(), client)
                    .await
                    .unwrap();
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked.dedup();
        asked
    }
}

fn answer_to(query: &Message) -> Message {
    let question = query.queries[0].clone();
    let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    let address = |last: u8| {
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
        Record::from_rdata(question.name.clone(), 60, data)
    };
    let soa = || {
        let data = SOA::new(name("ns.example."), name("root.example."), 1, 2, 3, 4, 30);
        Record::from_rdata(name("."), 30, RData::SOA(data))
    };
    let is_a = question.query_type == RecordType::A;
    match question.name.to_lowercase().to_ascii().as_str() {
        "www.example.com." if is_a => answer.answers.extend((1..=3).map(address)),
        "shelf.corp.example." if is_a => answer.answers.push(address(9)),
        "www.example.com." | "shelf.corp.example." => answer.authorities.push(soa()),
        "broken.example.com." => answer.metadata.response_code = ResponseCode::ServFail,
        _ => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            answer.authorities.push(soa());
        }
    }
    answer.queries.push(question);
    answer
}

fn with_search() -> Settings {
    let search = Search::new(name("cluster.local."), vec![name("corp.example.")], 5).unwrap();
    Settings {
        search: Some(search),
        ..settings()
    }
}

#[tokio::test]
async fn other_names_are_asked_of_the_upstream() {
    let upstream = Upstream::start().await;
    let bench = Bench::new(zone(), vec![upstream.address], settings());
    let answer = bench
        .finish(&query("www.EXAMPLE.com.", RecordType::A), CLIENT)
        .await;
    assert_eq!(
        (answer.metadata.id, answer.metadata.response_code),
        (4711, ResponseCode::NoError)
    );
    assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
    let mut found = lines(&answer.answers);
    found.sort();
    let all = [1, 2, 3].map(|last| format!("www.EXAMPLE.com. A 192.0.2.{last}"));
    assert_eq!(found, all);
    let answer = bench
        .finish(&query("nothing.example.com.", RecordType::A), CLIENT)
        .await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities.len(), 1);
    let text = bench.scrape();
    let line = r#"coredns_dns_responses_total{plugin="forward",rcode="NXDOMAIN",server="dns://10.96.0.10:53",view="",zone="."} 1"#;
    assert!(text.contains(line), "missing {line} in\n{text}");
}

#[tokio::test]
async fn an_answer_that_the_cache_has_needs_no_wait_and_no_permission() {
    let upstream = Upstream::start().await;
    let limits = limits::Settings {
        forwards: 1,
        ..limits::Settings::default()
    };
    let bench = Bench::new(
        zone(),
        vec![upstream.address],
        Settings {
            limits,
            ..settings()
        },
    );
    bench
        .finish(&query("www.example.com.", RecordType::A), CLIENT)
        .await;
    for _ in 0..20 {
        let answer = bench.ask("www.example.com.", RecordType::A);
        assert_eq!(
            (answer.metadata.authoritative, answer.answers.len()),
            (false, 3)
        );
    }
    let answer = bench.ask("out.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(answer.answers.len(), 4);
}

#[tokio::test]
async fn an_alias_that_leads_out_of_the_cluster_is_followed() {
    let upstream = Upstream::start().await;
    let bench = Bench::new(zone(), vec![upstream.address], settings());
    let answer = bench
        .finish(&query("out.shop.svc.cluster.local.", RecordType::A), CLIENT)
        .await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(
        answer.metadata.authoritative,
        "AA is for the first owner (RFC 1035 4.1.1)"
    );
    assert_eq!(
        lines(&answer.answers)[0],
        "out.shop.svc.cluster.local. CNAME www.example.com."
    );
    assert_eq!(answer.answers.len(), 4);

    let answer = bench
        .finish(
            &query("lost.shop.svc.cluster.local.", RecordType::A),
            CLIENT,
        )
        .await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.answers.len(), 1);

    // A failure must not look like a name without addresses: resolvers would give up on it.
    let answer = bench
        .finish(
            &query("down.shop.svc.cluster.local.", RecordType::A),
            CLIENT,
        )
        .await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(
        lines(&answer.answers),
        ["down.shop.svc.cluster.local. CNAME broken.example.com."]
    );
    assert!(
        upstream
            .asked()
            .iter()
            .all(|name| !name.contains("cluster.local"))
    );
}

#[tokio::test]
async fn without_an_upstream_the_answer_is_servfail() {
    let bench = Bench::alone();
    let mut question = query("www.example.com.", RecordType::A);
    question.edns = Some(edns(1232));
    let answer = bench.finish(&question, CLIENT).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(reason(&answer), Some(22));
}

#[tokio::test]
async fn a_client_that_forwards_too_much_is_refused_and_still_gets_the_cluster_s_names() {
    let upstream = Upstream::start().await;
    let limits = limits::Settings {
        forwards: 2,
        ..limits::Settings::default()
    };
    let bench = Bench::new(
        zone(),
        vec![upstream.address],
        Settings {
            limits,
            ..settings()
        },
    );
    let mut refused = 0;
    for number in 0..40 {
        // Another name each time: what the cache has is not limited.
        let mut question = query(&format!("host{number}.example.com."), RecordType::A);
        question.edns = Some(edns(1232));
        let answer = bench.finish(&question, CLIENT).await;
        if answer.metadata.response_code == ResponseCode::Refused {
            assert_eq!(reason(&answer), Some(18));
            refused += 1;
        }
    }
    assert!((1..=36).contains(&refused), "{refused} of 40 refused");
    let answer = bench.ask("web.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    let answer = bench
        .finish(&query("www.example.com.", RecordType::A), "10.244.0.9:1")
        .await;
    assert_eq!(
        answer.metadata.response_code,
        ResponseCode::NoError,
        "another client is not"
    );
}

#[tokio::test]
async fn a_search_is_answered_in_one_trip() {
    let upstream = Upstream::start().await;
    let bench = Bench::new(zone(), vec![upstream.address], with_search());
    for (base, expected) in [
        ("far.other", "far.other.svc.cluster.local. A 10.96.0.21"),
        ("shelf", "shelf.corp.example. A 192.0.2.9"),
        ("www.example.com", "www.example.com. A 192.0.2."),
    ] {
        let asked = format!("{base}.shop.svc.cluster.local.");
        let answer = bench.finish(&query(&asked, RecordType::A), CLIENT).await;
        let found = lines(&answer.answers);
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{asked}"
        );
        let target = expected.split(' ').next().unwrap();
        assert_eq!(found[0], format!("{asked} CNAME {target}"));
        assert!(found[1].starts_with(expected), "{found:?}");

        // The other family must find the same name, or a client mixes two hosts.
        let other = bench.finish(&query(&asked, RecordType::AAAA), CLIENT).await;
        assert_eq!(other.metadata.response_code, ResponseCode::NoError);
        assert_eq!(lines(&other.answers), [format!("{asked} CNAME {target}")]);
    }
    assert!(
        upstream
            .asked()
            .iter()
            .all(|name| !name.contains("cluster.local")),
        "{:?}",
        upstream.asked()
    );
}

#[tokio::test]
async fn a_search_in_vain_says_that_the_name_asked_does_not_exist() {
    let upstream = Upstream::start().await;
    let bench = Bench::new(zone(), vec![upstream.address], with_search());
    let asked = "no.such.name.shop.svc.cluster.local.";
    let answer = bench.finish(&query(asked, RecordType::A), CLIENT).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert!(answer.metadata.authoritative && answer.answers.is_empty());
    assert_eq!(
        answer.authorities[0].name.to_ascii(),
        "cluster.local.",
        "the SOA is the asked name's"
    );
    assert_eq!(
        upstream.asked(),
        ["no.such.name.", "no.such.name.corp.example."]
    );
}

#[tokio::test]
async fn a_search_leaves_alone_what_exists_and_whom_it_does_not_know() {
    let upstream = Upstream::start().await;
    let bench = Bench::new(zone(), vec![upstream.address], with_search());
    let found = bench.ask("web.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(
        lines(&found.answers),
        ["web.shop.svc.cluster.local. A 10.96.0.20"]
    );
    let nodata = bench.ask("web.shop.svc.cluster.local.", RecordType::AAAA);
    assert!(nodata.answers.is_empty() && nodata.metadata.response_code == ResponseCode::NoError);
    let alias = bench.ask("nowhere.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(alias.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(alias.answers.len(), 1, "an alias exists, wherever it leads");

    let asked = query("www.example.com.shop.svc.cluster.local.", RecordType::A);
    for stranger in ["10.244.0.99:1", "127.0.0.1:1"] {
        let answer = bench.finish(&asked, stranger).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{stranger}"
        );
    }
    let answer = bench
        .finish(
            &query("www.example.com.other.svc.cluster.local.", RecordType::A),
            CLIENT,
        )
        .await;
    assert_eq!(
        answer.metadata.response_code,
        ResponseCode::NXDomain,
        "not the client's namespace"
    );
    assert!(upstream.asked().is_empty(), "{:?}", upstream.asked());
}

#[tokio::test]
async fn a_search_stops_where_an_upstream_fails() {
    let upstream = Upstream::start().await;
    let bench = Bench::new(zone(), vec![upstream.address], with_search());
    let asked = query("broken.example.com.shop.svc.cluster.local.", RecordType::A);
    let answer = bench.finish(&asked, CLIENT).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}
