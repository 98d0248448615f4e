//! The table of instruction sets that kernels use.
//!
//! An instruction set is a zero-size token that can only be made where the processor has its
//! features. To add one, add here its features, its token, a variant of [`Isa`] with its name, and
//! its place in [`Isa::of_target`], [`detected_isas`](crate::detected_isas) and `on_isa`. Add also
//! a folder in `arch` with an implementation of `InstructionSet`.
#![allow(
    unsafe_code,
    reason = "constructors of tokens whose caller vouches for the processor"
)]

/// The features of each instruction set, listed only here, and the expressions that are built from
/// a list.
#[doc(hidden)]
#[macro_export]
macro_rules! __isa_features {
    (Sse41 $($use:tt)*) => { $crate::__isa_features!(@ $($use)* ["sse4.1" "ssse3"]) };
    (Avx2 $($use:tt)*) => { $crate::__isa_features!(@ $($use)* ["avx2" "fma" "f16c"]) };
    (AvxVnni $($use:tt)*) => {
        $crate::__isa_features!(@ $($use)* ["avx2" "fma" "f16c" "avxvnni"])
    };
    (Avx512 $($use:tt)*) => {
        $crate::__isa_features!(@ $($use)* [
            "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vl" "avx512dq" "avx512vbmi" "avx512vnni"
        ])
    };
    (Neon $($use:tt)*) => { $crate::__isa_features!(@ $($use)* ["neon"]) };
    (NeonDotprod $($use:tt)*) => { $crate::__isa_features!(@ $($use)* ["neon" "dotprod"]) };
    (NeonI8mm $($use:tt)*) => { $crate::__isa_features!(@ $($use)* ["neon" "dotprod" "i8mm"]) };

    (@ names [$($feature:tt)+]) => { &[$($feature),+] };
    (@ of_target [$($feature:tt)+]) => { cfg!(all($(target_feature = $feature),+)) };
    (@ detected_x86 [$($feature:tt)+]) => { true $(&& ::std::arch::is_x86_feature_detected!($feature))+ };
    (@ detected_aarch64 [$($feature:tt)+]) => {
        true $(&& ::std::arch::is_aarch64_feature_detected!($feature))+
    };
    (@ compiled { $function:item } [$($feature:tt)+]) => {
        #[target_feature($(enable = $feature),+)]
        $function
    };
}

/// Returns the instruction sets of the processor that runs the program as a `Vec` of
/// [`Isa`](crate::kernels::Isa), the reference first, the best last. It is a macro, since only a
/// crate with `std` can ask the processor.
#[macro_export]
macro_rules! detected_isas {
    () => {{
        #[allow(unused_imports, reason = "not every processor has all of them")]
        use $crate::kernels::{self, Isa};
        #[allow(unused_mut, reason = "other processors have the reference only")]
        let mut isas = ::std::vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if $crate::__isa_features!(Sse41 detected_x86) {
                // SAFETY: the processor has just said that it has every feature, and detection
                // includes the system's support.
                isas.push(Isa::Sse41(unsafe { kernels::Sse41::new_unchecked() }));
            }
            if $crate::__isa_features!(Avx2 detected_x86) {
                // SAFETY: as above.
                isas.push(Isa::Avx2(unsafe { kernels::Avx2::new_unchecked() }));
            }
            if $crate::__isa_features!(AvxVnni detected_x86) {
                // SAFETY: as above.
                isas.push(Isa::AvxVnni(unsafe { kernels::AvxVnni::new_unchecked() }));
            }
            if $crate::__isa_features!(Avx512 detected_x86) {
                // SAFETY: as above.
                isas.push(Isa::Avx512(unsafe { kernels::Avx512::new_unchecked() }));
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if $crate::__isa_features!(Neon detected_aarch64) {
                // SAFETY: as above.
                isas.push(Isa::Neon(unsafe { kernels::Neon::new_unchecked() }));
            }
            if $crate::__isa_features!(NeonDotprod detected_aarch64) {
                // SAFETY: as above.
                isas.push(Isa::NeonDotprod(unsafe { kernels::NeonDotprod::new_unchecked() }));
            }
            if $crate::__isa_features!(NeonI8mm detected_aarch64) {
                // SAFETY: as above.
                isas.push(Isa::NeonI8mm(unsafe { kernels::NeonI8mm::new_unchecked() }));
            }
        }
        isas
    }};
}

