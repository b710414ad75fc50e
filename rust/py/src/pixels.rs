//! Pictures as Python holds them, read where their pixels lie: NumPy arrays of any strides, and PIL images.

use std::ffi::{CStr, c_void};
use std::ops::Range;
use std::sync::Mutex;

use faster_smolvlm_core::{Error, ImageView, Picture, RowBlock, RowSource, StridedView, Strides};
use numpy::{PyReadonlyArray3, PyUntypedArrayMethods};
use pyo3::exceptions::{PyException, PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

use crate::gate::to_python;

/// A picture, kept while it is read without the interpreter.
pub(crate) enum PythonPicture<'py> {
    /// An array whose pixels or channels are neighbours.
    Array(PyReadonlyArray3<'py, u8>),
    /// A copy of any other array, channels side by side, and its shape.
    Copy(Vec<u8>, [usize; 3]),
    /// A PIL image whose rows lie one after the other.
    Whole(Pixels),
    /// A PIL image in several blocks.
    Blocks(Blocks),
}

impl<'py> PythonPicture<'py> {
    /// Take a uint8 array (height, width, channels), or a PIL image of mode RGB.
    pub(crate) fn new(picture: &Bound<'py, PyAny>) -> PyResult<Self> {
        let Ok(array) = picture.extract::<PyReadonlyArray3<'py, u8>>() else {
            return Self::of_pillow(picture);
        };
        if array_view(&array).is_ok() {
            return Ok(Self::Array(array));
        }
        let shape @ [height, width, channels] = [array.shape()[0], array.shape()[1], array.shape()[2]];
        let mut copy = Vec::new();
        // An array may repeat its values, so that it is larger than any memory.
        let given = copy.try_reserve_exact(array.len());
        given.map_err(|_| to_python(Error::too_large(height, width, channels)))?;
        copy.extend(array.as_array().iter().copied());
        Ok(Self::Copy(copy, shape))
    }

    fn of_pillow(image: &Bound<'py, PyAny>) -> PyResult<Self> {
        let mode = image.getattr("mode").and_then(|mode| mode.extract::<String>());
        if mode.is_ok_and(|mode| mode == "RGB") {
            let (width, height) = image.getattr("size")?.extract()?;
            return match Pixels::export(image, width, height) {
                Ok(pixels) => Ok(Self::Whole(pixels)),
                // Pillow's word for pixels in more than one block.
                Err(error) if error.is_instance_of::<PyValueError>(image.py()) => {
                    Ok(Self::Blocks(Blocks { image: image.clone().unbind(), width, height, failure: Mutex::default() }))
                }
                Err(error) => Err(error),
            };
        }
        Err(pyo3::exceptions::PyTypeError::new_err(
            "a picture must be a uint8 array (height, width, channels) or a PIL image of mode RGB",
        ))
    }

    /// The picture for the core.
    pub(crate) fn picture(&self) -> PyResult<Picture<'_>> {
        Ok(match self {
            Self::Array(array) => Picture::View(array_view(array).map_err(to_python)?),
            Self::Copy(data, [height, width, channels]) => {
                let view = ImageView::new(data, *height, *width, *channels);
                Picture::View(view.map_err(to_python)?.into())
            }
            Self::Whole(pixels) => Picture::View(pixels.strided().map_err(to_python)?),
            Self::Blocks(blocks) => Picture::Bands(blocks),
        })
    }
}

/// Runs what reads pictures; where it ended because Python was told to end, or had no memory, that is what is raised.
pub(crate) fn read<T>(pictures: &[PythonPicture<'_>], work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    work().map_err(|error| {
        let failure = |picture: &PythonPicture<'_>| match picture {
            PythonPicture::Blocks(blocks) => blocks.failure.lock().unwrap_or_else(|e| e.into_inner()).take(),
            _ => None,
        };
        pictures.iter().find_map(failure).unwrap_or(error)
    })
}

fn array_view<'a>(array: &'a PyReadonlyArray3<'_, u8>) -> Result<StridedView<'a>, Error> {
    let (height, width, channels) = (array.shape()[0], array.shape()[1], array.shape()[2]);
    if height == 0 || width == 0 || channels == 0 {
        return Err(Error::empty_picture(height, width));
    }
    // The stride of a side of 1 means nothing, and none may be negative: there is no such usize.
    let stride = |axis: usize, alone: usize| match array.shape()[axis] {
        1 => alone,
        _ => usize::try_from(array.strides()[axis]).unwrap_or(usize::MAX),
    };
    let channel = stride(2, 1);
    let pixel = stride(1, if channel == 1 { channels } else { 1 });
    let strides = Strides { row: stride(0, 0), pixel, channel };
    let last = [(height, strides.row), (width, pixel), (channels, channel)];
    let length = last
        .into_iter()
        .try_fold(1usize, |length, (count, stride)| length.checked_add((count - 1).checked_mul(stride)?));
    let given = length
        .filter(|&length| length <= isize::MAX as usize)
        .ok_or_else(|| Error::too_large(height, width, channels))?;
    let start: *const u8 = array.as_array().as_ptr();
    // SAFETY: from its first value to its last the array is one piece of memory, which lives as long as the array; what
    // lies between its rows belongs to the array that it is a view of.
    let data = unsafe { std::slice::from_raw_parts(start, given) };
    StridedView::new(data, (height, width, channels), strides)
}

