//! A GGUF file taken apart, so that a test can put it together with faults.
//!
//! It reads good files only, with its own code, and writes exactly the content of its fields.

/// Metadata of one key.
#[derive(Clone)]
pub struct Entry {
    pub key: Vec<u8>,
    /// Number of the type by the specification.
    pub kind: u32,
    /// Bytes of the value as in the file.
    pub value: Vec<u8>,
}

/// An entry of the tensor table.
#[derive(Clone)]
pub struct Tensor {
    pub name: Vec<u8>,
    pub dims: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

/// The parts of a file.
#[derive(Clone)]
pub struct Edit {
    pub version: u32,
    pub entries: Vec<Entry>,
    pub tensors: Vec<Tensor>,
    /// Everything after the header.
    pub data: Vec<u8>,
    /// Counts that the header claims, if they differ from the true ones.
    pub entry_count: Option<u64>,
    pub tensor_count: Option<u64>,
}

/// A cursor over a good file.
struct Cursor<'a>(&'a [u8], usize);

impl Cursor<'_> {
    fn take(&mut self, len: usize) -> Vec<u8> {
        self.1 += len;
        self.0[self.1 - len..self.1].to_vec()
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn string(&mut self) -> Vec<u8> {
        let len = self.u64() as usize;
        self.take(len)
    }

    /// Returns the bytes of a value of type `kind`.
    fn value(&mut self, kind: u32) -> Vec<u8> {
        let start = self.1;
        match kind {
            0 | 1 | 7 => drop(self.take(1)),
            2 | 3 => drop(self.take(2)),
            4..=6 => drop(self.take(4)),
            8 => drop(self.string()),
            9 => {
                let element = self.u32();
                (0..self.u64()).for_each(|_| drop(self.value(element)));
            }
            _ => drop(self.take(8)),
        }
        self.0[start..self.1].to_vec()
    }
}

impl Edit {
    /// Takes a good file apart.
    pub fn new(file: &[u8]) -> Edit {
        let mut r = Cursor(file, 4);
        let version = r.u32();
        let (tensors, entries) = (r.u64(), r.u64());
        let entries = (0..entries)
            .map(|_| {
                let key = r.string();
                let kind = r.u32();
                let value = r.value(kind);
                Entry { key, kind, value }
            })
            .collect();
        let tensors = (0..tensors)
            .map(|_| {
                let name = r.string();
                let rank = r.u32();
                let dims = (0..rank).map(|_| r.u64()).collect();
                let kind = r.u32();
                let offset = r.u64();
                Tensor {
                    name,
                    dims,
                    kind,
                    offset,
                }
            })
            .collect();
        let data = file[r.1.next_multiple_of(32).min(file.len())..].to_vec();
        Edit {
            version,
            entries,
            tensors,
            data,
            entry_count: None,
            tensor_count: None,
        }
    }

    /// Returns the file, and the end of its header.
    pub fn bytes(&self) -> (Vec<u8>, usize) {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        out.extend(
            self.entry_count
                .unwrap_or(self.entries.len() as u64)
                .to_le_bytes(),
        );
        for entry in &self.entries {
            out.extend(string(&entry.key));
            out.extend(entry.kind.to_le_bytes());
            out.extend(&entry.value);
        }
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor
                .dims
                .iter()
                .for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        let header = out.len();
        out.resize(header.next_multiple_of(32), 0);
        out.extend(&self.data);
        (out, header)
    }

    /// Returns the text under a key.
    pub fn text(&self, key: &str) -> Option<String> {
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.key == key.as_bytes())?;
        (entry.kind == 8).then(|| String::from_utf8_lossy(&entry.value[8..]).into_owned())
    }

    /// Sets the value of a key, and adds the key if it is missing.
    pub fn set(&mut self, key: &str, kind: u32, value: impl Into<Vec<u8>>) {
        let value = value.into();
        match self
            .entries
            .iter_mut()
            .find(|entry| entry.key == key.as_bytes())
        {
            Some(entry) => (entry.kind, entry.value) = (kind, value),
            None => self.entries.push(Entry {
                key: key.into(),
                kind,
                value,
            }),
        }
    }

    pub fn set_u64(&mut self, key: &str, value: u64) {
        self.set(key, 10, value.to_le_bytes());
    }

    pub fn set_f32(&mut self, key: &str, value: f32) {
        self.set(key, 6, value.to_le_bytes());
    }

    pub fn set_text(&mut self, key: &str, value: &str) {
        self.set(key, 8, string(value.as_bytes()));
    }

    pub fn set_texts(&mut self, key: &str, values: &[impl AsRef<[u8]>]) {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| string(value.as_ref()))
            .collect();
        self.set(key, 9, array(8, values.len() as u64, &bytes));
    }

    /// Returns the tensor whose name has this end: the first one if layers repeat it, the file's
    /// first tensor if a family has none with that name.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let named = |tensor: &Tensor| tensor.name.ends_with(name.as_bytes());
        let at = self.tensors.iter().position(named).unwrap_or(0);
        &mut self.tensors[at]
    }

    /// Adds a tensor of F32 with data of its own, all zero.
    pub fn add_zeros(&mut self, name: &str, dims: &[u64]) {
        let offset = self.data.len().next_multiple_of(32);
        let bytes = 4 * dims.iter().product::<u64>() as usize;
        self.data.resize(offset + bytes, 0);
        self.tensors.push(Tensor {
            name: name.into(),
            dims: dims.to_vec(),
            kind: 0,
            offset: offset as u64,
        });
    }

    /// Fills the data of a tensor, up to the next tensor's data, with `pattern`.
    pub fn fill(&mut self, name: &str, pattern: &[u8]) {
        let start = self.tensor(name).offset as usize;
        let ends = self.tensors.iter().map(|tensor| tensor.offset as usize);
        let end = ends
            .filter(|end| *end > start)
            .min()
            .unwrap_or(self.data.len());
        for (byte, new) in self.data[start..end].iter_mut().zip(pattern.iter().cycle()) {
            *byte = *new;
        }
    }
}

/// Returns a string as it is in a file.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// Returns the value of an array that claims to have `count` elements.
pub fn array(element: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat()
}
