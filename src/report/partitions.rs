//! Temporary files that divide records by a key, so that each part fits into memory.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};

use serde::Serialize;

use super::error::ReportError;

/// Records in temporary files. All records with the same key are in the same file.
pub(super) struct Partitions {
    files: Vec<Option<BufWriter<File>>>,
    sizes: Vec<u64>,
    /// Larger files are divided again by other bits of the key.
    max_bytes: u64,
    /// How often the records were divided before.
    depth: u32,
    /// Reused for each record.
    buffer: Vec<u8>,
}

/// The encoded records with the same key.
pub(super) type Group<'a> = [(u64, &'a [u8])];

/// Called with the size of a partition and its records, sorted by key.
pub(super) type Visit<'f> = dyn FnMut(u64, &Group<'_>) -> Result<(), ReportError> + 'f;

const FILES: usize = 64;
const BITS: u32 = FILES.trailing_zeros();
/// A file whose records were divided this often is loaded, whatever its size.
const MAX_DEPTH: u32 = 4;
const BUFFER_BYTES: usize = 16 << 10;
/// Each record follows its key and its length.
const HEADER_BYTES: usize = 12;

impl Partitions {
    pub fn new(max_bytes: u64) -> Self {
        Self::at_depth(max_bytes, 0)
    }

    /// The size of all records.
    pub fn bytes(&self) -> u64 {
        self.sizes.iter().sum()
    }

    /// `key` must be a hash, so that its bits divide the records evenly.
    pub fn push(&mut self, key: u64, record: &impl Serialize) -> Result<(), ReportError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer = postcard::to_extend(record, buffer)?;
        self.push_encoded(key, &buffer)?;
        self.buffer = buffer;
        Ok(())
    }

    /// Visits the records of one partition after the other.
    pub fn for_each(self, visit: &mut Visit<'_>) -> Result<(), ReportError> {
        for (file, size) in self.files.into_iter().zip(self.sizes) {
            let Some(file) = file else { continue };
            let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.rewind()?;
            if size > self.max_bytes && self.depth < MAX_DEPTH {
                divide(file, self.max_bytes, self.depth + 1)?.for_each(visit)?;
                continue;
            }
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            file.read_to_end(&mut bytes)?;
            let mut entries = entries(&bytes);
            entries.sort_unstable_by_key(|(key, _)| *key);
            visit(size, &entries)?;
        }
        Ok(())
    }

    fn at_depth(max_bytes: u64, depth: u32) -> Self {
        let files = std::iter::repeat_with(|| None).take(FILES).collect();
        Self { files, sizes: vec![0; FILES], max_bytes, depth, buffer: Vec::new() }
    }

    fn push_encoded(&mut self, key: u64, record: &[u8]) -> Result<(), ReportError> {
        let index = (key >> (self.depth * BITS)) as usize % FILES;
        let file = match &mut self.files[index] {
            Some(file) => file,
            // The operating system deletes the file when the process ends, even if it is killed.
            none => none.insert(BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile()?)),
        };
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&key.to_le_bytes());
        header[8..].copy_from_slice(&(record.len() as u32).to_le_bytes());
        file.write_all(&header)?;
        file.write_all(record)?;
        self.sizes[index] += (HEADER_BYTES + record.len()) as u64;
        Ok(())
    }
}

/// Divides the records in a file by the next bits of their keys.
fn divide(mut file: File, max_bytes: u64, depth: u32) -> Result<Partitions, ReportError> {
    let mut partitions = Partitions::at_depth(max_bytes, depth);
    let mut reader = std::io::BufReader::with_capacity(1 << 20, &mut file);
    let (mut header, mut record) = ([0; HEADER_BYTES], Vec::new());
    loop {
        match reader.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(partitions),
            Err(error) => return Err(error.into()),
        }
        let (key, length) = decode_header(&header);
        record.resize(length, 0);
        reader.read_exact(&mut record)?;
        partitions.push_encoded(key, &record)?;
    }
}

fn entries(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut entries = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let (key, length) = decode_header(header);
        let (record, rest) = rest.split_at(length.min(rest.len()));
        entries.push((key, record));
        bytes = rest;
    }
    entries
}

fn decode_header(header: &[u8; HEADER_BYTES]) -> (u64, usize) {
    let (key, length) = header.split_at(8);
    let key = key.iter().rev().fold(0, |key, byte| (key << 8) | u64::from(*byte));
    let length = length.iter().rev().fold(0, |length, byte| (length << 8) | usize::from(*byte));
    (key, length)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn large_partitions_are_divided_without_losing_records() {
        let (mut partitions, hasher) = (Partitions::new(200), RandomState::new());
        for n in 0..5000_u32 {
            partitions.push(hasher.hash_one(n % 1000), &n).unwrap();
        }
        let (mut largest, mut seen) = (0, BTreeMap::<u32, u32>::new());
        partitions
            .for_each(&mut |bytes, entries| {
                largest = largest.max(bytes);
                for group in entries.chunk_by(|a, b| a.0 == b.0) {
                    assert_eq!(group.len(), 5, "the records of a key are together");
                }
                for (_, record) in entries {
                    *seen.entry(postcard::from_bytes(record)?).or_default() += 1;
                }
                Ok(())
            })
            .unwrap();
        assert!(largest <= 200, "{largest}");
        assert_eq!(seen, (0..5000).map(|n| (n, 1)).collect());
    }

    #[test]
    fn a_partition_with_one_key_is_loaded_whole() {
        let mut partitions = Partitions::new(10);
        (0..100_u32).for_each(|n| partitions.push(7, &n).unwrap());
        let mut sizes = Vec::new();
        partitions
            .for_each(&mut |_, entries| {
                sizes.push(entries.len());
                Ok(())
            })
            .unwrap();
        assert_eq!(sizes, [100]);
    }
}
