//! Bindings of the image half of the core.

use faster_smolvlm_core::{
    Arithmetic, Conversion, Error, Filter, Formula, Image, ImageView, Layout, Loops, Picture, Pixels, Real, Settings,
    StreamValue, Target, preprocess_batch, resize, resize_float,
};
use numpy::{Element, IntoPyArray, PyArray3, PyReadonlyArray2, PyReadonlyArray3, PyReadwriteArray4};
use numpy::{PyUntypedArrayMethods, ndarray::Array3};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::gate::{detach, to_python};
use crate::pixels::{PythonPicture, read};

fn arithmetic(name: &str) -> PyResult<Arithmetic> {
    match name {
        "pillow" => Ok(Arithmetic::Pillow),
        "torch" => Ok(Arithmetic::Torch),
        _ => Err(PyValueError::new_err(format!("arithmetic must be 'pillow' or 'torch', got {name:?}"))),
    }
}

fn view<'a, T: Element>(array: &'a PyReadonlyArray3<'_, T>) -> PyResult<ImageView<'a, T>> {
    let shape = array.shape();
    ImageView::new(array.as_slice()?, shape[0], shape[1], shape[2]).map_err(to_python)
}

fn to_array<T: Element + Copy + Default>(
    py: Python<'_>,
    image: Image<T>,
    shape: (usize, usize, usize),
) -> PyResult<Bound<'_, PyArray3<T>>> {
    let array = Array3::from_shape_vec(shape, image.into_data())
        .map_err(|_| PyValueError::new_err("the resized picture has an unexpected size"))?;
    Ok(array.into_pyarray(py))
}

/// How pictures are resized and cut.
#[pyclass(frozen, module = "faster_smolvlm._rust")]
pub(crate) struct ImageSizes(Settings);

#[pymethods]
impl ImageSizes {
    /// Stage A resizes to the longest edge, else exactly to (height, width), else not at all.
    #[new]
    #[pyo3(signature = (*, longest_edge, exact, tile, split, upscale=true, max_tiles=None))]
    fn new(
        longest_edge: Option<usize>,
        exact: Option<(usize, usize)>,
        tile: usize,
        split: bool,
        upscale: bool,
        max_tiles: Option<usize>,
    ) -> Self {
        let target = match (longest_edge, exact) {
            (Some(edge), _) => Target::LongestEdge(edge),
            (None, Some((height, width))) => Target::Exact { height, width },
            (None, None) => Target::Keep,
        };
        Self(Settings { target, tile, split, upscale, max_tiles })
    }
}

/// How pictures become frames; made once, used for many calls.
#[pyclass(frozen, module = "faster_smolvlm._rust")]
pub(crate) struct ImageSettings {
    sizes: Settings,
    filter: Filter,
    arithmetic: Arithmetic,
    conversions: Vec<Conversion>,
    loops: Loops,
}

#[pymethods]
impl ImageSettings {
    /// `table`, (channels, 256) float32, holds the value of each byte; `formula`, (channels, 3), scale, mean and std of
    /// arithmetic that may give the same. `kernels` forces one of `kernel_names()`.
    #[new]
    #[pyo3(signature = (sizes, *, resample, arithmetic, table, formula, kernels=None))]
    fn new(
        sizes: &ImageSizes,
        resample: u8,
        arithmetic: &str,
        table: PyReadonlyArray2<'_, f32>,
        formula: Vec<(f64, f32, f32)>,
        kernels: Option<&str>,
    ) -> PyResult<Self> {
        Ok(Self {
            sizes: sizes.0,
            filter: Filter::from_code(resample).map_err(to_python)?,
            arithmetic: self::arithmetic(arithmetic)?,
            conversions: conversions(&table, &formula)?,
            loops: loops(kernels)?,
        })
    }
}

impl ImageSettings {
    fn pixels(&self) -> Pixels<'_> {
        Pixels {
            settings: self.sizes,
            filter: self.filter,
            arithmetic: self.arithmetic,
            conversions: &self.conversions,
            loops: self.loops,
        }
    }
}

