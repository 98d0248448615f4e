//! Features of sound for models of speech: a real Fourier transform of planned size, and the
//! log-mel spectrogram of Whisper (Radford et al., arXiv 2212.04356, section 2.2).

pub mod fft;
pub mod mel;

/// Samples a second of the sound that speech models hear.
pub const SAMPLE_RATE: usize = 16_000;

/// Named error budgets of this module.
pub mod budget {
    /// [`super::fft::RealFft::spectrum`] against the definition, relative to the largest bin.
    pub const SPECTRUM_VS_EXACT: f32 = 1e-5;
    /// Normalised log-mel features ([`super::mel`]) against f64, absolute.
    pub const LOG_MEL_VS_EXACT: f32 = 1e-4;
}
