//! `brooklet plan`: what every byte is for, and the window that each budget buys.

use std::io::{self, Write};

use brooklet_core::model::Config;
use brooklet_core::plan::Plan;
use clap::Args;
use serde::Serialize;

use super::cache::CacheArguments;
use super::model::ModelArguments;
use super::write_json;
use crate::Error;
use crate::engine::Weights;
use crate::planning::Settings;
use crate::size::Size;
use crate::slim;

/// Budgets of the table, in MiB.
const BUDGETS: [usize; 10] = [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];

/// Arguments of `brooklet plan`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Most memory of the arena, for example 64MiB
    #[arg(long, value_name = "BYTES")]
    ram: Option<Size>,
    #[command(flatten)]
    cache: CacheArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct PartRow {
    purpose: &'static str,
    bytes: usize,
}

#[derive(Serialize)]
struct BudgetRow {
    budget_bytes: usize,
    window: usize,
    capacity: usize,
    arena_bytes: usize,
}

#[derive(Serialize)]
struct Report {
    policy: &'static str,
    sinks: usize,
    window: usize,
    capacity: usize,
    trained_context: usize,
    cache_type: &'static str,
    chunk: usize,
    threads: usize,
    bytes_per_token: usize,
    arena_bytes: usize,
    weights_bytes: usize,
    parts: Vec<PartRow>,
    budgets: Vec<BudgetRow>,
}

/// Prints the plan of a run with these options.
pub fn plan(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Error> {
    let open = arguments.model.open()?;
    let weights = Weights::read(&open.file)?;
    let settings = Settings {
        budget: arguments.ram.map(|size| size.0),
        ..arguments.cache.settings(&open)?
    };
    let plan = settings.plan(weights.config(), weights.tokenizer_bytes())?;
    let options = plan.options();
    let report = Report {
        policy: options.policy.name(),
        sinks: options.policy.sinks(),
        window: options.policy.window(),
        capacity: plan.capacity(),
        trained_context: weights.config().context,
        cache_type: options.cache_type.name(),
        chunk: options.chunk,
        threads: options.workers,
        bytes_per_token: bytes_per_token(weights.config(), &plan),
        arena_bytes: plan.bytes(),
        weights_bytes: open.file.len(),
        parts: plan
            .parts()
            .map(|(part, bytes)| PartRow {
                purpose: part.name(),
                bytes,
            })
            .collect(),
        budgets: budgets(&settings, &weights),
    };
    if arguments.json {
        write_json(out, &report)
    } else {
        report.text(out).map_err(Error::Output)
    }
}

/// What one more token of window takes from the cache.
fn bytes_per_token(config: &Config, plan: &Plan) -> usize {
    let options = plan.options();
    (0..config.layers)
        .map(|layer| slim::bytes_per_token(config, options.cache_type, options.layout_of(config, layer)))
        .sum()
}

/// The largest windows, up to the first budget that holds the whole trained context.
fn budgets(settings: &Settings, weights: &Weights<'_>) -> Vec<BudgetRow> {
    let mut rows = Vec::new();
    for budget in BUDGETS {
        let budget = budget << 20;
        let Ok(plan) = settings.largest(weights.config(), weights.tokenizer_bytes(), budget) else {
            continue;
        };
        rows.push(BudgetRow {
            budget_bytes: budget,
            window: plan.options().policy.window(),
            capacity: plan.capacity(),
            arena_bytes: plan.bytes(),
        });
        if plan.capacity() >= weights.config().context {
            break;
        }
    }
    rows
}

impl Report {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "policy {}: {} sinks and a window of {}, cache in {}, chunks of {}, {} threads\n",
            self.policy, self.sinks, self.window, self.cache_type, self.chunk, self.threads
        )?;
        for part in &self.parts {
            writeln!(out, "{:>12}  {}", part.bytes, part.purpose)?;
        }
        writeln!(
            out,
            "{:>12}  the arena: {}",
            self.arena_bytes,
            Size(self.arena_bytes)
        )?;
        writeln!(
            out,
            "{:>12}  weights, mapped from the file: not in the arena",
            self.weights_bytes
        )?;
        writeln!(
            out,
            "\nA token in the cache takes {} bytes; the model was trained for {}.\n",
            self.bytes_per_token, self.trained_context
        )?;
        writeln!(out, "{:>12}  {:>8}  arena", "budget", "window")?;
        for row in &self.budgets {
            let (budget, arena) = (
                Size(row.budget_bytes).to_string(),
                Size(row.arena_bytes).to_string(),
            );
            writeln!(out, "{budget:>12}  {:>8}  {arena}", row.window)?;
        }
        Ok(())
    }
}
