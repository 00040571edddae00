//! IDX, the format of MNIST: a big-endian header (magic, then one length per dimension), then the
//! bytes. Plain or gzip, told apart by content. See <http://yann.lecun.com/exdb/mnist/>.
//!
//! Every length in a header is checked before memory is taken for it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use super::{ImageSet, Shape};

/// Magic of a file with unsigned bytes in three dimensions: images, rows, columns.
pub const IMAGES_MAGIC: u32 = 0x803;
/// Magic of a file with unsigned bytes in one dimension: labels.
pub const LABELS_MAGIC: u32 = 0x801;
/// No data set of this format is larger.
pub(super) const MAX_BYTES: u64 = 4 << 30;

/// Why a pair of IDX files is no data set.
#[derive(Debug, thiserror::Error)]
pub enum IdxError {
    /// Neither the file nor its `.gz` is there.
    #[error(
        "{0} is missing (looked for it as it is and with .gz); name the folder that holds the \
         four MNIST files with data.path in the TOML, or its parent with --data or \
         RDIST_DATA"
    )]
    Missing(PathBuf),
    /// The file system failed, or gzip data is damaged.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Another kind of file.
    #[error(
        "{path} starts with the magic number {found:#x}, expected {expected:#x} ({what}); is it \
         an IDX file, and under the right name?"
    )]
    Magic {
        /// Which file.
        path: PathBuf,
        /// The first four bytes.
        found: u32,
        /// What they should be.
        expected: u32,
        /// In words.
        what: &'static str,
    },
    /// The file ends early or goes on.
    #[error(
        "{path} holds {found} bytes of {what}, its header promises {expected}: the file is \
         damaged or cut off; fetch it again"
    )]
    Length {
        /// Which file.
        path: PathBuf,
        /// Bytes after the header (one more than promised means: at least that).
        found: u64,
        /// What the header says.
        expected: u64,
        /// In words.
        what: &'static str,
    },
    /// A header that nobody wrote on purpose.
    #[error("{path} promises {expected} bytes, more than the {MAX_BYTES} that are accepted")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// What the header says.
        expected: u128,
    },
    /// Two files that do not belong together.
    #[error(
        "{images_path} holds {images} images, but {labels_path} holds {labels} labels; the two \
         files do not belong together"
    )]
    Mismatch {
        /// The images' file.
        images_path: PathBuf,
        /// Images in it.
        images: usize,
        /// The labels' file.
        labels_path: PathBuf,
        /// Labels in it.
        labels: usize,
    },
    /// A label that no class has.
    #[error("{path}: label {index} is {label}, expected 0 to {}; the file is damaged, or of a set \
         with more classes", classes - 1)]
    Label {
        /// Which file.
        path: PathBuf,
        /// Which label, from 0.
        index: usize,
        /// Its value.
        label: u8,
        /// How many classes there are.
        classes: usize,
    },
}

/// Reads a pair of files. `images` and `labels` are paths without `.gz`.
pub fn read(images: &Path, labels: &Path, classes: usize) -> Result<ImageSet, IdxError> {
    join(open(images)?, open(labels)?, classes)
}

/// The same of contents that are at hand, plain or gzip, with the paths that errors call them by.
pub fn of_bytes(
    images: (&Path, &[u8]),
    labels: (&Path, &[u8]),
    classes: usize,
) -> Result<ImageSet, IdxError> {
    join(Opened::bytes(images), Opened::bytes(labels), classes)
}

fn join(images: Opened<'_>, labels: Opened<'_>, classes: usize) -> Result<ImageSet, IdxError> {
    let (images_path, dimensions, pixels) = parse(images, IMAGES_MAGIC, "images")?;
    let (labels_path, _, labels) = parse(labels, LABELS_MAGIC, "labels")?;
    let [count, rows, columns] = [dimensions[0], dimensions[1], dimensions[2]];
    if count as usize != labels.len() {
        let images = count as usize;
        return Err(IdxError::Mismatch { images_path, images, labels_path, labels: labels.len() });
    }
    if let Some(index) = labels.iter().position(|label| usize::from(*label) >= classes) {
        let label = labels[index];
        return Err(IdxError::Label { path: labels_path, index, label, classes });
    }
    let labels = labels.into_iter().map(u32::from).collect();
    Ok(ImageSet { shape: Shape { rows, columns, channels: 1 }, pixels, labels })
}

