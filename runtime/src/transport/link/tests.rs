use proptest::prelude::*;

use super::state::{Decoder, Hello, LinkState, Meeting, Record};

/// Two sides and the bytes that are under way between them.
struct Pair {
    sides: [LinkState; 2],
    connected: bool,
    wires: [Vec<u8>; 2],
    decoders: [Decoder; 2],
    sent: [Vec<u64>; 2],
    got: [Vec<u64>; 2],
    next: u64,
}

impl Pair {
    fn new() -> Self {
        Self {
            sides: [LinkState::new(1, false), LinkState::new(2, false)],
            connected: false,
            wires: Default::default(),
            decoders: Default::default(),
            sent: Default::default(),
            got: Default::default(),
            next: 0,
        }
    }

    fn send(&mut self, side: usize) {
        self.sides[side].send(self.next.to_le_bytes().to_vec(), false);
        self.sent[side].push(self.next);
        self.next += 1;
    }

    /// Side 0 dials; the answer may get lost on its way.
    fn connect(&mut self, lose_answer: bool) {
        self.break_connection();
        let met = self.sides[1].called(self.sides[0].hello()).unwrap();
        if lose_answer {
            return;
        }
        let answer = self.sides[1].hello();
        let answered = self.sides[0].answered(answer).unwrap();
        if answered == Meeting::Resumed {
            assert_eq!(met, Meeting::Resumed);
        }
        self.connected = true;
    }

    fn break_connection(&mut self) {
        self.connected = false;
        self.wires = Default::default();
        self.decoders = Default::default();
    }

    fn write(&mut self, side: usize, limit: usize, flush: bool) {
        if self.connected {
            let mut out = Vec::new();
            self.sides[side].transmit(&mut out, limit, flush);
            self.wires[side].extend(out);
        }
    }

    fn read(&mut self, side: usize, bytes: usize) {
        let wire = &mut self.wires[1 - side];
        let taken: Vec<u8> = wire.drain(..bytes.min(wire.len())).collect();
        self.decoders[side].feed(&taken);
        while let Some(record) = self.decoders[side].next().unwrap() {
            if let Some(frame) = self.sides[side].handle(record).unwrap() {
                self.got[side].push(u64::from_le_bytes(frame.try_into().unwrap()));
            }
        }
    }

