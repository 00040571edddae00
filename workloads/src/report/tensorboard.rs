//! TensorBoard's event files: records with lengths and checksums (TFRecord), each a protocol
//! buffer `Event` with the scalars of a step. Only the few fields that scalars need are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file that grows.
pub struct Board {
    file: File,
}

/// How the name of an event file begins.
pub const PREFIX: &str = "events.out.tfevents.";

impl Board {
    /// Begins a file in `folder`, which is made; TensorBoard shows all files of a folder together.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{PREFIX}{}.rdist.{}", now.as_secs(), std::process::id());
        let mut file = File::create(folder.join(name))?;
        let mut version = Message::default();
        version.double(1, now.as_secs_f64());
        version.bytes(3, b"brain.Event:2");
        file.write_all(&record(&version.0))?;
        Ok(Self { file })
    }

    /// Adds the scalars of a step: name and value.
    ///
    /// # Errors
    /// The file system's.
    pub fn add<'a>(
        &mut self,
        step: u64,
        scalars: impl Iterator<Item = (&'a str, f64)>,
    ) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut summary = Message::default();
        for (name, scalar) in scalars {
            let mut value = Message::default();
            value.bytes(1, name.as_bytes());
            value.float(2, scalar as f32);
            summary.bytes(1, &value.0);
        }
        let mut event = Message::default();
        event.double(1, now.as_secs_f64());
        event.number(2, step);
        event.bytes(5, &summary.0);
        self.file.write_all(&record(&event.0))
    }
}

/// A protocol buffer that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
}

/// Length, its checksum, data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(data);
    record.extend(masked(crc32c(data)).to_le_bytes());
    record
}

/// TFRecord's way to store a checksum beside what it is of.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's CRC, bit by bit: a few hundred bytes a round.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // The check value of the CRC catalogue, and an all-zero block of RFC 3720.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_file_is_a_version_and_then_the_steps() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = Board::create(&folder.path().join("board")).unwrap();
        board.add(300, [("val_f1", 0.5)].into_iter()).unwrap();
        let entry = fs::read_dir(folder.path().join("board")).unwrap().next().unwrap().unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let mut records = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(rest[..16 + length], record(data));
            records.push(data);
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 2);
        assert!(records[0].ends_with(b"brain.Event:2"));
        // After the time: step 300, a summary of one value with its name and 0.5.
        let value = [&[0x0a, 6][..], b"val_f1", &[0x15, 0, 0, 0, 0x3f]].concat();
        let expected = [&[0x10, 0xac, 0x02, 0x2a, 15, 0x0a, 13][..], &value].concat();
        assert_eq!(records[1][9..], expected);
    }
}
