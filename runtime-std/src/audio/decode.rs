//! From the bytes of a sound file to samples of one channel at the file's own rate.

use std::io;

use symphonia::core::audio::Channels;
use symphonia::core::codecs::audio::well_known::*;
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions,
};
use symphonia::core::errors::Error;
use symphonia::core::formats::well_known::{
    FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_MKV, FORMAT_ID_OGG, FORMAT_ID_WAVE,
};
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::Timestamp;
use symphonia::default::{get_codecs, get_probe};

use super::AudioError;

/// Seconds by which a sound in an MP4 or Matroska container may be shorter than the container says:
/// it counts what a lossy codec adds at the start and the end.
const SLACK: f64 = 0.5;

/// Bytes of samples in a WAV file from which on their number is what programs write that do not
/// know it, as to a pipe: the largest signed number of 32 bits, and a little less.
const OPEN_LENGTH: u64 = 0x7FFF_0000;

/// Most bytes of the setup of a Vorbis stream. Encoders write some 4 KiB; in memory a codebook may
/// take a thousand times what it takes in the file.
const LARGEST_SETUP: usize = 64 << 10;

/// Most frames that silence stands for: 23 s at 44.1 kHz.
const MOST_MISSING: usize = 1 << 20;

/// A fault on the way, without the time at which it happened.
pub enum Fault {
    /// The bytes end too early.
    Cut,
    /// The bytes cannot be read.
    Io(io::Error),
    /// The bytes do not make sense.
    Damaged(&'static str),
    /// Nothing here can decode the bytes.
    Unsupported(&'static str),
    /// The container starts another sound, which cannot be opened.
    Next(AudioError),
}

impl Fault {
    const SHORT: Fault = Fault::Damaged("it ends too early");

    /// A fault within the bytes of a packet or of a decoder's setup, which were all read.
    fn within(error: Error) -> Self {
        match error {
            Error::IoError(_) => Fault::SHORT,
            error => error.into(),
        }
    }

    /// This fault as an error, `seconds` into the sound.
    pub fn at(self, seconds: f64) -> AudioError {
        match self {
            Fault::Cut => AudioError::Truncated { seconds },
            Fault::Io(error) => AudioError::Io(error),
            Fault::Damaged(fault) => AudioError::Damaged { seconds, fault },
            Fault::Unsupported(part) => AudioError::Unsupported { seconds, part },
            Fault::Next(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => Fault::Cut,
            // Not the system's: a length in the file leads past the end of what holds it.
            Error::IoError(error) if error.kind() == io::ErrorKind::Other => Fault::SHORT,
            Error::IoError(error) => Fault::Io(error),
            Error::DecodeError(fault) | Error::LimitError(fault) => Fault::Damaged(fault),
            Error::Unsupported(part) => Fault::Unsupported(part),
            Error::SeekError(_) => Fault::Damaged("it points to a place that is not there"),
            Error::ResetRequired => Fault::Damaged("it starts again"),
            _ => Fault::Damaged("it cannot be decoded"),
        }
    }
}

/// A container and the decoder of one of its tracks.
pub struct Decoder {
    format: Box<dyn FormatReader>,
    codec: Box<dyn AudioDecoder>,
    track: u32,
    /// The samples of a packet, channels beside each other.
    interleaved: Vec<f32>,
    /// Frames of the last packet.
    frames: usize,
    /// The time at which the next packet should start, if its container counts frames.
    next: Option<Timestamp>,
    /// The packet after frames that are missing.
    late: Option<Packet>,
    /// Frames that the last fault took away.
    lost: usize,
    ended: bool,
}

impl Decoder {
    /// Finds out the container, and opens its default track.
    ///
    /// # Errors
    /// If the container or the codec is unknown or damaged, or has no sound.
    pub fn open(source: Box<dyn MediaSource>) -> Result<Self, AudioError> {
        let stream = MediaSourceStream::new(source, Default::default());
        let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
        let format = get_probe()
            .probe(&Default::default(), stream, format, metadata)
            .map_err(|error| match error {
                // No container has its marks in these bytes.
                Error::Unsupported(part) if part.starts_with("core (probe)") => {
                    AudioError::NotSound
                }
                error => Fault::from(error).at(0.0),
            })?;
        let (track, codec) = open_track(&*format)?;
        Ok(Decoder {
            format,
            codec,
            track,
            interleaved: Vec::new(),
            frames: 0,
            next: None,
            late: None,
            lost: 0,
            ended: false,
        })
    }

    /// The length, if the container tells it.
    pub fn seconds(&self) -> Option<f64> {
        let track = self.track()?;
        let codec = track.codec_params.as_ref()?.audio()?;
        // Fragmented MP4 files count 0 frames at their start.
        let frames = track.num_frames.filter(|&frames| frames > 0);
        if let (Some(frames), Some(rate @ 1..)) = (frames, codec.sample_rate) {
            let seconds = frames as f64 / f64::from(rate);
            return (!self.is_open_length(frames, codec)).then_some(seconds);
        }
        let media = self.format.media_info();
        let (base, duration) = match (track.time_base, track.duration) {
            (Some(base), Some(duration)) => (base, duration),
            _ => (media.time_base?, media.duration?),
        };
        let seconds = base.calc_duration(duration)?.as_secs_f64();
        Some(seconds).filter(|&seconds| seconds > 0.0)
    }

    /// True if that many frames are what a program writes which does not know their number.
    fn is_open_length(&self, frames: u64, codec: &AudioCodecParameters) -> bool {
        let width = codec.bits_per_sample.unwrap_or(0) / 8;
        let channels = codec.channels.as_ref().map_or(0, Channels::count) as u64;
        let bytes = frames.saturating_mul(channels.saturating_mul(width.into()));
        self.format.format_info().format == FORMAT_ID_WAVE && bytes >= OPEN_LENGTH
    }

    /// The length that the container promises, if it knows rather than estimates that of its sound.
    pub fn promised(&self) -> Option<f64> {
        match self.format.format_info().format {
            FORMAT_ID_WAVE | FORMAT_ID_FLAC => self.seconds(),
            FORMAT_ID_ISOMP4 => Some(self.seconds()? - SLACK),
            // Matroska knows the length of the longest track.
            FORMAT_ID_MKV if self.format.tracks().len() == 1 => Some(self.seconds()? - SLACK),
            _ => None,
        }
    }

    /// True for a container where the end of the bytes is an end like any other, which
    /// [`Decoder::promised`] must judge: there is nothing after the last packet.
    fn is_open_ended(&self) -> bool {
        matches!(
            self.format.format_info().format,
            FORMAT_ID_WAVE | FORMAT_ID_FLAC | FORMAT_ID_MKV
        )
    }

    fn track(&self) -> Option<&Track> {
        let mut tracks = self.format.tracks().iter();
        tracks.find(|track| track.id == self.track)
    }

    /// Decodes the next packet into `mono`, the mean of its channels, and returns its sample rate;
    /// `None` at the end.
    ///
    /// # Errors
    /// After an error, `mono` is empty. Decoding goes on with the next packet, if there is one.
    pub fn next(&mut self, mono: &mut Vec<f32>) -> Result<Option<u32>, Fault> {
        mono.clear();
        self.lost = 0;
        while !self.ended {
            let Some(packet) = self.packet()? else {
                break;
            };
            self.lost = self.frames;
            let decoded = self.codec.decode(&packet).map_err(Fault::within)?;
            let (channels, rate) = (decoded.num_planes(), decoded.spec().rate());
            if decoded.frames() == 0 || channels == 0 {
                continue;
            }
            self.frames = decoded.frames();
            self.lost = 0;
            decoded.copy_to_vec_interleaved(&mut self.interleaved);
            let scale = 1.0 / channels as f32;
            let frames = self.interleaved.chunks_exact(channels);
            mono.extend(frames.map(|frame| frame.iter().sum::<f32>() * scale));
            return Ok(Some(rate));
        }
        self.ended = true;
        Ok(None)
    }

    /// The number of frames that the last fault most likely took away: those that the container
    /// does not have, or for a packet that cannot be decoded those of the packet before it.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// The next packet of the track, if there is one.
    fn packet(&mut self) -> Result<Option<Packet>, Fault> {
        if let Some(packet) = self.late.take() {
            return Ok(Some(packet));
        }
        loop {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(None),
                Err(Error::IoError(error))
                    if error.kind() == io::ErrorKind::UnexpectedEof && self.is_open_ended() =>
                {
                    return Ok(None);
                }
                // Ogg: another stream begins.
                Err(Error::ResetRequired) => {
                    self.reopen()?;
                    continue;
                }
                // Whatever the fault, the place of the next packet is not known.
                Err(error) => {
                    self.ended = true;
                    return Err(error.into());
                }
            };
            if packet.track_id != self.track {
                continue;
            }
            let format = self.format.format_info().format;
            if !matches!(format, FORMAT_ID_FLAC | FORMAT_ID_OGG) {
                return Ok(Some(packet));
            }
            // These leave out what is damaged, and go on behind it.
            let start = packet.pts.saturating_add(packet.trim_start);
            let expected = self.next.replace(start.saturating_add(packet.dur));
            let missing = expected.and_then(|expected| start.duration_from(expected));
            match missing.map(|missing| missing.get()) {
                None | Some(0) => return Ok(Some(packet)),
                Some(missing) => {
                    self.late = Some(packet);
                    // Larger numbers are more likely damaged themselves.
                    self.lost = usize::try_from(missing)
                        .map_or(0, |lost| if lost <= MOST_MISSING { lost } else { 0 });
                    return Err(Fault::Damaged("a part of it is missing"));
                }
            }
        }
    }

    /// Opens the track of the stream that begins.
    fn reopen(&mut self) -> Result<(), Fault> {
        self.ended = true;
        (self.track, self.codec) = open_track(&*self.format).map_err(Fault::Next)?;
        self.next = None;
        self.ended = false;
        Ok(())
    }
}

/// The default track of sound, and its decoder.
fn open_track(format: &dyn FormatReader) -> Result<(u32, Box<dyn AudioDecoder>), AudioError> {
    let track = format.default_track(TrackType::Audio);
    let track = track.ok_or(AudioError::NoTrack)?;
    let parameters = track.codec_params.as_ref().and_then(|codec| codec.audio());
    let parameters = parameters.ok_or(AudioError::NoTrack)?;
    if get_codecs().get_audio_decoder(parameters.codec).is_none() {
        return Err(AudioError::Codec {
            codec: name(parameters.codec),
        });
    }
    let setup = parameters.extra_data.as_ref().map_or(0, |data| data.len());
    if parameters.codec == CODEC_ID_VORBIS && setup > LARGEST_SETUP {
        return Err(Fault::Unsupported("vorbis: a setup of more than 64 KiB").at(0.0));
    }
    let codec = get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|error| Fault::within(error).at(0.0))?;
    Ok((track.id, codec))
}

/// The name of a codec that is not decoded here; one without a name is known by its number.
fn name(codec: AudioCodecId) -> String {
    let name = match codec {
        CODEC_ID_OPUS => "Opus",
        CODEC_ID_SPEEX => "Speex",
        CODEC_ID_AC3 => "AC-3",
        CODEC_ID_EAC3 => "E-AC-3",
        CODEC_ID_DCA => "DTS",
        CODEC_ID_WMA => "Windows Media Audio",
        CODEC_ID_MP1 => "MPEG layer 1",
        CODEC_ID_MP2 => "MPEG layer 2",
        CODEC_ID_ADPCM_MS | CODEC_ID_ADPCM_IMA_WAV | CODEC_ID_ADPCM_IMA_QT => "ADPCM",
        CODEC_ID_TRUEHD => "TrueHD",
        CODEC_ID_WAVPACK => "WavPack",
        CODEC_ID_TTA => "True Audio",
        codec => return format!("codec {codec}"),
    };
    name.to_owned()
}
