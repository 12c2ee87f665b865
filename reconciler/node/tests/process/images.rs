//! Images of every kind, made from busybox, and hostile ones.

use std::fs;
use std::path::Path;

use node::runtime::{ContainerConfig, Error, Image, Mount, Runtime as _};
use sha2::{Digest as _, Sha256};

use crate::bed::{Bed, may_run, shell, text};

/// The machine's busybox where the images have an empty file: they stay small, for unoptimised code hashes slowly.
fn busybox() -> Mount {
    Mount {
        source: "/bin/busybox".into(),
        target: "/bin/busybox".into(),
        read_only: true,
        propagation: "None".into(),
    }
}

fn header(kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header
}

type Builder = tar::Builder<Vec<u8>>;

fn file(tar: &mut Builder, path: &str, bytes: &[u8]) {
    tar.append_data(
        &mut header(tar::EntryType::Regular, bytes.len()),
        path,
        bytes,
    )
    .unwrap();
}

fn link(tar: &mut Builder, kind: tar::EntryType, path: &str, to: &str) {
    tar.append_link(&mut header(kind, 0), path, to).unwrap();
}

/// A root with a shell and a user.
fn root() -> Builder {
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "bin/busybox", b"");
    for name in ["sh", "cat", "id", "ls", "pwd", "touch"] {
        link(
            &mut tar,
            tar::EntryType::Symlink,
            &format!("bin/{name}"),
            "busybox",
        );
    }
    file(
        &mut tar,
        "etc/passwd",
        b"root:x:0:0::/root:/bin/sh\nweb:x:77:78::/home/web:/bin/sh\n",
    );
    file(&mut tar, "etc/removed", b"old");
    file(&mut tar, "opaque/old", b"old");
    tar
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The files of an OCI layout with two layers.
fn layout() -> Vec<(String, Vec<u8>)> {
    let mut second = Builder::new(Vec::new());
    file(&mut second, "etc/.wh.removed", b"");
    file(&mut second, "opaque/new", b"new");
    file(&mut second, "opaque/.wh..wh..opq", b"");
    file(&mut second, "srv/data/x", b"x");
    let layers = [
        gzip(&root().into_inner().unwrap()),
        second.into_inner().unwrap(),
    ];
    let config = br#"{"config":{"Entrypoint":["/bin/sh","-c"],"Cmd":["echo default; pwd; id -u; id -g; echo $A; ls /etc /opaque"],"Env":["A=b","PATH=/bin"],"WorkingDir":"/srv/data","User":"web"}}"#;
    let blob = |bytes: &[u8]| (format!("blobs/sha256/{}", hex(bytes)), bytes.to_vec());
    let reference = |bytes: &[u8]| {
        format!(
            r#"{{"digest":"sha256:{}","size":{}}}"#,
            hex(bytes),
            bytes.len()
        )
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#,
        reference(config),
        reference(&layers[0]),
        reference(&layers[1])
    );
    let index = format!(r#"{{"manifests":[{}]}}"#, reference(manifest.as_bytes()));
    vec![
        (
            "oci-layout".into(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ),
        ("index.json".into(), index.into_bytes()),
        blob(manifest.as_bytes()),
        blob(config),
        blob(&layers[0]),
        blob(&layers[1]),
    ]
}

fn write(folder: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn of_image(image: Image) -> ContainerConfig {
    ContainerConfig {
        image,
        command: Vec::new(),
        ..shell("")
    }
}

async fn output(bed: &Bed, mut config: ContainerConfig) -> String {
    config.mounts.push(busybox());
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed
        .runtime()
        .create_container(&sandbox, &config)
        .await
        .unwrap();
    bed.runtime().start_container(&id).await.unwrap();
    text(&bed.end_of(&id).await.log)
}

const DEFAULT: &str = "stdout F default\nstdout F /srv/data\nstdout F 77\nstdout F 78\nstdout F b\n\
                       stdout F /etc:\nstdout F hostname\nstdout F hosts\nstdout F passwd\nstdout F resolv.conf\nstdout F \n\
                       stdout F /opaque:\nstdout F new\n";

#[tokio::test]
async fn oci_layouts_and_archives_of_them_run_as_their_config_says() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let images = bed.path().join("images");
    write(&images.join("reg/app:1"), &layout());
    let image = bed
        .runtime()
        .ensure_image("reg/app:1", false)
        .await
        .unwrap();
    assert!(image.id.starts_with("sha256:"));
    assert_eq!(output(&bed, of_image(image.clone())).await, DEFAULT);
    let mut archive = Builder::new(Vec::new());
    for (name, bytes) in layout() {
        file(&mut archive, &name, &bytes);
    }
    fs::write(images.join("packed.tar"), archive.into_inner().unwrap()).unwrap();
    let packed = bed
        .runtime()
        .ensure_image("packed:latest", true)
        .await
        .unwrap();
    assert_eq!(packed, image);
    let changed = ContainerConfig {
        args: vec!["echo only this".into()],
        ..of_image(packed)
    };
    assert_eq!(output(&bed, changed).await, "stdout F only this\n");
    let names: Vec<_> = bed
        .runtime()
        .images()
        .await
        .unwrap()
        .into_iter()
        .flat_map(|(names, _)| names)
        .collect();
    assert_eq!(names, ["host", "packed:latest", "reg/app:1"]);
    bed.end().await;
}

#[tokio::test]
async fn docker_archives_run_too() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let mut archive = Builder::new(Vec::new());
    file(
        &mut archive,
        "manifest.json",
        br#"[{"Config":"c.json","RepoTags":["app:2"],"Layers":["a/layer.tar"]}]"#,
    );
    file(
        &mut archive,
        "c.json",
        br#"{"config":{"Cmd":["/bin/sh","-c","echo docker"]}}"#,
    );
    file(&mut archive, "a/layer.tar", &root().into_inner().unwrap());
    fs::create_dir(bed.path().join("images")).unwrap();
    fs::write(
        bed.path().join("images/app_2.tar.gz"),
        gzip(&archive.into_inner().unwrap()),
    )
    .unwrap();
    let image = bed.runtime().ensure_image("app:2", false).await.unwrap();
    assert_eq!(output(&bed, of_image(image)).await, "stdout F docker\n");
    bed.end().await;
}

#[tokio::test]
async fn a_tar_or_folder_of_a_root_is_an_image_and_each_container_has_its_own_changes() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let images = bed.path().join("images");
    fs::create_dir(&images).unwrap();
    fs::write(images.join("plain.tar"), root().into_inner().unwrap()).unwrap();
    let image = bed.runtime().ensure_image("plain", false).await.unwrap();
    for _ in 0..2 {
        let config = ContainerConfig {
            image: image.clone(),
            ..shell("ls /; echo x > /new && cat /new")
        };
        let output = output(&bed, config).await;
        assert!(
            output.ends_with("F x\n") && !output.contains("F new"),
            "{output}"
        );
    }
    let config = ContainerConfig {
        image: image.clone(),
        ..shell("touch /new")
    };
    let read_only = ContainerConfig {
        security: node::runtime::Security {
            read_only_root: true,
            ..Default::default()
        },
        ..config
    };
    assert!(
        output(&bed, read_only)
            .await
            .contains("Read-only file system")
    );
    // The same file again is not unpacked again; another one is another image.
    assert_eq!(
        bed.runtime().ensure_image("plain", true).await.unwrap(),
        image
    );
    let mut other = root();
    file(&mut other, "more", b"more");
    fs::write(images.join("plain.tar"), other.into_inner().unwrap()).unwrap();
    assert_ne!(
        bed.runtime().ensure_image("plain", false).await.unwrap(),
        image
    );
    let folder = images.join("tree");
    fs::create_dir_all(folder.join("bin")).unwrap();
    fs::copy("/bin/busybox", folder.join("bin/sh")).unwrap();
    for name in ["tree", folder.to_str().unwrap()] {
        let image = bed.runtime().ensure_image(name, false).await.unwrap();
        let config = ContainerConfig {
            image,
            ..shell("echo tree")
        };
        assert_eq!(output(&bed, config).await, "stdout F tree\n");
    }
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        1,
        "a folder that is an image stays as it is"
    );
    bed.end().await;
}

