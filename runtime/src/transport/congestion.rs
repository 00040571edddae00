//! How fast bytes leave: Cubic (RFC 9438, quinn's), which does not take every loss for congestion.
//!
//! Cubic slows down at each loss. Where a path loses packets whatever is sent (bad cables, radio,
//! tunnels), it ends at a few packets for each round trip: 0.35 MB/s with 5 % lost and 50 ms to
//! and fro. What tells the two kinds apart is that congestion comes and goes with the speed, and
//! the other loss stays: after it has slowed down, a congested path loses nothing for a while. So
//! the least share that any stretch of the last seconds has lost (the *floor*) is the path's own,
//! as the least round trip of BBR is the path's own. A stretch may lose three times that before
//! Cubic hears of it. A path without loss of its own has the floor zero, and there this is Cubic.
//!
//! Marks of congestion by the network (ECN) and times in which nothing comes through are told to
//! Cubic at once. Not here: what is sent again, and when (quinn).

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Shortest stretch whose loss is a measure, in packets. Longer ones are a round trip.
const STRETCH_PACKETS: u64 = 512;
/// How long a stretch counts, at least; twice that at most.
const MEMORY: Duration = Duration::from_secs(5);
/// A stretch may lose so many times what the path loses of itself.
const TOLERANCE: u64 = 3;
/// Most that a path is taken to lose of itself, and what it may lose before that is known: more is
/// congestion, whatever the reason. In millionths.
const MOST: u64 = 150_000;

/// What is sent before anything has come back (RFC 9002, section 7.2), in packets of any size:
/// those within a machine are larger than networks have. After two of them a message would stand
/// still until its peer, which holds back what it has to say of one packet alone, says it for
/// being late.
const INITIAL_PACKETS: u64 = 10;
const INITIAL_BYTES: u64 = 14_720;

/// Cubic that tolerates the loss that a path has of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct TolerantConfig;

impl ControllerFactory for TolerantConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let mtu: u64 = current_mtu.into();
        let mut config = CubicConfig::default();
        config.initial_window(INITIAL_BYTES.max(INITIAL_PACKETS * mtu));
        let cubic = Arc::new(config).build(now, current_mtu);
        let losses = Losses::new(now, stretch(mtu, cubic.window()));
        Box::new(Tolerant { cubic, losses, mtu, outage: None })
    }
}

struct Tolerant {
    cubic: Box<dyn Controller>,
    losses: Losses,
    mtu: u64,
    /// When it was told of the last time in which nothing came through.
    outage: Option<Instant>,
}

fn stretch(mtu: u64, window: u64) -> u64 {
    window.max(STRETCH_PACKETS * mtu)
}

