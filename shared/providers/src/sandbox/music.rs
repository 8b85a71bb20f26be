//! WAV files: a gentle arpeggio, another one for each seed, made second by second.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, stream};

/// Samples per second; mono, 16 bits.
const RATE: u32 = 22_050;
/// Notes per second.
const TEMPO: f64 = 4.0;
/// A pentatonic scale: whatever is picked sounds well together.
const SCALE: [f64; 8] = [220.0, 246.94, 293.66, 329.63, 392.0, 440.0, 493.88, 587.33];

/// A WAV file of `seconds`.
pub(super) fn wav(seed: u64, seconds: f64) -> impl Stream<Item = Bytes> + Send {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 300 seconds of samples")]
    let samples = (seconds * f64::from(RATE)).round() as u32;
    let pieces = (0..samples).step_by(RATE as usize).map(move |first| piece(seed, first, samples.min(first + RATE)));
    stream::iter(std::iter::once(header(samples)).chain(pieces))
}

fn header(samples: u32) -> Bytes {
    let (data, mut out) = (samples * 2, BytesMut::with_capacity(44));
    out.put_slice(b"RIFF");
    out.put_u32_le(36 + data);
    out.put_slice(b"WAVEfmt ");
    out.put_u32_le(16);
    out.put_u16_le(1);
    out.put_u16_le(1);
    out.put_u32_le(RATE);
    out.put_u32_le(RATE * 2);
    out.put_u16_le(2);
    out.put_u16_le(16);
    out.put_slice(b"data");
    out.put_u32_le(data);
    out.freeze()
}

fn piece(seed: u64, from: u32, to: u32) -> Bytes {
    let mut out = BytesMut::with_capacity((to - from) as usize * 2);
    for sample in from..to {
        out.put_i16_le(value(seed, f64::from(sample) / f64::from(RATE)));
    }
    out.freeze()
}

/// The sound at `time` seconds: one note that fades, with a little of its octave.
fn value(seed: u64, time: f64) -> i16 {
    let note = (time * TEMPO).floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
    let pick = (seed >> (note as u64 % 20 * 3)) as usize % SCALE.len();
    let since = time - note / TEMPO;
    let wave = |frequency: f64| (std::f64::consts::TAU * frequency * since).sin();
    let sound = (wave(SCALE[pick]) + 0.3 * wave(SCALE[pick] * 2.0)) * (-6.0 * since).exp();
    #[expect(clippy::cast_possible_truncation, reason = "within ±1.3 × 12,000")]
    let value = (sound * 12_000.0) as i16;
    value
}