/// Defines a proof token: a value whose existence says that the processor has the features. It
/// holds nothing, or the kind of core if kernels are chosen by it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => { token!($(#[$doc])* $name(()) = ()); };
    ($(#[$doc:meta])* $name:ident($content:ty) = $unknown:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name($content);

        impl $name {
            /// Names of the processor features that the token stands for.
            pub const FEATURES: &[&str] = $crate::__isa_features!($name names);

            /// Returns the token if the compilation target is known to have the features.
            pub const fn of_target() -> Option<Self> {
                if $crate::__isa_features!($name of_target) { Some($name($unknown)) } else { None }
            }

            /// Returns the token without a check.
            ///
            /// # Safety
            /// The processor that runs this program must have all of [`Self::FEATURES`], and the
            /// operating system must save their registers.
            pub const unsafe fn new_unchecked() -> Self {
                $name($unknown)
            }
        }
    };
}

/// Plain Rust, which every processor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scalar;

#[cfg(target_arch = "x86_64")]
token!(
    /// SSE4.1 with SSSE3 (Penryn, Silvermont, Bulldozer, and later; Celeron, Pentium and Atom to
    /// this day).
    Sse41
);

#[cfg(target_arch = "x86_64")]
token!(
    /// AVX2 with FMA and F16C (Haswell, Zen, and later).
    Avx2(Core) = Core::Unknown
);

#[cfg(target_arch = "x86_64")]
token!(
    /// AVX2 with AVX-VNNI (Alder Lake, its small cores as in N100, and later; Zen 5).
    AvxVnni
);

#[cfg(target_arch = "x86_64")]
token!(
    /// AVX-512 with VNNI and VBMI (Ice Lake, Zen 4, and later).
    Avx512(Core) = Core::Unknown
);

/// Cores on which other kernels than the widest decode some formats fastest.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// One that was not measured.
    Unknown,
    /// AMD's Zen 4, whose vector units are half as wide as its registers.
    Zen4,
    /// AMD's Zen 5, where the processor says that it has AVX-VNNI.
    Zen5,
}