impl Controller for Tolerant {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.losses.acked += bytes;
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
        self.losses.go_on(now, stretch(self.mtu, self.cubic.window()));
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        let is_usual = self.losses.lose(lost_bytes);
        // An outage is found in pieces. Cubic would take each for a new one, and forget how fast
        // it had been.
        if self.outage.is_some_and(|known| sent <= known) {
            return;
        }
        if is_persistent_congestion {
            self.outage = Some(now);
        }
        let is_mark = lost_bytes == 0;
        if !is_usual || is_persistent_congestion || is_mark {
            self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let Self { cubic, losses, mtu, outage } = self;
        let (cubic, losses) = (cubic.clone_box(), losses.clone());
        Box::new(Self { cubic, losses, mtu: *mtu, outage: *outage })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// What a path has lost lately. Shares are millionths of the bytes.
#[derive(Debug, Clone)]
struct Losses {
    /// Of the stretch that is being measured, in bytes.
    acked: u64,
    lost: u64,
    /// How long it is to be.
    stretch: u64,
    /// The least share of this time span's stretches, and of the last one's.
    least: [Option<u64>; 2],
    span_start: Instant,
}

impl Losses {
    fn new(now: Instant, stretch: u64) -> Self {
        Self { acked: 0, lost: 0, stretch, least: [None; 2], span_start: now }
    }

    /// What a stretch may lose.
    fn allowed(&self) -> u64 {
        let floor = self.least.into_iter().flatten().min();
        floor.map_or(MOST, |floor| (TOLERANCE * floor).min(MOST))
    }

    /// So many bytes are lost; whether that is as usual here.
    fn lose(&mut self, bytes: u64) -> bool {
        self.lost += bytes;
        let of = self.stretch.max(self.acked + self.lost);
        self.lost <= of.saturating_mul(self.allowed()) / 1_000_000
    }

    /// Begins a new stretch where the old one is long enough.
    fn go_on(&mut self, now: Instant, next: u64) {
        let all = self.acked + self.lost;
        if all < self.stretch {
            return;
        }
        if now.saturating_duration_since(self.span_start) > MEMORY {
            self.least = [None, self.least[0]];
            self.span_start = now;
        }
        let share = self.lost.saturating_mul(1_000_000) / all;
        self.least[0] = Some(self.least[0].map_or(share, |least| least.min(share)));
        (self.acked, self.lost, self.stretch) = (0, 0, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCH: u64 = 1_000_000;

    /// Sends stretches that lose so many of their bytes each, a second apart; says whether all was
    /// as usual in each.
    fn send(losses: &mut Losses, start: Instant, lost: &[u64]) -> Vec<bool> {
        let send = |(second, lost): (u64, &u64)| {
            let usual = losses.lose(*lost);
            losses.acked += STRETCH - lost;
            losses.go_on(start + Duration::from_secs(second), STRETCH);
            usual
        };
        (0..).zip(lost).map(send).collect()
    }

    #[test]
    fn loss_that_stays_is_tolerated_and_more_of_it_is_not() {
        let now = Instant::now();
        let mut losses = Losses::new(now, STRETCH);
        let usual = send(&mut losses, now, &[50_000, 40_000, 60_000, 110_000, 130_000]);
        assert_eq!(usual, [true, true, true, true, false]);
        // Twice an eighth is congestion even where it stays.
        assert_eq!(send(&mut losses, now, &[250_000; 20]), [false; 20]);
    }

    #[test]
    fn on_a_path_without_loss_each_loss_counts() {
        let now = Instant::now();
        let mut losses = Losses::new(now, STRETCH);
        assert_eq!(send(&mut losses, now, &[0, 1_200, 1_200, 0]), [true, false, false, true]);
        // It is known for a while, and then forgotten.
        let usual = send(&mut losses, now, &[50_000; 20]);
        assert_eq!(usual[..5], [false; 5]);
        assert_eq!(usual[14..], [true; 6]);
    }

    #[test]
    fn ten_packets_of_any_size_begin() {
        for (mtu, window) in [(1_200, 14_720), (1_472, 14_720), (6_500, 65_000)] {
            let controller = Arc::new(TolerantConfig).build(Instant::now(), mtu);
            assert_eq!((controller.window(), controller.initial_window()), (window, window));
        }
    }

    #[test]
    fn marks_and_silence_count_at_once() {
        let now = Instant::now();
        for (persistent, lost) in [(false, 0), (true, 1_200)] {
            let mut controller = Arc::new(TolerantConfig).build(now, 1_200);
            let before = controller.window();
            controller.on_congestion_event(now, now, false, 1_200);
            assert_eq!(controller.window(), before, "one loss before anything is known");
            controller.on_congestion_event(now, now, persistent, lost);
            assert!(controller.window() < before);
        }
    }

    #[test]
    fn an_outage_is_told_once() {
        let now = Instant::now();
        let mut controller = Arc::new(TolerantConfig).build(now, 1_200);
        let threshold = |controller: &dyn Controller| controller.metrics().ssthresh;
        let later = now + Duration::from_secs(1);
        controller.on_congestion_event(later, now, true, 1_200);
        let told = threshold(&*controller);
        for persistent in [true, false] {
            controller.on_congestion_event(later, now, persistent, 12_000_000);
        }
        assert_eq!(threshold(&*controller), told);
        controller.on_congestion_event(later, later + Duration::from_millis(1), true, 1_200);
        assert!(threshold(&*controller) < told);
    }
}
