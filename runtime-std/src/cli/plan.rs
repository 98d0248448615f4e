//! `brooklet plan`: the purpose of every byte, and the window that fits each budget.

use std::io::{self, Write};

use brooklet_core::cache::Layout;
use brooklet_core::cache::LayoutChoice;
use brooklet_core::model::{Config, Family, MAX_SLIM_LAYERS};
use brooklet_core::plan::Plan;
use clap::Args;
use serde::Serialize;

use super::cache::{CacheArguments, RamArguments};
use super::dimensions::{dimensions, is_dimensions};
use super::failure::Failure;
use super::json::{Noted, Said, write_json};
use super::model::ModelArguments;
use super::run::{Kept, planned};
use super::traffic::{Weights, cache_bytes, slots};
use crate::convert::slim;
use crate::model::Model;
use crate::notice::{Notice, Notices};
use crate::planning::{Needs, PREFILL_SHARE, Settings};
use crate::size::{Size, SizeError};
use crate::stated::SlimErrors;

/// Budgets of the table, in MiB.
const BUDGETS: [usize; 10] = [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];

/// Arguments of `brooklet plan`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    ram: RamArguments,
    #[command(flatten)]
    cache: CacheArguments,
    /// Bytes that the machine reads a second, for example 17GB (`brooklet bench` measures it):
    /// adds the tokens a second that decoding cannot exceed
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = rate)]
    bandwidth: Option<Size>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Reads a number of bytes a second, which is not 0.
fn rate(text: &str) -> Result<Size, String> {
    match text.parse() {
        Ok(Size(0)) => Err("nothing is read at 0 bytes a second".into()),
        Ok(size) => Ok(size),
        Err(error) => Err(SizeError::to_string(&error)),
    }
}

/// Bytes and operations of a decoded token: with an empty cache, and with a full one.
#[derive(Serialize)]
struct TokenRow {
    bytes: [usize; 2],
    products: [u64; 2],
    /// Tokens a second if nothing but reading took time.
    most_tps: Option<[f64; 2]>,
}

impl TokenRow {
    /// `None` for a model that hears: its tokens read what the encoder has left, too.
    fn of(model: &Model, plan: &Plan, bandwidth: Option<Size>) -> Option<TokenRow> {
        if model.config().encoder.get().is_some() {
            return None;
        }
        let weights = Weights::of(model.gguf());
        let (config, options) = (model.config(), plan.options());
        let shape = config.shape();
        let attention =
            |layer| shape.products(options.layout_of(config, layer), slots(config, plan, layer));
        let attention: u64 = (0..config.layers).map(attention).sum();
        let cache = cache_bytes(model, plan, plan.capacity());
        let bytes = [weights.bytes(), weights.bytes() + cache];
        Some(TokenRow {
            bytes,
            products: [weights.products(), weights.products() + attention],
            most_tps: bandwidth.map(|rate| bytes.map(|bytes| rate.0 as f64 / bytes as f64)),
        })
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let [empty, full] = self.bytes.map(Size);
        let [least, most] = self.products.map(|products| products as f64 * 1e-6);
        write!(
            out,
            "Decoding a token reads {empty}, with a full cache {full}, for {least:.1} to {most:.1} million multiply-adds"
        )?;
        match self.most_tps {
            Some([empty, full]) => writeln!(
                out,
                ":\nat most {empty:.1} tokens/s at that bandwidth, with a full cache {full:.1}."
            ),
            None => writeln!(out, "."),
        }
    }
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
    /// Tokens of a prompt that are computed at once.
    chunk: usize,
    /// The window of `--window max`, and its chunk.
    largest_window: usize,
    largest_window_chunk: usize,
    capacity: usize,
    arena_bytes: usize,
}

/// One layout in the comparison.
#[derive(Serialize)]
struct LayoutRow {
    layout: &'static str,
    bytes_per_token: usize,
    /// Multiply-adds of a token's attention with a full cache, all layers.
    products_per_token: u64,
    /// Largest relative error of a layer's attention output, as `brooklet slim` measured it with
    /// this type of cache.
    error: Option<f64>,
    /// Windows for the budgets of the table.
    windows: Vec<usize>,
    note: &'static str,
}

/// Layers that keep only a local window.
#[derive(Serialize)]
struct LocalRow {
    layers: usize,
    window: usize,
    bytes: usize,
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
    local_layers: Option<LocalRow>,
    arena_bytes: usize,
    weights_bytes: usize,
    parts: Vec<PartRow>,
    budgets: Vec<BudgetRow>,
    token: Option<TokenRow>,
    layouts: Vec<LayoutRow>,
    smallest_layout: &'static str,
    why: &'static str,
}

