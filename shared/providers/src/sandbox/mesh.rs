//! GLB files: a ring, its thickness and colour another one for each seed.

use std::f32::consts::TAU;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::json;

/// Vertices around the ring, and around its tube.
const AROUND: u16 = 24;
const TUBE: u16 = 8;

/// A binary glTF 2.0 file with one mesh.
pub(super) fn glb(seed: u64) -> Bytes {
    let unit = |shift: u32| f32::from(((seed >> shift) & 0xff) as u8) / 255.0;
    let thickness = 0.15 + 0.25 * unit(0);
    let (vertices, triangles) = (usize::from(AROUND) * usize::from(TUBE), usize::from(AROUND) * usize::from(TUBE) * 2);
    let mut data = BytesMut::with_capacity(vertices * 24 + triangles * 6);
    each_vertex(|ring, tube| {
        let reach = 1.0 + thickness * tube.cos;
        for value in [reach * ring.cos, thickness * tube.sin, reach * ring.sin] {
            data.put_f32_le(value);
        }
    });
    each_vertex(|ring, tube| {
        for value in [tube.cos * ring.cos, tube.sin, tube.cos * ring.sin] {
            data.put_f32_le(value);
        }
    });
    for i in 0..AROUND {
        for j in 0..TUBE {
            let corner = |i: u16, j: u16| (i % AROUND) * TUBE + j % TUBE;
            let (a, b, c, d) = (corner(i, j), corner(i + 1, j), corner(i + 1, j + 1), corner(i, j + 1));
            for index in [a, c, b, a, d, c] {
                data.put_u16_le(index);
            }
        }
    }
    let (reach, points) = (1.0 + thickness, vertices * 12);
    let colour = [0.3 + 0.7 * unit(8), 0.3 + 0.7 * unit(16), 0.3 + 0.7 * unit(24), 1.0];
    let document = json!({
        "asset": { "version": "2.0", "generator": "aigateway sandbox" },
        "scene": 0,
        "scenes": [{ "nodes": [0] }],
        "nodes": [{ "mesh": 0, "name": "ring" }],
        "materials": [{ "pbrMetallicRoughness": { "baseColorFactor": colour, "metallicFactor": 0.1, "roughnessFactor": 0.6 } }],
        "meshes": [{ "primitives": [{ "attributes": { "POSITION": 0, "NORMAL": 1 }, "indices": 2, "material": 0 }] }],
        "accessors": [
            { "bufferView": 0, "componentType": 5126, "count": vertices, "type": "VEC3",
              "min": [-reach, -thickness, -reach], "max": [reach, thickness, reach] },
            { "bufferView": 1, "componentType": 5126, "count": vertices, "type": "VEC3" },
            { "bufferView": 2, "componentType": 5123, "count": triangles * 3, "type": "SCALAR" },
        ],
        "bufferViews": [
            { "buffer": 0, "byteOffset": 0, "byteLength": points, "target": 34962 },
            { "buffer": 0, "byteOffset": points, "byteLength": points, "target": 34962 },
            { "buffer": 0, "byteOffset": points * 2, "byteLength": triangles * 6, "target": 34963 },
        ],
        "buffers": [{ "byteLength": data.len() }],
    });
    container(document.to_string().into_bytes(), data)
}

/// A direction.
#[derive(Clone, Copy)]
struct Angle {
    sin: f32,
    cos: f32,
}

fn angles(count: u16) -> Vec<Angle> {
    let angle = |n| {
        let (sin, cos) = (TAU * f32::from(n) / f32::from(count)).sin_cos();
        Angle { sin, cos }
    };
    (0..count).map(angle).collect()
}

fn each_vertex(mut vertex: impl FnMut(Angle, Angle)) {
    let tubes = angles(TUBE);
    for ring in angles(AROUND) {
        for tube in &tubes {
            vertex(ring, *tube);
        }
    }
}

/// Both parts padded to four bytes, the text with spaces, the data with zeros.
fn container(mut text: Vec<u8>, mut data: BytesMut) -> Bytes {
    text.resize(text.len().next_multiple_of(4), b' ');
    data.resize(data.len().next_multiple_of(4), 0);
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut out = BytesMut::with_capacity(28 + text.len() + data.len());
    out.put_slice(b"glTF");
    out.put_u32_le(2);
    out.put_u32_le(length(28 + text.len() + data.len()));
    out.put_u32_le(length(text.len()));
    out.put_slice(b"JSON");
    out.put_slice(&text);
    out.put_u32_le(length(data.len()));
    out.put_slice(b"BIN\0");
    out.put_slice(&data);
    out.freeze()
}
