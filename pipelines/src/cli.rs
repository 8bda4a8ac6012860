//! The command line.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    agency, audit, check, datasets, demo, maintain, rejects, resume, sql, status, token, up, user, verify,
};
use crate::console;
use crate::deployment::Place;
use crate::memory;

/// Ruam (รวม, "to bring together"): agencies' change events become one lake that answers SQL.
///
/// Agencies' events wait in a log (Apache Kafka, or the broker inside this program), are normalised
/// and checked, and are written to open tables (Delta Lake) of files or of an object store. Every
/// row knows which event it came from; nothing is lost and nothing is counted twice, and `ruam
/// verify` proves it.
#[derive(Debug, Parser)]
#[command(name = "ruam", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it all work, on this machine, with nothing else running
    Demo(demo::Demo),
    /// Run the installation: connectors, gateway, workers and the SQL server
    Up(up::Up),
    /// Check the settings and all dataset and policy files, without connecting to anything
    Check(check::Check),
    /// Ask a question in SQL
    Sql(sql::Sql),
    /// Show how far each dataset is, and what is running
    Status(status::Status),
    /// List the datasets, or show one with its columns
    Datasets(datasets::Datasets),
    /// Prove that nothing was lost: published = rows + rejected + filtered + folded
    Verify(verify::Verify),
    /// Look at the records that could not become rows
    #[command(subcommand)]
    Rejects(rejects::Rejects),
    /// See who asked what, and that the account of it is whole
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Merge small files and delete unneeded ones now; running workers do so by themselves
    Maintain(maintain::Maintain),
    /// Let a dataset go on from another place in its topic, after a person has decided so
    Resume(resume::Resume),
    /// Say who may sign in with a name and a password
    #[command(subcommand)]
    User(user::User),
    /// Say which programs may sign in with a token
    #[command(subcommand)]
    Token(token::Token),
    /// Say which agencies may send their events
    #[command(subcommand)]
    Agency(agency::Agency),
    /// Print a script that completes commands on the tab key
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    // Named here, so that the linker takes it along.
    std::hint::black_box(memory::SETTINGS);
    run(std::env::args_os())
}

fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (filter, json) = match &cli.command {
        Command::Up(up) => (
            "info,deltalake=warn,deltalake_core=warn,buoyant_kernel=warn,datafusion=warn,pgwire_replication=off",
            up.json_log(),
        ),
        _ => (
            "warn,deltalake=error,deltalake_core=error,buoyant_kernel=error,datafusion_postgres=error,pgwire=error,pgwire_replication=off",
            false,
        ),
    };
    console::start_log(filter, json);
    console::log_panics();
    let runtime = match tokio::runtime::Builder::new_multi_thread().thread_name("ruam").enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = runtime.block_on(dispatch(cli));
    // What is still under way (a client's connection, say) must not hold up the end.
    console::announce_end();
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let place = &cli.place;
    match cli.command {
        Command::Demo(demo) => demo.run(place).await,
        Command::Up(up) => up.run(place).await,
        Command::Check(check) => check.run(place),
        Command::Sql(sql) => sql.run(place).await,
        Command::Status(status) => status.run(place).await,
        Command::Datasets(datasets) => datasets.run(place),
        Command::Verify(verify) => verify.run(place).await,
        Command::Rejects(rejects) => rejects.run(place).await,
        Command::Audit(audit) => audit.run(place).await,
        Command::Maintain(maintain) => maintain.run(place).await,
        Command::Resume(resume) => resume.run(place).await,
        Command::User(user) => user.run(place),
        Command::Token(token) => token.run(place),
        Command::Agency(agency) => agency.run(place),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ruam", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // Each message of the chain says what was being done; the innermost says what to do.
    let text: Vec<_> = error.chain().map(ToString::to_string).collect();
    let mut lines: Vec<String> = Vec::new();
    for line in text {
        if !lines.iter().any(|before| before.contains(&line)) {
            lines.push(line);
        }
    }
    console::complain(&lines.join(": "));
    ExitCode::FAILURE
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<io::Error>() {
        Some(error) => error.kind() == io::ErrorKind::BrokenPipe,
        // The CSV and JSON writers keep the text of an error and not the error.
        None => cause.to_string().contains("Broken pipe (os error 32)"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
