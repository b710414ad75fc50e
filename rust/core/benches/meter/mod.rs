//! Criterion, with a figure beside each time that can be judged: what a run did, against what the machine can do.
//!
//! Criterion's options follow `--`: part of a name, `--save-baseline NAME`, `--baseline NAME`, `--sample-size N`, ….
use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// What one run does.
pub(crate) type Work<'w> = Box<dyn FnMut() -> Outcome<()> + 'w>;

/// The figure of a run that took so many seconds.
type Figure = Box<dyn Fn(f64) -> String>;

/// The time on the wall, and the figure of the benchmark that is running.
struct Meter(Figures);

struct Figures(Rc<RefCell<Figure>>);

impl Measurement for Meter {
    type Intermediate = Instant;
    type Value = Duration;

    fn start(&self) -> Instant {
        WallTime.start()
    }

    fn end(&self, start: Instant) -> Duration {
        WallTime.end(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        WallTime.add(a, b)
    }

    fn zero(&self) -> Duration {
        WallTime.zero()
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &self.0
    }
}

impl ValueFormatter for Figures {
    fn format_throughput(&self, _: &Throughput, nanoseconds: f64) -> String {
        self.0.borrow()(nanoseconds / 1e9)
    }

    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(&self, typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_throughputs(typical, throughput, values)
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}

/// The benchmarks of a program.
pub(crate) struct Benchmarks {
    criterion: Criterion<Meter>,
    figure: Rc<RefCell<Figure>>,
}

impl Benchmarks {
    /// As the arguments of the program say; `samples` of about `seconds` together if they do not.
    pub(crate) fn new(samples: usize, seconds: f64) -> Self {
        let figure: Rc<RefCell<Figure>> = Rc::new(RefCell::new(Box::new(|_| String::new())));
        let criterion = Criterion::default()
            .with_measurement(Meter(Figures(Rc::clone(&figure))))
            .sample_size(samples)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs_f64(seconds))
            .configure_from_args();
        Self { criterion, figure }
    }

    /// One benchmark, unless the arguments leave it out. `prepare` makes the work once, and only if it is to be done.
    pub(crate) fn run<'w>(
        &mut self,
        group: &str,
        name: &str,
        figure: impl Fn(f64) -> String + 'static,
        prepare: impl FnOnce() -> Outcome<Work<'w>>,
    ) {
        *self.figure.borrow_mut() = Box::new(figure);
        let (mut prepare, mut work) = (Some(prepare), None);
        let mut group = self.criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            if let Some(prepare) = prepare.take() {
                work = Some(prepare().expect("what the benchmark needs"));
            }
            let work = work.as_mut().expect("prepared");
            bencher.iter(|| work().expect("the work of the benchmark"));
        });
        group.finish();
    }

    /// Says what Criterion says at the end.
    pub(crate) fn end(self) {
        self.criterion.final_summary();
    }
}
