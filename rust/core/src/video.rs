//! Which frames of a video to take.
//!
//! Indices count the frames in the order in which they are shown, from 0. [`sample`] is the rule of SmolVLM; the others
//! are the policies that users ask for. [`Stream`] applies the same policies to a source whose length nobody knows yet.
use crate::error::{Error, Result};
use crate::machine::vectors::{collected, with_capacity};

/// What a video says about itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// Number of frames.
    pub total: u64,
    /// Frames per second.
    pub fps: f64,
    /// Length in seconds.
    pub duration: f64,
}

/// SmolVLM's rule: `fps` frames per second, at most `max_frames`, spread evenly between the first and the last frame;
/// `skip_secs` seconds are left out at both ends of a video that is longer than `max_frames * fps` seconds without them.
///
/// The returned indices are ascending and distinct. Seconds are compared with `max_frames * fps` because the model
/// was trained with that comparison.
pub fn sample(clip: Clip, max_frames: u64, fps: f64, skip_secs: f64) -> Result<Vec<u64>> {
    if clip.total == 0 {
        return Err(empty());
    }
    let estimate = finite("fps * duration", fps * clip.duration)?.round_ties_even();
    let count = estimate.min(max_frames as f64).max(1.0) as u64;
    let last = clip.total - 1;
    let (mut start, mut end) = (0, last);
    if skip_secs > 0.0 && clip.duration - 2.0 * skip_secs > max_frames as f64 * fps {
        let skipped = finite("video fps", skip_secs * clip.fps)?;
        start = skipped.max(0.0) as u64;
        end = ((clip.total as f64 - skipped).max(0.0) as u64).min(last);
    }
    if start >= end {
        (start, end) = (0, last);
    }
    linspace(start, end, count)
}

/// `n` frames at equal distance, from the first: `i * total / n`.
pub fn uniform(total: u64, n: u64) -> Result<Vec<u64>> {
    if n > total {
        return Err(too_many(n, total));
    }
    bounded(n)?;
    collected(length(n), (0..n).map(|i| (i as u128 * total as u128 / n as u128) as u64))
}

/// `fps` frames per second of a video of constant frame rate, at least one frame.
pub fn at_rate(total: u64, video_fps: f64, fps: f64) -> Result<Vec<u64>> {
    if total == 0 {
        return Err(empty());
    }
    let n = finite("total_num_frames / video fps * fps", total as f64 / video_fps * fps)?;
    uniform(total, (n as u64).max(1))
}

/// `fps` frames per second by the times at which frames are shown (ascending seconds): for every tick counted from the
/// first frame, the frame that is on the screen then. Right for a variable frame rate.
pub fn at_times(times: &[f64], fps: f64) -> Result<Vec<u64>> {
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
        return Err(empty());
    };
    positive("fps", fps)?;
    finite("fps * duration", (finite("time", last)? - finite("time", first)?) * fps)?;
    let tick_from = |time: f64| ((time - first) * fps - SAME_TIME).ceil();
    let ticks = ((last - first) * fps + SAME_TIME).floor() + 1.0;
    let mut indices = Vec::new();
    for (index, &time) in times.iter().enumerate() {
        let until = times.get(index + 1).map_or(ticks, |&next| tick_from(next));
        if tick_from(time) < until {
            indices.push(index as u64);
        }
    }
    Ok(indices)
}

/// The given frames, ascending and distinct; a negative index counts from the end.
pub fn explicit(total: u64, indices: &[i64]) -> Result<Vec<u64>> {
    let mut chosen = indices
        .iter()
        .map(|&index| {
            let from_start = if index < 0 { index as i128 + total as i128 } else { index as i128 };
            if (0..total as i128).contains(&from_start) {
                Ok(from_start as u64)
            } else {
                Err(out_of_range(index, total))
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

/// At most `max_frames` of the key frames (ascending indices), spread evenly over them.
pub fn key_frames(keys: &[u64], max_frames: u64) -> Result<Vec<u64>> {
    if keys.is_empty() {
        return Err(empty());
    }
    let chosen = linspace(0, keys.len() as u64 - 1, max_frames.clamp(1, keys.len() as u64))?;
    Ok(chosen.into_iter().map(|i| keys[i as usize]).collect())
}

/// NumPy's `unique(linspace(start, end, n, dtype=int))`, rounding included: multiply first, then add, then floor.
fn linspace(start: u64, end: u64, n: u64) -> Result<Vec<u64>> {
    if n <= 1 {
        return Ok(vec![start; n as usize]);
    }
    if n > end - start {
        bounded((end - start).saturating_add(1))?;
        return collected(length(end - start).saturating_add(1), start..=end);
    }
    bounded(n)?;
    let step = (end - start) as f64 / (n - 1) as f64;
    let mut indices = with_capacity(length(n))?;
    for i in 0..n {
        let index = if i == n - 1 { end } else { (i as f64 * step + start as f64).floor() as u64 };
        if indices.last() != Some(&index) {
            indices.push(index);
        }
    }
    Ok(indices)
}

/// A number of frames as a length; what does not fit fits no memory either.
fn length(frames: u64) -> usize {
    usize::try_from(frames).unwrap_or(usize::MAX)
}

/// A time stamp this little late (in ticks, or seconds) is rounding, not lateness.
const SAME_TIME: f64 = 1e-6;

fn finite(name: &str, value: f64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(not_a_number(name, value)) }
}

fn positive(name: &str, value: f64) -> Result<f64> {
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(not_a_number(name, value)) }
}

/// What to take from a source whose length is not known.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// Frames spread evenly over what has been seen.
    Uniform,
    /// This number of frames per second, by the times at which frames are shown.
    Rate(f64),
    /// These frames, whatever their number.
    Explicit(Vec<u64>),
    /// The key frames.
    KeyFrames,
}

/// Chooses frames while they arrive, and never holds more than `2 * max_frames` of them.
///
/// Every frame that the policy admits is a candidate. When `2 * max_frames` candidates are held, every second one is let
/// go and only every second new one is admitted from then on; [`Stream::finish`] spreads `max_frames` over what is
/// left. So a chosen frame lies less than one stride from where [`uniform`] over the whole video would put it.
#[derive(Debug)]
pub struct Stream {
    policy: Policy,
    max_frames: u64,
    stride: u64,
    seen: u64,
    candidates: u64,
    start: Option<f64>,
    held: Vec<u64>,
}

/// What to do with the frame that was offered, and with those that are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Keep the offered frame.
    pub keep: bool,
    /// Frames, by index, that are no longer needed.
    pub release: Vec<u64>,
}

