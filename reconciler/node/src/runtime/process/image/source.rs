//! Where an image's bytes come from: a layout's folder, an archive that holds one, or the tar of a root.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::super::record;
use super::manifest::{self, Descriptor, DockerImage, Index, Manifest};
use super::{SHA256, Unpacked, unpack};

/// Of a manifest, an index or a config; real ones have some thousand bytes.
const JSON_MAX: u64 = 4 << 20;
/// Indexes within indexes.
const DEPTH_MAX: usize = 4;

/// What a layout or an archive is made of.
enum Blobs {
    Folder(PathBuf),
    Archive {
        file: File,
        entries: BTreeMap<String, (u64, u64)>,
    },
}

impl Blobs {
    fn open(&self, name: &str) -> anyhow::Result<Box<dyn Read + Send>> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                Ok(Box::new(
                    File::open(&path).with_context(|| format!("open {}", path.display()))?,
                ))
            }
            Self::Archive { file, entries } => {
                let &(offset, length) = entries
                    .get(name)
                    .with_context(|| format!("there is no {name} in it"))?;
                let mut file = file.try_clone().context("open the archive")?;
                // The copy shares its position: one blob is read at a time.
                file.seek(SeekFrom::Start(offset))
                    .with_context(|| format!("find {name}"))?;
                Ok(Box::new(file.take(length)))
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).exists(),
            Self::Archive { entries, .. } => entries.contains_key(name),
        }
    }

    fn json(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(name)?
            .take(JSON_MAX + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {name}"))?;
        if bytes.len() as u64 > JSON_MAX {
            bail!("{name} is larger than {JSON_MAX} bytes");
        }
        Ok(bytes)
    }

    /// A blob that is what its digest says.
    fn checked(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        let hex = descriptor.hex().map_err(anyhow::Error::msg)?;
        let bytes = self.json(&blob(hex))?;
        if hex_of(Sha256::digest(&bytes)) != hex {
            bail!("blob sha256:{hex} is not what its digest says");
        }
        Ok(bytes)
    }
}

fn blob(hex: &str) -> String {
    format!("blobs/sha256/{hex}")
}

fn hex_of(digest: impl AsRef<[u8]>) -> String {
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A layer, and the digest its bytes must have.
struct Layer {
    name: String,
    hex: Option<String>,
}

/// Unpacks an image into the cache, if it is not there; its id, and its bytes.
pub(super) fn unpack(place: &Path, name: &str, cache: &Path) -> anyhow::Result<(String, u64)> {
    if place.is_dir() {
        return unpack_image(&Blobs::Folder(place.to_owned()), name, cache);
    }
    let file = open_tar(place, cache)?;
    let entries = list(&file)?;
    let blobs = Blobs::Archive { file, entries };
    if blobs.has("oci-layout") || blobs.has("manifest.json") {
        return unpack_image(&blobs, name, cache);
    }
    let Blobs::Archive { mut file, .. } = blobs else {
        bail!("an archive that is none");
    };
    file.rewind().context("read it")?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash).context("read it")?;
    let hex = hex_of(hash.finalize());
    let bytes = into_cache(cache, &hex, &Unpacked::default(), |root| {
        file.rewind().context("read it")?;
        unpack::layer(&mut file, root)
    })?;
    Ok((format!("{SHA256}{hex}"), bytes))
}

/// A tar to be read at any place: a compressed one is decompressed aside first.
fn open_tar(place: &Path, cache: &Path) -> anyhow::Result<File> {
    let mut file = File::open(place).context("open it")?;
    let mut magic = [0; 2];
    let is_compressed = file.read(&mut magic).context("read it")? == 2 && magic == [0x1f, 0x8b];
    file.rewind().context("read it")?;
    if !is_compressed {
        return Ok(file);
    }
    let path = cache.join("decompressed.tmp");
    let options = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path);
    let mut plain = options.with_context(|| format!("make {}", path.display()))?;
    // Without a name it goes when it is closed.
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    io::copy(&mut MultiGzDecoder::new(file), &mut plain).context("decompress it")?;
    plain.rewind().context("read it")?;
    Ok(plain)
}

/// Where each file of a tar begins, and its length.
fn list(file: &File) -> anyhow::Result<BTreeMap<String, (u64, u64)>> {
    let mut entries = BTreeMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().context("read it as a tar")? {
        let entry = entry.context("read it as a tar")?;
        if entry.header().entry_type().is_file() {
            let path = entry.path_bytes();
            let name = String::from_utf8_lossy(&path);
            entries.insert(
                name.trim_start_matches("./").to_owned(),
                (entry.raw_file_position(), entry.size()),
            );
        }
    }
    Ok(entries)
}

