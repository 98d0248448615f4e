//! Options that have no effect in a combination: what a person set, and what takes it away.
//!
//! The table is the only place that knows of such combinations. Options that contradict one another
//! are refused by the parser; of those that merely do nothing, the program says so and goes on.

use clap::ArgMatches;
use clap::parser::ValueSource;

use brooklet_core::cache::{LayoutChoice, PolicyKind};

use super::dimensions::is_dimensions;
use crate::notice::Notice;

/// Options that do nothing if a condition holds.
struct Rule {
    /// Subcommands that it is about.
    commands: &'static [&'static str],
    /// The options, by their long names.
    options: &'static [&'static str],
    /// The condition.
    when: fn(&Given<'_>) -> bool,
    /// The reason, as a person reads it.
    reason: &'static str,
}

/// The options of a command line.
struct Given<'m>(&'m ArgMatches);

impl Given<'_> {
    /// True if a person wrote the option.
    fn has(&self, option: &str) -> bool {
        let id = option.replace('-', "_");
        self.0.try_contains_id(&id).is_ok()
            && self.0.value_source(&id) == Some(ValueSource::CommandLine)
    }

    /// The value of an option, its default included.
    fn value<T: Clone + Send + Sync + 'static>(&self, id: &str) -> Option<T> {
        self.0.try_get_one::<T>(id).ok().flatten().cloned()
    }

    fn is(&self, flag: &str) -> bool {
        self.value(flag) == Some(true)
    }

    fn policy_is(&self, policies: &[PolicyKind]) -> bool {
        self.value("policy")
            .is_some_and(|policy| policies.contains(&policy))
    }
}

const RULES: &[Rule] = &[
    Rule {
        commands: &["run", "chat"],
        options: &["top-k", "top-p", "min-p", "typical-p", "seed"],
        when: |given| given.value::<f32>("temp") == Some(0.0),
        reason: "with --temp 0 the most probable token is always taken",
    },
    Rule {
        commands: &["run", "chat"],
        options: &["repeat-last-n"],
        when: |given| {
            given.value("repeat_penalty") == Some(1.0f32)
                && given.value("presence_penalty") == Some(0.0f32)
                && given.value("frequency_penalty") == Some(0.0f32)
        },
        reason: "there is no penalty (--repeat-penalty, --presence-penalty or --frequency-penalty)",
    },
    Rule {
        commands: &["run", "chat"],
        options: &["repeat-penalty", "presence-penalty", "frequency-penalty"],
        when: |given| given.value::<usize>("repeat_last_n") == Some(0),
        reason: "--repeat-last-n 0 leaves no tokens to penalise",
    },
    Rule {
        commands: &["run", "plan", "bench"],
        options: &["sinks"],
        when: |given| {
            given.policy_is(&[PolicyKind::Window, PolicyKind::Dense, PolicyKind::Recompute])
        },
        reason: "only the policy sink has sinks",
    },
    Rule {
        commands: &["ppl"],
        options: &["sinks"],
        when: |given| {
            given.policy_is(&[PolicyKind::Window, PolicyKind::Recompute])
                || (given.policy_is(&[PolicyKind::Dense]) && !given.is("sink_mass"))
        },
        reason: "only the policy sink has sinks",
    },
    Rule {
        commands: &["plan"],
        options: &[
            "bandwidth",
            "ram",
            "policy",
            "sinks",
            "window",
            "ctx-size",
            "cache-type",
            "cache",
            "threads",
            "skip-weights",
            "no-mmap",
        ],
        when: |given| {
            given
                .value("model")
                .is_some_and(|model: String| is_dimensions(&model))
        },
        reason: "a table of dimensions has no cache of its own",
    },
    Rule {
        commands: &["plan"],
        options: &["skip-weights"],
        when: |_| true,
        reason: "it changes no byte of the arena",
    },
    Rule {
        commands: &["slim"],
        options: &["bound"],
        when: |given| given.value("layout") == Some(LayoutChoice::K),
        reason: "--layout k takes keys alone, whatever the error",
    },
];

/// Notices of the options that have no effect on a parsed command line.
pub fn ignored(matches: &ArgMatches) -> Vec<Notice> {
    let Some((name, matches)) = matches.subcommand() else {
        return Vec::new();
    };
    let given = Given(matches);
    let mut notices: Vec<Notice> = Vec::new();
    let rules = RULES.iter().filter(|rule| rule.commands.contains(&name));
    for rule in rules.filter(|rule| (rule.when)(&given)) {
        for option in rule.options.iter().filter(|option| given.has(option)) {
            let option = format!("--{option}");
            let is_said = notices.iter().any(
                |notice| matches!(notice, Notice::OptionIgnored { option: said, .. } if *said == option),
            );
            if !is_said {
                let reason = rule.reason;
                notices.push(Notice::OptionIgnored { option, reason });
            }
        }
    }
    notices
}

#[cfg(test)]
mod tests;