/// Prints the plan of a run with these options.
pub fn plan(
    arguments: &Arguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if is_dimensions(&arguments.model.model) {
        return dimensions(&arguments.model.model, arguments.json, out);
    }
    let open = arguments.model.open()?;
    let (model, manifest) = open.check(arguments.cache.compute.workers())?;
    let model = arguments.cache.compute.tuned(model, &mut notices)?;
    let settings = Settings {
        budget: arguments.ram.budget(),
        ..arguments.cache.settings(&model, manifest.as_ref())?
    };
    let plan = planned(&model, &settings, &mut notices)?;
    let options = plan.options();
    let budgets = budgets(&settings, &model);
    let config = model.config();
    let (smallest, why) = match config.shape().pick() {
        (Layout::X, _) if config.alibi.get().is_some() => (
            Layout::Kv,
            "scores have a bias by distance (ALiBi), for which keys and values are cached",
        ),
        (smallest, why) => (smallest, why.text()),
    };
    let token = TokenRow::of(&model, &plan, arguments.bandwidth);
    if token.is_none() && arguments.bandwidth.is_some() {
        notices.add(Notice::OptionIgnored {
            option: "--bandwidth".into(),
            reason: "the tokens of a model that hears read what its encoder has left, too",
        });
    }
    let report = Report {
        token,
        layouts: layouts(&settings, &model, &plan, &budgets),
        smallest_layout: smallest.name(),
        why,
        policy: options.policy.name(),
        sinks: options.policy.sinks(),
        window: options.policy.window(),
        capacity: plan.capacity(),
        trained_context: model.config().context,
        cache_type: options.cache_type.name(),
        chunk: options.chunk,
        threads: options.workers,
        bytes_per_token: bytes_per_token(model.config(), &plan, |layer| {
            options.layout_of(model.config(), layer)
        }),
        local_layers: local_layers(model.config(), &plan),
        arena_bytes: plan.bytes(),
        weights_bytes: model.file().len(),
        parts: plan
            .parts()
            .map(|(part, bytes)| PartRow {
                purpose: part.name(),
                bytes,
            })
            .collect(),
        budgets,
    };
    if arguments.json {
        let notices = Said(&notices);
        write_json(out, &Noted { report, notices })
    } else {
        report.text(out).map_err(Failure::Output)
    }
}

/// Bytes of cache that one more token of window takes: nothing in a local layer that has its own
/// window already.
fn bytes_per_token(config: &Config, plan: &Plan, of_layer: impl Fn(usize) -> Layout) -> usize {
    (0..config.layers)
        .filter(|layer| slots(config, plan, *layer) == plan.capacity())
        .map(|layer| slim::bytes_per_token(config, plan.options().cache_type, of_layer(layer)))
        .sum()
}

/// The layers that keep no more than a local window, if there are any.
fn local_layers(config: &Config, plan: &Plan) -> Option<LocalRow> {
    let is_full = |layer: &usize| slots(config, plan, *layer) < plan.capacity();
    let layers = (0..config.layers).filter(is_full).count();
    let window = config.kinds.smallest_window().filter(|_| layers > 0)?;
    let token = slim::bytes_per_token(config, plan.options().cache_type, Layout::Kv);
    Some(LocalRow {
        layers,
        window,
        bytes: layers * window * token,
    })
}

/// The largest windows, up to the first budget that holds the whole trained context.
fn budgets(settings: &Settings, model: &Model) -> Vec<BudgetRow> {
    let mut rows = Vec::new();
    for budget in BUDGETS {
        let budget = budget << 20;
        let needs = model.needs_with_index();
        let plans = (
            settings.balanced(&needs, budget),
            settings.largest(&needs, budget),
        );
        let (Ok(plan), Ok(largest)) = plans else {
            continue;
        };
        rows.push(BudgetRow {
            budget_bytes: budget,
            window: plan.options().policy.window(),
            chunk: plan.options().chunk,
            largest_window: largest.options().policy.window(),
            largest_window_chunk: largest.options().chunk,
            capacity: plan.capacity(),
            arena_bytes: plan.bytes(),
        });
        if plan.capacity() >= model.config().context {
            break;
        }
    }
    rows
}