fn unpack_image(blobs: &Blobs, name: &str, cache: &Path) -> anyhow::Result<(String, u64)> {
    let (hex, config, layers) = if blobs.has("oci-layout") {
        oci(blobs, name)?
    } else {
        docker(blobs, name)?
    };
    let config = manifest::parse_config(&config).map_err(anyhow::Error::msg)?;
    let bytes = into_cache(cache, &hex, &config, |root| {
        for layer in &layers {
            unpack_layer(blobs, layer, root).with_context(|| format!("layer {}", layer.name))?;
        }
        Ok(())
    })?;
    Ok((format!("{SHA256}{hex}"), bytes))
}

fn oci(blobs: &Blobs, name: &str) -> anyhow::Result<(String, Vec<u8>, Vec<Layer>)> {
    let mut index: Index =
        serde_json::from_slice(&blobs.json("index.json")?).context("parse index.json")?;
    for _ in 0..DEPTH_MAX {
        let (chosen, is_index) = index.choose(name).map_err(anyhow::Error::msg)?;
        let hex = chosen.hex().map_err(anyhow::Error::msg)?.to_owned();
        let bytes = blobs.checked(chosen)?;
        if is_index {
            index = serde_json::from_slice(&bytes).context("parse an index")?;
            continue;
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).context("parse the manifest")?;
        let layers = manifest.layers.iter().map(|layer| {
            if layer.media_type.ends_with("zstd") {
                return Err(anyhow!(
                    "layer {} is compressed with zstd; only gzip is supported",
                    layer.digest
                ));
            }
            let hex = layer.hex().map_err(anyhow::Error::msg)?;
            Ok(Layer {
                name: blob(hex),
                hex: Some(hex.to_owned()),
            })
        });
        let layers = layers.collect::<anyhow::Result<_>>()?;
        return Ok((hex, blobs.checked(&manifest.config)?, layers));
    }
    bail!("its indexes are nested more than {DEPTH_MAX} deep")
}

fn docker(blobs: &Blobs, name: &str) -> anyhow::Result<(String, Vec<u8>, Vec<Layer>)> {
    let images: Vec<DockerImage> =
        serde_json::from_slice(&blobs.json("manifest.json")?).context("parse manifest.json")?;
    let image = manifest::choose_docker(&images, name).map_err(anyhow::Error::msg)?;
    let config = blobs.json(&image.config)?;
    // The config names the layers' contents (`diff_ids`), so its digest is the image's.
    let hex = hex_of(Sha256::digest(&config));
    let layers = image
        .layers
        .iter()
        .map(|name| Layer {
            name: name.clone(),
            hex: None,
        })
        .collect();
    Ok((hex, config, layers))
}

fn unpack_layer(blobs: &Blobs, layer: &Layer, root: &Path) -> anyhow::Result<()> {
    let mut magic = [0; 2];
    let is_compressed = match blobs.open(&layer.name)?.read_exact(&mut magic) {
        Ok(()) => magic == [0x1f, 0x8b],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error).context("read it"),
    };
    let mut hashing = Hashing {
        from: blobs.open(&layer.name)?,
        hash: Sha256::new(),
    };
    if is_compressed {
        unpack::layer(&mut MultiGzDecoder::new(&mut hashing), root)?;
    } else {
        unpack::layer(&mut hashing, root)?;
    }
    // What follows the tar's end belongs to the blob too.
    io::copy(&mut hashing, &mut io::sink()).context("read it")?;
    let found = hex_of(hashing.hash.finalize());
    match &layer.hex {
        Some(hex) if *hex != found => bail!("it is not what its digest says"),
        _ => Ok(()),
    }
}

struct Hashing<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// Fills a folder of the cache, which is there as a whole or not at all; its bytes.
fn into_cache(
    cache: &Path,
    hex: &str,
    image: &Unpacked,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let whole = cache.join(hex);
    if !whole.exists() {
        // Left by a crash, it is nobody's.
        let part = cache.join("part");
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
        }
        let root = part.join("rootfs");
        record::make_folder(&part).with_context(|| format!("make {}", part.display()))?;
        fs::create_dir(&root).with_context(|| format!("make {}", root.display()))?;
        let result = fill(&root).and_then(|()| Ok(record::write(&part.join("image.json"), image)?));
        if let Err(error) = result {
            fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
            return Err(error);
        }
        fs::rename(&part, &whole).with_context(|| format!("make {}", whole.display()))?;
    }
    unpack::bytes(&whole)
}