#[tokio::test]
async fn images_that_are_not_there_are_told_with_the_places_looked_at() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let error = bed
        .runtime()
        .ensure_image("nginx:1.25", false)
        .await
        .unwrap_err();
    let place = bed.path().join("images/nginx:1.25.tar");
    assert!(
        matches!(&error, Error::NoImage(text) if text.contains(place.to_str().unwrap())),
        "{error:?}"
    );
    for name in ["../etc", "UPPER CASE", ""] {
        assert!(
            matches!(
                bed.runtime().ensure_image(name, false).await,
                Err(Error::InvalidImageName(_))
            ),
            "{name}"
        );
    }
    assert!(matches!(
        bed.runtime().ensure_image("/no/such", false).await,
        Err(Error::NoImage(_))
    ));
    bed.end().await;
}

#[tokio::test]
async fn hostile_tars_do_not_get_out() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let images = bed.path().join("images");
    fs::create_dir(&images).unwrap();
    let outside = bed.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();
    let out = outside.to_str().unwrap();
    let up = format!("../../../../../../../../../../..{out}");
    let mut tar = root();
    // So that the links lead somewhere within.
    tar.append_data(
        &mut header(tar::EntryType::Directory, 0),
        out.trim_start_matches('/'),
        &[][..],
    )
    .unwrap();
    link(&mut tar, tar::EntryType::Symlink, "a", out);
    file(&mut tar, "a/written", b"bad");
    link(&mut tar, tar::EntryType::Symlink, "b", &up);
    file(&mut tar, "b/precious", b"bad");
    file(&mut tar, "b/.wh.precious", b"");
    link(
        &mut tar,
        tar::EntryType::Symlink,
        "etc/hosts",
        &format!("{out}/precious"),
    );
    let mut device = header(tar::EntryType::Block, 0);
    device.set_device_major(8).unwrap();
    device.set_device_minor(0).unwrap();
    tar.append_data(&mut device, "disk", &[][..]).unwrap();
    fs::write(images.join("links.tar"), tar.into_inner().unwrap()).unwrap();
    let image = bed.runtime().ensure_image("links", false).await.unwrap();
    let config = ContainerConfig {
        image,
        ..shell("test -e /disk && echo disk; cat /etc/hosts")
    };
    assert_eq!(
        output(&bed, config).await,
        "stdout F 127.0.0.1\tlocalhost\n"
    );
    // A name with `..` makes the whole image bad.
    let mut tar = Builder::new(Vec::new());
    let mut bad = header(tar::EntryType::Regular, 3);
    let name = b"x/../../escaped";
    bad.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    bad.set_cksum();
    tar.append(&bad, &b"bad"[..]).unwrap();
    fs::write(images.join("up.tar"), tar.into_inner().unwrap()).unwrap();
    let error = bed
        .runtime()
        .ensure_image("up", false)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("leads out"), "{error}");
    // A hard link to a file outside.
    let mut tar = root();
    link(
        &mut tar,
        tar::EntryType::Link,
        "hard",
        &format!("{out}/precious"),
    );
    fs::write(images.join("hard.tar"), tar.into_inner().unwrap()).unwrap();
    assert!(bed.runtime().ensure_image("hard", false).await.is_err());
    // A blob that is not what its digest says, a cut tar, no tar at all.
    let mut files = layout();
    files.last_mut().unwrap().1.push(0);
    write(&images.join("wrong"), &files);
    let error = bed
        .runtime()
        .ensure_image("wrong", false)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not what its digest says"), "{error}");
    fs::write(images.join("noise.tar"), [7; 5000]).unwrap();
    assert!(bed.runtime().ensure_image("noise", false).await.is_err());
    let names: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["precious"]);
    assert_eq!(
        fs::read_to_string(outside.join("precious")).unwrap(),
        "precious"
    );
    assert!(!bed.path().join("runtime/images/part").exists());
    bed.end().await;
}
