//! The hostile set: files made from a good one, each with one fault, by name.

use std::fs;
use std::path::{Path, PathBuf};

use super::gguf_edit::{Edit, Tensor, array, string};

/// Name of a file in the set, and its bytes.
pub type Hostile = (String, Vec<u8>);

/// A fault for a file, with its name.
type Way = (String, Box<dyn Fn(&mut Edit)>);

/// Returns every model of core's tests, by path; broken files are among them.
pub fn models() -> Vec<(String, Vec<u8>)> {
    let core = core_folder();
    let mut paths = Vec::new();
    for folder in ["tests/data", "tests/golden/families"] {
        let entries = fs::read_dir(core.join(folder)).unwrap();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "gguf")
    });
    paths.sort();
    let read = |path: &PathBuf| (path.display().to_string(), fs::read(path).unwrap());
    paths.iter().map(read).collect()
}

/// Returns the folder of core: this source file is a part of its tests and of the host program's.
fn core_folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    match env!("CARGO_PKG_NAME") {
        "brooklet-core" => here.to_owned(),
        _ => here.join("../core"),
    }
}

/// Collects ways whose closures differ in type.
struct Ways(Vec<Way>);

impl Ways {
    fn add(&mut self, name: impl Into<String>, way: impl Fn(&mut Edit) + 'static) {
        self.0.push((name.into(), Box::new(way)));
    }
}

/// Returns everything of the set that can be made from `good`: the tokenizer's part needs a file
/// that has a tokenizer.
pub fn hostile(good: &[u8]) -> Vec<Hostile> {
    let edit = Edit::new(good);
    let mut ways = Ways(Vec::new());
    header(&mut ways);
    tensors(&mut ways);
    facts(
        &mut ways,
        edit.text("general.architecture").expect("a model"),
    );
    weights(&mut ways);
    if edit
        .entries
        .iter()
        .any(|entry| entry.key == b"tokenizer.ggml.tokens")
    {
        tokenizer(&mut ways);
    }
    let make = |(name, way): Way| {
        let mut edit = edit.clone();
        way(&mut edit);
        (name, edit.bytes().0)
    };
    ways.0.into_iter().map(make).collect()
}

/// Faults in counts, lengths, types and keys.
fn header(ways: &mut Ways) {
    ways.add("version-1", |e| e.version = 1);
    ways.add("version-big-endian", |e| e.version = 3u32.swap_bytes());
    ways.add("tensors-2^64-1", |e| e.tensor_count = Some(u64::MAX));
    ways.add("tensors-2^40", |e| e.tensor_count = Some(1 << 40));
    ways.add("tensors-one-too-many", |e| {
        e.tensor_count = Some(e.tensors.len() as u64 + 1)
    });
    ways.add("tensors-none", |e| e.tensors.clear());
    ways.add("metadata-2^64-1", |e| e.entry_count = Some(u64::MAX));
    ways.add("metadata-2^40", |e| e.entry_count = Some(1 << 40));
    ways.add("metadata-none", |e| e.entries.clear());
    ways.add("string-2^60", |e| {
        e.set("general.name", 8, (1u64 << 60).to_le_bytes())
    });
    ways.add("string-2^64-1", |e| {
        e.set("general.name", 8, u64::MAX.to_le_bytes())
    });
    ways.add("key-2^60", |e| {
        e.set(
            "general.name",
            8,
            string(&[&(1u64 << 60).to_le_bytes()[..], b"key"].concat()),
        );
        e.entry_count = Some(e.entries.len() as u64 + 1);
    });
    ways.add("array-2^60-bytes", |e| {
        e.set("x", 9, array(0, 1 << 60, b""))
    });
    ways.add("array-2^61-of-u64", |e| {
        e.set("x", 9, array(10, 1 << 61, b""))
    });
    ways.add("array-2^60-strings", |e| {
        e.set("x", 9, array(8, 1 << 60, b""))
    });
    ways.add("array-of-arrays-too-deep", |e| {
        let nested = (0..200).fold(array(0, 0, b""), |inner, _| array(9, 1, &inner));
        e.set("x", 9, nested);
    });
    ways.add("value-type-13", |e| e.set("x", 13, [0; 8]));
    ways.add("value-type-2^32-1", |e| e.set("x", u32::MAX, [0; 8]));
    ways.add("element-type-13", |e| e.set("x", 9, array(13, 1, &[0; 8])));
    ways.add("key-not-utf8", |e| e.entries[0].key = vec![0xff, 0xfe]);
    ways.add("key-empty", |e| e.set("", 4, [0; 4]));
    ways.add("key-twice", |e| e.entries.push(e.entries[0].clone()));
    ways.add("tensor-name-not-utf8", |e| {
        e.tensor("output_norm.weight").name = vec![0xc0; 5]
    });
    ways.add("tensor-twice", |e| e.tensors.push(e.tensors[0].clone()));
    for (name, alignment) in [
        ("alignment-0", 0),
        ("alignment-1", 1),
        ("alignment-3", 3),
        ("alignment-48", 48),
        ("alignment-2^17", 1 << 17),
        ("alignment-2^31", 1 << 31),
        ("alignment-2^63", 1 << 63),
    ] {
        ways.add(name, move |e| e.set_u64("general.alignment", alignment));
    }
    ways.add("alignment-text", |e| e.set_text("general.alignment", "32"));
    ways.add("alignment-minus-1", |e| {
        e.set("general.alignment", 11, (-1i64).to_le_bytes())
    });
}

