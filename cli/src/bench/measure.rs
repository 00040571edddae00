//! How a row is timed: warmed up, then several trials; the figure is their median.

use std::time::{Duration, Instant};

/// How long each row is measured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// A fifth of a second for each of three trials.
    Quick,
    /// A second for each of five.
    Thorough,
}

impl Pace {
    fn trials(self) -> (usize, Duration) {
        match self {
            Self::Quick => (3, Duration::from_millis(200)),
            Self::Thorough => (5, Duration::from_secs(1)),
        }
    }
}

/// A row's figures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Units per second: the median of the trials, the lowest and the highest.
    pub rate: f64,
    pub lowest: f64,
    pub highest: f64,
    /// Microseconds of a run that half and 99 of 100 stay below, where each run is one unit.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

/// Runs shorter than this are timed several at once: a look at the clock takes some 50 ns.
const SHORT: Duration = Duration::from_micros(1);

impl Measured {
    /// Of the rates of all trials.
    fn of(mut rates: Vec<f64>) -> Self {
        rates.sort_by(f64::total_cmp);
        let [lowest, rate, highest] = [0, rates.len() / 2, rates.len() - 1].map(|at| rates[at]);
        Self { rate, lowest, highest, p50: None, p99: None }
    }
}

/// Times `body`, which does `per_run` units each time.
pub(super) fn measure<E>(
    pace: Pace,
    per_run: f64,
    mut body: impl FnMut() -> Result<(), E>,
) -> Result<Measured, E> {
    let (trials, length) = pace.trials();
    let one = warm_up(length, &mut body)?;
    let at_once = (SHORT.as_secs_f64() / one).ceil().clamp(1.0, 1_000.0) as u32;
    let mut rates = Vec::with_capacity(trials);
    let mut latencies = Vec::new();
    for _ in 0..trials {
        let (started, mut runs) = (Instant::now(), 0_u64);
        let mut last = started;
        while last - started < length {
            for _ in 0..at_once {
                body()?;
            }
            let now = Instant::now();
            latencies.push((now - last).as_secs_f64() * 1e6 / f64::from(at_once));
            (last, runs) = (now, runs + u64::from(at_once));
        }
        rates.push(runs as f64 * per_run / (last - started).as_secs_f64());
    }
    latencies.sort_by(f64::total_cmp);
    let is_round_trip = at_once == 1 && per_run == 1.0;
    let percentile = |share: f64| {
        is_round_trip.then(|| latencies[((latencies.len() - 1) as f64 * share) as usize])
    };
    Ok(Measured { p50: percentile(0.5), p99: percentile(0.99), ..Measured::of(rates) })
}

/// The same for a `body` that does `per_run` units and says how long that took: what it sets up
/// and clears away does not count.
pub(super) fn measure_parts<E>(
    pace: Pace,
    per_run: f64,
    mut body: impl FnMut() -> Result<Duration, E>,
) -> Result<Measured, E> {
    let (trials, length) = pace.trials();
    body()?;
    let mut rates = Vec::with_capacity(trials);
    for _ in 0..trials {
        let (started, mut taken, mut runs) = (Instant::now(), Duration::ZERO, 0_u32);
        while runs == 0 || started.elapsed() < length {
            taken += body()?;
            runs += 1;
        }
        rates.push(f64::from(runs) * per_run / taken.as_secs_f64());
    }
    Ok(Measured::of(rates))
}

/// Runs until `length` has passed, twice at least unless once takes longer; the seconds of a run.
fn warm_up<E>(length: Duration, body: &mut impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let first = Instant::now();
    body()?;
    let first = first.elapsed();
    if first > length {
        return Ok(first.as_secs_f64());
    }
    let (started, mut runs) = (Instant::now(), 0_u32);
    while runs == 0 || started.elapsed() < length {
        body()?;
        runs += 1;
    }
    Ok(started.elapsed().as_secs_f64() / f64::from(runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_pace_is_measured() {
        let body = || {
            std::thread::sleep(Duration::from_millis(2));
            Ok::<(), ()>(())
        };
        let Measured { rate, lowest, highest, p50, .. } = measure(Pace::Quick, 1.0, body).unwrap();
        assert!(lowest <= rate && rate <= highest);
        // A sleep never ends early; how late it ends is the machine's affair.
        assert!(rate <= 500.0, "{rate}");
        assert!(p50.is_some_and(|p50| p50 >= 2_000.0), "{p50:?}");
    }

    #[test]
    fn many_units_of_a_run_have_no_latency() {
        let measured = measure(Pace::Quick, 1_000.0, || Ok::<(), ()>(())).unwrap();
        assert!(measured.p50.is_none());
    }

    #[test]
    fn what_is_not_counted_does_not_count() {
        let body = || {
            std::thread::sleep(Duration::from_millis(2));
            Ok::<_, ()>(Duration::from_millis(1))
        };
        let Measured { lowest, rate, highest, .. } =
            measure_parts(Pace::Quick, 10.0, body).unwrap();
        for figure in [lowest, rate, highest] {
            assert!((figure - 10_000.0).abs() < 1e-6, "{figure}");
        }
    }

    #[test]
    fn a_failure_ends_it() {
        assert_eq!(measure(Pace::Quick, 1.0, || Err("broken")).unwrap_err(), "broken");
        assert_eq!(measure_parts(Pace::Quick, 1.0, || Err("broken")).unwrap_err(), "broken");
    }
}