/// The bytes, operations and windows of each layout.
fn layouts(
    settings: &Settings,
    model: &Model,
    plan: &Plan,
    budgets: &[BudgetRow],
) -> Vec<LayoutRow> {
    let config = model.config();
    let shape = config.shape();
    let is_slim = config.layouts.any_slim();
    let cache_type = plan.options().cache_type;
    let row = |layout: Layout| {
        // The model as it would be in a file that is made for the layout.
        let mut config = *config;
        let (choice, note) = match layout {
            Layout::Kv if config.values_dropped => {
                config.values_dropped = false;
                (
                    LayoutChoice::Kv,
                    "not possible with this file, which lacks W_V",
                )
            }
            Layout::Kv => (LayoutChoice::Kv, ""),
            Layout::KR { .. } if is_slim => (LayoutChoice::Auto, "the layout of this file"),
            _ if shape.elements(layout) >= shape.elements(Layout::Kv) => return None,
            Layout::KR { .. } if config.family != Family::Llama => return None,
            Layout::KR { rank } => {
                for layer in 0..config.layers.min(MAX_SLIM_LAYERS) {
                    config.layouts = config.layouts.with_rank(layer, rank);
                }
                let note = "a minimum: `brooklet slim` makes such a copy";
                (LayoutChoice::Auto, note)
            }
            Layout::X if config.values_dropped || !config.may_keep_inputs() => return None,
            Layout::X => (LayoutChoice::X, ""),
        };
        let of_file = Settings {
            layout: choice,
            ..settings.clone()
        };
        let of_layer = |layer: usize| choice.of_layer(config.layouts.of(layer));
        let products = |layer: usize| shape.products(of_layer(layer), slots(&config, plan, layer));
        Some(LayoutRow {
            layout: layout.name(),
            bytes_per_token: bytes_per_token(&config, plan, of_layer),
            products_per_token: (0..config.layers).map(products).sum(),
            error: (is_slim && matches!(layout, Layout::KR { .. }))
                .then(|| SlimErrors::of(model.gguf()))
                .flatten()
                .map(|errors| f64::from(errors.with(cache_type))),
            windows: budgets
                .iter()
                .map(|row| {
                    let plan = of_file.balanced(
                        &Needs {
                            config: &config,
                            ..model.needs_with_index()
                        },
                        row.budget_bytes,
                    );
                    plan.map_or(0, |plan| plan.options().policy.window())
                })
                .collect(),
            note,
        })
    };
    shape.layouts().into_iter().filter_map(row).collect()
}

impl Report {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "policy {}: {}, cache in {}, chunks of {}, {} threads\n",
            self.policy,
            Kept {
                policy: self.policy,
                sinks: self.sinks,
                window: self.window
            },
            self.cache_type,
            self.chunk,
            self.threads
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
        write!(
            out,
            "\nA token in the cache takes {} bytes; ",
            self.bytes_per_token
        )?;
        if let Some(local) = &self.local_layers {
            write!(
                out,
                "{} layers keep only a window of {}, in {}; ",
                local.layers,
                local.window,
                Size(local.bytes)
            )?;
        }
        writeln!(out, "the model was trained for {}.\n", self.trained_context)?;
        write!(
            out,
            "{:>12}  {:>8}  {:>5}  {:>12}  {:>10}",
            "budget", "window", "chunk", "--window max", "arena"
        )?;
        let others = || self.layouts.iter().filter(|_| self.layouts.len() > 1);
        for layout in others() {
            write!(out, "  {:>8}", layout.layout)?;
        }
        writeln!(out)?;
        for (index, row) in self.budgets.iter().enumerate() {
            let (budget, arena) = (
                Size(row.budget_bytes).to_string(),
                Size(row.arena_bytes).to_string(),
            );
            write!(
                out,
                "{budget:>12}  {:>8}  {:>5}  {:>12}  {arena:>10}",
                row.window, row.chunk, row.largest_window
            )?;
            for layout in others() {
                write!(out, "  {:>8}", layout.windows[index])?;
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "\nOf what is spare, prefill has one part in {PREFILL_SHARE} for its chunks, or what chunks of 128 need;\n\
             --window max gives all to the cache, and prefill becomes slower."
        )?;
        if let Some(token) = &self.token {
            writeln!(out)?;
            token.text(out)?;
        }
        write!(
            out,
            "\nExact layouts: {} is the smallest, since {}",
            self.smallest_layout, self.why
        )?;
        let runs = self
            .layouts
            .iter()
            .any(|row| row.layout == self.smallest_layout);
        writeln!(
            out,
            "{}.\n",
            if runs {
                ""
            } else {
                " (not implemented for such a model)"
            }
        )?;
        writeln!(
            out,
            "{:>12}  {:>13}  {:>20}  {:>7}",
            "layout", "bytes a token", "products, full cache", "error"
        )?;
        for row in &self.layouts {
            let error = row
                .error
                .map_or("-".into(), |error| format!("{:.2} %", 100.0 * error));
            let line = format!(
                "{:>12}  {:>13}  {:>20}  {error:>7}  {}",
                row.layout, row.bytes_per_token, row.products_per_token, row.note
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