    fn settle(&mut self) {
        while !(self.sides[0].is_settled() && self.sides[1].is_settled()) {
            for side in [0, 1] {
                self.write(side, usize::MAX, true);
                self.read(1 - side, usize::MAX);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    Connect { lose_answer: bool },
    Break,
    Write { side: usize, limit: usize, flush: bool },
    Read { side: usize, bytes: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2_usize).prop_map(Step::Send),
        1 => any::<bool>().prop_map(|lose_answer| Step::Connect { lose_answer }),
        1 => Just(Step::Break),
        6 => (0..2_usize, 0..200_usize, any::<bool>())
            .prop_map(|(side, limit, flush)| Step::Write { side, limit, flush }),
        6 => (0..2_usize, 0..200_usize).prop_map(|(side, bytes)| Step::Read { side, bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// LK-1, LK-2, LK-3.
    #[test]
    fn nothing_is_lost_or_doubled_whatever_breaks(steps in prop::collection::vec(step(), 0..200)) {
        let mut pair = Pair::new();
        pair.connect(false);
        for step in steps {
            match step {
                Step::Send(side) => pair.send(side),
                Step::Connect { lose_answer } => pair.connect(lose_answer),
                Step::Break => pair.break_connection(),
                Step::Write { side, limit, flush } => pair.write(side, limit, flush),
                Step::Read { side, bytes } => pair.read(side, bytes),
            }
            for side in [0, 1] {
                prop_assert!(pair.sent[1 - side].starts_with(&pair.got[side]), "LK-1");
            }
        }
        pair.connect(false);
        pair.settle();
        for side in [0, 1] {
            prop_assert_eq!(&pair.got[side], &pair.sent[1 - side], "LK-2");
            prop_assert_eq!(pair.sides[side].unacked_bytes(), 0, "LK-3");
        }
    }

    #[test]
    fn garbage_never_panics_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = Decoder::default();
        let mut state = LinkState::new(1, false);
        decoder.feed(&bytes);
        while let Ok(Some(record)) = decoder.next() {
            if state.handle(record).is_err() {
                break;
            }
        }
    }
}

#[test]
fn frames_sent_before_the_first_connection_go_first_on_a_plain_link() {
    let mut pair = Pair::new();
    pair.send(0);
    pair.send(0);
    pair.connect(true);
    pair.connect(false);
    pair.settle();
    assert_eq!(pair.got[1], [0, 1]);
}

#[test]
fn a_side_that_lost_its_memory_makes_the_meeting_fresh_and_only_lasting_frames_survive() {
    let mut dialler = LinkState::new(1, true);
    let mut old_head = LinkState::new(2, false);
    old_head.called(dialler.hello()).unwrap();
    assert_eq!(dialler.answered(old_head.hello()), Ok(Meeting::Fresh));
    dialler.send(b"dropped before begin".to_vec(), false);
    dialler.begin(dialler.meeting(), b"register".to_vec());
    dialler.send(b"state".to_vec(), false);
    dialler.send(b"log line".to_vec(), true);
    assert_eq!(transfer(&mut dialler, &mut old_head), ["register", "state", "log line"]);

    let mut new_head = LinkState::new(3, false);
    let stale = dialler.meeting();
    new_head.called(dialler.hello()).unwrap();
    assert_eq!(dialler.answered(new_head.hello()), Ok(Meeting::Fresh));
    dialler.begin(stale, b"for the old head".to_vec());
    assert!(transfer(&mut dialler, &mut new_head).is_empty());
    dialler.send(b"more log".to_vec(), true);
    dialler.begin(dialler.meeting(), b"register again".to_vec());
    dialler.send(b"state again".to_vec(), false);
    assert_eq!(
        transfer(&mut dialler, &mut new_head),
        ["register again", "log line", "more log", "state again"]
    );
}

#[test]
fn peers_that_break_the_rules_are_found_out() {
    let mut state = LinkState::new(1, false);
    state.answered(Hello { mine: 2, yours: 1, received: 0 }).unwrap();
    assert!(state.answered(Hello { mine: 2, yours: 9, received: 0 }).is_err());
    assert!(state.answered(Hello { mine: 2, yours: 1, received: 1 }).is_err());
    assert!(state.handle(Record::Data { seq: 2, frame: vec![] }).is_err());
    assert!(state.handle(Record::Ack { received: 1 }).is_err());
    let mut decoder = Decoder::default();
    decoder.feed(&[0xff, 0xff, 0xff, 0xff, 0]);
    assert!(decoder.next().is_err());
}

#[test]
fn what_is_forgotten_under_pressure_is_the_oldest() {
    let mut state = LinkState::new(1, false);
    for byte in 0..10 {
        state.send(vec![byte; 100], true);
        state.send(vec![byte; 1_000], false);
    }
    state.forget(5, 250);
    assert_eq!(state.unacked_bytes(), 200);
    assert_eq!(state.hello(), Hello { mine: 5, yours: 0, received: 0 });
}

fn transfer(from: &mut LinkState, to: &mut LinkState) -> Vec<String> {
    let mut out = Vec::new();
    from.transmit(&mut out, usize::MAX, true);
    let mut decoder = Decoder::default();
    decoder.feed(&out);
    let mut got = Vec::new();
    while let Some(record) = decoder.next().unwrap() {
        if let Some(frame) = to.handle(record).unwrap() {
            got.push(String::from_utf8(frame).unwrap());
        }
    }
    got
}

/// Every message between processes of a cluster goes over a link: this is what makes each of them
/// count once, whatever it says.
#[test]
fn what_is_delivered_twice_is_handed_out_once() {
    let mut pair = Pair::new();
    pair.connect(false);
    let (mut out, mut decoder) = (Vec::new(), Decoder::default());
    for number in 0..50_u8 {
        pair.sides[0].send(vec![number], number % 2 == 0);
    }
    pair.sides[0].transmit(&mut out, usize::MAX, true);
    // All of it again, and each record twice.
    decoder.feed(&out.repeat(2));
    let mut handed_out = Vec::new();
    while let Some(record) = decoder.next().unwrap() {
        for record in [record.clone(), record] {
            handed_out.extend(pair.sides[1].handle(record).unwrap());
        }
    }
    assert_eq!(handed_out, (0..50).map(|number| vec![number]).collect::<Vec<_>>());
}
