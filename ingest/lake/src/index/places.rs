//! Where the rows of sorted files are, on this machine's disk.
//!
//! What passes through: the number that a row has in the index, into its place in its file. They differ
//! in a file whose rows were sorted when they moved there: the index counts such rows in the order in
//! which they came, so that a [`Move`](super::moves::Move) keeps to be a matter of counting, and each
//! sorted file has one list that leads from there to where its rows are. A file that is sorted once more
//! has a list of its own, and the old one goes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::BoxError;
use crate::places::{LINE, NOWHERE, PLACES, decode_line, encode};

/// A folder with a file of places for each file that has some.
pub(super) struct Places {
    folder: PathBuf,
}

impl Places {
    /// Opens the folder, or makes it; what is there of files that are not known goes.
    pub(super) fn open(folder: &Path, known: &HashSet<u32>) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let file = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            if file.is_none_or(|file| !known.contains(&file)) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { folder: folder.to_owned() })
    }

    fn path(&self, file: u32) -> PathBuf {
        self.folder.join(file.to_string())
    }

    pub(super) fn write(&self, file: u32, places: &[u32]) -> io::Result<()> {
        fs::write(self.path(file), encode(places))
    }

    /// Tells where each row of a file is, in the order of their numbers.
    pub(super) fn each(&self, file: u32, mut tell: impl FnMut(u32, u32)) -> Result<(), BoxError> {
        let mut file = BufReader::new(File::open(self.path(file))?);
        let mut rows = 0..;
        for number in 0.. {
            let mut line = [0; LINE];
            match file.read_exact(&mut line) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                read => read?,
            }
            let places = decode_line(&line, number)?.into_iter().take_while(|place| *place != NOWHERE);
            places.zip(&mut rows).for_each(|(place, row)| tell(row, place));
        }
        Ok(())
    }

    pub(super) fn remove(&self, file: u32) -> io::Result<()> {
        match fs::remove_file(self.path(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Has them on the disk.
    pub(super) fn sync(&self, files: impl Iterator<Item = u32>) -> io::Result<()> {
        for file in files {
            File::open(self.path(file))?.sync_all()?;
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Looks up one row after another.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { places: self, open: None }
    }
}

/// Looks up rows; those of one file should come together.
pub(super) struct Reader<'a> {
    places: &'a Places,
    open: Option<(u32, File)>,
}

impl Reader<'_> {
    /// Where a row of a file is.
    ///
    /// # Errors
    /// Where its line cannot be read or is damaged, or there is no such row.
    pub(super) fn place(&mut self, file: u32, row: u32) -> Result<u32, BoxError> {
        let opened = match self.open.take_if(|(open, _)| *open == file) {
            Some((_, opened)) => opened,
            None => File::open(self.places.path(file))?,
        };
        let (number, mut line) = (row as usize / PLACES, [0; LINE]);
        opened.read_exact_at(&mut line, (number * LINE) as u64)?;
        self.open = Some((file, opened));
        let place = decode_line(&line, number)?[row as usize % PLACES];
        if place == NOWHERE { Err("a row beyond the last of its file".into()) } else { Ok(place) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_themselves_and_files_that_are_not_known_go() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::open(dir.path(), &HashSet::new()).unwrap();
        let backwards = |rows: u32| (0..rows).rev().collect::<Vec<_>>();
        places.write(1, &backwards(40)).unwrap();
        places.write(2, &backwards(7)).unwrap();
        let mut reader = places.reader();
        assert_eq!(
            [(1, 0), (1, 39), (2, 6), (1, 14)].map(|(file, row)| reader.place(file, row).unwrap()),
            [39, 0, 0, 25]
        );
        assert!(reader.place(2, 7).is_err() && reader.place(1, 45).is_err() && reader.place(3, 0).is_err());
        let places = Places::open(dir.path(), &HashSet::from([2])).unwrap();
        assert!(places.each(1, |_, _| {}).is_err());
        let mut told = Vec::new();
        places.each(2, |row, place| told.push((row, place))).unwrap();
        assert_eq!(told, (0..7).zip(backwards(7)).collect::<Vec<_>>());
        places.sync([2].into_iter()).unwrap();
    }
}
