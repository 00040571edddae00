use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::*;
use crate::data::augment::Flip;
use crate::data::{ImageSet, Shape, synthetic};
use crate::device::Processor;
use crate::train::optimiser::Rule;
use crate::train::schedule::Schedule;

fn recipe(architecture: Architecture, dropout: f64) -> Recipe {
    // Tests run beside each other; more threads would spin in each other's way.
    tensor::use_leased_threads();
    let shape = Shape { rows: 28, columns: 28, channels: 1 };
    Recipe {
        architecture,
        input: Input { shape, classes: 10, dropout },
        processor: Processor::Cpu,
        normal: Normal::PLAIN,
        augment: Augment::NONE,
        class_weights: None,
        label_smoothing: 0.0,
        optimiser: OptimiserSpec::plain(Rule::Adam),
        rates: Rates { schedule: Schedule::Constant, first: 1e-3, warmup: 0.0, epochs: 1 },
        proximal: 0.0,
        batch: 32,
        seed: 1,
    }
}

fn drawn(count: usize) -> Arc<ImageSet> {
    Arc::new(synthetic::draw(count, 1))
}

fn trainer(recipe: Recipe) -> Trainer {
    Trainer::new(recipe).unwrap()
}

fn work(order: u64, from: u64, to: u64) -> Work {
    Work { order, from, to, next: (to, to), among: Among::All, span: (0.0, 1.0) }
}

fn whole(set: &ImageSet, order: u64) -> Work {
    work(order, 0, set.len() as u64)
}

fn right(trainer: &mut Trainer, set: &ImageSet) -> usize {
    let answers = trainer.answers(set, 0..set.len() as u64);
    answers.classes.iter().zip(&set.labels).filter(|(a, b)| a == b).count()
}

/// Where there is a GPU and a libtorch that knows it; elsewhere it says that it was not run.
#[test]
fn a_gpu_computes_what_a_cpu_does() {
    if let Err(reason) = Processor::Gpu.device() {
        return eprintln!("skipped: no GPU ({reason})");
    }
    let train = drawn(64);
    let run = |processor| {
        let mut trainer =
            trainer(Recipe { processor, ..recipe(Architecture::HerbariumConvnet, 0.25) });
        let (mean, tally) = trainer.mean_gradient(&train, &work(0, 0, 64), |_| ());
        assert!(trainer.train(&train, &whole(&train, 1), |_| ()).loss.is_finite());
        (mean, tally.loss, trainer.answers(&*train, 0..64).classes.len())
    };
    let (cpu, gpu) = (run(Processor::Cpu), run(Processor::Gpu));
    assert!((cpu.1 - gpu.1).abs() < 1e-2 * cpu.1 && (cpu.2, gpu.2) == (64, 64));
    let pairs = || cpu.0.iter().zip(&gpu.0);
    let apart = pairs().map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    let size = cpu.0.iter().map(|a| a.powi(2)).sum::<f32>().sqrt();
    assert!(apart < 0.02 * size, "{apart} of {size}");
}

#[test]
fn learns_drawn_digits_and_repeats_bit_for_bit() {
    let (train, test) = (drawn(2_000), synthetic::draw(500, 2));
    let run = || {
        let mut trainer = trainer(recipe(Architecture::Convnet, 0.25));
        let tallies = [0, 1, 2].map(|epoch| trainer.train(&train, &whole(&train, epoch), |_| ()));
        assert!(tallies[2].loss < tallies[0].loss / 2.0, "{tallies:?}");
        trainer
    };
    let (mut once, again) = (run(), run());
    assert!(once.parameters() == again.parameters());
    let right = right(&mut once, &test);
    assert!(right > 440, "{right}");
}

#[test]
fn augmented_batches_are_made_beside_and_repeat_whoever_makes_them() {
    let train = drawn(300);
    let augment = Augment { flip: Flip::Both, rotate: 10.0, contrast: 0.2, ..Augment::NONE };
    let changed = Recipe { augment, ..recipe(Architecture::Convnet, 0.25) };
    let run = |recipe: &Recipe| {
        let mut trainer = trainer(recipe.clone());
        trainer.train(&train, &whole(&train, 3), |_| ());
        trainer.parameters().to_vec()
    };
    assert!(run(&changed) == run(&changed));
    assert!(run(&changed) != run(&recipe(Architecture::Convnet, 0.25)));
    // One batch by the other way of making it.
    let mut trainer = trainer(changed.clone());
    let (mean, tally) = trainer.mean_gradient(&train, &work(3, 0, 32), |_| ());
    assert_eq!(tally, trainer.compute_gradient(&train, &work(3, 0, 32)));
    assert!(mean == *trainer.last_gradient());
}

