//! Logs, exec, attach, port-forward, cp and run by kubectl on a real cluster.

use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tests::up::Up;
use tests::{eventually, process, requirement};

/// Long, for a machine under load.
const LIMIT: Duration = Duration::from_secs(120);

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: shared, emptyDir: {}}]
  containers:
    - name: counts
      image: host
      command: [sh, -c, "for i in 1 2 3 4 5; do echo line $i; done; echo trouble >&2; while ! test -e /shared/go; do sleep 0.1; done; echo went; exec sleep 3600"]
      volumeMounts: [{name: shared, mountPath: /shared}]
    - name: asks
      image: host
      stdin: true
      command: [sh, -c, "while read line; do echo heard $line; done"]
      volumeMounts: [{name: shared, mountPath: /shared}]
    - {name: terminal, image: host, stdin: true, tty: true, command: [sh, -c, "while read line; do echo heard $line; done"]}
    - {name: echoes, image: host, command: [busybox, nc, -ll, -p, "7000", -e, cat]}
---
apiVersion: v1
kind: Pod
metadata: {name: twice}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: shared, emptyDir: {}}]
  containers:
    - name: main
      image: host
      command: [sh, -c, "test -e /shared/been && { echo second; exec sleep 3600; }; echo first; echo >/shared/been; exit 1"]
      volumeMounts: [{name: shared, mountPath: /shared}]
"#;

#[test]
fn people_talk_with_pods() -> Result<()> {
    if !requirement::is_root()
        || !requirement::has_programs(&["kubectl", "busybox", "script", "tar"])
    {
        return Ok(());
    }
    let up = Up::start(&["--nodes", "1"])?;
    up.apply(PODS)?;
    up.wait_for("pod/talks pod/twice", "condition=Ready", LIMIT)?;
    logs(&up)?;
    exec(&up)?;
    terminal(&up)?;
    attach(&up)?;
    port_forward(&up)?;
    copy(&up)?;
    run(&up)
}

