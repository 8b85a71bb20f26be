//! Precedence, and errors that say where.

use std::collections::HashMap;

use super::*;

fn load_with(toml: &str, vars: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    #[derive(clap::Parser)]
    struct Args {
        #[command(flatten)]
        flags: Flags,
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("aigateway.toml");
    std::fs::write(&path, toml).unwrap();
    let mut flags = <Args as clap::Parser>::parse_from([&["x"], flags].concat()).flags;
    flags.config = Some(path);
    flags.data_dir = flags.data_dir.or(Some(temp.path().to_owned()));
    let vars: HashMap<String, String> = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    load(&flags, &|name| vars.get(name).cloned())
}

fn error(toml: &str, vars: &[(&str, &str)]) -> String {
    load_with(toml, vars, &[]).unwrap_err().to_string()
}

#[test]
fn with_nothing_everything_has_a_default() {
    let config = load_with("", &[], &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert!(config.is_embedded());
    assert_eq!(config.defaults.video, "sandbox/video");
    assert_eq!(config.private_targets().len(), 2);
    assert_eq!(config.tasks.lease_times().renew, Duration::from_secs(20));
}

#[test]
fn flags_go_before_variables_before_the_file() {
    let toml = "listen = '127.0.0.1:1'";
    assert_eq!(load_with(toml, &[], &[]).unwrap().listen.port(), 1);
    assert_eq!(load_with(toml, &[("AIG_LISTEN", "127.0.0.1:2")], &[]).unwrap().listen.port(), 2);
    let all = load_with(toml, &[("AIG_LISTEN", "127.0.0.1:2")], &["--listen", "127.0.0.1:3"]);
    assert_eq!(all.unwrap().listen.port(), 3);
}

#[test]
fn providers_are_read_with_their_keys() {
    let toml = "[providers.up]\nkind = 'openai'\nbase_url = 'https://api.example.com/v1'\napi_key_env = 'KEY'\nmodels = '*'\n\
                quirks = ['no_stream_options']\n[providers.gw]\nkind = 'aigateway'\nbase_url = 'http://gw'\nmodels = ['a', 'b']\n\
                idempotent_submit = true\n[models.'gw/a']\ndeadline_seconds = 1.5\n";
    let config = load_with(toml, &[("KEY", "secret")], &[]).unwrap();
    assert_eq!(config.providers.len(), 2);
    assert!(config.providers[0].idempotent_submit);
    assert_eq!(config.providers[1].api_key.as_ref().unwrap().expose(), "secret");
    assert_eq!(config.deadlines["gw/a"], Duration::from_millis(1500));
    assert!(!format!("{config:?}").contains("\"secret\""), "secrets_never_logged");
}

#[test]
fn errors_name_the_file_and_the_line() {
    let provider = "[providers.up]\nkind = 'openai'\nmodels = '*'\n";
    for (toml, line, words) in [
        ("\nlisten_to = 'x'", 2, "unknown field `listen_to`"),
        ("[server]\nmax_conections = 5", 2, "unknown field `max_conections`"),
        ("[server]\n\nmax_connections = 'x'", 3, "invalid type"),
        ("[chat]\nidle_seconds = -1", 2, "seconds above 0"),
        ("a = ", 1, ""),
        (&format!("{provider}base_url = 'ftp://x'"), 4, "http or https"),
        (&format!("{provider}base_url = 'http://x'\napi_key_env = 'NOPE'"), 5, "NOPE is not set"),
        (&provider.replace("'*'", "'x'\nbase_url = 'http://x'"), 3, "list of names"),
        ("[models.'a/b']\ndeadline_seconds = 0", 2, "deadline_seconds"),
        ("[models.'a/b']\n\ncents_per_mesh = -1", 3, "cents_per_mesh is below zero"),
        ("[models.'a/b']\ncents_per_mesh = 1.00000000001", 2, "more decimal places than can be kept: 10"),
        ("[models.'a/b']\ninput_cents_per_million = '0.00001'", 2, "more decimal places than can be kept: 4"),
        ("[models.'a/b']\ninput_cents_per_million = 1_000_001", 2, "more than 1000000 cents"),
        ("[models.'a/b']\ninput_cents_per_million = inf", 2, "not a decimal number"),
        ("[models.'a/b']\ninput_cents_per_million = '1 c'", 2, "not a decimal number"),
        ("[models.'a/b']\ninput_cents_per_million = true", 2, ""),
        ("[models.'a/b']\ncents_per_video = 1", 2, "unknown field"),
        ("[models.'a/b']\nmax_input_tokens = -1", 2, ""),
        ("[prices]\nmargin_percent = 1001", 2, "from 0 to 1000"),
        ("[prices]\nmargin_percent = -1", 2, "from 0 to 1000"),
        ("[prices]\nmargin_percent = 2.555", 2, "decimal places"),
        ("[prices]\nmargin = 2", 2, "unknown field"),
        ("[prices]\nreload_interval_ms = 49", 2, "at least 50"),
    ] {
        let error = error(toml, &[]);
        assert!(error.contains(&format!("aigateway.toml:{line}: ")) && error.contains(words), "{error}");
    }
}

#[test]
fn prices_are_taken_digit_by_digit() {
    let toml = "[models.'up/m']\ninput_cents_per_million = '15'\noutput_cents_per_million = 0.375\n\
                cached_input_cents_per_million = 1_0.000_1\nmax_output_tokens = 4096\n[models.'up/n']\ncents_per_image = 4\n\
                cents_per_video_second = 1e-3\ncents_per_music_second = 0\ncents_per_mesh = \"0.0000000001\"\n\
                cents_per_request = 1000000\n[models.'up/o']\ndeadline_seconds = 1\n[prices]\nmargin_percent = 2.5\n";
    let prices = load_with(toml, &[], &[]).unwrap().prices;
    let pico = |id: &str| prices.models[id].list.iter().map(|(unit, pico)| (unit.as_str(), pico.0)).collect::<Vec<_>>();
    assert_eq!(pico("up/m"), [("input", 150_000), ("output", 3750), ("cached_input", 100_001)]);
    let n = [
        ("image", 40_000_000_000),
        ("video_second", 10_000_000),
        ("music_second", 0),
        ("mesh", 1),
        ("request", 10_000_000_000_000_000),
    ];
    assert_eq!(pico("up/n"), n);
    assert_eq!(prices.models["up/m"].limits.max_output_tokens, Some(4096));
    assert!(!prices.models.contains_key("up/o"));
    assert_eq!(prices.margin_bp, 250);
    let margin =
        |value: &str| load_with(&format!("[prices]\nmargin_percent = {value}"), &[], &[]).unwrap().prices.margin_bp;
    assert_eq!([margin("0"), margin("'1000'"), margin("0.01")], [0, 100_000, 1]);
    assert_eq!(load_with("", &[], &[]).unwrap().prices.margin_bp, 500);
}

#[test]
fn what_cannot_work_is_refused() {
    for (toml, vars, words) in [
        ("", ("AIG_LISTEN", "8080"), "ADDRESS:PORT"),
        ("", ("AIG_LISTEN", "0.0.0.0:8080"), "AIG_PUBLIC_URL must be set"),
        ("", ("AIG_DATABASE_URL", "mysql://u:pw@h/d"), "sqlite: or postgres://"),
        ("", ("AIG_BROKER_URL", "kafka://u:pw@h"), "amqp://"),
        ("", ("AIG_CACHE_URL", "memcached://u:pw@h"), "redis://"),
        ("", ("AIG_FILES_URL", "ftp://u:pw@h"), "file:///path"),
        ("", ("AIG_PREFIX", "a b"), "letters, digits"),
        ("", ("AIG_HEALTH_LISTEN", "8081"), "ADDRESS:PORT"),
        ("[worker]\nqueues = ['vidoe']", ("X", "x"), "no queue `vidoe`"),
        ("", ("AIG_PUBLIC_URL", "example.com"), "http or https"),
        ("", ("AIG_PRIVATE_TARGETS", "10.0.0.0"), "ADDRESS/BITS"),
        ("", ("AIG_SECRET_KEY_FILE", "/no/such/file"), "cannot be read"),
        ("[tasks]\ndispatch_interval_ms = 1", ("X", "x"), "at least 10"),
        ("[worker]\nconcurrency = 0", ("X", "x"), "at least 1"),
    ] {
        let error = error(toml, &[vars]);
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("pw"), "no password in an error: {error}");
    }
    let wildcard = [("AIG_LISTEN", "0.0.0.0:8080"), ("AIG_PUBLIC_URL", "https://gw.example.com/")];
    let config = load_with("", &wildcard, &[]).unwrap();
    assert_eq!(config.public_url.as_deref(), Some("https://gw.example.com"));
    assert!(config.private_targets().is_empty(), "nothing private is open to the world");
}

#[test]
fn a_role_of_its_own_says_what_it_lacks() {
    let all = [
        ("AIG_DATABASE_URL", "postgres://u:pw@h/d"),
        ("AIG_BROKER_URL", "amqp://u:pw@h"),
        ("AIG_CACHE_URL", "redis://h"),
        ("AIG_FILES_URL", "s3://bucket?region=x"),
        ("AIG_PUBLIC_URL", "https://gw.example.com"),
    ];
    let check = |vars: &[(&str, &str)]| load_with("", vars, &[]).unwrap().check_split(SplitRole::Worker);
    assert!(check(&all).is_ok());
    for (missing, (name, _)) in all.iter().enumerate() {
        let vars: Vec<_> = all.iter().enumerate().filter(|(index, _)| *index != missing).map(|(_, var)| *var).collect();
        let error = check(&vars).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("aigateway worker") && !error.contains("pw"), "{error}");
    }
}

