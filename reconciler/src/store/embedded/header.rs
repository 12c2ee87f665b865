//! What redb takes on trust when it opens a file: the beginning of its header and the length. It panics where they do
//! not fit, and a cut-off file is no reason for a panic.
//!
//! The format is described in redb's `docs/design.md`: nine bytes that mark the file, a byte of flags, two unused, the
//! size of a page, pages in the header of a region, pages in a region, full regions, pages in the last region.

/// The first bytes of the file.
pub(super) const LENGTH: usize = 32;

const MARK: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// What redb 4 makes every file with: bytes, pages, pages.
const PAGE: u64 = 4096;
const REGION_HEADER: u64 = 0;
const REGION: u64 = 1 << 20;

/// Why redb cannot open a file that is `length` bytes long.
pub(super) fn check(header: &[u8; LENGTH], length: u64) -> Result<(), &'static str> {
    if !header.starts_with(MARK) {
        return Err("it does not begin as a redb file does");
    }
    let number = |at: usize| {
        let bytes = header.iter().skip(at).take(4).rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let (full, last) = (number(24), number(28));
    if (number(12), number(16), number(20)) != (PAGE, REGION_HEADER, REGION) || last >= REGION {
        return Err("its header is not one that this version of redb writes");
    }
    // The header has a page of its own.
    let pages = 1 + full * REGION + last;
    if length < pages * PAGE {
        return Err("its end is missing");
    }
    if !length.is_multiple_of(PAGE) || length < 2 * PAGE {
        return Err("its length is not one that redb gives a file");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redb_writes_is_accepted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check_file = || {
            let bytes = std::fs::read(file.path()).unwrap();
            let header = bytes.first_chunk().unwrap();
            assert_eq!(check(header, bytes.len() as u64), Ok(()));
            bytes
        };
        let database = redb::Database::create(file.path()).unwrap();
        check_file();
        let table = redb::TableDefinition::<u64, &[u8]>::new("t");
        let txn = database.begin_write().unwrap();
        for n in 0..100 {
            let value = [0; 100_000];
            txn.open_table(table)
                .unwrap()
                .insert(n, value.as_slice())
                .unwrap();
        }
        txn.commit().unwrap();
        check_file();
        drop(database);
        let bytes = check_file();
        let header = bytes.first_chunk().unwrap();
        assert!(check(header, bytes.len() as u64 - 1).is_err());
        assert!(check(header, bytes.len() as u64 - PAGE).is_err());
        assert!(check(header, bytes.len() as u64 + 1).is_err());
        assert!(check(&[0; LENGTH], bytes.len() as u64).is_err());
    }
}