/// Images that tell of each that is looked at.
struct Told(Arc<ImageSet>, Mutex<Sender<usize>>);

impl Images for Told {
    fn shape(&self) -> Shape {
        self.0.shape
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn image(&self, index: usize) -> &[u8] {
        self.1.lock().unwrap().send(index).unwrap();
        self.0.image(index)
    }

    fn label(&self, index: usize) -> u32 {
        self.0.label(index)
    }
}

#[test]
fn what_comes_next_is_made_before_it_is_asked_for_and_a_wrong_guess_changes_nothing() {
    let augment = Augment { flip: Flip::Both, rotate: 10.0, ..Augment::NONE };
    let changed = Recipe { augment, ..recipe(Architecture::Mlp, 0.25) };
    let set = drawn(300);
    let alone = |work: &Work| {
        let mut trainer = trainer(changed.clone());
        let tally = trainer.compute_gradient(&set, work);
        (tally, trainer.last_gradient().clone())
    };
    let (told, looked) = channel();
    let watched = Arc::new(Told(set.clone(), Mutex::new(told)));
    let mut trainer = trainer(changed.clone());
    let seen = |count: usize| {
        let one = || looked.recv_timeout(Duration::from_secs(60)).expect("nobody looks at it");
        (0..count).map(|_| one()).collect::<Vec<usize>>()
    };
    let order = shard::order(300, Random::new(&[changed.seed, Among::All.key()]).bits(), 2);
    let expected = |from: usize, to: usize| {
        order[from..to].iter().map(|index| *index as usize).collect::<Vec<_>>()
    };
    let guessed = [(0, 32, (32, 64)), (32, 64, (64, 96)), (100, 140, (140, 150))];
    for (index, (from, to, next)) in guessed.into_iter().enumerate() {
        let work = Work { next, ..work(2, from, to) };
        assert_eq!(trainer.compute_gradient(&watched, &work), alone(&work).0);
        assert!(*trainer.last_gradient() == alone(&work).1, "{work:?}");
        // The first and the third were not known before.
        if index != 1 {
            assert_eq!(seen((to - from) as usize), expected(from as usize, to as usize));
        }
        // No call asks for these yet.
        let (from, to) = (next.0 as usize, next.1 as usize);
        assert_eq!(seen(to - from), expected(from, to));
    }
    // The mean of batches goes on from where a step was, and other images are other batches.
    let next = work(2, 140, 204);
    let (mean, _) = trainer.mean_gradient(&set, &next, |_| ());
    let (again, _) = self::trainer(changed).mean_gradient(&watched, &next, |_| ());
    assert!(mean == again);
}

/// The claim of `allreduce`: n replicas with batch b are one with batch n x b. Adam divides a
/// gradient by its own size, so that through a deep model it also blows up what is nothing but
/// rounding: there it holds after a step, and no longer after four.
#[test]
fn two_halves_of_a_batch_give_the_whole_batchs_step() {
    let plain = |architecture, rule| Recipe {
        optimiser: OptimiserSpec::plain(rule),
        ..recipe(architecture, 0.0)
    };
    let clipped =
        OptimiserSpec { clip: Some(0.1), decay: 0.1, ..OptimiserSpec::plain(Rule::Adamw) };
    let weights = (0..10).map(|class| class as f32 / 4.5).collect();
    let mixed = Recipe {
        optimiser: clipped,
        class_weights: Some(weights),
        label_smoothing: 0.1,
        ..recipe(Architecture::Mlp, 0.0)
    };
    for (recipe, steps) in [
        (plain(Architecture::Mlp, Rule::Adam), 4),
        (plain(Architecture::DeepMlp, Rule::Sgd), 4),
        (plain(Architecture::DeepMlp, Rule::Adam), 1),
        (mixed, 2),
    ] {
        let furthest = halves_from_whole(&recipe, steps);
        assert!(furthest < 1e-5, "{recipe:?}, {steps} steps: {furthest}");
    }
}

/// How far apart the furthest parameters are.
fn halves_from_whole(recipe: &Recipe, steps: usize) -> f32 {
    let train = drawn(512);
    let mut whole = trainer(recipe.clone());
    let mut halves = [(); 2].map(|()| trainer(recipe.clone()));
    for from in (0..512).step_by(128).take(steps) {
        whole.compute_gradient(&train, &work(0, from, from + 128));
        let gradient = whole.last_gradient().clone();
        whole.step(&[&gradient], 1e-3);
        let gradients: Vec<Vec<f32>> = halves
            .iter_mut()
            .zip([from, from + 64])
            .map(|(half, from)| {
                half.compute_gradient(&train, &work(0, from, from + 64));
                half.last_gradient().clone()
            })
            .collect();
        let gradients: Vec<&[f32]> = gradients.iter().map(|gradient| &gradient[..]).collect();
        halves.iter_mut().for_each(|half| half.step(&gradients, 1e-3));
        assert!(halves[0].parameters() == halves[1].parameters());
    }
    let pairs = whole.parameters().iter().zip(halves[0].parameters());
    pairs.fold(0.0_f32, |furthest, (a, b)| furthest.max((a - b).abs()))
}

#[test]
fn running_statistics_are_sent_and_move_with_the_step_alone() {
    let train = drawn(64);
    let mut trainer = trainer(recipe(Architecture::HerbariumConvnet, 0.0));
    let trained = trainer.layout().trained();
    let before = trainer.parameters().to_vec();
    trainer.compute_gradient(&train, &work(0, 0, 32));
    assert!(trainer.parameters() == before);
    let sent = trainer.last_gradient().clone();
    assert!(sent[trained..] != before[trained..]);
    trainer.step(&[&sent], 1e-3);
    assert!(trainer.parameters()[trained..] == sent[trained..]);
}

#[test]
fn a_pull_keeps_parameters_near() {
    let train = drawn(200);
    let moved = |proximal| {
        let optimiser = OptimiserSpec::plain(Rule::Sgd);
        let mut trainer = trainer(Recipe { proximal, optimiser, ..recipe(Architecture::Mlp, 0.0) });
        let before = trainer.parameters().to_vec();
        trainer.train(&train, &whole(&train, 0), |_| ());
        let pairs = before.iter().zip(trainer.parameters());
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
    };
    let (free, held) = (moved(0.0), moved(100.0));
    assert!(held < free * 0.7, "{held} {free}");
}

#[test]
fn members_show_only_their_own_images() {
    let mut train = synthetic::draw(200, 1);
    let partition = Partition { parts: 4, skew: None };
    let members = shard::partition(&train.labels, partition, 1);
    // Images of other members would teach it label 5. The partition must not change with it.
    let own = &members[2];
    let plain = |train: &ImageSet| shard::partition(&train.labels, partition, 1);
    for index in 0..200 {
        train.labels[index] = if own.contains(&(index as u32)) { 2 } else { 5 };
    }
    assert_eq!(plain(&train), members);
    let train = Arc::new(train);
    let mut trainer = trainer(recipe(Architecture::Mlp, 0.0));
    let among = Among::Member(Member { index: 2, partition });
    for order in 0..20 {
        let tally = trainer.train(&train, &Work { among, ..work(order, 0, 50) }, |_| ());
        assert_eq!(tally.images, 50);
    }
    assert!(trainer.answers(&*train, 0..50).classes.iter().all(|class| *class == 2));
}

#[test]
fn two_classes_have_probabilities_and_no_label_no_loss() {
    let shape = Shape { rows: 28, columns: 28, channels: 1 };
    let input = Input { shape, classes: 2, dropout: 0.0 };
    let mut trainer = trainer(Recipe { input, ..recipe(Architecture::BreastConvnet, 0.0) });
    let mut set = synthetic::draw(20, 1);
    set.labels.fill(u32::MAX);
    let answers = trainer.answers(&set, 5..20);
    assert_eq!((answers.classes.len(), answers.loss), (15, 0.0));
    for index in 0..15 {
        let positive = answers.scores[index];
        assert_eq!(answers.classes[index], u32::from(positive > 0.5));
        assert!((answers.certainty[index] - positive.max(1.0 - positive)).abs() < 1e-6);
    }
}
