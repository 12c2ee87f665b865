//! The JSON of OCI layouts and docker archives: which layers an image has, and what it says of its program.
//!
//! See the OCI image specification (image-layout.md, manifest.md, config.md).

use serde::Deserialize;

use super::Unpacked;
use super::name::is_hex;

/// A reference to a blob.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    platform: Option<Platform>,
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    architecture: String,
    os: String,
}

impl Descriptor {
    /// The digest's hexadecimal part; it is safe as a file's name.
    pub(super) fn hex(&self) -> Result<&str, String> {
        let hex = self
            .digest
            .strip_prefix("sha256:")
            .filter(|hex| is_hex(hex));
        hex.ok_or_else(|| format!("digest {:?} is none of sha256", self.digest))
    }

    fn is_index(&self) -> bool {
        self.media_type.contains("index") || self.media_type.contains("manifest.list")
    }
}

/// A layout's index, or one within it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Index {
    manifests: Vec<Descriptor>,
}

/// One image.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
}

/// An image in a docker archive: paths in it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) layers: Vec<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

impl Index {
    /// The manifest for this machine, and whether it is an index again. With several, the one that has the name's tag.
    pub(super) fn choose(&self, name: &str) -> Result<(&Descriptor, bool), String> {
        let tag = name
            .rsplit('/')
            .next()
            .and_then(|last| last.split_once(':'))
            .map(|(_, tag)| tag);
        let fits = |descriptor: &&Descriptor| match &descriptor.platform {
            None => true,
            Some(platform) => platform.os == "linux" && platform.architecture == architecture(),
        };
        let is_named = |descriptor: &&Descriptor| {
            let names = descriptor.annotations.iter();
            let mut names =
                names.filter(|(key, _)| key.ends_with("ref.name") || key.ends_with("image.name"));
            names.any(|(_, value)| {
                value == name || Some(value.as_str()) == tag || value.ends_with(&format!("/{name}"))
            })
        };
        let candidates: Vec<_> = self.manifests.iter().filter(fits).collect();
        let chosen = candidates
            .iter()
            .copied()
            .find(is_named)
            .or_else(|| candidates.first().copied());
        let chosen =
            chosen.ok_or_else(|| format!("no image for linux/{} in it", architecture()))?;
        Ok((chosen, chosen.is_index()))
    }
}

/// The image with this name in a docker archive, or the first.
pub(super) fn choose_docker<'a>(
    images: &'a [DockerImage],
    name: &str,
) -> Result<&'a DockerImage, String> {
    let is_named = |image: &&DockerImage| image.repo_tags.iter().flatten().any(|tag| tag == name);
    images
        .iter()
        .find(is_named)
        .or_else(|| images.first())
        .ok_or_else(|| "no image in it".to_owned())
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    config: Option<ProgramConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ProgramConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

/// What an image's config says of its program.
pub(super) fn parse_config(bytes: &[u8]) -> Result<Unpacked, String> {
    let file: ConfigFile = serde_json::from_slice(bytes)
        .map_err(|error| format!("parse the image's config: {error}"))?;
    let config = file.config.unwrap_or_default();
    let pair = |text: String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text, String::new()),
    };
    Ok(Unpacked {
        root: None,
        entrypoint: config.entrypoint.unwrap_or_default(),
        arguments: config.cmd.unwrap_or_default(),
        env: config
            .env
            .unwrap_or_default()
            .into_iter()
            .map(pair)
            .collect(),
        working_dir: config.working_dir.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_machines_image_is_chosen() {
        let own = architecture();
        let hex = "a".repeat(64);
        let text = format!(
            r#"{{"manifests":[{{"digest":"sha256:x","platform":{{"os":"linux","architecture":"pdp11"}}}},
            {{"digest":"sha256:{hex}","mediaType":"application/vnd.oci.image.index.v1+json","platform":{{"os":"linux","architecture":"{own}"}}}}]}}"#
        );
        let index: Index = serde_json::from_str(&text).unwrap();
        let (chosen, is_index) = index.choose("x").unwrap();
        assert_eq!((chosen.hex().unwrap(), is_index), (hex.as_str(), true));
        assert!(Index::default().choose("x").is_err());
    }

    #[test]
    fn absent_and_null_fields_are_nothing() {
        assert_eq!(parse_config(b"{}").unwrap(), Unpacked::default());
        let config = parse_config(
            br#"{"config":{"Entrypoint":null,"Cmd":["a"],"Env":["A=b=c","D"],"User":"web"}}"#,
        )
        .unwrap();
        assert_eq!(config.arguments, ["a"]);
        assert_eq!(
            config.env,
            [("A".into(), "b=c".into()), ("D".into(), String::new())]
        );
        assert_eq!(config.user, "web");
    }

    proptest! {
        #[test]
        fn digests_are_hexadecimal_or_refused(digest in "sha256:[a-f0-9]{60,66}|sha256:.{0,70}|.{0,30}") {
            let descriptor = Descriptor { digest, ..Descriptor::default() };
            if let Ok(hex) = descriptor.hex() {
                prop_assert!(hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
            }
        }

        #[test]
        fn any_bytes_are_a_config_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_config(&bytes);
            let _ = serde_json::from_slice::<Manifest>(&bytes);
        }
    }
}
