//! The datasets of an installation: a folder of files, read and checked as a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ruam_connectors::Surroundings;
use ruam_event::{DatasetId, DatasetSpec, SpecError};
use ruam_lake::changes_schema;
use ruam_query::QueryDataset;
use ruam_transform::Transform;

/// The datasets that come with the program, for the demo.
const BUILT_IN: [(&str, &str); 4] = [
    ("built-in/bora/person.toml", include_str!("../specs/bora/person.toml")),
    ("built-in/cgd/disbursement.toml", include_str!("../specs/cgd/disbursement.toml")),
    ("built-in/dopa/administrative_area.toml", include_str!("../specs/dopa/administrative_area.toml")),
    ("built-in/msdhs/welfare_payment.toml", include_str!("../specs/msdhs/welfare_payment.toml")),
];

/// A dataset, ready to be worked on.
#[derive(Clone, Debug)]
pub(crate) struct Dataset {
    /// What it declares.
    pub(crate) spec: Arc<DatasetSpec>,
    /// How its records become rows.
    pub(crate) transform: Arc<Transform>,
}

impl Dataset {
    /// The dataset as queries see it.
    pub(crate) fn queried(&self) -> QueryDataset {
        let rows = self.transform.schema().clone();
        let changes = self.spec.history.then(|| changes_schema(&rows));
        QueryDataset { spec: self.spec.clone(), rows, rejects: ruam_transform::reject::SCHEMA.clone(), changes }
    }
}

/// The datasets, and where they were found.
#[derive(Clone, Debug)]
pub(crate) struct Datasets {
    /// Where they were found, for people.
    pub(crate) place: String,
    /// The datasets, by name.
    pub(crate) all: BTreeMap<DatasetId, Dataset>,
}

/// What is wrong with the dataset files: everything, not only the first.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct SpecsError(pub Vec<SpecsProblem>);

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecsProblem {
    /// A place in a file.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Two files for one dataset.
    #[error("{second}:1: dataset: `{dataset}` is declared in {first} as well. Remove one of the two files")]
    Twice {
        /// The dataset.
        dataset: DatasetId,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// Two datasets with one topic.
    #[error("{second}:1: topic.name: topic `{topic}` is that of {first} as well. Give each dataset a topic of its own")]
    SameTopic {
        /// The topic.
        topic: String,
        /// One dataset's file.
        first: String,
        /// The other's.
        second: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}. Correct `specs` in ruam.toml, or --specs")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no dataset.
    #[error("there is no dataset in {0}. Put one file for each into <agency>/<dataset>.toml there")]
    None(PathBuf),
}

impl Datasets {
    /// Reads the datasets of a folder; without one, of `specs` or `pipelines/specs`, or those that
    /// come with the program.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn load(folder: Option<&Path>, max_record_bytes: usize) -> Result<Self, SpecsError> {
        let usual = || ["specs", "pipelines/specs"].iter().map(Path::new).find(|path| path.is_dir());
        let (place, files) = match folder.or_else(usual) {
            Some(folder) => {
                (folder.display().to_string(), read_folder(folder).map_err(|problem| SpecsError(vec![problem]))?)
            }
            None => {
                let files = BUILT_IN.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
                ("the program itself".to_owned(), files)
            }
        };
        let mut problems = Vec::new();
        let (mut all, mut topics) = (BTreeMap::<DatasetId, Dataset>::new(), BTreeMap::<String, String>::new());
        for (path, text) in files {
            match read(&path, &text, max_record_bytes) {
                Ok(dataset) => {
                    let (id, topic) = (dataset.spec.id().clone(), dataset.spec.topic());
                    if let Some(first) = all.get(&id) {
                        problems.push(SpecsProblem::Twice {
                            dataset: id,
                            first: first.spec.path().to_owned(),
                            second: path,
                        });
                        continue;
                    }
                    if let Some(first) = topics.insert(topic.clone(), path.clone()) {
                        problems.push(SpecsProblem::SameTopic { topic, first, second: path });
                        continue;
                    }
                    all.insert(id, dataset);
                }
                Err(error) => problems.push(error.into()),
            }
        }
        if problems.is_empty() { Ok(Self { place, all }) } else { Err(SpecsError(problems)) }
    }

    /// A dataset by name.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<&Dataset> {
        let found = self.all.iter().find(|(id, _)| id.to_string() == name).map(|(_, dataset)| dataset);
        found.ok_or_else(|| {
            let known: Vec<_> = self.all.keys().map(ToString::to_string).collect();
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            anyhow::anyhow!(
                "there is no dataset `{name}` in {}. {}",
                self.place,
                ruam_event::spec_file::suggest(name, &known)
            )
        })
    }

    /// The datasets of these names; all where none is named.
    ///
    /// # Errors
    /// Where there is none of a name.
    pub(crate) fn named(&self, names: &[String]) -> anyhow::Result<Vec<&Dataset>> {
        match names {
            [] => Ok(self.all.values().collect()),
            names => names.iter().map(|name| self.get(name)).collect(),
        }
    }
}

fn read(path: &str, text: &str, max_record_bytes: usize) -> Result<Dataset, SpecError> {
    let spec = DatasetSpec::parse(path, text)?;
    let transform = Transform::new(&spec, max_record_bytes)?;
    ruam_connectors::open(&spec, &Surroundings::default())?;
    Ok(Dataset { spec: Arc::new(spec), transform: Arc::new(transform) })
}

fn read_folder(folder: &Path) -> Result<Vec<(String, String)>, SpecsProblem> {
    let files = read_files(folder)?;
    if files.is_empty() { Err(SpecsProblem::None(folder.to_owned())) } else { Ok(files) }
}

/// The declarations in a folder and those below it, each with its path and its text, by path.
///
/// # Errors
/// Where one cannot be read.
pub(crate) fn read_files(folder: &Path) -> Result<Vec<(String, String)>, SpecsProblem> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let read = |path: PathBuf| {
        let text =
            std::fs::read_to_string(&path).map_err(|source| SpecsProblem::Unreadable { path: path.clone(), source })?;
        Ok((path.display().to_string(), text))
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), SpecsProblem> {
    let unreadable = |source| SpecsProblem::Unreadable { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_datasets_are_right() {
        for (path, text) in BUILT_IN {
            read(path, text, 1 << 20).unwrap();
        }
    }
}