/// Faults in the tensor table.
fn tensors(ways: &mut Ways) {
    for (name, offset) in [
        ("offset-past-the-end", 1 << 30),
        ("offset-2^63", 1 << 63),
        ("offset-2^64-32", u64::MAX - 31),
        ("offset-misaligned", 1),
    ] {
        ways.add(name, move |e| {
            e.tensor("output_norm.weight").offset = offset
        });
    }
    ways.add("offset-last-byte", |e| {
        e.tensor("output_norm.weight").offset = (e.data.len() as u64 - 1) / 32 * 32;
    });
    ways.add("tensors-overlap", |e| {
        e.tensors.iter_mut().for_each(|tensor| tensor.offset = 0)
    });
    ways.add("data-missing", |e| e.data.clear());
    ways.add("data-one-byte-short", |e| e.data.truncate(e.data.len() - 1));
    for (name, dims) in [
        ("dimensions-none", vec![]),
        ("dimensions-5", vec![1, 1, 1, 1, 32]),
        ("dimensions-2^32-1", vec![1; 300]),
        ("dimension-0", vec![0]),
        ("dimension-2^63", vec![1 << 63]),
        ("dimensions-overflow", vec![1 << 32, 1 << 32]),
        ("dimensions-overflow-to-1", vec![1 << 33, 1 << 33, 1 << 62]),
        ("dimension-one-more", vec![33]),
        ("dimension-one-less", vec![31]),
    ] {
        ways.add(name, move |e| {
            e.tensor("output_norm.weight").dims.clone_from(&dims)
        });
    }
    ways.add("shape-transposed", |e| {
        e.tensor("ffn_down.weight").dims.reverse()
    });
    ways.add("shape-embedding-narrow", |e| {
        e.tensor("token_embd.weight").dims[0] = 1
    });
    ways.add("shape-embedding-2^40-rows", |e| {
        e.tensor("token_embd.weight").dims[1] = 1 << 40
    });
    ways.add("shape-embedding-no-rows", |e| {
        e.tensor("token_embd.weight").dims[1] = 0
    });
    ways.add("shape-output-one-row-less", |e| {
        let dims = e.tensor("token_embd.weight").dims.clone();
        let (kind, offset) = (
            e.tensor("token_embd.weight").kind,
            e.tensor("token_embd.weight").offset,
        );
        e.tensors.retain(|tensor| tensor.name != b"output.weight");
        let dims = vec![dims[0], dims[1] - 1];
        e.tensors.push(Tensor {
            name: b"output.weight".to_vec(),
            dims,
            kind,
            offset,
        });
    });
    for (name, kind) in [
        ("format-removed", 4),
        ("format-unknown", 999),
        ("format-2^32-1", u32::MAX),
        ("format-norm-f16", 1),
        ("format-norm-q8_0", 8),
    ] {
        ways.add(name, move |e| e.tensor("output_norm.weight").kind = kind);
    }
    ways.add("tensor-missing-embedding", |e| {
        remove(e, "token_embd.weight")
    });
    ways.add("tensor-missing-norm", |e| remove(e, "output_norm.weight"));
    ways.add("tensor-missing-in-layer", |e| remove(e, "ffn_down.weight"));
    ways.add("tensors-40000", |e| {
        let tensor = e.tensor("output_norm.weight").clone();
        let name = |i: usize| [b"t".to_vec(), i.to_string().into_bytes()].concat();
        e.tensors.extend((0..40_000).map(|i| Tensor {
            name: name(i),
            ..tensor.clone()
        }));
    });
    ways.add("tensor-name-2^20", |e| {
        e.tensor("output_norm.weight").name = vec![b'a'; 1 << 20]
    });
}

