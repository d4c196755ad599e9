//! Reads the lines of a file or of standard input. Detects gzip by the content.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

/// Longer lines are broken. The longest event of the service has less than 64 KiB.
const MAX_LINE_BYTES: u64 = 1 << 20;
const BUFFER_BYTES: usize = 128 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

pub(super) struct Input {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    is_gzip: bool,
    is_damaged: bool,
}

pub(super) struct InputLine<'a> {
    pub text: &'a [u8],
    /// Whether the line ends with a line break. The last line of a file may have been written only in part.
    pub is_complete: bool,
    pub is_too_long: bool,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    pub fn open(path: &Path, progress: &ProgressBar) -> io::Result<Self> {
        let mut file: Box<dyn Read> = match path.to_str() {
            Some("-") => Box::new(io::stdin()),
            _ => Box::new(File::open(path)?),
        };
        let mut start = Vec::new();
        file.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut start)?;
        let is_gzip = start == GZIP_MAGIC;
        let bytes = progress.wrap_read(Cursor::new(start).chain(file));
        let buffered = BufReader::with_capacity(BUFFER_BYTES, bytes);
        let reader: Box<dyn BufRead> = match is_gzip {
            true => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(buffered))),
            false => Box::new(buffered),
        };
        Ok(Self { reader, line: Vec::new(), is_gzip, is_damaged: false })
    }

    pub fn next_line(&mut self) -> io::Result<Option<InputLine<'_>>> {
        self.line.clear();
        if self.is_damaged {
            return Ok(None);
        }
        let read = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut self.line);
        self.check(read)?;
        let is_complete = self.line.ends_with(b"\n");
        let is_too_long = !is_complete && self.line.len() as u64 == MAX_LINE_BYTES;
        if is_too_long {
            let skipped = self.reader.skip_until(b'\n');
            self.check(skipped)?;
        }
        Ok((!self.line.is_empty()).then_some(InputLine { text: &self.line, is_complete, is_too_long }))
    }

    /// Whether the compressed data is incomplete or invalid. The lines before the damage were read.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Treats damage to the compressed data as the end of the file.
    fn check(&mut self, read: io::Result<usize>) -> io::Result<()> {
        match read {
            Err(error) if self.is_gzip && is_damage(&error) => self.is_damaged = true,
            read => _ = read?,
        }
        Ok(())
    }
}

/// Whether the error is of the decompression, not of the file.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData)
}
