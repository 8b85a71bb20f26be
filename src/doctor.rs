//! `aigateway doctor`: whether everything in the database is as it must be, jobs and money above all. It only reads, and may run
//! beside servers.

use std::time::Duration;

use aig_platform::Config;
use aig_store::{Finding, Store};
use anyhow::bail;

use crate::beside::with_store;

/// What is late for less than this is work under way.
const GRACE: Duration = Duration::from_mins(5);

/// Asks, says what was found, and ends; with an error when something was.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let findings = with_store(&config, async |store, clock| Ok(store.doctor(clock.now().minus(GRACE)).await?)).await?;
    say(&report(&findings));
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} findings"),
    }
}

/// The findings, by the rule they break.
fn report(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return format!("{} rules, no finding.\n", Store::doctor_rules());
    }
    let of_one_rule = findings.chunk_by(|a, b| a.rule == b.rule).map(|findings| {
        let lines = findings.iter().map(|Finding { subject, detail, .. }| format!("  {subject}: {detail}\n"));
        format!("Broken: {}.\n{}", findings[0].rule, lines.collect::<String>())
    });
    of_one_rule.collect()
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn say(text: &str) {
    print!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_stand_under_the_rule_they_break() {
        let finding = |rule, subject: &str| Finding { rule, subject: subject.into(), detail: "off".into() };
        let text = report(&[finding("a", "x"), finding("a", "y"), finding("b", "z")]);
        assert_eq!(text, "Broken: a.\n  x: off\n  y: off\nBroken: b.\n  z: off\n");
        assert_eq!(report(&[]), "12 rules, no finding.\n");
    }
}