#[test]
fn tiers_limit_and_an_unknown_one_gets_the_least() {
    let tiers = load_with("[tiers]\npaid = 60\n", &[], &[]).unwrap().tiers;
    let limit = |tier: &str| tiers.per_minute(tier).map(std::num::NonZero::get);
    assert_eq!([limit("unlimited"), limit("free"), limit("paid"), limit("?")], [None, Some(10), Some(60), Some(10)]);
}

#[test]
fn docs_configuration_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(path, reference::page()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == reference::page(), "docs/configuration.md is stale: run UPDATE=1 cargo test -p aig-platform");
}

#[test]
fn every_setting_of_the_file_is_on_the_page() {
    let page = reference::page();
    for source in [include_str!("file.rs"), include_str!("prices.rs"), include_str!("sections.rs")] {
        let names = source.lines().filter_map(|line| {
            let line = line.trim();
            let renamed = line.strip_prefix("#[serde(rename = \"").and_then(|rest| rest.split('"').next());
            let field = line.strip_prefix("pub(super) ").or(line.strip_prefix("pub ")).unwrap_or(line);
            let plain = field.ends_with("64,")
                || field.ends_with("Decimal>>,")
                || field.ends_with("u32,")
                || field.ends_with("usize,");
            renamed.or(plain.then(|| field.split(':').next().unwrap_or_default()))
        });
        for name in names {
            assert!(page.contains(name), "`{name}` is missing in docs/configuration.md");
        }
    }
    for name in include_str!("load.rs").split('"').filter(|word| word.starts_with("AIG_") && !word.contains(' ')) {
        assert!(page.contains(name), "`{name}` is missing in docs/configuration.md");
    }
}
