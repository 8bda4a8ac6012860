//! What can go wrong with a question, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::StatusCode;
use datafusion::error::DataFusionError;
use ruam_door::Problem;
use ruam_event::DatasetId;
use ruam_lake::LakeError;

/// An error of a query.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The statement does not work.
    #[error("{}", plain(.0))]
    Statement(Box<DataFusionError>),
    /// A table does not exist.
    #[error("there is no table `{asked}`. {nearest}{}`ruam datasets` lists the datasets, `select * from ruam.datasets` does, too", if nearest.is_empty() { "" } else { " " })]
    NoTable {
        /// What was asked for.
        asked: String,
        /// The nearest that there is, as a question; empty where nothing is near.
        nearest: String,
    },
    /// A dataset may be seen for a purpose, and none of its purposes was stated.
    #[error("`{dataset}` may be used for {}, and {}. State one: set ruam.purpose = '{}'",
        purposes.join(", "),
        stated.as_ref().map_or("no purpose has been stated".to_owned(), |stated| format!("the stated purpose is `{stated}`")),
        purposes.first().map_or("", String::as_str))]
    Purpose {
        /// The dataset.
        dataset: DatasetId,
        /// What was stated.
        stated: Option<String>,
        /// What it may be used for.
        purposes: Vec<String>,
    },
    /// An answer is larger than it may be.
    #[error("{0}")]
    Limit(String),
    /// An answer takes longer than it may.
    #[error(
        "the answer took longer than the {0:?} that it may (statement_timeout, or the limit of a role). Ask for less"
    )]
    Late(Duration),
    /// Something that would show how much is hidden.
    #[error("{0}")]
    Hidden(&'static str),
    /// A function was called in a way that it does not know.
    #[error("{function}: {problem}. Write {usage}")]
    Call {
        /// The function.
        function: &'static str,
        /// What is wrong.
        problem: String,
        /// How it is to be called.
        usage: &'static str,
    },
    /// A setting that is not a client's to set.
    #[error("{0} is a setting of the engine, which all clients share: it cannot be set here")]
    Setting(String),
    /// Moments are what they are in every zone.
    #[error("the time zone cannot be set here: moments come with theirs, UTC. Have your program show them in another")]
    Zone,
    /// There are more or fewer values than parameters.
    #[error("the statement has {expected} parameters, and {given} values came. Give $1 the first value, and so on")]
    Parameters {
        /// How many there are.
        expected: usize,
        /// How many values came.
        given: usize,
    },
    /// A value does not fit its parameter. It is not said which: it may be somebody's.
    #[error("the value of ${number} is no {wanted}. Send one that is, or write a cast into the statement")]
    Parameter {
        /// The parameter, from 1.
        number: usize,
        /// What it has to be.
        wanted: String,
    },
    /// The lake does not answer.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// There is no place for what does not fit into memory.
    #[error("cannot keep in {folder} what does not fit into memory: {source}. Give this user the right to write there")]
    Spill {
        /// The folder.
        folder: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A result could not be written.
    #[error("cannot write the result to {place}: {source}")]
    Output {
        /// Where to.
        place: String,
        /// What happened.
        source: std::io::Error,
    },
    /// A result could not be put into its format.
    #[error("cannot write the result as {format}: {problem}")]
    Format {
        /// The format.
        format: &'static str,
        /// What happened.
        problem: String,
    },
}

/// What is at fault where a question is not answered, for protocols that have codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The statement.
    Statement,
    /// What it asks for, which is not there.
    Missing,
    /// Who asks, or what for.
    Permission,
    /// The memory or disk that there is.
    Resources,
    /// This program, or the lake.
    Server,
}

impl QueryError {
    /// What is at fault.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Statement(error) => match error.find_root() {
                DataFusionError::External(own) => own.downcast_ref::<Self>().map_or(Fault::Server, Self::fault),
                DataFusionError::ResourcesExhausted(_) => Fault::Resources,
                DataFusionError::Internal(_)
                | DataFusionError::IoError(_)
                | DataFusionError::ObjectStore(_)
                | DataFusionError::ParquetError(_) => Fault::Server,
                // What fails on the way does so for what the statement does with a value.
                _ => Fault::Statement,
            },
            Self::NoTable { .. } => Fault::Missing,
            Self::Limit(_) | Self::Late(_) => Fault::Resources,
            Self::Purpose { .. } | Self::Hidden(_) | Self::Setting(_) => Fault::Permission,
            Self::Call { .. } | Self::Zone | Self::Parameters { .. } | Self::Parameter { .. } => Fault::Statement,
            Self::Lake(_) | Self::Spill { .. } | Self::Output { .. } | Self::Format { .. } => Fault::Server,
        }
    }

    /// There is no table of a name; the nearest of those that there are.
    pub(crate) fn no_table(asked: &str, known: &[String]) -> Self {
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        let suggested = ruam_event::spec_file::suggest(asked, &known);
        // A lake may have hundreds of tables.
        let nearest = suggested.split_once("Known are: ").map_or("", |(nearest, _)| nearest).trim().to_owned();
        Self::NoTable { asked: asked.to_owned(), nearest }
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        Self::Statement(Box::new(error))
    }
}

/// What DataFusion says without the names of its own kinds of errors.
fn plain(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    for refused in ["DML not supported: ", "DDL not supported: "] {
        if let Some((_, statement)) = text.split_once(refused) {
            return format!("{statement} is refused: SQL only reads here. Tables change by events alone");
        }
    }
    if let DataFusionError::SQL(parser, _) = error.find_root() {
        return parser.to_string().trim_start_matches("sql parser error: ").to_owned();
    }
    let kinds = [
        "Error during planning: ",
        "SQL error: ",
        "Schema error: ",
        "Execution error: ",
        "External error: ",
        "This feature is not implemented: ",
    ];
    kinds.iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(&text).to_owned()
}

/// An error of the lake, where DataFusion asks for one of its own.
pub(crate) fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let status = match error.fault() {
            Fault::Statement => StatusCode::BAD_REQUEST,
            Fault::Missing => StatusCode::NOT_FOUND,
            Fault::Permission => StatusCode::FORBIDDEN,
            Fault::Resources => StatusCode::INSUFFICIENT_STORAGE,
            Fault::Server => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
