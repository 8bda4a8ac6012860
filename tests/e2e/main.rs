//! Runs every end-to-end test: as `cargo test` does, on as many threads as there are cores.
//!
//! What a test needs that is not on this machine makes it "ignored", with the reason in its name's
//! notice above; with `RUAM_TEST_ALL=1` (as in CI) that is an error instead.

mod areas;
mod clients;
mod copy;
mod crash;
mod debezium;
mod demo;
mod gateway;
mod history;
mod house;
mod log;
mod maintain;
mod mistakes;
mod object_store;
mod policies;
mod postgres;
mod readers;
mod rejects;
mod scan;
mod server;
mod sign_on;
mod slt;
mod sql;
mod strangers;
mod tls;
mod tools;
mod tpch;
mod verify;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use ruam_tests::fetched::{has_program, has_python};
use ruam_tests::postgres::Release;
use ruam_tests::{Broker, apicurio, kafka, keycloak};

/// What a test needs beside this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Kafka,
    Psql,
    Python,
    Java,
    Namespaces,
    Postgres(Release),
    Debezium,
    Keycloak,
}

impl Need {
    /// What is missing, and how to get it; none where it is there.
    fn missing(self) -> Option<&'static str> {
        let (is_there, advice) = match self {
            Self::Nothing => (true, ""),
            Self::Kafka => (
                kafka::is_at_hand(),
                "tests on Apache Kafka: install Java 17 and Maven, or name a broker in RUAM_TEST_KAFKA=host:port",
            ),
            Self::Psql => (has_program("psql"), "tests with psql: install postgresql-client"),
            Self::Python => {
                (has_python(), "tests with readers and clients of Python: install Python 3 with its module venv")
            }
            Self::Java => {
                (has_program("mvn") && has_program("javac"), "tests with Spark: install the JDK of Java 17, and Maven")
            }
            Self::Postgres(release) => (
                release.is_at_hand(),
                "tests with servers of PostgreSQL: install the packages postgresql and xz-utils, the JDK of Java 17, and \
                 Maven for other releases than that of the package",
            ),
            Self::Debezium => (
                Release::Installed.is_at_hand()
                    && kafka::is_at_hand()
                    && apicurio::is_at_hand()
                    && has_program("javac"),
                "tests with Debezium: install the JDK of Java 17, Maven, curl and the package postgresql",
            ),
            Self::Keycloak => {
                (keycloak::is_at_hand(), "tests with Keycloak: install the JDK of Java 17, Maven and curl")
            }
            Self::Namespaces => (mistakes::can_mount(), "tests of a full disk: they need `unshare --user --mount`"),
        };
        (!is_there).then_some(advice)
    }
}

