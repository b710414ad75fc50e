//! Bindings of the image half of the core.

use faster_smolvlm_core::Error;
use faster_smolvlm_core::geometry::{Layout, Settings, Target};
use faster_smolvlm_core::image::{Image, ImageView};
use faster_smolvlm_core::preprocess::{Pixels, preprocess};
use faster_smolvlm_core::resize::{Arithmetic, Filter, Real, resize, resize_float};
use numpy::{
    Element, IntoPyArray, PyArray3, PyReadonlyArray2, PyReadonlyArray3, PyReadwriteArray4,
};
use numpy::{PyUntypedArrayMethods, ndarray::Array3};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::gate::{detach, to_python};

fn arithmetic(name: &str) -> PyResult<Arithmetic> {
    match name {
        "pillow" => Ok(Arithmetic::Pillow),
        "torch" => Ok(Arithmetic::Torch),
        _ => Err(PyValueError::new_err(format!(
            "arithmetic must be 'pillow' or 'torch', got {name:?}"
        ))),
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

/// How a picture of (height, width) is cut: ((height, width) after stage A, the same after stage B, rows, cols).
#[pyfunction]
#[pyo3(signature = (height, width, *, longest_edge, exact, tile, split))]
pub(crate) fn layout(
    height: usize,
    width: usize,
    longest_edge: Option<usize>,
    exact: Option<(usize, usize)>,
    tile: usize,
    split: bool,
) -> PyResult<((usize, usize), (usize, usize), usize, usize)> {
    let settings = Settings {
        target: target(longest_edge, exact),
        tile,
        split,
    };
    let layout = Layout::new(height, width, &settings).map_err(to_python)?;
    Ok((layout.stage_a, layout.stage_b, layout.rows, layout.cols))
}

fn target(longest_edge: Option<usize>, exact: Option<(usize, usize)>) -> Target {
    match (longest_edge, exact) {
        (Some(edge), _) => Target::LongestEdge(edge),
        (None, Some((height, width))) => Target::Exact { height, width },
        (None, None) => Target::Keep,
    }
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
    let (pixels, filter) = (
        view(&image)?,
        Filter::from_code(resample).map_err(to_python)?,
    );
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
    let (pixels, filter) = (
        view(image)?,
        Filter::from_code(resample).map_err(to_python)?,
    );
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

/// Turn uint8 (height, width, channels) pictures into frames: those of picture k are written from `places[k]` on into
/// `out`, a float32 (frames, channels, tile, tile) array; every value goes through `table`, (channels, 256) float32.
#[pyfunction(name = "preprocess")]
#[pyo3(signature = (images, places, out, *, longest_edge, exact, split, resample, arithmetic, table))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn preprocess_batch<'py>(
    py: Python<'py>,
    images: Vec<PyReadonlyArray3<'py, u8>>,
    places: Vec<usize>,
    mut out: PyReadwriteArray4<'py, f32>,
    longest_edge: Option<usize>,
    exact: Option<(usize, usize)>,
    split: bool,
    resample: u8,
    arithmetic: &str,
    table: PyReadonlyArray2<'py, f32>,
) -> PyResult<()> {
    let (channels, tile) = (out.shape()[1], out.shape()[2]);
    let pixels = Pixels {
        settings: Settings {
            target: target(longest_edge, exact),
            tile,
            split,
        },
        filter: Filter::from_code(resample).map_err(to_python)?,
        arithmetic: self::arithmetic(arithmetic)?,
        table: table.as_slice()?,
    };
    let views = images.iter().map(view).collect::<PyResult<Vec<_>>>()?;
    let out = out.as_slice_mut()?;
    detach(py, || {
        if views.len() != places.len() {
            return Err(Error::Places {
                images: views.len(),
                places: places.len(),
            });
        }
        for (&view, &place) in views.iter().zip(&places) {
            let frames = Layout::new(view.height(), view.width(), &pixels.settings)?.frames();
            let frame = channels * tile * tile;
            let (given, needed) = (out.len(), (place + frames) * frame);
            let target = out
                .get_mut(place * frame..needed)
                .ok_or(Error::OutputLength { given, needed })?;
            preprocess(view, &pixels, target)?;
        }
        Ok(())
    })
}
