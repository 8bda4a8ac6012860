//! A file that one process makes and all that come after it read.
//!
//! What passes through: the bytes of a file of the data directory that never changes. Guaranteed: whoever reads it
//! reads all of it, also after a crash while it was made; of several processes that begin at the same moment one makes
//! it, and the others read what that one has made.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What the names of files begin with that become such a file, or were left behind by a crash before they did.
pub(crate) const BEFOREHAND: &str = ".ruam.";

/// What a file says; nothing where there is none.
///
/// # Errors
/// Where it cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a file with these permission bits (less those that the process does not give), unless somebody else has by
/// now; tells what it says.
///
/// # Errors
/// Where it can be neither made nor read.
pub(crate) fn make(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let permissions = Permissions::from_mode(mode);
    let mut file = tempfile::Builder::new().prefix(BEFOREHAND).permissions(permissions).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => File::open(folder)?.sync_all()?,
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.error),
    }
    fs::read(path)
}