/// `struct ArrowArray` of the Arrow C data interface.
#[repr(C)]
struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *const *const c_void,
    children: *const *const ArrowArray,
    dictionary: *const ArrowArray,
    release: *const c_void,
    private_data: *const c_void,
}

/// Bytes of a pixel of a PIL image of mode RGB; the fourth means nothing.
const PIXEL: usize = 4;

/// The pixels of a PIL image, lent by Pillow as long as the capsule lives.
pub(crate) struct Pixels {
    _capsule: Py<PyCapsule>,
    start: *const u8,
    width: usize,
    height: usize,
}

// SAFETY: the pixels are plain memory that nobody here writes, the capsule is only held.
unsafe impl Send for Pixels {}
// SAFETY: a shared value gives out a slice of memory that nobody here writes.
unsafe impl Sync for Pixels {}

impl Pixels {
    /// Borrow the pixels of an image of mode RGB; ValueError where they do not lie in one piece.
    fn export(image: &Bound<'_, PyAny>, width: usize, height: usize) -> PyResult<Self> {
        const NAME: &CStr = c"arrow_array";
        let exported = image.call_method0("__arrow_c_array__")?;
        let capsule = exported.cast_into::<PyTuple>()?.get_item(1)?.cast_into::<PyCapsule>()?;
        let array = capsule.pointer_checked(Some(NAME))?.cast::<ArrowArray>();
        let unexpected = || PyValueError::new_err("Pillow exports the pixels in an unknown form");
        // SAFETY: a capsule of this name holds this structure until it is destroyed, with as many children and buffers as
        // it says.
        let start = unsafe {
            let array = array.as_ref();
            if array.n_children != 1 || array.offset != 0 {
                return Err(unexpected());
            }
            let values = &**array.children;
            let bytes = width.checked_mul(height).and_then(|pixels| i64::try_from(pixels.checked_mul(PIXEL)?).ok());
            if Some(values.length) != bytes || values.offset != 0 || values.n_buffers != 2 {
                return Err(unexpected());
            }
            (*values.buffers.add(1)).cast::<u8>()
        };
        if start.is_null() {
            return Err(unexpected());
        }
        Ok(Self { _capsule: capsule.unbind(), start, width, height })
    }

    fn strided(&self) -> Result<StridedView<'_>, Error> {
        // SAFETY: `export` has checked the length; the memory lives as long as the capsule.
        let data = unsafe { std::slice::from_raw_parts(self.start, self.width * self.height * PIXEL) };
        whole_rows(data, self.height, self.width)
    }
}

fn whole_rows(data: &[u8], height: usize, width: usize) -> Result<StridedView<'_>, Error> {
    let strides = Strides { row: width.saturating_mul(PIXEL), pixel: PIXEL, channel: 1 };
    StridedView::new(data, (height, width, 3), strides)
}

/// Rows that Pillow could only copy.
struct Copied {
    pixels: Vec<u8>,
    width: usize,
    height: usize,
}

impl RowBlock for Copied {
    fn view(&self) -> Result<StridedView<'_>, Error> {
        whole_rows(&self.pixels, self.height, self.width)
    }
}

/// A PIL image in several blocks, as Pillow keeps large ones: copied a few rows at a time, while they are needed.
pub(crate) struct Blocks {
    image: Py<PyAny>,
    width: usize,
    height: usize,
    /// What Pillow raised, unless it is about the picture.
    failure: Mutex<Option<PyErr>>,
}

impl RowSource for Blocks {
    fn height(&self) -> usize {
        self.height
    }

    fn width(&self) -> usize {
        self.width
    }

    fn block<'a>(&'a self, rows: Range<usize>) -> Result<Box<dyn RowBlock + 'a>, Error> {
        Python::attach(|py| {
            self.read(py, rows).map_err(|error| {
                let refused = Error::value(format!("the rows of the picture cannot be read: {error}"));
                if !error.is_instance_of::<PyException>(py) || error.is_instance_of::<PyMemoryError>(py) {
                    *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                }
                refused
            })
        })
    }
}

impl Blocks {
    fn read(&self, py: Python<'_>, rows: Range<usize>) -> PyResult<Box<dyn RowBlock>> {
        let height = rows.len();
        let corners = (0, rows.start, self.width, rows.end);
        let band = self.image.bind(py).call_method1("crop", (corners,))?;
        match Pixels::export(&band, self.width, height) {
            Ok(pixels) => Ok(Box::new(pixels)),
            // The blocks are smaller than a band.
            Err(error) if error.is_instance_of::<PyValueError>(py) => Ok(Box::new(Copied {
                pixels: band.call_method1("tobytes", ("raw", "RGBX"))?.extract()?,
                width: self.width,
                height,
            })),
            Err(error) => Err(error),
        }
    }
}

impl RowBlock for Pixels {
    fn view(&self) -> Result<StridedView<'_>, Error> {
        self.strided()
    }
}