fn output(up: &Up, words: &[&str], input: &[u8]) -> Result<Output> {
    let mut child = up
        .command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_vec();
    // A command that reads nothing closes it early: that is its right.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    drop(writer.join());
    Ok(output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn logs(up: &Up) -> Result<()> {
    let lines = "line 1\nline 2\nline 3\nline 4\nline 5\ntrouble\n";
    eventually("the log is complete", LIMIT, || {
        let said = up.kubectl("logs talks -c counts")?;
        ensure!(said.lines().count() == 6, "{said}");
        // Output and errors come by different pipes: their order is not kept.
        ensure!(
            lines
                .lines()
                .all(|line| said.lines().any(|said| said == line)),
            "{said}"
        );
        Ok(())
    })?;
    ensure!(
        up.kubectl("logs talks")?.contains("line 1"),
        "the first container is meant"
    );
    ensure!(up.kubectl("logs talks -c counts --tail=2")?.lines().count() == 2);
    ensure!(up.kubectl("logs talks -c counts --tail=0")?.is_empty());
    ensure!(up.kubectl("logs talks -c counts --limit-bytes=4")? == "line");
    ensure!(
        up.kubectl("logs talks -c counts --since=1h")?
            .lines()
            .count()
            == 6
    );
    ensure!(
        up.kubectl("logs talks -c counts --since-time=2099-01-01T00:00:00Z")?
            .is_empty()
    );
    let stamped = up.kubectl("logs talks -c counts --timestamps --tail=1")?;
    let (stamp, _) = stamped.split_once(' ').context("no time")?;
    ensure!(
        stamp.starts_with("20") && stamp.ends_with('Z') && stamp.contains('T'),
        "{stamped}"
    );
    let all = up.kubectl("logs talks --all-containers --prefix")?;
    ensure!(all.contains("[pod/talks/counts] line 1"), "{all}");

    ensure!(up.kubectl("logs twice")? == "second\n");
    ensure!(up.kubectl("logs twice --previous")? == "first\n");
    let none = output(up, &["logs", "talks", "-c", "counts", "--previous"], b"")?;
    let said = text(&none.stderr);
    ensure!(
        said.contains("previous terminated container \"counts\" in pod \"talks\" not found"),
        "{said}"
    );

    // Follows: what is written later comes by itself.
    let words = ["logs", "-f", "talks", "-c", "counts", "--tail=1"];
    let mut follows = Killed(up.command(&words).stdout(Stdio::piped()).spawn()?);
    let mut from = BufReader::new(follows.0.stdout.take().context("no output")?);
    let mut line = String::new();
    from.read_line(&mut line)?;
    ensure!(line == "line 5\n" || line == "trouble\n", "{line}");
    up.kubectl("exec talks -c asks -- touch /shared/go")?;
    line.clear();
    from.read_line(&mut line)?;
    ensure!(line == "went\n", "{line}");
    Ok(())
}

/// Ended when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn exec(up: &Up) -> Result<()> {
    let sh = |script: &str, input: &[u8]| {
        output(
            up,
            &[
                "exec", "-i", "talks", "-c", "counts", "--", "sh", "-c", script,
            ],
            input,
        )
    };
    for code in [0, 5, 255] {
        let ended = sh(&format!("exit {code}"), b"")?;
        ensure!(ended.status.code() == Some(code), "{ended:?}");
    }
    let both = sh("echo out; echo err >&2", b"")?;
    ensure!(
        text(&both.stdout) == "out\n" && text(&both.stderr) == "err\n",
        "{both:?}"
    );
    let mut data = Vec::new();
    std::fs::File::open("/dev/urandom")?
        .take(3 << 20)
        .read_to_end(&mut data)?;
    let back = sh("cat", &data)?;
    ensure!(
        back.stdout == data,
        "{} of {} bytes came back",
        back.stdout.len(),
        data.len()
    );
    let missing = output(
        up,
        &["exec", "talks", "-c", "counts", "--", "no-such-program"],
        b"",
    )?;
    ensure!(!missing.status.success());
    ensure!(
        text(&missing.stderr).contains("executable file not found in $PATH"),
        "{missing:?}"
    );
    let container = output(up, &["exec", "talks", "-c", "none", "--", "ls"], b"")?;
    ensure!(
        text(&container.stderr).contains("container none is not valid for pod talks"),
        "{container:?}"
    );
    Ok(())
}

/// A command of kubectl on a terminal of its own.
fn on_terminal(up: &Up, words: &str) -> Command {
    let kubeconfig = up.kubeconfig().display();
    let mut command = Command::new("script");
    let line = format!("stty rows 33 cols 99; kubectl --kubeconfig {kubeconfig} {words}");
    command
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Types a word again and again: what comes before a terminal is ready is lost. Ends when it is dropped.
struct Typing {
    end: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Typing {
    fn start(word: &'static str, mut to: ChildStdin) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // It is closed by a command that has ended.
            while writeln!(to, "{word}").is_ok() {
                if ended.recv_timeout(Duration::from_secs(1))
                    != Err(mpsc::RecvTimeoutError::Timeout)
                {
                    return;
                }
            }
        });
        Self {
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Drop for Typing {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been printed.
            let _ = thread.join();
        }
    }
}

fn terminal(up: &Up) -> Result<()> {
    let words = "exec -it talks -c counts -- sh -c 'test -t 0 && test -t 1 && read line && echo got $line; sleep 1; stty size; exit 4'";
    let mut child = on_terminal(up, words).spawn()?;
    let typing = Typing::start("words", child.stdin.take().context("no standard input")?);
    let output = child.wait_with_output()?;
    drop(typing);
    let said = text(&output.stdout);
    ensure!(said.contains("got words\r\n"), "{said:?}");
    ensure!(
        said.contains("33 99\r\n"),
        "the terminal's size does not arrive: {said:?}"
    );
    ensure!(output.status.code() == Some(4), "{output:?}");
    Ok(())
}

fn attach(up: &Up) -> Result<()> {
    for (container, terminal) in [("asks", false), ("terminal", true)] {
        let mut command = if terminal {
            on_terminal(up, "attach -it talks -c terminal")
        } else {
            let mut command = up.command(&["attach", "-i", "talks", "-c", container]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command
        };
        let mut child = Killed(command.spawn()?);
        let typing = Typing::start("you", child.0.stdin.take().context("no standard input")?);
        let from = BufReader::new(child.0.stdout.take().context("no output")?);
        let mut lines = from.lines();
        let heard = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("heard you")));
        ensure!(heard.is_some(), "nothing was heard of {container}");
        drop(child);
        drop(typing);
        let log = up.kubectl(&format!("logs talks -c {container}"))?;
        ensure!(log.contains("heard you"), "{log:?}");
    }
    ensure!(up.field("pod/talks", "{.status.containerStatuses[*].restartCount}")? == "0 0 0 0");
    Ok(())
}

fn port_forward(up: &Up) -> Result<()> {
    let words = [
        "port-forward",
        "pod/talks",
        ":7000",
        "--address",
        "127.0.0.1",
    ];
    let mut child = Killed(up.command(&words).stdout(Stdio::piped()).spawn()?);
    let mut from = BufReader::new(child.0.stdout.take().context("no output")?);
    let mut line = String::new();
    from.read_line(&mut line)?;
    // Forwarding from 127.0.0.1:PORT -> 7000
    let port = line
        .split([':', ' '])
        .find_map(|word| word.parse::<u16>().ok());
    let port = port.with_context(|| format!("no port in {line:?}"))?;
    // Two connections, one after the other and larger than every buffer between.
    for size in [1_usize << 20, 10] {
        let mut data = vec![0; size];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut data)?;
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut writer = stream.try_clone()?;
        let sent = data.clone();
        let writing = std::thread::spawn(move || writer.write_all(&sent));
        let mut back = vec![0; size];
        stream.read_exact(&mut back)?;
        ensure!(back == data, "other bytes came back");
        writing
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    }
    Ok(())
}

fn copy(up: &Up) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut data = vec![0; 2 << 20];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut data)?;
    std::fs::write(path("there"), &data)?;
    process::run(&mut up.command(&["cp", "-c", "asks", &path("there"), "talks:/shared/copy"]))?;
    process::run(&mut up.command(&["cp", "-c", "asks", "talks:/shared/copy", &path("back")]))?;
    ensure!(
        std::fs::read(path("back"))? == data,
        "another file came back"
    );
    Ok(())
}

fn run(up: &Up) -> Result<()> {
    let words = [
        "run",
        "once",
        "-i",
        "--rm",
        "--quiet",
        "--image=host",
        "--restart=Never",
        "--",
        "sh",
        "-c",
        "cat; echo end",
    ];
    let ended = output(up, &words, b"piped\n")?;
    ensure!(ended.status.success(), "{ended:?}");
    let said = text(&ended.stdout);
    ensure!(said.contains("piped\nend\n"), "{ended:?}");
    eventually("the Pod is gone", LIMIT, || {
        let left = up.kubectl("get pod once --ignore-not-found")?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}
