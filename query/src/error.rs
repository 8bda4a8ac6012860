//! What can go wrong with a question, and what to do about it.

use datafusion::error::DataFusionError;
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
    /// An answer is larger or longer than it may be.
    #[error("{0}")]
    Limit(String),
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
    /// The lake does not answer.
    #[error(transparent)]
    Lake(#[from] LakeError),
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

impl QueryError {
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