/// The file itself, else its `.gz`.
pub fn locate(path: &Path) -> Option<PathBuf> {
    let mut zipped = path.as_os_str().to_owned();
    zipped.push(".gz");
    [path.to_owned(), zipped.into()].into_iter().find(|candidate| candidate.is_file())
}

/// A file that is read, unpacked if it was packed.
struct Opened<'a> {
    path: PathBuf,
    content: Box<dyn Read + 'a>,
}

impl<'a> Opened<'a> {
    fn bytes((path, bytes): (&Path, &'a [u8])) -> Self {
        Self { path: path.to_owned(), content: unpacked(bytes, bytes.starts_with(&GZIP)) }
    }
}

/// How gzip files begin.
const GZIP: [u8; 2] = [0x1f, 0x8b];

fn unpacked<'a>(content: impl BufRead + 'a, zipped: bool) -> Box<dyn Read + 'a> {
    if zipped { Box::new(flate2::bufread::GzDecoder::new(content)) } else { Box::new(content) }
}

/// One file: where it was, its dimensions (missing ones are 1) and its bytes.
fn parse(
    opened: Opened<'_>,
    magic: u32,
    what: &'static str,
) -> Result<(PathBuf, [u32; 3], Vec<u8>), IdxError> {
    let Opened { path, content: mut file } = opened;
    let failed = |source| IdxError::Read { path: path.clone(), source };
    let mut word = [0; 4];
    let mut header = |file: &mut dyn Read, at: u64| match file.read_exact(&mut word) {
        Ok(()) => Ok(u32::from_be_bytes(word)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let expected = 4 + 4 * u64::from(magic & 0xff);
            Err(IdxError::Length { path: path.clone(), found: at, expected, what: "header" })
        }
        Err(error) => Err(failed(error)),
    };
    let found = header(&mut file, 0)?;
    if found != magic {
        return Err(IdxError::Magic { path, found, expected: magic, what });
    }
    let mut dimensions = [1; 3];
    for (index, length) in dimensions.iter_mut().take((magic & 0xff) as usize).enumerate() {
        *length = header(&mut file, 4 + 4 * index as u64)?;
    }
    let expected: u128 = dimensions.iter().map(|length| u128::from(*length)).product();
    let Some(bytes) = u64::try_from(expected).ok().filter(|bytes| *bytes <= MAX_BYTES) else {
        return Err(IdxError::TooLarge { path, expected });
    };
    let mut content = Vec::new();
    // One byte more than promised tells a file that goes on. The memory grows with what is really
    // there, not with what the header says.
    match file.take(bytes + 1).read_to_end(&mut content) {
        Ok(found) if found as u64 == bytes => Ok((path, dimensions, content)),
        Ok(found) => Err(IdxError::Length { path, found: found as u64, expected: bytes, what }),
        // gzip itself notices that it was cut off.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(IdxError::Length { path, found: content.len() as u64, expected: bytes, what })
        }
        Err(error) => Err(failed(error)),
    }
}

fn open(path: &Path) -> Result<Opened<'static>, IdxError> {
    let path = locate(path).ok_or_else(|| IdxError::Missing(path.to_owned()))?;
    let read = |path: &Path| {
        let mut start = [0; 2];
        let zipped = match File::open(path)?.read_exact(&mut start) {
            Ok(()) => start == GZIP,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        Ok(unpacked(BufReader::new(File::open(path)?), zipped))
    };
    match read(&path) {
        Ok(content) => Ok(Opened { path, content }),
        Err(source) => Err(IdxError::Read { path, source }),
    }
}

