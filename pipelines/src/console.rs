//! What people see: tables that fit the terminal, progress lines, and a log that does not tear them.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};
use indicatif::MultiProgress;
use ruam_query::format;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The progress lines of the process, if it shows any.
static PROGRESS: OnceLock<MultiProgress> = OnceLock::new();

/// Whether the process is about to end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// The progress lines of the process.
pub(crate) fn progress() -> &'static MultiProgress {
    PROGRESS.get_or_init(MultiProgress::new)
}

/// Begins to log to the error stream: `filter` as long as RUST_LOG does not say otherwise.
pub(crate) fn start_log(filter: &str, json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(BesideProgress).with_target(false);
    let started =
        if json { subscriber.json().try_init() } else { subscriber.with_ansi(io::stderr().is_terminal()).try_init() };
    // A second start in one process (a test) keeps the first.
    let _ = started;
}

/// What is still under way in the background is cut off from here on, as a kill would: it leaves nothing that
/// the next start could not read.
pub(crate) fn announce_end() {
    ENDING.store(true, Ordering::Relaxed);
}

/// Lets the log tell of a panic, which is a bug, by its place: what it says may hold a value.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        // The Delta library gives up a file that could not be written by a call that panics where the
        // disk is full, and catches that itself.
        if place.contains("object_store") && place.contains("buffered.rs") {
            tracing::debug!(place, "an unfinished file was given up");
        // Its kernel panics where the threads that it waits for are taken away.
        } else if ENDING.load(Ordering::Relaxed) && place.contains("kernel_engine") && place.contains("executor.rs") {
            tracing::debug!(place, "work in the background was cut off by the end");
        } else {
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or_default();
            tracing::error!(place, thread, "a bug ended a part of ruam. Please report this with the log");
        }
        tracing::trace!(%panic);
    }));
}

/// Writes lines of the log above the progress lines.
struct BesideProgress;

impl<'a> MakeWriter<'a> for BesideProgress {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

/// A line of the log, written when it is complete.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let write = || io::stderr().write_all(&self.0);
        // Nobody can be told that the error stream is gone.
        let _ = match PROGRESS.get() {
            Some(progress) => progress.suspend(write),
            None => write(),
        };
    }
}

/// Prints a line. A reader that has gone away (`| head`) ends the program quietly.
pub(crate) fn say(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref())?;
    out.flush()
}

/// Prints a line of progress to the error stream, where it is not a terminal.
pub(crate) fn note(text: &str) {
    // Nobody can be told that the error stream is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints what went wrong to the error stream.
pub(crate) fn complain(text: &str) {
    // Nobody can be told that the error stream is gone.
    let _ = writeln!(io::stderr(), "ruam: {text}");
}

/// The width of the terminal, if the output goes to one; else what COLUMNS says, if anything.
pub(crate) fn width() -> Option<u16> {
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    columns().or_else(|| io::stdout().is_terminal().then(|| Table::new().width()).flatten())
}

/// A table, with a header or (`&[]`) without. `right` names the columns of numbers.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    // No lines between columns: a row of figures for a dataset fits into 80 columns so.
    table.load_preset(presets::NOTHING).set_style(TableComponent::HeaderLines, '─');
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if !header.is_empty() {
        table.set_header(header);
    }
    for row in rows {
        table.add_row(row);
    }
    let natural: u16 = table.column_max_content_widths().iter().map(|width| width + 2).sum();
    let gap = if width().is_none_or(|width| natural <= width) { 2 } else { 1 };
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { gap }));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format::fit(&mut table, width(), right, usize::from(gap));
    table.trim_fmt()
}

/// A number with separators: `1,234,567`.
pub(crate) fn number(number: impl TryInto<i128>) -> String {
    let number: i128 = number.try_into().unwrap_or_default();
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if number < 0 { format!("-{grouped}") } else { grouped }
}

/// A size: `1.4 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 999.5 && unit + 1 < units.len() {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", units[unit]) }
}

/// A time: `850 ms`, `12.3 s`, `4 min 10 s`.
pub(crate) fn millis(millis: u64) -> String {
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..120_000 => format!("{:.1} s", millis as f64 / 1000.0),
        _ => format!("{} min {} s", millis / 60_000, millis / 1000 % 60),
    }
}

/// How this program was called, for advice that works when it is copied.
pub(crate) fn program() -> &'static str {
    if std::env::var_os("CARGO").is_some() { "cargo run --release --" } else { "ruam" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!([number(0), number(999), number(1000), number(-1_234_567)], ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!(
            [bytes(12), bytes(1500), bytes(999_999), bytes(2_340_000_000)],
            ["12 B", "1.5 kB", "1.0 MB", "2.3 GB"]
        );
        assert_eq!([millis(5), millis(1500), millis(250_000)], ["5 ms", "1.5 s", "4 min 10 s"]);
    }
}
