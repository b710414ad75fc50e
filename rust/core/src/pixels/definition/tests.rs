//! The definition against numbers that the references gave: Pillow 12 and torchvision 0.24.

use super::*;
use crate::ErrorKind;

const ROW: [u8; 10] = [0, 255, 10, 200, 30, 90, 160, 5, 250, 70];

/// `ROW` at another width, as a row or as a column.
fn resized(to: usize, code: u8, arithmetic: Arithmetic) -> Vec<u8> {
    let filter = Filter::from_code(code).expect("a filter");
    let row = ImageView::new(&ROW, 1, ROW.len(), 1).expect("ten values");
    let wide = resize(row, 1, to, filter, arithmetic).expect("defined").into_data();
    let column = ImageView::new(&ROW, ROW.len(), 1, 1).expect("ten values");
    let high = resize(column, to, 1, filter, arithmetic).expect("defined").into_data();
    assert_eq!(wide, high, "both passes weigh alike");
    wide
}

#[test]
fn rows_are_those_of_pillow() {
    let golden: [(u8, &[&[u8]]); 6] = [
        (0, &[&[255, 200, 160, 250], &[0, 10, 200, 90, 160, 5, 70]]),
        (1, &[&[114, 105, 94, 133], &[98, 131, 117, 66, 113, 114, 147]]),
        (2, &[&[116, 103, 97, 133], &[88, 117, 131, 60, 119, 111, 132]]),
        (3, &[&[114, 103, 96, 133], &[91, 122, 131, 58, 121, 111, 138]]),
        (4, &[&[88, 115, 85, 160], &[0, 133, 200, 60, 160, 128, 70]]),
        (5, &[&[125, 108, 106, 145], &[58, 97, 169, 60, 143, 92, 111]]),
    ];
    for (code, rows) in golden {
        for row in rows {
            assert_eq!(resized(row.len(), code, Arithmetic::Pillow), *row, "filter {code}");
        }
    }
    let enlarged = [0, 143, 242, 32, 92, 197, 57, 25, 115, 172, 57, 29, 231, 179, 46];
    assert_eq!(resized(15, 1, Arithmetic::Pillow), enlarged);
}

#[test]
fn rows_are_those_of_torch() {
    assert_eq!(resized(7, 0, Arithmetic::Torch), [0, 10, 200, 90, 160, 5, 70]);
    assert_eq!(resized(15, 0, Arithmetic::Torch), [0, 255, 255, 10, 200, 200, 30, 90, 90, 160, 5, 5, 250, 70, 70]);
    assert_eq!(resized(4, 2, Arithmetic::Torch), [116, 103, 97, 133]);
    assert_eq!(resized(7, 3, Arithmetic::Torch), [91, 122, 131, 58, 121, 111, 138]);
    let enlarged = [0, 134, 238, 31, 100, 190, 49, 45, 104, 161, 72, 28, 229, 169, 58];
    assert_eq!(resized(15, 3, Arithmetic::Torch), enlarged);
}

#[test]
fn floats_are_weighed_as_bytes_are_but_not_rounded() {
    let values = ROW.map(f64::from);
    let image = ImageView::new(&values, 1, 10, 1).expect("ten values");
    for code in 1..4 {
        let filter = Filter::from_code(code).expect("a filter");
        let out = resize_float(image, 1, 7, filter).expect("defined").into_data();
        for (value, byte) in out.iter().zip(resized(7, code, Arithmetic::Torch)) {
            assert!((value - f64::from(byte)).abs() < 0.51, "{value} {byte}");
        }
    }
    let boxes = resize_float(image, 1, 7, Filter::from_code(4).expect("box"));
    assert_eq!(boxes.map_err(|error| error.kind()).err(), Some(ErrorKind::Unsupported));
}

#[test]
fn sizes_beyond_memory_are_errors() {
    let image = ImageView::new(&ROW, 1, 10, 1).expect("ten values");
    let floats = ROW.map(f32::from);
    let floats = ImageView::new(&floats, 1, 10, 1).expect("ten values");
    for (height, width) in [(1 << 62, 1), (1, 1 << 62), (1 << 40, 1 << 40)] {
        for code in [0, 2] {
            let filter = Filter::from_code(code).expect("a filter");
            let kind = resize(image, height, width, filter, Arithmetic::Pillow).map_err(|error| error.kind());
            assert_eq!(kind.err(), Some(ErrorKind::Memory), "{height}×{width}, filter {code}");
            let kind = resize_float(floats, height, width, filter).map_err(|error| error.kind());
            assert_eq!(kind.err(), Some(ErrorKind::Memory), "{height}×{width}, filter {code}");
        }
    }
    assert_eq!(
        resize(image, 0, 3, Filter::NEAREST, Arithmetic::Pillow).err().map(|error| error.kind()),
        Some(ErrorKind::Value)
    );
}
