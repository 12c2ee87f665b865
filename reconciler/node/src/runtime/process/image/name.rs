//! Names of images, and where on disk they may be.

use std::path::{Path, PathBuf};

/// The paths to look at for an image, in order; all are below `folder`.
pub(super) fn places(folder: &Path, name: &str) -> Result<Vec<PathBuf>, String> {
    let invalid = |why: &str| Err(format!("invalid image name {name:?}: {why}"));
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-:/@".contains(letter);
    if name.is_empty() || name.len() > 255 {
        return invalid("it must have 1 to 255 letters");
    }
    if !name.chars().all(is_plain) {
        return invalid("it must be made of letters, digits and ._-:/@");
    }
    if name
        .split('/')
        .any(|part| part.is_empty() || part.starts_with('.'))
    {
        return invalid("a part of it is empty or begins with a point");
    }
    let mut stems = vec![name.to_owned()];
    let last = name.rsplit('/').next().unwrap_or_default();
    match name.strip_suffix(":latest") {
        Some(bare) => stems.push(bare.to_owned()),
        None if !last.contains([':', '@']) => stems.push(format!("{name}:latest")),
        None => {}
    }
    for stem in stems.clone() {
        let flat = stem.replace(['/', ':', '@'], "_");
        if !stems.contains(&flat) {
            stems.push(flat);
        }
    }
    let of_stem =
        |stem: &String| ["", ".tar", ".tar.gz"].map(|end| folder.join(format!("{stem}{end}")));
    Ok(stems.iter().flat_map(of_stem).collect())
}

/// A SHA-256 as text.
pub(super) fn is_hex(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    proptest! {
        #[test]
        fn no_name_leads_out(name in "[a-z./:@_-]{0,12}|.*") {
            for place in places(Path::new("/images"), &name).unwrap_or_default() {
                let inside = place.strip_prefix("/images").unwrap();
                prop_assert!(inside.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(inside.components().count() > 0);
            }
        }
    }

    #[test]
    fn a_tag_may_be_left_out_and_separators_flat() {
        let names: Vec<_> = places(Path::new("/i"), "a/b:latest")
            .unwrap()
            .iter()
            .filter(|place| place.extension().is_some_and(|end| end == "tar"))
            .map(|place| place.display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "/i/a/b:latest.tar",
                "/i/a/b.tar",
                "/i/a_b_latest.tar",
                "/i/a_b.tar"
            ]
        );
        for bad in ["", "../x", "a/../b", "a//b", ".hidden", "a b", "a/"] {
            assert!(places(Path::new("/i"), bad).is_err(), "{bad}");
        }
    }
}
