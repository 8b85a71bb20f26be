//! MP4 clips: the frames of a short clip that was encoded once, repeated to the length asked for.

use bytes::Bytes;
use mp4_atom::{Any, Decode as _, Encode as _, Ftyp, Moov, StscEntry, StszSamples, SttsEntry};

use crate::JobCall;

/// Frames per second of the clips.
const RATE: f64 = 24.0;

/// Which clip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    #[default]
    Wide,
    Tall,
    Square,
}

/// The shape a job asks for; `None` when there is no such clip.
pub(super) fn shape(call: &JobCall) -> Option<Shape> {
    match call.params.get("aspect_ratio").and_then(|ratio| ratio.as_str()) {
        None | Some("16:9") => Some(Shape::Wide),
        Some("9:16") => Some(Shape::Tall),
        Some("1:1") => Some(Shape::Square),
        Some(_) => None,
    }
}

impl Shape {
    pub(super) fn resolution(self) -> &'static str {
        match self {
            Self::Wide => "320x180",
            Self::Tall => "180x320",
            Self::Square => "240x240",
        }
    }

    fn clip(self) -> &'static [u8] {
        match self {
            Self::Wide => include_bytes!("clip-16x9.mp4"),
            Self::Tall => include_bytes!("clip-9x16.mp4"),
            Self::Square => include_bytes!("clip-1x1.mp4"),
        }
    }
}

/// A clip taken apart.
struct Clip {
    ftyp: Ftyp,
    moov: Moov,
    frames: Vec<u8>,
}

/// A clip of `seconds`, with its index in front, so that players can begin at once.
pub(super) fn mp4(shape: Shape, seconds: f64) -> Result<Bytes, mp4_atom::Error> {
    let Clip { ftyp, mut moov, frames: source } = take_apart(shape.clip())?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0.5 to 60 seconds of frames")]
    let count = (seconds * RATE).round().max(1.0) as u32;
    let (timescale, trak) = (u64::from(moov.mvhd.timescale), moov.trak.first_mut());
    let trak = trak.ok_or(mp4_atom::Error::MissingBox(mp4_atom::FourCC::new(b"trak")))?;
    let media_timescale = u64::from(trak.mdia.mdhd.timescale);
    let stbl = &mut trak.mdia.minf.stbl;
    let delta = stbl.stts.entries.first().map_or(1, |entry| entry.sample_delta);
    let sizes = match &stbl.stsz.samples {
        StszSamples::Different { sizes } => sizes.clone(),
        StszSamples::Identical { count, size } => vec![*size; *count as usize],
    };
    let sizes: Vec<u32> = sizes.iter().copied().cycle().take(count as usize).collect();
    let frames = repeated(&source, sizes.iter().map(|size| *size as usize).sum());
    let per_clip = u32::try_from(sizes.len().min(24)).unwrap_or(24);
    stbl.stss =
        Some(mp4_atom::Stss { entries: (0..count).step_by(per_clip as usize).map(|frame| frame + 1).collect() });
    stbl.stts.entries = vec![SttsEntry { sample_count: count, sample_delta: delta }];
    stbl.stsc.entries = vec![StscEntry { first_chunk: 1, samples_per_chunk: count, sample_description_index: 1 }];
    stbl.stsz.samples = StszSamples::Different { sizes };
    stbl.stco = Some(mp4_atom::Stco { entries: vec![0] });
    let media_duration = u64::from(count) * u64::from(delta);
    trak.mdia.mdhd.duration = media_duration;
    let duration = media_duration * timescale / media_timescale.max(1);
    trak.tkhd.duration = duration;
    trak.edts = None;
    moov.mvhd.duration = duration;
    put_together(&ftyp, &mut moov, frames)
}

fn take_apart(mut bytes: &[u8]) -> Result<Clip, mp4_atom::Error> {
    let (mut ftyp, mut moov, mut frames) = (None, None, None);
    while !bytes.is_empty() {
        match Any::decode(&mut bytes)? {
            Any::Ftyp(atom) => ftyp = Some(atom),
            Any::Moov(atom) => moov = Some(atom),
            Any::Mdat(atom) => frames = Some(atom.data),
            _ => {}
        }
    }
    let missing = |name: &[u8; 4]| mp4_atom::Error::MissingBox(mp4_atom::FourCC::new(name));
    Ok(Clip {
        ftyp: ftyp.ok_or_else(|| missing(b"ftyp"))?,
        moov: moov.ok_or_else(|| missing(b"moov"))?,
        frames: frames.ok_or_else(|| missing(b"mdat"))?,
    })
}

/// `source` again and again, up to `length` bytes.
fn repeated(source: &[u8], length: usize) -> Vec<u8> {
    source.iter().copied().cycle().take(length).collect()
}

fn put_together(ftyp: &Ftyp, moov: &mut Moov, frames: Vec<u8>) -> Result<Bytes, mp4_atom::Error> {
    const MDAT_HEADER: usize = 8;
    let mut head = Vec::new();
    ftyp.encode(&mut head)?;
    moov.encode(&mut head)?;
    // The offset of the frames has a fixed width, so that writing it does not move them.
    let offset = u32::try_from(head.len() + MDAT_HEADER).unwrap_or(u32::MAX);
    for trak in &mut moov.trak {
        trak.mdia.minf.stbl.stco = Some(mp4_atom::Stco { entries: vec![offset] });
    }
    let mut out = Vec::with_capacity(head.len() + MDAT_HEADER + frames.len());
    ftyp.encode(&mut out)?;
    moov.encode(&mut out)?;
    mp4_atom::Mdat { data: frames }.encode(&mut out)?;
    Ok(out.into())
}