#[cfg(target_arch = "x86_64")]
impl Core {
    /// The core that runs the program, by its family and model (AMD, "Open-Source Register
    /// Reference", CPUID Fn0000_0001_EAX).
    fn of_this_processor() -> Core {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        let (vendor, version) = (__cpuid(0), __cpuid(1).eax);
        let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        let bits = |from: u32, count: u32| version >> from & ((1 << count) - 1);
        let family = bits(8, 4) + if bits(8, 4) == 15 { bits(20, 8) } else { 0 };
        let model = bits(16, 4) << 4 | bits(4, 4);
        match (name.as_flattened(), family, model) {
            (b"AuthenticAMD", 0x19, 0x10..=0x1F | 0x60..=0x7F | 0xA0..=0xAF) => Core::Zen4,
            // Of the highest leaf those that are not there repeat what another one has.
            (b"AuthenticAMD", 0x1A, _) if vendor.eax >= 7 && __cpuid_count(7, 0).eax >= 1 => {
                let has_vnni = __cpuid_count(7, 1).eax >> 4 & 1 == 1;
                if has_vnni { Core::Zen5 } else { Core::Unknown }
            }
            _ => Core::Unknown,
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    pub(super) const fn core(self) -> Core {
        self.0
    }

    /// Returns the SSE4.1 token: a processor with AVX2 has SSE4.1 and SSSE3, too.
    pub const fn sse41(self) -> Sse41 {
        Sse41(())
    }
}

#[cfg(target_arch = "x86_64")]
impl AvxVnni {
    /// Returns the AVX2 token, whose features are among those of this one.
    pub const fn avx2(self) -> Avx2 {
        Avx2(Core::Unknown)
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    pub(super) const fn core(self) -> Core {
        self.0
    }

    /// Returns the AVX2 token, whose features are among those of this one.
    pub const fn avx2(self) -> Avx2 {
        Avx2(self.0)
    }

    /// Returns the SSE4.1 token: a processor with AVX2 has SSE4.1 and SSSE3, too.
    pub const fn sse41(self) -> Sse41 {
        Sse41(())
    }

    /// Returns the AVX-VNNI token on a core that was found to have those instructions.
    pub(super) const fn avx_vnni(self) -> Option<AvxVnni> {
        match self.0 {
            Core::Zen5 => Some(AvxVnni(())),
            Core::Zen4 | Core::Unknown => None,
        }
    }
}

#[cfg(target_arch = "aarch64")]
token!(
    /// Advanced SIMD (every AArch64 application processor).
    Neon
);

#[cfg(target_arch = "aarch64")]
token!(
    /// Advanced SIMD with `sdot` and `udot` (Cortex-A55, A75, A76 and later).
    NeonDotprod
);

#[cfg(target_arch = "aarch64")]
token!(
    /// Advanced SIMD with dot products and `smmla` (Cortex-X2, A710, A510 and later; Apple's M2).
    NeonI8mm
);

#[cfg(target_arch = "aarch64")]
impl NeonI8mm {
    /// Returns the token of dot products, whose features are among those of this one.
    pub const fn dotprod(self) -> NeonDotprod {
        NeonDotprod(())
    }
}

#[cfg(target_arch = "aarch64")]
impl NeonDotprod {
    /// Returns the NEON token: a processor with dot products has NEON, too.
    pub const fn neon(self) -> Neon {
        Neon(())
    }
}

/// The DSP extension (Cortex-M4, M7, M33 and later; every Armv7-A): `smlad`, `sxtb16`.
#[cfg(all(target_arch = "arm", feature = "dsp"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dsp(());

#[cfg(all(target_arch = "arm", feature = "dsp"))]
impl Dsp {
    /// Returns the token. This type exists only if the feature `dsp` is on, which says that the
    /// target has the instructions. The assembler accepts them only for such a target.
    pub const fn of_target() -> Self {
        Dsp(())
    }
}

/// The vector extension of Armv8.1-M for integers and floats (Cortex-M55, M85).
#[cfg(all(target_arch = "arm", feature = "helium"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Helium(());

#[cfg(all(target_arch = "arm", feature = "helium"))]
impl Helium {
    /// Returns the token. This type exists only if the feature `helium` is on, which says that the
    /// target has the instructions. The assembler accepts them only for such a target.
    pub const fn of_target() -> Self {
        Helium(())
    }

    /// Returns the DSP token: a processor with Helium has the DSP extension, too.
    pub const fn dsp(self) -> Dsp {
        Dsp(())
    }
}

/// An instruction set that this program can use. A variant other than `Scalar` holds a token that
/// can only be made where the processor has the instructions. An `Isa` is therefore the proof that
/// its kernels may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust; the readable reference.
    Scalar,
    /// x86-64 with SSE4.1 and SSSE3.
    #[cfg(target_arch = "x86_64")]
    Sse41(Sse41),
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// x86-64 with AVX2, FMA, F16C and AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// x86-64 with AVX-512 F, BW, VL, DQ, VBMI and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// AArch64 with Advanced SIMD.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// AArch64 with Advanced SIMD and the dot product instructions.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(NeonDotprod),
    /// AArch64 with Advanced SIMD, the dot product instructions and those of int8 matrices.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm(NeonI8mm),
    /// A 32-bit Arm core that has the DSP extension, as the feature `dsp` says.
    #[cfg(all(target_arch = "arm", feature = "dsp"))]
    Dsp(Dsp),
    /// A 32-bit Arm core that has Helium, as the feature `helium` says. Its vectors of f32 flush
    /// subnormal numbers to zero in every floating-point mode, also the vectors that the compiler
    /// makes of plain Rust for such a core. Outside the matrix products a number under 1.2e-38 can
    /// therefore differ from the result of another instruction set.
    #[cfg(all(target_arch = "arm", feature = "helium"))]
    Helium(Helium),
}

/// Evaluates `$body` with `$token` bound to the token of `$isa`, whichever it is.
macro_rules! on_isa {
    ($isa:expr, $token:ident => $body:expr) => {
        match $isa {
            Isa::Scalar => {
                let $token = $crate::kernels::isa::Scalar;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Sse41($token) => $body,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2($token) => $body,
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni($token) => $body,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512($token) => $body,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon($token) => $body,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod($token) => $body,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm($token) => $body,
            #[cfg(all(target_arch = "arm", feature = "dsp"))]
            Isa::Dsp($token) => $body,
            #[cfg(all(target_arch = "arm", feature = "helium"))]
            Isa::Helium($token) => $body,
        }
    };
}
pub(super) use on_isa;

impl Isa {
    /// Returns the best instruction set that the *compilation target* is known to have. A board
    /// uses this; a host detects at run time instead.
    pub const fn of_target() -> Isa {
        #[cfg(target_arch = "aarch64")]
        {
            if let Some(token) = NeonI8mm::of_target() {
                return Isa::NeonI8mm(token);
            }
            if let Some(token) = NeonDotprod::of_target() {
                return Isa::NeonDotprod(token);
            }
            if let Some(token) = Neon::of_target() {
                return Isa::Neon(token);
            }
        }
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(token) = Avx512::of_target() {
                return Isa::Avx512(token);
            }
            if let Some(token) = AvxVnni::of_target() {
                return Isa::AvxVnni(token);
            }
            if let Some(token) = Avx2::of_target() {
                return Isa::Avx2(token);
            }
            if let Some(token) = Sse41::of_target() {
                return Isa::Sse41(token);
            }
        }
        #[cfg(all(target_arch = "arm", feature = "helium"))]
        return Isa::Helium(Helium::of_target());
        #[cfg(all(target_arch = "arm", feature = "dsp", not(feature = "helium")))]
        return Isa::Dsp(Dsp::of_target());
        #[cfg(not(all(target_arch = "arm", feature = "dsp")))]
        Isa::Scalar
    }

    /// The same instruction set, with the kernels that are fastest on the core that runs the
    /// program, where that was measured. All give the same bits.
    #[must_use]
    pub fn tuned(self) -> Isa {
        #[cfg(target_arch = "x86_64")]
        return self.with_core(Core::of_this_processor());
        #[cfg(not(target_arch = "x86_64"))]
        self
    }

    /// The same, as if `core` ran the program.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn with_core(self, core: Core) -> Isa {
        match self {
            Isa::Avx2(_) => Isa::Avx2(Avx2(core)),
            Isa::Avx512(_) => Isa::Avx512(Avx512(core)),
            other => other,
        }
    }

    /// The name, as `BROOKLET_ISA` takes it: `scalar`, `sse41`, `avx2`, `avxvnni`, `avx512`,
    /// `neon`, `dotprod`, `i8mm`, `dsp`, `helium`.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Sse41(_) => "sse41",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(_) => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(_) => "i8mm",
            #[cfg(all(target_arch = "arm", feature = "dsp"))]
            Isa::Dsp(_) => "dsp",
            #[cfg(all(target_arch = "arm", feature = "helium"))]
            Isa::Helium(_) => "helium",
        }
    }
}

/// The instruction sets of the machine that runs the tests, the reference first.
#[cfg(test)]
pub(crate) fn isas() -> std::vec::Vec<Isa> {
    let isas = crate::detected_isas!();
    #[cfg(all(target_arch = "arm", feature = "dsp"))]
    let isas = [isas, std::vec![Isa::Dsp(Dsp::of_target())]].concat();
    isas
}
