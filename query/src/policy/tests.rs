use super::*;
use proptest::prelude::*;

use crate::fixture::dataset;

fn datasets() -> Vec<Arc<QueryDataset>> {
    vec![dataset("name")]
}

fn read(text: &str) -> Result<Policies, String> {
    let read = Policies::read(&[("p/r.toml".to_owned(), text.to_owned())], &datasets(), &PseudonymKey::default());
    read.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn each_mistake_has_its_place_and_remedy() {
    let grant = |rest: &str| format!("role = \"r\"\n[[grant]]\ndatasets = [\"a.b\"]\n{rest}");
    for (text, expected) in [
        ("rol = \"r\"", "p/r.toml:1: rol: `rol` is not a key that is known here. Did you mean `role`?"),
        ("role = \"a b\"", "p/r.toml:1: role: `a b` cannot name a role"),
        (
            "role = \"r\"\n[[grant]]\ndatasets = [\"a.c\"]",
            "p/r.toml:3: grant.datasets: there is no dataset `a.c`. Did you mean `a.b`?",
        ),
        (&grant("rows = \"numbr > 1\""), "p/r.toml:4: grant.rows: for `a.b`: "),
        (
            &grant("rows = \"number + 1\""),
            "p/r.toml:4: grant.rows: for `a.b`: it is of type Int64, and neither true nor false",
        ),
        (&grant("rows = \"number > random()\""), "p/r.toml:4: grant.rows: for `a.b`: it is not the same each time"),
        (&grant("rows = \"number in (select 1)\""), "p/r.toml:4: grant.rows: for `a.b`: "),
        (
            &grant("masks = [{ column = \"nam\" }]"),
            "p/r.toml:4: grant.masks: there is no column `nam` in what is granted. Did you mean `name`?",
        ),
        (
            &grant("masks = [{ type = \"texts\" }]"),
            "p/r.toml:4: grant.masks: `texts` is not a semantic type. Did you mean `text`?",
        ),
        (&grant("masks = [{ with = \"null\" }]"), "p/r.toml:4: grant.masks: it does not say what it masks"),
        (
            &grant("masks = [{ column = \"number\", with = \"pseudonym\" }]"),
            "p/r.toml:4: grant.masks: column `number` of `a.b` is no text",
        ),
        (
            &grant("parts = [\"rejects\"]\nrows = \"number > 1\""),
            "p/r.toml:4: grant.parts: what `a.b` refused is kept as it came in",
        ),
        (
            &grant("[limits]\nsecond = 1"),
            "p/r.toml:5: second: `second` is not a key that is known here. Did you mean `seconds`?",
        ),
        (
            &grant("[limits]\nseconds = 5\nmemory_mb = 16"),
            "p/r.toml:4: limits.memory_mb: with 16 MB nothing can be sorted, not even on disk. Write 64 or more",
        ),
        (&grant("[limits]\nread_mb = 0"), "p/r.toml:4: limits.read_mb: with 0 of it nothing is answered. Write how"),
    ] {
        let found = read(text).err().unwrap_or_default();
        assert!(found.starts_with(expected), "{text}\n{found}");
    }
    let file = ("p/r.toml".to_owned(), "role = \"r\"".to_owned());
    let twice = Policies::read(&[file.clone(), file], &datasets(), &PseudonymKey::default()).unwrap_err();
    assert_eq!(twice[0].problem, "role `r` has a file already");
}

#[test]
fn of_several_roles_each_adds() {
    let file = |name: &str, rest: &str| {
        let text = format!("role = \"{name}\"\n[[grant]]\ndatasets = [\"*\"]\npurpose = \"any\"\n{rest}");
        (format!("p/{name}.toml"), text)
    };
    let files = [
        file("few", "rows = \"number > 1\"\n[limits]\nrows = 10\nseconds = 5\nmemory_mb = 64\nread_mb = 100"),
        file("masked", "masks = [{ column = \"name\" }]\n[limits]\nrows = 20"),
        file("all", ""),
    ];
    let policies = Policies::read(&files, &datasets(), &PseudonymKey::default()).unwrap();
    let (datasets, spec) = (datasets(), &datasets()[0].spec.clone());
    let caller = |roles: &[&str]| Caller::new("a", roles.iter().map(ToString::to_string), "test");
    let sight = |roles: &[&str]| policies.sight(&caller(roles), spec, Part::Rows, None).unwrap();
    assert!(sight(&["few"]).is_some_and(|sight| sight.rows.is_some() && sight.columns.is_empty()));
    assert!(sight(&["masked"]).is_some_and(|sight| sight.rows.is_none() && sight.columns.len() == 1));
    let both = sight(&["few", "masked"]).unwrap();
    assert!(both.rows.is_none() && both.columns["name"].to_string().starts_with("CASE WHEN number >"), "{both:?}");
    assert!(sight(&["few", "masked", "all"]).is_some_and(|sight| sight.is_clear()));
    assert!(sight(&[]).is_none() && sight(&["nobody"]).is_none());
    assert!(!policies.may_see(&caller(&["all"]), datasets[0].spec.id(), Part::Rejects), "those are granted apart");
    assert_eq!(policies.limits(&caller(&["few", "masked"])), Limits { rows: Some(20), ..Limits::default() });
    let few = Limits { memory_mb: Some(64), read_mb: Some(100), ..Limits::default() };
    assert_eq!(policies.limits(&caller(&["few"])), Limits { rows: Some(10), seconds: Some(5), ..few });
    assert!(policies.may_see(&Caller::system("test"), datasets[0].spec.id(), Part::Rejects));
}

proptest! {
    #[test]
    fn no_text_breaks_it(text in ".{0,200}", rows in ".{0,60}") {
        let _ = read(&text);
        let _ = read(&format!("role = \"r\"\n[[grant]]\ndatasets = [\"*\"]\nrows = {rows:?}"));
    }
}