/// Writes a pair of files, plain. Images are grey, and classes no more than 256.
pub fn write(set: &ImageSet, images: &Path, labels: &Path) -> io::Result<()> {
    let count = set.len() as u32;
    let mut file = io::BufWriter::new(File::create(images)?);
    for word in [IMAGES_MAGIC, count, set.shape.rows, set.shape.columns] {
        file.write_all(&word.to_be_bytes())?;
    }
    file.write_all(&set.pixels)?;
    file.flush()?;
    let mut file = io::BufWriter::new(File::create(labels)?);
    for word in [LABELS_MAGIC, count] {
        file.write_all(&word.to_be_bytes())?;
    }
    let labels: Vec<u8> = set.labels.iter().map(|label| *label as u8).collect();
    file.write_all(&labels)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;

    fn folder_with(images: &[u8], labels: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("i"), images).unwrap();
        std::fs::write(folder.path().join("l"), labels).unwrap();
        folder
    }

    fn read_from(folder: &tempfile::TempDir) -> Result<ImageSet, IdxError> {
        read(&folder.path().join("i"), &folder.path().join("l"), 10)
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn two_images() -> Vec<u8> {
        [words(&[0x803, 2, 2, 3]), (0..12).collect()].concat()
    }

    fn two_labels() -> Vec<u8> {
        [words(&[0x801, 2]), vec![7, 9]].concat()
    }

    #[test]
    fn reads_what_it_wrote_plain_and_zipped() {
        let folder = folder_with(&two_images(), &two_labels());
        let set = read_from(&folder).unwrap();
        assert_eq!((set.shape, set.len()), (Shape { rows: 2, columns: 3, channels: 1 }, 2));
        assert_eq!((set.image(1), set.labels[1]), (&[6, 7, 8, 9, 10, 11][..], 9));
        write(&set, &folder.path().join("i"), &folder.path().join("l")).unwrap();
        assert_eq!(read_from(&folder).unwrap(), set);

        let zipped = File::create(folder.path().join("i.gz")).unwrap();
        let mut zipped = flate2::write::GzEncoder::new(zipped, flate2::Compression::fast());
        zipped.write_all(&two_images()).unwrap();
        zipped.finish().unwrap();
        std::fs::remove_file(folder.path().join("i")).unwrap();
        assert_eq!(read_from(&folder).unwrap(), set);
    }

    #[test]
    fn a_zipped_file_that_was_cut_off_is_told_from_a_whole_one() {
        let folder = folder_with(&[], &two_labels());
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        zipped.write_all(&two_images()).unwrap();
        let zipped = zipped.finish().unwrap();
        std::fs::write(folder.path().join("i"), &zipped[..zipped.len() - 12]).unwrap();
        let error = read_from(&folder).unwrap_err();
        assert!(matches!(error, IdxError::Length { expected: 12, .. }), "{error}");
    }

    #[test]
    fn names_file_found_and_expected() {
        let folder = folder_with(&two_labels(), &two_labels());
        let text = read_from(&folder).unwrap_err().to_string();
        assert!(text.contains("/i ") && text.contains("0x801") && text.contains("0x803"), "{text}");

        let folder = folder_with(&two_images()[..20], &two_labels());
        let text = read_from(&folder).unwrap_err().to_string();
        assert!(text.contains("4 bytes of images") && text.contains("promises 12"), "{text}");

        let folder = folder_with(&two_images()[..10], &two_labels());
        let text = read_from(&folder).unwrap_err().to_string();
        assert!(text.contains("header"), "{text}");

        let folder = folder_with(&[two_images(), vec![0]].concat(), &two_labels());
        assert!(matches!(read_from(&folder).unwrap_err(), IdxError::Length { found: 13, .. }));

        let folder = folder_with(&two_images(), &[words(&[0x801, 3]), vec![1, 2, 3]].concat());
        let text = read_from(&folder).unwrap_err().to_string();
        assert!(text.contains("2 images") && text.contains("3 labels"), "{text}");

        let folder = folder_with(&two_images(), &[words(&[0x801, 2]), vec![1, 10]].concat());
        let text = read_from(&folder).unwrap_err().to_string();
        assert!(text.contains("label 1 is 10"), "{text}");

        let folder = folder_with(&words(&[0x803, u32::MAX, u32::MAX, u32::MAX]), &two_labels());
        assert!(matches!(read_from(&folder).unwrap_err(), IdxError::TooLarge { .. }));

        let folder = folder_with(&two_images(), &two_labels());
        std::fs::remove_file(folder.path().join("l")).unwrap();
        let text = read_from(&folder).unwrap_err().to_string();
        assert!(text.contains("/l is missing"), "{text}");
    }
}
