//! A good file with a fault in each key and each tensor, whatever the names in its family.

use super::gguf_edit::{Edit, array, string};
use super::hostile::Hostile;

/// A fault for one tensor, by its place in the table.
type TensorWay = (&'static str, fn(&mut Edit, usize));

/// Returns files made from `good` with several faults for every key's value and every tensor,
/// whatever the names in its family.
pub fn each_part(good: &[u8]) -> Vec<Hostile> {
    let edit = Edit::new(good);
    let mut all = Vec::new();
    for (i, entry) in edit.entries.iter().enumerate() {
        for (name, kind, value) in values() {
            let mut edit = edit.clone();
            (edit.entries[i].kind, edit.entries[i].value) = (kind, value);
            all.push((
                format!("{} is {name}", String::from_utf8_lossy(&entry.key)),
                edit.bytes().0,
            ));
        }
        let mut edit = edit.clone();
        edit.entries.remove(i);
        all.push((
            format!("{} is gone", String::from_utf8_lossy(&entry.key)),
            edit.bytes().0,
        ));
    }
    for (i, tensor) in edit.tensors.iter().enumerate() {
        let ways: [TensorWay; 8] = [
            ("is gone", |e, i| drop(e.tensors.remove(i))),
            ("is wider", |e, i| e.tensors[i].dims[0] += 32),
            ("is narrower", |e, i| e.tensors[i].dims[0] = 32),
            ("has a row more", |e, i| e.tensors[i].dims.push(2)),
            ("is f16", |e, i| e.tensors[i].kind = 1),
            ("is q4_0", |e, i| e.tensors[i].kind = 2),
            ("is at the start", |e, i| e.tensors[i].offset = 0),
            ("is NaN", |e, i| {
                let name = String::from_utf8_lossy(&e.tensors[i].name).into_owned();
                e.fill(&name, &[0, 0, 0xc0, 0x7f]);
            }),
        ];
        for (name, way) in ways {
            let mut edit = edit.clone();
            way(&mut edit, i);
            all.push((
                format!("{} {name}", String::from_utf8_lossy(&tensor.name)),
                edit.bytes().0,
            ));
        }
    }
    all
}

/// Returns values of any type for any key: name, type, bytes.
fn values() -> [(&'static str, u32, Vec<u8>); 11] {
    [
        ("0", 4, 0u32.to_le_bytes().into()),
        ("1", 4, 1u32.to_le_bytes().into()),
        ("3", 4, 3u32.to_le_bytes().into()),
        ("2^24", 4, (1u32 << 24).to_le_bytes().into()),
        ("2^63", 10, (1u64 << 63).to_le_bytes().into()),
        ("-1", 11, (-1i64).to_le_bytes().into()),
        ("NaN", 6, f32::NAN.to_le_bytes().into()),
        ("-1.5", 6, (-1.5f32).to_le_bytes().into()),
        ("infinite", 12, f64::INFINITY.to_le_bytes().into()),
        ("a text", 8, string(b"text")),
        ("an array of one", 9, array(4, 1, &7u32.to_le_bytes())),
    ]
}