impl Stream {
    /// Start with `policy`, to end with at most `max_frames` (at least 1) frames.
    pub fn new(mut policy: Policy, max_frames: u64) -> Result<Self> {
        match &mut policy {
            Policy::Rate(fps) => drop(positive("fps", *fps)?),
            Policy::Explicit(indices) => {
                indices.sort_unstable();
                indices.dedup();
            }
            Policy::Uniform | Policy::KeyFrames => {}
        }
        Ok(Self {
            policy,
            max_frames: max_frames.max(1),
            stride: 1,
            seen: 0,
            candidates: 0,
            start: None,
            held: Vec::new(),
        })
    }

    /// Offer the next frame: the time in seconds at which it is shown, and whether it is a key frame.
    pub fn offer(&mut self, time: f64, is_key: bool) -> Result<Verdict> {
        let index = self.seen;
        let start = *self.start.get_or_insert(finite("time", time)?);
        let admitted = match &self.policy {
            Policy::Uniform => true,
            Policy::Rate(fps) => (finite("time", time)? - start) * fps + SAME_TIME >= self.candidates as f64,
            Policy::Explicit(indices) => indices.binary_search(&index).is_ok(),
            Policy::KeyFrames => is_key,
        };
        self.seen += 1;
        let nothing = Verdict { keep: false, release: Vec::new() };
        if !admitted {
            return Ok(nothing);
        }
        let candidate = match self.policy {
            // Ticks passed without a frame (a gap in time) count, or a burst would follow the gap.
            Policy::Rate(fps) => ((time - start) * fps + SAME_TIME).floor() as u64,
            _ => self.candidates,
        };
        self.candidates = candidate.saturating_add(1);
        if !candidate.is_multiple_of(self.stride) && !matches!(self.policy, Policy::Explicit(_)) {
            return Ok(nothing);
        }
        self.held.push(index);
        let mut release = Vec::new();
        if self.held.len() as u64 >= self.max_frames.saturating_mul(2) && !matches!(self.policy, Policy::Explicit(_)) {
            let mut position = 0;
            self.held.retain(|&index| {
                position += 1;
                if position % 2 == 0 {
                    release.push(index);
                }
                position % 2 == 1
            });
            self.stride *= 2;
        }
        let keep = release.last() != Some(&index);
        release.retain(|&released| released != index);
        Ok(Verdict { keep, release })
    }

    /// The frames to use, once the source has ended: at most `max_frames` of the held ones.
    pub fn finish(&self) -> Result<Vec<u64>> {
        if let Policy::Explicit(indices) = &self.policy
            && let Some(&missing) = indices.iter().find(|&&index| index >= self.seen)
        {
            return Err(out_of_range(missing as i64, self.seen));
        }
        if matches!(self.policy, Policy::Explicit(_)) {
            return Ok(self.held.clone());
        }
        key_frames(&self.held, self.max_frames)
    }
}

fn empty() -> Error {
    Error::value("the video has no frames to choose from")
}

/// More frames than that are chosen by mistake only: 19 hours at 60 frames per second.
const MAX_CHOSEN: u64 = 1 << 22;

fn bounded(chosen: u64) -> Result<()> {
    if chosen <= MAX_CHOSEN {
        return Ok(());
    }
    let reason = format!("{chosen} frames would be chosen, at most {MAX_CHOSEN} can be; set num_frames or fps to less");
    Err(Error::value(reason))
}