fn remove(e: &mut Edit, name: &str) {
    e.tensors
        .retain(|tensor| !tensor.name.ends_with(name.as_bytes()));
}

/// Faults in the model's dimensions and numbers.
fn facts(ways: &mut Ways, arch: String) {
    ways.add("architecture-missing", |e| {
        e.entries
            .retain(|entry| entry.key != b"general.architecture")
    });
    ways.add("architecture-number", |e| {
        e.set_u64("general.architecture", 7)
    });
    ways.add("architecture-unknown", |e| {
        e.set_text("general.architecture", "no-such-family")
    });
    ways.add("architecture-2^16-long", |e| {
        e.set_text("general.architecture", &"a".repeat(1 << 16))
    });
    let mut integer = |name: &'static str, key: &str, value: u64| {
        let key = format!("{arch}.{key}");
        ways.add(name, move |e| e.set_u64(&key, value));
    };
    for (name, key, value) in [
        ("layers-0", "block_count", 0),
        ("layers-one-more", "block_count", 3),
        ("layers-2^24", "block_count", 1 << 24),
        ("layers-2^40", "block_count", 1 << 40),
        ("layers-2^64-1", "block_count", u64::MAX),
        ("width-0", "embedding_length", 0),
        ("width-1", "embedding_length", 1),
        ("width-33", "embedding_length", 33),
        ("width-2^24", "embedding_length", 1 << 24),
        ("width-2^63", "embedding_length", 1 << 63),
        ("ff-0", "feed_forward_length", 0),
        ("ff-2^63", "feed_forward_length", 1 << 63),
        ("heads-0", "attention.head_count", 0),
        ("heads-3", "attention.head_count", 3),
        ("heads-2^24", "attention.head_count", 1 << 24),
        ("heads-2^63", "attention.head_count", 1 << 63),
        ("kv-heads-0", "attention.head_count_kv", 0),
        ("kv-heads-do-not-divide", "attention.head_count_kv", 3),
        ("kv-heads-more-than-heads", "attention.head_count_kv", 64),
        ("head-width-0", "attention.key_length", 0),
        ("head-width-odd", "attention.key_length", 7),
        ("head-width-2^20", "attention.key_length", 1 << 20),
        ("values-wider-than-keys", "attention.value_length", 64),
        ("context-0", "context_length", 0),
        ("context-1", "context_length", 1),
        ("context-2^24", "context_length", 1 << 24),
        ("context-2^63", "context_length", 1 << 63),
        ("rope-width-odd", "rope.dimension_count", 3),
        ("rope-width-too-large", "rope.dimension_count", 4096),
        ("rope-width-2^63", "rope.dimension_count", 1 << 63),
        ("experts-8", "expert_count", 8),
        ("experts-2^63", "expert_count", 1 << 63),
        ("vocabulary-2^63", "vocab_size", 1 << 63),
    ] {
        integer(name, key, value);
    }
    let numbers = [
        ("nan", f32::NAN),
        ("inf", f32::INFINITY),
        ("minus-1", -1.0),
        ("0", 0.0),
        ("huge", 3e38),
        ("tiny", 1e-45),
    ];
    for key in [
        "rope.freq_base",
        "attention.layer_norm_rms_epsilon",
        "rope.scaling.factor",
        "attn_logit_softcapping",
        "final_logit_softcapping",
    ] {
        for (value_name, value) in numbers {
            let name = format!("{key}-{value_name}");
            let scaling = format!("{arch}.rope.scaling.type");
            let key_name = format!("{arch}.{key}");
            let linear = key == "rope.scaling.factor";
            ways.add(name, move |e| {
                if linear {
                    e.set_text(&scaling, "linear");
                }
                e.set_f32(&key_name, value);
            });
        }
    }
    let key = format!("{arch}.block_count");
    ways.add("layers-3000-that-are-there", move |e| {
        e.set_u64(&key, 3000);
        let of_layer = |tensor: &&Tensor| tensor.name.starts_with(b"blk.0.");
        let layer: Vec<Tensor> = e.tensors.iter().filter(of_layer).cloned().collect();
        e.tensors.retain(|tensor| !tensor.name.starts_with(b"blk."));
        for i in 0..3000 {
            e.tensors.extend(layer.iter().map(|tensor| Tensor {
                name: [format!("blk.{i}.").as_bytes(), &tensor.name[6..]].concat(),
                ..tensor.clone()
            }));
        }
    });
    let key = format!("{arch}.rope.scaling.type");
    ways.add("rope-scaling-unknown", move |e| {
        e.set_text(&key, "sideways")
    });
    let key = format!("{arch}.embedding_length");
    ways.add("width-text", move |e| e.set_text(&key, "32"));
    let key = format!("{arch}.embedding_length");
    ways.add("width-minus-1", move |e| {
        e.set(&key, 11, (-1i64).to_le_bytes())
    });
    let key = format!("{arch}.attention.head_count");
    ways.add("heads-per-layer-array", move |e| {
        e.set(&key, 9, array(4, 1, &2u32.to_le_bytes()))
    });
}