/// (height, width) after stage A, the same after stage B, rows, cols.
type LayoutTuple = ((usize, usize), (usize, usize), usize, usize);

/// How a picture of (height, width) is cut: ((height, width) after stage A, the same after stage B, rows, cols).
#[pyfunction]
#[pyo3(signature = (height, width, *, sizes))]
pub(crate) fn layout(height: usize, width: usize, sizes: &ImageSizes) -> PyResult<LayoutTuple> {
    let layout = Layout::new(height, width, &sizes.0).map_err(to_python)?;
    Ok((layout.stage_a, layout.stage_b, layout.rows, layout.cols))
}

/// Resize a uint8 (height, width, channels) picture, bit-equal to Pillow or to torch.
#[pyfunction(name = "resize")]
#[pyo3(signature = (image, height, width, *, resample, arithmetic))]
pub(crate) fn resize_uint8<'py>(
    py: Python<'py>,
    image: PyReadonlyArray3<'py, u8>,
    height: usize,
    width: usize,
    resample: u8,
    arithmetic: &str,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let (pixels, filter) = (view(&image)?, Filter::from_code(resample).map_err(to_python)?);
    let arithmetic = self::arithmetic(arithmetic)?;
    let out = detach(py, || resize(pixels, height, width, filter, arithmetic))?;
    to_array(py, out, (height, width, pixels.channels()))
}

fn resize_real<'py, T: Real + Element + Sync>(
    py: Python<'py>,
    image: &PyReadonlyArray3<'py, T>,
    height: usize,
    width: usize,
    resample: u8,
) -> PyResult<Bound<'py, PyArray3<T>>> {
    let (pixels, filter) = (view(image)?, Filter::from_code(resample).map_err(to_python)?);
    let out = detach(py, || resize_float(pixels, height, width, filter))?;
    to_array(py, out, (height, width, pixels.channels()))
}

/// Resize a float32 (height, width, channels) picture as torch does; values may leave the input's range.
#[pyfunction]
#[pyo3(signature = (image, height, width, *, resample))]
pub(crate) fn resize_float32<'py>(
    py: Python<'py>,
    image: PyReadonlyArray3<'py, f32>,
    height: usize,
    width: usize,
    resample: u8,
) -> PyResult<Bound<'py, PyArray3<f32>>> {
    resize_real(py, &image, height, width, resample)
}

/// As `resize_float32`, in float64.
#[pyfunction]
#[pyo3(signature = (image, height, width, *, resample))]
pub(crate) fn resize_float64<'py>(
    py: Python<'py>,
    image: PyReadonlyArray3<'py, f64>,
    height: usize,
    width: usize,
    resample: u8,
) -> PyResult<Bound<'py, PyArray3<f64>>> {
    resize_real(py, &image, height, width, resample)
}

/// Turn pictures, uint8 arrays (height, width, channels) or PIL images of mode RGB, into frames: those of picture k are
/// written from `places[k]` on into `out`, (frames, channels, tile, tile) of float32, uint16 (the bits of bfloat16) or
/// uint8 (the bytes themselves). The pixels are read where they lie.
#[pyfunction(name = "preprocess")]
pub(crate) fn preprocess_images<'py>(
    py: Python<'py>,
    images: Vec<Bound<'py, PyAny>>,
    places: Vec<usize>,
    out: &Bound<'py, PyAny>,
    settings: &ImageSettings,
) -> PyResult<()> {
    if let Ok(mut out) = out.extract::<PyReadwriteArray4<'py, f32>>() {
        write(py, &images, &places, &mut out, settings)
    } else if let Ok(mut out) = out.extract::<PyReadwriteArray4<'py, u16>>() {
        write(py, &images, &places, &mut out, settings)
    } else {
        write(py, &images, &places, &mut out.extract::<PyReadwriteArray4<'py, u8>>()?, settings)
    }
}

