//! exec, attach, dial.

use std::time::{Duration, Instant};

use node::runtime::{Error, Runtime as _, Streams};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::bed::{Bed, may_run, wait};

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[tokio::test]
async fn a_command_runs_to_its_end_in_the_container() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed
        .start(
            &sandbox,
            "echo here > /tmp/file; exec sleep 1000",
            |config| {
                config.env = vec![("NAME".into(), "value".into())];
            },
        )
        .await
        .unwrap();
    wait(async || {
        let output = bed
            .runtime()
            .exec_sync(&id, &command(&["cat", "/tmp/file"]), Duration::from_secs(5))
            .await
            .unwrap();
        (output.text == "here\n").then_some(())
    })
    .await;
    let script = command(&[
        "sh",
        "-c",
        "echo $NAME; hostname; ls /proc | grep -c '^[0-9]*$'; grep -c CapEff /proc/self/status; exit 4",
    ]);
    let output = bed
        .runtime()
        .exec_sync(&id, &script, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(
        (output.code, output.text.as_str()),
        (4, "value\npod\n4\n1\n")
    );
    let missing = bed
        .runtime()
        .exec_sync(&id, &command(&["no-such"]), Duration::from_secs(5))
        .await;
    assert_eq!(
        missing,
        Err(Error::Invalid(
            "exec: \"no-such\": executable file not found in $PATH".into()
        ))
    );
    let before = Instant::now();
    let late = bed
        .runtime()
        .exec_sync(&id, &command(&["sleep", "777"]), Duration::from_millis(200))
        .await;
    assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
    // Long before it would have ended.
    assert!(before.elapsed() < Duration::from_secs(60));
    wait(async || {
        let output = bed
            .runtime()
            .exec_sync(
                &id,
                &command(&["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]),
                Duration::from_secs(5),
            )
            .await
            .unwrap();
        (!output.text.contains("sleep 777 ")).then_some(())
    })
    .await;
    bed.end().await;
}

#[tokio::test]
async fn exec_carries_input_output_and_errors() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed
        .start(&sandbox, "exec sleep 1000", |_| {})
        .await
        .unwrap();
    let streams = Streams {
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut session = bed
        .runtime()
        .exec(
            &id,
            &command(&["sh", "-c", "cat; echo bad >&2; exit 9"]),
            streams,
        )
        .await
        .unwrap();
    let (mut stdin, mut stdout, mut stderr) = (
        session.stdin.take().unwrap(),
        session.stdout.take().unwrap(),
        session.stderr.take().unwrap(),
    );
    let sent = vec![b'x'; 3 << 20];
    let send = async {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let (mut output, mut errors) = (Vec::new(), String::new());
    let read = stdout.read_to_end(&mut output);
    let (_, length, _) = tokio::join!(send, read, stderr.read_to_string(&mut errors));
    assert_eq!((length.unwrap(), errors.as_str()), (sent.len(), "bad\n"));
    assert_eq!(session.end.await, Ok(9));
    bed.end().await;
}

#[tokio::test]
async fn exec_with_a_terminal_has_one() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed
        .start(&sandbox, "exec sleep 1000", |_| {})
        .await
        .unwrap();
    let streams = Streams {
        stdin: true,
        stdout: true,
        stderr: false,
        tty: true,
    };
    let script = "tty; read x; stty size; echo got $x; exec sleep 888";
    let mut session = bed
        .runtime()
        .exec(&id, &command(&["sh", "-c", script]), streams)
        .await
        .unwrap();
    let (mut stdin, mut stdout) = (
        session.stdin.take().unwrap(),
        session.stdout.take().unwrap(),
    );
    session
        .resize
        .as_ref()
        .unwrap()
        .send((132, 43))
        .await
        .unwrap();
    // Sizes and input come by different ways.
    tokio::time::sleep(Duration::from_millis(50)).await;
    stdin.write_all(b"word\n").await.unwrap();
    let mut output = String::new();
    while !output.contains("got word") {
        let mut buffer = [0; 100];
        let length = stdout.read(&mut buffer).await.unwrap();
        assert!(length > 0, "{output}");
        output.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(
        output.contains("/dev/pts/0") && output.contains("43 132"),
        "{output}"
    );
    // Hanging up ends it.
    drop((session, stdin, stdout));
    wait(async || {
        let output = bed
            .runtime()
            .exec_sync(
                &id,
                &command(&["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]),
                Duration::from_secs(5),
            )
            .await
            .unwrap();
        (!output.text.contains("sleep 888 ")).then_some(())
    })
    .await;
    bed.end().await;
}

#[tokio::test]
async fn several_attach_and_leave() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let script =
        "while read line; do echo got $line; test $line = end && exit 5; done; echo input ended";
    let id = bed
        .start(&sandbox, script, |config| config.stdin = true)
        .await
        .unwrap();
    let all = Streams {
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut first = bed.runtime().attach(&id, all).await.unwrap();
    let mut second = bed
        .runtime()
        .attach(
            &id,
            Streams {
                stdin: false,
                ..all
            },
        )
        .await
        .unwrap();
    // Until both are known to the shim.
    tokio::time::sleep(Duration::from_millis(50)).await;
    first
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"one\n")
        .await
        .unwrap();
    for session in [&mut first, &mut second] {
        let mut line = [0; 8];
        session
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .await
            .unwrap();
        assert_eq!(&line, b"got one\n");
    }
    drop(first);
    let mut third = bed.runtime().attach(&id, all).await.unwrap();
    third
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"end\n")
        .await
        .unwrap();
    assert_eq!(third.end.await, Ok(5));
    let mut rest = String::new();
    second
        .stdout
        .as_mut()
        .unwrap()
        .read_to_string(&mut rest)
        .await
        .unwrap();
    assert_eq!((rest.as_str(), second.end.await), ("got end\n", Ok(5)));
    bed.end().await;
}

#[tokio::test]
async fn a_containers_own_terminal_is_attached_to_and_input_ends_once() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed
        .start(&sandbox, "tty; cat; echo over", |config| {
            config.tty = true;
            config.stdin = true;
            config.stdin_once = true;
        })
        .await
        .unwrap();
    let streams = Streams {
        stdin: true,
        stdout: true,
        stderr: false,
        tty: true,
    };
    let mut session = bed.runtime().attach(&id, streams).await.unwrap();
    session
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"word\n")
        .await
        .unwrap();
    drop(session.stdin.take());
    let mut output = String::new();
    session
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .await
        .unwrap();
    assert!(
        output.contains("word\r\n") && output.contains("over"),
        "{output:?}"
    );
    assert_eq!(session.end.await, Ok(0));
    let log = crate::bed::text(&bed.end_of(&id).await.log);
    assert!(log.contains("/dev/pts/0"), "{log}");
    bed.end().await;
}

#[tokio::test]
async fn ports_in_a_pod_are_reached() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    bed.start(
        &sandbox,
        "exec busybox nc -ll -p 8080 -e echo hello",
        |_| {},
    )
    .await
    .unwrap();
    let mut stream = wait(async || bed.runtime().dial(&sandbox, 8080).await.ok()).await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello\n");
    let refused = bed
        .runtime()
        .dial(&sandbox, 9)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("refused"), "{refused}");
    bed.end().await;
}
