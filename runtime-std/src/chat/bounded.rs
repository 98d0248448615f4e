//! Runs a template in bounded steps, memory and depth.
//!
//! The engine bounds steps, but a step can double a string, so that forty of them fill any memory;
//! it can put a list into a list until dropping it overflows the stack, and a namespace into
//! itself. So its program is changed before it runs: whatever an instruction makes is measured by
//! one that is put behind it, and must be small ([`MOST_VALUE`]), flat ([`MOST_DEPTH`]) and free of
//! namespaces; filters and methods are called only where the product of their arguments' sizes,
//! which bounds what they can make, is small ([`MOST_PRODUCT`]); and all that was made or written
//! counts towards [`MOST_WORK`]. A value is thus small by construction, and no other instruction
//! can take long over it.
//!
//! This needs the engine's program, which it shows without a promise to keep its form: the version
//! in `Cargo.toml` is exact.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::machinery::{
    Instruction, Instructions, Token, eval, get_compiled_template, make_string_output, tokenize,
};
use minijinja::value::{Object, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, escape_formatter};

/// Steps of the engine.
const MOST_STEPS: u64 = 200_000;
/// Bytes and elements that a render may make in all.
const MOST_WORK: usize = 4 << 20;
/// Bytes and elements of one value.
const MOST_VALUE: usize = 32 << 10;
/// Depth of lists in lists.
const MOST_DEPTH: usize = 12;
/// Product of the sizes of a filter's or a method's arguments.
const MOST_PRODUCT: usize = 4 << 20;
/// Bytes of a template.
const MOST_SOURCE: usize = 128 << 10;
/// Words and signs between one pair of brackets, `{{` and `}}` or `{%` and `%}`: the engine goes as
/// deep as an expression is long.
const MOST_TOKENS: usize = 600;
/// Alternatives in a template, each of which the engine takes to lie within the one before.
const MOST_ELIFS: usize = 200;
/// Macros within macros.
const MOST_CALLS: usize = 100;

/// Names of the filters that measure, which a template cannot write.
const CHECK: &str = "\u{F0000}check";
const FIELD: &str = "\u{F0000}field";
const TIMES: &str = "\u{F0000}times";
/// The counter of a render's work, and the field that marks a namespace.
const WORK: &str = "\u{F0000}work";
const MARK: &str = "\u{F0000}mark";

/// An environment whose templates [`render`] runs.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_recursion_limit(MOST_CALLS);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, state, value| {
        checked(state, value, true)?;
        escape_formatter(out, state, value)
    });
    environment.add_filter(CHECK, |state: &mut State, value: Value| {
        checked(state, &value, true).map(|()| value)
    });
    environment.add_filter(FIELD, |state: &mut State, value: Value| {
        checked(state, &value, false).map(|()| value)
    });
    environment.add_filter(TIMES, times);
    environment.remove_global("namespace");
    for call in [Call::Filter, Call::Method, Call::Namespace] {
        environment.add_global(call.name(), Value::from_object(call));
    }
    environment
}

/// The stand-in for a call of a template, with the callee's name as its last argument.
#[derive(Clone, Copy, Debug)]
enum Call {
    Filter,
    Method,
    Namespace,
}

impl Call {
    /// Name of the global, which a template cannot write.
    fn name(self) -> &'static str {
        match self {
            Call::Filter => "\u{F0000}filter",
            Call::Method => "\u{F0000}method",
            Call::Namespace => "\u{F0000}namespace",
        }
    }
}

impl Object for Call {
    // Takes raw arguments: a function's arguments would take keywords apart.
    fn call(
        self: &Arc<Self>,
        state: &mut State<'_, '_>,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        let (name, arguments) = named(arguments)?;
        match **self {
            Call::Filter => {
                state
                    .apply_filter(name, arguments)
                    .map_err(|error| match error.kind() {
                        // The engine's own does not say which.
                        ErrorKind::UnknownFilter => {
                            Error::new(error.kind(), format!("filter {name}"))
                        }
                        _ => error,
                    })
            }
            Call::Method => {
                let (object, arguments) = arguments.split_first().ok_or_else(too_large)?;
                object.call_method(state, name, arguments)
            }
            Call::Namespace => namespace(state, arguments),
        }
    }
}