fn too_many(asked: u64, total: u64) -> Error {
    Error::value(format!(
        "num_frames={asked} exceeds total_num_frames={total}; set num_frames or fps to a smaller value"
    ))
}

fn out_of_range(index: i64, total: u64) -> Error {
    Error::value(format!("frame index {index} is outside a video of {total} frames"))
}

fn not_a_number(name: &str, value: f64) -> Error {
    Error::value(format!("{name} must be a finite number, 0 or more; got {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const fn clip(total: u64, fps: f64, duration: f64) -> Clip {
        Clip { total, fps, duration }
    }

    #[test]
    fn the_rule_of_the_model() {
        let of = |n, f, c| sample(c, n, f, 1.0).expect("valid");
        assert_eq!(of(64, 1.0, clip(300, 30.0, 10.0)), [0, 33, 66, 99, 132, 166, 199, 232, 265, 299]);
        assert_eq!(of(4, 1.0, clip(300, 30.0, 10.0)), [30, 110, 190, 270]);
        assert_eq!(of(8, 1.0, clip(300, 30.0, 10.0)), [0, 42, 85, 128, 170, 213, 256, 299]);
        assert_eq!(of(8, 0.5, clip(300, 30.0, 10.0)), [30, 90, 150, 210, 270]);
        assert_eq!(of(64, 1.0, clip(75, 30.0, 2.5)), [0, 74]);
        assert_eq!(of(64, 1.0, clip(10, 30.0, 0.33)), [0]);
    }

    #[test]
    fn nothing_to_choose_from_is_an_error() {
        assert_eq!(sample(clip(0, 30.0, 0.0), 4, 1.0, 1.0), Err(empty()));
        let refused = sample(clip(9, 30.0, f64::NAN), 4, 1.0, 1.0);
        assert!(refused.is_err_and(|error| error.to_string().contains("NaN")));
        assert_eq!(uniform(3, 4), Err(too_many(4, 3)));
        assert_eq!(explicit(3, &[-4]), Err(out_of_range(-4, 3)));
    }

    #[test]
    fn a_variable_rate_goes_by_time() {
        let times = [0.0, 0.1, 0.2, 2.6, 2.7, 4.0];
        assert_eq!(at_times(&times, 1.0), Ok(vec![0, 2, 4, 5]));
    }

    #[test]
    fn a_stream_holds_a_bounded_number_and_ends_evenly() {
        for total in [1_u64, 7, 16, 1000, 1023] {
            let mut stream = Stream::new(Policy::Uniform, 8).expect("valid");
            let mut held = std::collections::BTreeSet::new();
            for index in 0..total {
                let verdict = stream.offer(index as f64 / 25.0, false).expect("valid");
                if verdict.keep {
                    held.insert(index);
                }
                for released in verdict.release {
                    assert!(held.remove(&released), "{released} was not held");
                }
                assert!(held.len() < 16);
            }
            let chosen = stream.finish().expect("frames");
            assert_eq!(chosen.len() as u64, total.min(8));
            assert!(chosen.iter().all(|index| held.contains(index)));
            assert_eq!(chosen[0], 0);
        }
    }

    #[test]
    fn a_gap_in_time_is_not_followed_by_a_burst() {
        let mut stream = Stream::new(Policy::Rate(1.0), 100).expect("valid");
        let times = [0.0, 0.5, 1.0, 10.0, 10.1, 10.2, 11.0];
        let kept: Vec<bool> = times.iter().map(|&t| stream.offer(t, false).expect("valid").keep).collect();
        assert_eq!(kept, [true, false, true, true, false, false, true]);
    }

    #[test]
    fn more_frames_than_anyone_wants_is_an_error() {
        let kind = |chosen: Result<Vec<u64>>| chosen.map_err(|error| error.kind()).err();
        for total in [MAX_CHOSEN + 1, 1 << 40, u64::MAX - 1] {
            assert_eq!(kind(uniform(total, total)), Some(ErrorKind::Value));
            assert_eq!(kind(at_rate(total, 1.0, 1.0)), Some(ErrorKind::Value));
            assert_eq!(kind(sample(clip(total, 30.0, 1e300), u64::MAX, 1.0, 0.0)), Some(ErrorKind::Value));
        }
        assert_eq!(kind(sample(clip(1 << 41, 30.0, 1e300), 1 << 40, 1.0, 0.0)), Some(ErrorKind::Value));
        assert_eq!(uniform(MAX_CHOSEN, MAX_CHOSEN).map(|chosen| chosen.len() as u64), Ok(MAX_CHOSEN));
    }

    #[test]
    fn a_stream_without_a_limit_takes_every_frame() {
        for max_frames in [1 << 63, u64::MAX] {
            let mut stream = Stream::new(Policy::Uniform, max_frames).expect("valid");
            assert!((0..9).all(|i| stream.offer(f64::from(i), false) == Ok(Verdict { keep: true, release: vec![] })));
            assert_eq!(stream.finish(), Ok((0..9).collect()));
        }
    }
}
