//! The instruction set of the machine, for the kernels.
#![allow(unsafe_code, reason = "makes instruction-set tokens after detection")]

use brooklet_core::kernels::Isa;

/// The environment variable that forces an instruction set.
pub const ISA_VARIABLE: &str = "BROOKLET_ISA";

/// `BROOKLET_ISA` names an instruction set that this processor or build does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("BROOKLET_ISA is \"{wanted}\", which this machine does not have: it has {available}")]
pub struct IsaError {
    /// The name in the variable.
    pub wanted: String,
    /// Names of the available instruction sets, separated by commas, the best last.
    pub available: String,
}

/// The instruction sets that this machine has, from the plainest to the best.
pub fn available_isas() -> Vec<Isa> {
    brooklet_core::detected_isas!()
}

/// The best instruction set of this machine, or the one that `BROOKLET_ISA` names.
///
/// # Errors
/// If the variable names one that is not available; the error lists those that are.
pub fn detect_isa() -> Result<Isa, IsaError> {
    select_isa(std::env::var_os(ISA_VARIABLE).map(|wanted| wanted.to_string_lossy().into_owned()))
}

/// The instruction set of that name, with its own kernels; the best, with the fastest kernels, if
/// there is no name or an empty one.
fn select_isa(wanted: Option<String>) -> Result<Isa, IsaError> {
    let isas = available_isas();
    match wanted {
        Some(wanted) if !wanted.is_empty() => match isas.iter().find(|isa| isa.name() == wanted) {
            Some(&isa) => Ok(isa),
            None => {
                let names: Vec<&str> = isas.iter().map(|isa| isa.name()).collect();
                Err(IsaError {
                    wanted,
                    available: names.join(", "),
                })
            }
        },
        _ => Ok(isas.last().copied().unwrap_or(Isa::Scalar).tuned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_sets_are_chosen_by_name() {
        let isas = available_isas();
        assert_eq!(isas[0].name(), "scalar");
        for &isa in &isas {
            assert_eq!(select_isa(Some(isa.name().into())), Ok(isa));
        }
        let best = isas.last().map(|isa| isa.tuned());
        assert_eq!(select_isa(None).ok(), best);
        assert_eq!(select_isa(Some(String::new())).ok(), best);
        let error = select_isa(Some("mmx".into())).unwrap_err();
        assert!(error.to_string().contains("\"mmx\"") && error.to_string().contains("scalar"));
    }
}