fn write<'py, V: StreamValue + Element>(
    py: Python<'py>,
    images: &[Bound<'py, PyAny>],
    places: &[usize],
    out: &mut PyReadwriteArray4<'py, V>,
    settings: &ImageSettings,
) -> PyResult<()> {
    let (channels, tile) = (out.shape()[1], settings.sizes.tile);
    if out.shape()[2..] != [tile, tile] {
        let given = (out.shape()[2], out.shape()[3]);
        return Err(PyValueError::new_err(format!("the frames of the output are {given:?}, the tile is {tile}")));
    }
    let given = images.iter().map(PythonPicture::new).collect::<PyResult<Vec<_>>>()?;
    let pictures = given.iter().map(PythonPicture::picture).collect::<PyResult<Vec<_>>>()?;
    let (out, pixels) = (out.as_slice_mut()?, settings.pixels());
    let work = || {
        let jobs = jobs(&pictures, places, channels * tile * tile, &pixels.settings, out)?;
        preprocess_batch(jobs, &pixels)
    };
    read(&given, || detach(py, work))
}

/// Give each picture its part of the output. Places ascend, as the parts must not overlap.
fn jobs<'a, 'o, V>(
    pictures: &[Picture<'a>],
    places: &[usize],
    frame: usize,
    settings: &Settings,
    out: &'o mut [V],
) -> Result<Vec<(Picture<'a>, &'o mut [V])>, Error> {
    if pictures.len() != places.len() {
        return Err(Error::value(format!(
            "got {} pictures and {} places for their frames",
            pictures.len(),
            places.len()
        )));
    }
    let given = out.len();
    let (mut rest, mut passed) = (out, 0);
    let mut jobs = Vec::with_capacity(pictures.len());
    for (&picture, &place) in pictures.iter().zip(places) {
        let frames = Layout::new(picture.height(), picture.width(), settings)?.frames();
        let overrun = || Error::output_length(given, place.saturating_add(frames).saturating_mul(frame));
        let skipped = place.checked_sub(passed).and_then(|frames| frames.checked_mul(frame));
        let (_, after) = skipped.and_then(|skipped| rest.split_at_mut_checked(skipped)).ok_or_else(overrun)?;
        let length = frames.checked_mul(frame).ok_or_else(overrun)?;
        let (mine, after) = after.split_at_mut_checked(length).ok_or_else(overrun)?;
        jobs.push((picture, mine));
        (rest, passed) = (after, place.checked_add(frames).ok_or_else(overrun)?);
    }
    Ok(jobs)
}

fn conversions(table: &PyReadonlyArray2<'_, f32>, formula: &[(f64, f32, f32)]) -> PyResult<Vec<Conversion>> {
    let rows = table.as_slice()?.chunks_exact(256);
    if table.shape()[1] != 256 {
        return Err(PyValueError::new_err(format!("table must have 256 columns, got {}", table.shape()[1])));
    }
    let formulas = formula.iter().map(|&(scale, mean, std)| Some(Formula::new(scale, mean, std)));
    Ok(rows
        .zip(formulas.chain(std::iter::repeat(None)))
        .map(|(row, formula)| Conversion::new(std::array::from_fn(|byte| row[byte]), formula))
        .collect())
}

/// The loops of this name, or those that the environment asks for.
pub(crate) fn loops(name: Option<&str>) -> PyResult<Loops> {
    let Some(name) = name else { return Loops::of_environment().map_err(to_python) };
    Loops::named(name).ok_or_else(|| {
        let known = Loops::names().join(", ");
        PyValueError::new_err(format!("kernels must be one of {known} on this CPU, got {name:?}"))
    })
}

/// Names of the ways to compute pictures that this CPU has, the one in use first. All give the same pixels; "scalar" is
/// the definition.
#[pyfunction]
pub(crate) fn kernel_names() -> PyResult<Vec<&'static str>> {
    let current = loops(None)?.name();
    let others = Loops::names().into_iter().filter(|&name| name != current);
    Ok(std::iter::once(current).chain(others).collect())
}

/// Threads that pictures are spread over.
#[pyfunction]
pub(crate) fn image_threads() -> usize {
    faster_smolvlm_core::picture_threads::count()
}