/// The engine's `namespace`, with a mark that identifies it.
fn namespace(state: &mut State<'_, '_>, fields: &[Value]) -> Result<Value, Error> {
    let mut marked = BTreeMap::from([(Value::from(MARK), Value::from(true))]);
    for fields in fields {
        for key in fields.try_iter()? {
            let value = fields.get_item(&key)?;
            checked(state, &value, false)?;
            marked.insert(key, value);
        }
    }
    Value::from_function(minijinja::functions::namespace).call(state, &[Value::from(marked)])
}

/// Renders `source` with the environment of [`environment`].
pub(super) fn render(
    environment: &Environment<'_>,
    source: &str,
    values: Value,
) -> Result<String, Error> {
    check_source(environment, source)?;
    let template = environment.template_from_named_str("chat", source)?;
    let compiled = get_compiled_template(&template);
    let program = measured(&compiled.instructions)?;
    let blocks: Result<_, Error> = compiled
        .blocks
        .iter()
        .map(|(name, block)| Ok((*name, measured(block)?)))
        .collect();
    let mut text = String::new();
    eval(
        environment,
        &program,
        values,
        &blocks?,
        &mut make_string_output(&mut text),
        AutoEscape::None,
    )?;
    Ok(text)
}

/// Refuses a source that would take the engine's compiler too deep.
fn check_source(environment: &Environment<'_>, source: &str) -> Result<(), Error> {
    if source.len() > MOST_SOURCE {
        return Err(too_long());
    }
    let (mut tokens, mut elifs) = (0, 0);
    for token in tokenize(source, false, environment.syntax().clone()) {
        // The compiler itself reports an invalid token.
        let Ok((token, _)) = token else { break };
        tokens = match token {
            Token::VariableStart | Token::BlockStart => 0,
            _ => tokens + 1,
        };
        elifs += usize::from(matches!(token, Token::Ident("elif")));
        if tokens > MOST_TOKENS || elifs > MOST_ELIFS {
            return Err(too_long());
        }
    }
    Ok(())
}

fn too_long() -> Error {
    Error::new(
        ErrorKind::SyntaxError,
        "it is longer than any conversation's frame",
    )
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        "it makes more text or longer lists than any conversation needs",
    )
}

/// Returns the program with its measuring. Positions move, so the jumps are set anew.
fn measured<'s>(program: &Instructions<'s>) -> Result<Instructions<'s>, Error> {
    let mut starts = vec![0];
    let mut parts = Vec::new();
    while let Some(instruction) = program.get(parts.len() as u32) {
        let part = expanded(instruction)?;
        starts.push(starts[parts.len()] + part.len() as u32);
        parts.push(part);
    }
    let mut out = Instructions::new(program.name(), program.source());
    for (i, part) in parts.into_iter().enumerate() {
        let line = u16::try_from(program.get_line(i as u32).unwrap_or(0)).unwrap_or(u16::MAX);
        for mut instruction in part {
            if let Instruction::Jump(to)
            | Instruction::Iterate(to)
            | Instruction::JumpIfFalse(to)
            | Instruction::JumpIfFalseOrPop(to)
            | Instruction::JumpIfTrueOrPop(to)
            | Instruction::BuildMacro(_, to, _) = &mut instruction
            {
                *to = *starts.get(*to as usize).ok_or_else(too_large)?;
            }
            out.add_with_line(instruction, line);
        }
    }
    Ok(out)
}

