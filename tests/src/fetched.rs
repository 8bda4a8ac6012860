//! What tests run beside Ruam and cargo does not fetch: libraries from Maven Central and PyPI. And large
//! tables, which take long to be made.
//!
//! Each is fetched once for what its file (a pom, a list of requirements) says, and kept beside what
//! cargo builds. A fetch that was interrupted leaves nothing that passes for a whole one, and two
//! processes that fetch the same do not meet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::installation::scratch;

/// The interpreter that libraries of Python are installed for.
const PYTHON: &str = "python3";

/// What decides how the files of tables are written.
const WRITER: &str = include_str!("../../ingest/lake/src/table.rs");

/// Whether a program is on the path.
pub fn has_program(name: &str) -> bool {
    let found = |dir: PathBuf| dir.join(name).is_file();
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(found))
}

/// Whether Python can make environments.
pub fn has_python() -> bool {
    // Debian has the module without what it needs in packages of their own.
    has_program(PYTHON) && said(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])).is_ok()
}

/// What to give Java as its class path, for the libraries that a pom names.
///
/// # Errors
/// Where Maven cannot fetch them, with what it said.
pub fn class_path(name: &str, pom: &str) -> Result<PathBuf> {
    let key = fs::read(pom).with_context(|| format!("cannot read {pom}"))?;
    let folder = kept(name, &key, |folder| {
        let mut maven = Command::new("mvn");
        maven.args(["-B", "-q", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime"]);
        said(maven.arg(format!("-DoutputDirectory={}", folder.display()))).map(drop)
    })?;
    Ok(folder.join("*"))
}

/// A file of Maven Central, by its coordinates: `group:artifact:version:type`.
///
/// # Errors
/// Where Maven cannot fetch it, with what it said.
pub fn artifact(name: &str, coordinates: &str) -> Result<PathBuf> {
    let folder = kept(name, coordinates.as_bytes(), |folder| {
        let mut maven = Command::new("mvn");
        maven.args(["-B", "-q", "dependency:copy", &format!("-Dartifact={coordinates}")]);
        said(maven.arg(format!("-DoutputDirectory={}", folder.display()))).map(drop)
    })?;
    first_in(&folder, |_| true).with_context(|| format!("Maven has brought nothing of {coordinates}"))
}

/// The first of what lies in a folder that is of a kind.
///
/// # Errors
/// Where there is none.
pub(crate) fn first_in(folder: &Path, is: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let mut found = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    found.find(|path| is(path)).with_context(|| format!("{} does not have what it should", folder.display()))
}

/// Unpacks a file of Maven Central (jar or zip) into a folder.
///
/// # Errors
/// Where it cannot be unpacked.
pub fn unpack(file: &Path, folder: &Path) -> Result<()> {
    said(Command::new("jar").arg("--extract").arg("--file").arg(file).current_dir(folder)).map(drop)
}

/// The same for a file of tar, packed in any way that tar knows.
///
/// # Errors
/// Where it cannot be unpacked.
pub fn unpack_tar(file: &Path, folder: &Path) -> Result<()> {
    said(Command::new("tar").arg("--extract").arg("--file").arg(file).arg("--directory").arg(folder)).map(drop)
}

/// The interpreter of an environment with the libraries that a list of requirements names.
///
/// # Errors
/// Where pip cannot install them, with what it said.
pub fn python(name: &str, requirements: &str) -> Result<PathBuf> {
    let mut key = fs::read(requirements).with_context(|| format!("cannot read {requirements}"))?;
    // An environment is of one version of Python, in one place.
    key.extend(said(Command::new(PYTHON).args(["-c", "import sys; print(sys.version, sys.base_prefix)"]))?.as_bytes());
    let folder = kept(name, &key, |folder| {
        said(Command::new(PYTHON).args(["-m", "venv"]).arg(folder))?;
        let mut pip = Command::new(interpreter(folder));
        said(pip.args(["-m", "pip", "install", "-q", "-r", requirements])).map(drop)
    })?;
    Ok(interpreter(&folder))
}

fn interpreter(environment: &Path) -> PathBuf {
    environment.join("bin").join(PYTHON)
}

/// A folder with tables, which are made for a key at the first call, and anew when tables are written in
/// another way.
///
/// # Errors
/// Where they cannot be made.
pub fn made(name: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    kept(name, format!("{key} {WRITER}").as_bytes(), make)
}

/// A folder for what a key stands for, which is filled once.
fn kept(name: &str, key: &[u8], fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let digest: String = Sha256::digest(key).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = scratch().join(format!("{name}-{digest}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(scratch())?;
    // Removed where it cannot be filled; and where it has become the folder, is no more.
    let begun = tempfile::Builder::new().prefix(name).tempdir_in(scratch())?;
    fill(begun.path())?;
    match fs::rename(begun.path(), &folder) {
        // Another process was faster, with the same.
        Err(_) if folder.is_dir() => Ok(folder),
        renamed => renamed.map(|()| folder).context("cannot keep what was fetched"),
    }
}

/// What a program writes, which has to succeed.
fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name} failed: {out}{err}");
    Ok(out.into_owned())
}