/// Weights that are NaN or infinite: such files are not refused, and nothing may break.
fn weights(ways: &mut Ways) {
    let f32s = [
        ("nan", f32::NAN),
        ("inf", f32::INFINITY),
        ("minus-inf", f32::NEG_INFINITY),
        ("huge", 3e38),
    ];
    for (value_name, value) in f32s {
        let name = format!("weights-norm-{value_name}");
        ways.add(name, move |e| {
            e.fill("output_norm.weight", &value.to_le_bytes())
        });
    }
    // If every byte is 0x7e or 0xff, blocks have scales that are NaN, or the largest integers.
    for (name, tensor, byte) in [
        ("weights-embedding-nan", "token_embd.weight", 0x7e),
        ("weights-embedding-ff", "token_embd.weight", 0xff),
        ("weights-key-inf", "attn_k.weight", 0x7c),
        ("weights-query-nan", "attn_q.weight", 0x7e),
        ("weights-value-ff", "attn_v.weight", 0xff),
        ("weights-down-largest", "ffn_down.weight", 0x7b),
        ("weights-gate-inf", "ffn_gate.weight", 0x7c),
    ] {
        ways.add(name, move |e| e.fill(tensor, &[0, byte]));
        let whole = format!("{name}-everywhere");
        ways.add(whole, move |e| e.fill(tensor, &[byte]));
    }
    ways.add("weights-all-nan", |e| e.data.fill(0x7e));
    ways.add("weights-all-ff", |e| e.data.fill(0xff));
    ways.add("weights-all-zero", |e| e.data.fill(0));
}