/// The instructions that replace one.
fn expanded<'s>(instruction: &Instruction<'s>) -> Result<Vec<Instruction<'s>>, Error> {
    let filter = |name, arguments| Instruction::ApplyFilter(name, Some(arguments), !0);
    let check = || filter(CHECK, 1);
    let same = instruction.clone();
    let called = |call: Call, name: &str, arguments: u16| {
        vec![
            Instruction::LoadConst(Value::from(name)),
            Instruction::CallFunction(call.name(), Some(arguments + 1)),
            check(),
        ]
    };
    Ok(match *instruction {
        Instruction::EmitRaw(text) => {
            vec![Instruction::LoadConst(Value::from(text)), Instruction::Emit]
        }
        Instruction::Mul => vec![filter(TIMES, 2), check()],
        Instruction::ApplyFilter(name, Some(arguments), _) if arguments < u16::MAX => {
            called(Call::Filter, name, arguments)
        }
        Instruction::CallMethod(name, Some(arguments)) if arguments < u16::MAX => {
            called(Call::Method, name, arguments)
        }
        Instruction::CallFunction("namespace", Some(arguments)) if arguments < u16::MAX => {
            called(Call::Namespace, "namespace", arguments)
        }
        Instruction::ApplyFilter(..)
        | Instruction::CallMethod(..)
        | Instruction::CallFunction("namespace", _) => return Err(too_large()),
        Instruction::SetAttr(_) => {
            vec![Instruction::Swap, filter(FIELD, 1), Instruction::Swap, same]
        }
        Instruction::Add
        | Instruction::StringConcat
        | Instruction::Slice
        | Instruction::BuildList(_)
        | Instruction::BuildTuple(_)
        | Instruction::BuildMap(_)
        | Instruction::CallFunction(..)
        | Instruction::CallObject(_)
        | Instruction::EndCapture => vec![same, check()],
        _ => vec![same],
    })
}

/// Splits off the name, which is a call's last argument. Refuses a call whose result could be too
/// large.
fn named(arguments: &[Value]) -> Result<(&str, &[Value]), Error> {
    let (name, arguments) = arguments.split_last().ok_or_else(too_large)?;
    let name = name.as_str().ok_or_else(too_large)?;
    let mut product = 1usize;
    for argument in arguments {
        let size = match argument.as_i64() {
            Some(number) => usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX),
            None => size_of(argument, MOST_DEPTH).ok_or_else(too_large)?,
        };
        product = product.saturating_mul(size.max(1));
        // The widths of fields that a format names are part of its text.
        if name == "format" && argument.as_str().is_some_and(has_long_number) {
            return Err(too_large());
        }
    }
    if product > MOST_PRODUCT {
        return Err(too_large());
    }
    Ok((name, arguments))
}

/// True if a text has a number of more than three digits.
fn has_long_number(text: &str) -> bool {
    let numbers = text.split(|character: char| !character.is_ascii_digit());
    numbers.into_iter().any(|number| number.len() > 3)
}

/// Computes `left * right`, unless it repeats a text or a list too often.
fn times(state: &mut State, left: Value, right: Value) -> Result<Value, Error> {
    named(&[left.clone(), right.clone(), Value::from("*")]).or_else(|error| {
        if left.is_number() && right.is_number() {
            Ok(("*", &[][..]))
        } else {
            Err(error)
        }
    })?;
    let values = minijinja::context! { left, right };
    state.env().compile_expression("left * right")?.eval(values)
}

/// Counts a value that was made or is written; refuses one that is not small.
fn checked(state: &mut State, value: &Value, may_be_namespace: bool) -> Result<(), Error> {
    let is_refused = !may_be_namespace && is_namespace(value);
    let size = size_of(value, MOST_DEPTH).filter(|size| *size <= MOST_VALUE && !is_refused);
    let before = state
        .get_temp(WORK)
        .and_then(|work| work.as_usize())
        .unwrap_or(0);
    let work = before + size.ok_or_else(too_large)? + 1;
    if work > MOST_WORK {
        return Err(too_large());
    }
    state.set_temp(WORK, Value::from(work));
    Ok(())
}

fn is_namespace(value: &Value) -> bool {
    value.kind() == ValueKind::Map && value.get_attr(MARK).is_ok_and(|mark| !mark.is_undefined())
}

/// Bytes and elements of a value, looking `depth` deep; none if it is deeper, has more than
/// [`MOST_VALUE`], or has a namespace within.
fn size_of(value: &Value, depth: usize) -> Option<usize> {
    match value.kind() {
        ValueKind::String | ValueKind::Bytes => value.len(),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let is_map = value.kind() == ValueKind::Map;
            let depth = depth.checked_sub(1)?;
            let mut size = 1usize;
            for element in value.try_iter().ok()? {
                let of_map = if is_map {
                    value.get_item(&element).ok()
                } else {
                    None
                };
                for part in [Some(element), of_map].into_iter().flatten() {
                    size += if is_namespace(&part) {
                        None
                    } else {
                        size_of(&part, depth)
                    }? + 1;
                }
                if size > MOST_VALUE {
                    return None;
                }
            }
            Some(size)
        }
        _ => Some(1),
    }
}
