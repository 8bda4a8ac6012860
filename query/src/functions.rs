//! Functions that Thai data asks for.
//!
//! What passes through: columns of a query, into columns of its answer. What a value means is for
//! `ruam-transform` to say, so that a question and what comes in are judged by one rule.
//!
//! | function | what it gives |
//! |---|---|
//! | `be_date(text)` | the day that a Thai date names, in any of the ways in which offices write it; null where it names none |
//! | `be_text(date)` | a day as it is written in full, `15 มีนาคม 2530` |
//! | `fiscal_year(date)` | the fiscal year of the Thai state, by the Buddhist era |
//! | `thai_id_valid(text)` | whether it is the number of a citizen or resident |
//! | `baht_text(amount)` | an amount in words, as on a cheque |
//! | `area_name(code, date)` | the name that an administrative area had on a day |
//! | `area_successor(code [, date])` | the codes that replaced one, or that stand for it on a day |
//! | `thai_sort_key(text)` | bytes that sort as a Thai dictionary does |
//! | `thai_words(text)` | the words of a text |
//! | `thai_contains(text, words)` | whether a text has all of some words |
//! | `version()` | what clients of PostgreSQL expect there |
//!
//! Null in is null out. None of them fails on a value.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{ScalarUDF, Signature, SimpleScalarUDF};
use datafusion::prelude::SessionContext;
use ruam_transform::types;

mod area;
mod baht_text;
mod be_date;
mod day;
mod fiscal_year;
mod thai_id_valid;
mod thai_sort_key;
mod thai_words;
mod version;

pub(crate) use area::{AREA_FUNCTIONS, AREA_USAGE};
pub(crate) use thai_sort_key::THAI_SORT_KEY;
pub(crate) use version::POSTGRES;

/// Makes the functions known to a session.
pub(crate) fn register(session: &SessionContext) {
    session.register_udf(be_date::read());
    session.register_udf(be_date::text());
    session.register_udf(fiscal_year::function());
    session.register_udf(thai_id_valid::function());
    session.register_udf(thai_sort_key::function());
    session.register_udf(thai_words::words());
    session.register_udf(thai_words::contains());
    session.register_udf(baht_text::function());
    session.register_udf(area::name());
    session.register_udf(area::successor());
    session.register_udf(version::function());
}

/// A function of one column.
fn function(
    name: &'static str,
    signature: Signature,
    returns: DataType,
    of: impl Fn(&ArrayRef) -> Result<ArrayRef> + Send + Sync + 'static,
) -> ScalarUDF {
    let of = make_scalar_function(move |columns: &[ArrayRef]| of(&columns[0]), Vec::new());
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, returns, Arc::new(of)))
}