/// Faults in vocabularies, merges and special tokens.
fn tokenizer(ways: &mut Ways) {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    const TYPES: &str = "tokenizer.ggml.token_type";
    const MERGES: &str = "tokenizer.ggml.merges";
    ways.add("tokenizer-unknown", |e| {
        e.set_text("tokenizer.ggml.model", "runes")
    });
    ways.add("tokenizer-number", |e| e.set_u64("tokenizer.ggml.model", 1));
    ways.add("tokens-none", |e| e.set_texts(TOKENS, &[""; 0]));
    ways.add("tokens-numbers", |e| e.set(TOKENS, 9, array(4, 2, &[0; 8])));
    ways.add("tokens-2^60", |e| e.set(TOKENS, 9, array(8, 1 << 60, b"")));
    ways.add("tokens-2^60-long", |e| {
        e.set(TOKENS, 9, array(8, 1, &(1u64 << 60).to_le_bytes()))
    });
    ways.add("tokens-all-empty", |e| e.set_texts(TOKENS, &[""; 305]));
    ways.add("tokens-all-equal", |e| e.set_texts(TOKENS, &["a"; 305]));
    ways.add("tokens-not-utf8", |e| {
        e.set_texts(TOKENS, &[[0xff, 0xfe]; 305])
    });
    ways.add("tokens-one-of-2^20-bytes", |e| {
        e.set_texts(TOKENS, &["a".repeat(1 << 20)])
    });
    ways.add("tokens-100000-more-than-rows", |e| {
        let tokens: Vec<String> = (0..100_305).map(|i| format!("t{i}")).collect();
        e.set_texts(TOKENS, &tokens);
        e.set(
            "tokenizer.ggml.scores",
            9,
            array(6, 100_305, &vec![0; 4 * 100_305]),
        );
        e.set(TYPES, 9, array(5, 100_305, &vec![1; 4 * 100_305]));
    });
    ways.add("tokens-fewer-than-rows", |e| {
        e.set_texts(TOKENS, &["a", "b"])
    });
    ways.add("scores-too-few", |e| {
        e.set("tokenizer.ggml.scores", 9, array(6, 2, &[0; 8]))
    });
    ways.add("scores-nan", |e| {
        e.set("tokenizer.ggml.scores", 9, array(6, 305, &[0xff; 4 * 305]))
    });
    ways.add("scores-text", |e| {
        e.set_text("tokenizer.ggml.scores", "0.5")
    });
    ways.add("types-out-of-range", |e| {
        e.set(TYPES, 9, array(5, 305, &[0x7f; 4 * 305]))
    });
    ways.add("types-negative", |e| {
        e.set(TYPES, 9, array(5, 305, &[0xff; 4 * 305]))
    });
    ways.add("types-all-control", |e| {
        e.set(TYPES, 9, array(5, 305, &[3, 0, 0, 0].repeat(305)))
    });
    ways.add("types-all-byte", |e| {
        e.set(TYPES, 9, array(5, 305, &[6, 0, 0, 0].repeat(305)))
    });
    ways.add("types-too-few", |e| e.set(TYPES, 9, array(5, 1, &[0; 4])));
    for (name, id) in [
        ("id-305", 305),
        ("id-2^32-1", u64::from(u32::MAX)),
        ("id-2^63", 1 << 63),
    ] {
        ways.add(name, move |e| {
            for special in ["bos", "eos", "unknown", "eot", "padding"] {
                e.set_u64(&format!("tokenizer.ggml.{special}_token_id"), id);
            }
        });
    }
    ways.add("id-text", |e| {
        e.set_text("tokenizer.ggml.bos_token_id", "<s>")
    });
    let mut merges = |name: &'static str, merges: &'static [&'static str]| {
        ways.add(name, move |e| {
            e.set_text("tokenizer.ggml.model", "gpt2");
            e.set_text("tokenizer.ggml.pre", "qwen2");
            e.set_texts(MERGES, merges);
        });
    };
    merges("merges-none", &[]);
    merges("merges-name-no-token", &["qq zz", "\u{1}\u{2} \u{3}"]);
    merges("merges-of-empty-halves", &[" ", "a ", " a", ""]);
    merges("merges-without-blank", &["ab", "the"]);
    merges("merges-with-three-parts", &["a b c", "a  b"]);
    merges(
        "merges-cyclic",
        &["a a", "aa aa", "aaaa aaaa", "aa a", "a aa", "a a"],
    );
    ways.add("merges-missing", |e| {
        e.set_text("tokenizer.ggml.model", "gpt2")
    });
    ways.add("merges-numbers", |e| {
        e.set_text("tokenizer.ggml.model", "gpt2");
        e.set(MERGES, 9, array(4, 2, &[0; 8]));
    });
    ways.add("merges-2^60", |e| {
        e.set_text("tokenizer.ggml.model", "gpt2");
        e.set(MERGES, 9, array(8, 1 << 60, b""));
    });
    ways.add("pre-tokenizer-unknown", |e| {
        e.set_text("tokenizer.ggml.model", "gpt2");
        e.set_text("tokenizer.ggml.pre", "nobody");
        e.set_texts(MERGES, &["a b"]);
    });
}