fn main() -> ExitCode {
    if ruam_tests::is_ruam() {
        return ruam::main();
    }
    let arguments = Arguments::from_args();
    let must_all = std::env::var_os("RUAM_TEST_ALL").is_some_and(|value| value != "0");
    let mut missing = Vec::new();
    let mut trials = Vec::new();
    for (name, need, test) in tests() {
        let is_missing = need.missing();
        missing.extend(is_missing);
        let run = move || test().map_err(|error| Failed::from(format!("{error:#}")));
        trials.push(Trial::test(name, run).with_ignored_flag(is_missing.is_some()));
    }
    missing.dedup();
    for what in &missing {
        eprintln!("{}: {what}", if must_all { "missing" } else { "skipped" });
    }
    if must_all && !missing.is_empty() {
        eprintln!("RUAM_TEST_ALL is set, so nothing may be skipped");
        return ExitCode::FAILURE;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    Broker::stop_all();
    conclusion.exit_code()
}

type Test = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;
type OnBroker = fn(Broker) -> anyhow::Result<()>;
type OnRelease = fn(Release) -> anyhow::Result<()>;
type Alone = fn() -> anyhow::Result<()>;

/// Every test: its name, what it needs, and how it is run.
fn tests() -> Vec<(String, Need, Test)> {
    let mut tests: Vec<(String, Need, Test)> = Vec::new();
    // The longest come first, so that no core idles at the end.
    let on_both: [(&str, OnBroker); 9] = [
        ("crash::nothing_is_lost_and_nothing_twice", crash::nothing_is_lost_and_nothing_twice),
        ("crash::stopping_loses_nothing", crash::stopping_loses_nothing),
        ("demo::tables_hold_what_the_model_says", demo::tables_hold_what_the_model_says),
        ("log::a_publisher_goes_on_where_the_log_is", log::a_publisher_goes_on_where_the_log_is),
        (
            "log::readers_of_one_lake_share_and_other_lakes_get_all",
            log::readers_of_one_lake_share_and_other_lakes_get_all,
        ),
        ("log::a_source_has_one_feeder", log::a_source_has_one_feeder),
        ("log::a_topic_created_anew_is_noticed", log::a_topic_created_anew_is_noticed),
        ("rejects::bad_records_are_kept_with_reason_and_place", rejects::bad_records_are_kept_with_reason_and_place),
        ("server::parts_run_in_processes_of_their_own", server::parts_run_in_processes_of_their_own),
    ];
    for (name, test) in on_both {
        for broker in Broker::ALL {
            let need = if broker == Broker::Kafka { Need::Kafka } else { Need::Nothing };
            tests.push((format!("{name}::{}", broker.name()), need, Box::new(move || test(broker))));
        }
    }
    let alone: &[(&str, Need, Alone)] = &[
        ("readers::spark_finds_what_ruam_finds", Need::Java, readers::spark_finds_what_ruam_finds),
        ("tpch::the_answers_are_those_of_duckdb", Need::Python, tpch::the_answers_are_those_of_duckdb),
        ("readers::of_python_find_what_ruam_finds", Need::Python, readers::of_python_find_what_ruam_finds),
        ("clients::of_java_are_told_the_same", Need::Java, clients::of_java_are_told_the_same),
        ("clients::of_python_are_told_the_same", Need::Python, clients::of_python_are_told_the_same),
        (
            "gateway::a_crash_loses_nothing_and_doubles_nothing",
            Need::Nothing,
            gateway::a_crash_loses_nothing_and_doubles_nothing,
        ),
        ("debezium::both_roads_end_in_equal_tables", Need::Debezium, debezium::both_roads_end_in_equal_tables),
        ("debezium::what_is_wrong_with_avro_is_told", Need::Nothing, debezium::what_is_wrong_with_avro_is_told),
        ("debezium::rows_and_cloud_events_are_tables", Need::Nothing, debezium::rows_and_cloud_events_are_tables),
        ("postgres::the_lake_has_what_the_server_has::installed", Need::Postgres(Release::Installed), || {
            postgres::the_lake_has_what_the_server_has(Release::Installed)
        }),
        ("postgres::the_lake_has_what_the_server_has::newest", Need::Postgres(Release::NEWEST), || {
            postgres::the_lake_has_what_the_server_has(Release::NEWEST)
        }),
        (
            "postgres::the_log_is_away_for_a_minute",
            Need::Postgres(Release::Installed),
            postgres::the_log_is_away_for_a_minute,
        ),
        (
            "postgres::connection::it_is_reached_by_tls",
            Need::Postgres(Release::Installed),
            postgres::connection::it_is_reached_by_tls,
        ),
        (
            "postgres::connection::its_connection_is_checked",
            Need::Nothing,
            postgres::connection::its_connection_is_checked,
        ),
        ("postgres::the_disk_is_full", Need::Postgres(Release::Installed), postgres::the_disk_is_full),
        (
            "gateway::keycloak::its_tokens_let_systems_send_and_people_ask",
            Need::Keycloak,
            gateway::keycloak::its_tokens_let_systems_send_and_people_ask,
        ),
        ("gateway::its_api_is_as_it_says", Need::Python, gateway::its_api_is_as_it_says),
        (
            "gateway::signed::what_is_signed_is_kept_with_its_row",
            Need::Nothing,
            gateway::signed::what_is_signed_is_kept_with_its_row,
        ),
        (
            "gateway::signed::what_is_not_signed_as_it_should_be_is_refused",
            Need::Nothing,
            gateway::signed::what_is_not_signed_as_it_should_be_is_refused,
        ),
        (
            "gateway::numbered::a_gap_is_named_until_it_is_filled",
            Need::Nothing,
            gateway::numbered::a_gap_is_named_until_it_is_filled,
        ),
        (
            "gateway::oidc::a_token_of_the_issuer_sends_events_of_its_agency",
            Need::Nothing,
            gateway::oidc::a_token_of_the_issuer_sends_events_of_its_agency,
        ),
        ("gateway::what_agencies_send_is_stored", Need::Nothing, gateway::what_agencies_send_is_stored),
        ("maintain::small_files_become_few", Need::Nothing, maintain::small_files_become_few),
        ("maintain::it_begins_no_tables", Need::Nothing, maintain::it_begins_no_tables),
        ("maintain::it_runs_beside_workers", Need::Nothing, maintain::it_runs_beside_workers),
        ("object_store::the_lake_lies_on_s3", Need::Nothing, object_store::the_lake_lies_on_s3),
        ("object_store::a_secret_never_prints", Need::Nothing, object_store::a_secret_never_prints),
        ("history::changes_lead_from_version_to_version", Need::Nothing, history::changes_lead_from_version_to_version),
        ("history::a_row_takes_another_key", Need::Nothing, history::a_row_takes_another_key),
        (
            "history::areas_have_been_in_force_for_their_time",
            Need::Nothing,
            history::areas_have_been_in_force_for_their_time,
        ),
        (
            "log::a_key_that_is_left_is_told_to_its_own_partition",
            Need::Nothing,
            log::a_key_that_is_left_is_told_to_its_own_partition,
        ),
        ("log::an_update_without_a_key_is_one_record", Need::Nothing, log::an_update_without_a_key_is_one_record),
        (
            "log::a_record_has_its_key_whatever_its_source_tells",
            Need::Nothing,
            log::a_record_has_its_key_whatever_its_source_tells,
        ),
        ("areas::answers_are_those_of_the_source", Need::Nothing, areas::answers_are_those_of_the_source),
        ("server::psql_asks_the_same", Need::Psql, server::psql_asks_the_same),
        ("server::a_client_sets_what_is_its_own", Need::Psql, server::a_client_sets_what_is_its_own),
        ("copy::psql_takes_answers_as_files", Need::Psql, copy::psql_takes_answers_as_files),
        ("tools::psql_finds_its_way", Need::Psql, tools::psql_finds_its_way),
        ("tools::each_tool_learns_what_there_is", Need::Nothing, tools::each_tool_learns_what_there_is),
        ("server::it_stops_when_asked", Need::Nothing, server::it_stops_when_asked),
        (
            "slt::each_way_in_gives_the_answers_of_the_files",
            Need::Nothing,
            slt::each_way_in_gives_the_answers_of_the_files,
        ),
        ("scan::finds_what_delta_rs_finds", Need::Nothing, scan::finds_what_delta_rs_finds),
        ("sql::each_format_says_the_same", Need::Nothing, sql::each_format_says_the_same),
        ("sql::a_wrong_statement_is_explained", Need::Nothing, sql::a_wrong_statement_is_explained),
        ("verify::what_is_lost_or_doubled_is_found", Need::Nothing, verify::what_is_lost_or_doubled_is_found),
        ("mistakes::in_a_dataset_file", Need::Nothing, mistakes::in_a_dataset_file),
        ("mistakes::two_files_for_one_dataset", Need::Nothing, mistakes::two_files_for_one_dataset),
        (
            "mistakes::a_dataset_that_does_not_fit_its_table",
            Need::Nothing,
            mistakes::a_dataset_that_does_not_fit_its_table,
        ),
        ("mistakes::in_the_settings", Need::Nothing, mistakes::in_the_settings),
        ("mistakes::no_broker_answers", Need::Nothing, mistakes::no_broker_answers),
        ("mistakes::the_port_is_in_use", Need::Nothing, mistakes::the_port_is_in_use),
        ("mistakes::the_data_is_of_another_version", Need::Nothing, mistakes::the_data_is_of_another_version),
        ("mistakes::the_data_is_in_use", Need::Nothing, mistakes::the_data_is_in_use),
        ("mistakes::the_lake_cannot_be_written_to", Need::Nothing, mistakes::the_lake_cannot_be_written_to),
        ("mistakes::the_disk_is_full", Need::Namespaces, mistakes::the_disk_is_full),
        (
            "policies::each_role_sees_what_it_may_on_each_path",
            Need::Nothing,
            policies::each_role_sees_what_it_may_on_each_path,
        ),
        ("sign_on::commands_say_who_may_sign_in", Need::Nothing, sign_on::commands_say_who_may_sign_in),
        ("sign_on::psql_signs_in", Need::Psql, sign_on::psql_signs_in),
        ("sign_on::flight_signs_in", Need::Nothing, sign_on::flight_signs_in),
        ("sign_on::servers_that_others_reach_need_it", Need::Nothing, sign_on::servers_that_others_reach_need_it),
        ("strangers::by_postgres_are_told_nothing", Need::Nothing, strangers::by_postgres_are_told_nothing),
        ("strangers::no_row_has_room_before_it_comes", Need::Nothing, strangers::no_row_has_room_before_it_comes),
        ("strangers::by_flight_are_told_nothing", Need::Nothing, strangers::by_flight_are_told_nothing),
        ("tls::agencies_show_certificates", Need::Nothing, tls::agencies_show_certificates),
        ("tls::each_way_in_is_encrypted", Need::Psql, tls::each_way_in_is_encrypted),
        ("house::arrows_run_downward", Need::Nothing, house::arrows_run_downward),
        ("house::the_top_level_is_the_given_one", Need::Nothing, house::the_top_level_is_the_given_one),
        ("house::the_readme_names_every_crate", Need::Nothing, house::the_readme_names_every_crate),
        ("house::every_command_has_help", Need::Nothing, house::every_command_has_help),
    ];
    for &(name, need, test) in alone {
        tests.push((name.to_owned(), need, Box::new(test)));
    }
    let on_each_release: [(&str, OnRelease); 5] = [
        ("postgres::a_source_keeps_its_promises", postgres::a_source_keeps_its_promises),
        (
            "postgres::what_is_not_in_order_is_told_with_what_mends_it",
            postgres::what_is_not_in_order_is_told_with_what_mends_it,
        ),
        ("postgres::a_gap_is_never_passed_over", postgres::a_gap_is_never_passed_over),
        ("postgres::columns::each_type_has_one_text", postgres::columns::each_type_has_one_text),
        ("postgres::columns::they_come_and_go", postgres::columns::they_come_and_go),
    ];
    for (name, test) in on_each_release {
        for release in Release::ALL {
            let name = format!("{name}::{}", release.name());
            tests.push((name, Need::Postgres(release), Box::new(move || test(release))));
        }
    }
    tests
}