/// What a column of text becomes as one of a semantic type; null where it is refused.
fn normalise(semantic_type: &'static str, texts: &ArrayRef) -> Result<ArrayRef> {
    let semantic = types::of_name(semantic_type);
    let semantic = semantic.ok_or_else(|| exec_datafusion_err!("there is no type `{semantic_type}`"))?;
    let arrays = semantic.normalise(texts.as_string(), &mut |_, _| {});
    arrays.into_iter().next().ok_or_else(|| exec_datafusion_err!("`{semantic_type}` is of no column"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::display::array_value_to_string;

    use crate::engine::config;

    /// What an expression is, as text; null is empty.
    async fn value(expression: &str) -> String {
        let session = SessionContext::new_with_config(config());
        register(&session);
        let answer = session.sql(&format!("select {expression}")).await.unwrap().collect().await.unwrap();
        array_value_to_string(answer[0].column(0), 0).unwrap()
    }

    async fn check(cases: &[(&str, &str)]) {
        for (expression, expected) in cases {
            assert_eq!(value(expression).await, *expected, "{expression}");
        }
    }

    #[tokio::test]
    async fn days_of_the_buddhist_era() {
        check(&[
            ("be_date('15 มี.ค. 2530')", "1987-03-15"),
            ("be_date('๑๕/๐๓/๒๕๓๐')", "1987-03-15"),
            ("be_date('15/03/30')", ""),
            ("be_date(null)", ""),
            ("be_date('31/02/2530') is null", "true"),
            ("be_text(date '1987-03-15')", "15 มีนาคม 2530"),
            ("be_text(timestamp with time zone '1987-03-15 23:30:00Z')", "16 มีนาคม 2530"),
            ("be_text(timestamp '1987-03-15 23:30:00')", "15 มีนาคม 2530"),
            ("be_text(null)", ""),
            ("be_text(be_date('31 มีนาคม 2482'))", "31 มีนาคม 2482"),
        ])
        .await;
    }

    #[tokio::test]
    async fn a_fiscal_year_begins_in_october() {
        check(&[
            ("fiscal_year(date '2023-09-30')", "2566"),
            ("fiscal_year(date '2023-10-01')", "2567"),
            ("fiscal_year(date '2024-01-01')", "2567"),
            ("fiscal_year(timestamp '2023-09-30 16:59:59')", "2566"),
            // In Thailand it is seven hours later.
            ("fiscal_year(timestamp with time zone '2023-09-30 16:59:59Z')", "2566"),
            ("fiscal_year(timestamp with time zone '2023-09-30 17:00:00Z')", "2567"),
            ("fiscal_year(to_timestamp_micros(0))", "2513"),
            ("fiscal_year(now()) > 2569", "true"),
            ("fiscal_year(null)", ""),
        ])
        .await;
    }

    #[tokio::test]
    async fn numbers_of_citizens() {
        check(&[
            ("thai_id_valid('1-1120-34563-56-2')", "true"),
            ("thai_id_valid('๑๑๑๒๐๓๔๕๖๓๕๖๒')", "true"),
            ("thai_id_valid('1112034563561')", "false"),
            ("thai_id_valid('')", "false"),
            ("thai_id_valid(null)", ""),
            ("thai_id_valid(arrow_cast('1112034563562', 'Utf8View'))", "true"),
        ])
        .await;
    }

    #[tokio::test]
    async fn amounts_in_words() {
        check(&[
            ("baht_text(121.50)", "หนึ่งร้อยยี่สิบเอ็ดบาทห้าสิบสตางค์"),
            ("baht_text(21)", "ยี่สิบเอ็ดบาทถ้วน"),
            ("baht_text(cast(1000001 as decimal(20, 4)))", "หนึ่งล้านเอ็ดบาทถ้วน"),
            ("baht_text(cast(0.5 as double))", "ห้าสิบสตางค์"),
            ("baht_text(-10.01)", "ลบสิบบาทหนึ่งสตางค์"),
            ("baht_text(0.004)", "ศูนย์บาทถ้วน"),
            ("baht_text(cast('nan' as double))", ""),
            ("baht_text(null)", ""),
        ])
        .await;
    }

    #[tokio::test]
    async fn text_sorts_as_in_a_dictionary() {
        let session = SessionContext::new_with_config(config());
        register(&session);
        // Vowels before a consonant count after it, and tones where nothing else differs; Latin comes last.
        let sorted = ["10", "กก", "กะ", "กา", "ก่า", "เก", "แก", "ขา", "เขา", "ไข่", "ฤทธิ์", "เลย", "ฮา", "Ab"];
        let shuffled: Vec<_> = sorted.iter().rev().map(|text| format!("('{text}')")).collect();
        let sql = format!("select t from (values {}) as v(t) order by thai_sort_key(t)", shuffled.join(", "));
        let answer = session.sql(&sql).await.unwrap().collect().await.unwrap();
        let found: Vec<_> =
            (0..sorted.len()).map(|row| array_value_to_string(answer[0].column(0), row).unwrap()).collect();
        assert_eq!(found, sorted);
    }

    #[tokio::test]
    async fn words_of_thai() {
        check(&[
            ("thai_words('กรมการปกครอง')", "[กรม, การ, ปกครอง]"),
            ("thai_words('อำเภอเเม่ริม จ.เชียงใหม่ 2567')", "[อำเภอ, แม่ริม, จ, เชียงใหม่, 2567]"),
            ("thai_words('')", ""),
            ("thai_words(null)", ""),
            ("thai_contains('ที่ว่าการอำเภอแม่ริม', 'เเม่ริม อำเภอ')", "true"),
            ("thai_contains('ตลาดนัด', 'ตา')", "false"),
            ("thai_contains('Bangkok กรุงเทพ', 'bangkok')", "true"),
            ("thai_contains('กรุงเทพ', ' ')", ""),
            ("thai_contains('กรุงเทพ', '-')", "false"),
            ("thai_contains(null, 'ก')", ""),
        ])
        .await;
    }

    #[tokio::test]
    async fn areas_as_they_were() {
        let session = SessionContext::new_with_config(config());
        register(&session);
        let areas = "(select array_agg(named_struct('code', code, 'name', name, 'valid_from', cast(f as date), \
                     'valid_to', cast(t as date), 'abolished_on', cast(a as date), 'successors', s)) from (values \
                     ('1', 'one', null, '2006-01-01', null, null), ('1', 'one', '2006-01-01', null, '2006-01-01', '2 3'), \
                     ('2', 'two', null, '2010-01-01', null, null), ('2', 'two', '2010-01-01', null, '2010-01-01', '4'), \
                     ('3', 'three', null, null, null, null), ('4', 'four', '2010-01-01', '2012-01-01', null, null), \
                     ('4', 'vier', '2012-01-01', null, null, null), ('5', 'five', null, null, '2000-01-01', '5')) \
                     as v(code, name, f, t, a, s))";
        for (call, expected) in [
            ("area_name(A, '1', date '2005-12-31')", "one"),
            ("area_name(A, '1', date '2006-01-01')", ""),
            ("area_name(A, '4', date '2011-01-01')", "four"),
            ("area_name(A, '4', '2013-01-01')", "vier"),
            ("area_name(A, '9', now())", ""),
            ("area_name(A, null, now())", ""),
            ("area_name(A, '1', null)", ""),
            ("area_name(null, '1', now())", ""),
            ("area_successor(A, '1')", "[2, 3]"),
            ("area_successor(A, '3')", "[]"),
            ("area_successor(A, '9')", ""),
            ("area_successor(A, '1', date '2005-01-01')", "[1]"),
            ("area_successor(A, '1', date '2007-01-01')", "[2, 3]"),
            ("area_successor(A, '1', date '2020-01-01')", "[3, 4]"),
            ("area_successor(A, '5', date '2020-01-01')", "[]"),
            ("area_successor(A, '1', null)", ""),
        ] {
            let sql = format!("select {}", call.replace("(A,", &format!("({areas},")));
            let answer = session.sql(&sql).await.unwrap().collect().await.unwrap();
            assert_eq!(array_value_to_string(answer[0].column(0), 0).unwrap(), expected, "{call}");
        }
    }

    #[tokio::test]
    async fn they_stand_wherever_an_expression_does() {
        let session = SessionContext::new_with_config(config());
        register(&session);
        let sql = "select fiscal_year(day) as year, baht_text(sum(amount)) as paid from (values \
                   (date '2023-09-30', 1.25), (date '2023-10-01', 2), (date '2024-09-30', 3)) as paid(day, amount) \
                   where thai_id_valid('1112034563562') group by fiscal_year(day) order by fiscal_year(day)";
        let answer = session.sql(sql).await.unwrap().collect().await.unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&answer).unwrap().to_string();
        assert!(text.contains("หนึ่งบาทยี่สิบห้าสตางค์") && text.contains("ห้าบาทถ้วน"), "{text}");
    }
}
