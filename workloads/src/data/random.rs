//! Repeatable randomness: the same numbers for the same seed, on every machine and with every
//! version of every library. Not for secrets.

/// `SplitMix64` (Steele, Lea, Flood 2014): passes BigCrush and starts well from any seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A stream for what `keys` name; other keys give an unrelated stream.
    pub fn new(keys: &[u64]) -> Self {
        let mut random = Self(0x5851_f42d_4c95_7f2d);
        for key in keys {
            random.0 = random.bits() ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        random.bits();
        random
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from `0..limit`. `limit` is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The product's upper half is even to within 2^-64 x limit (Lemire 2019).
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }

    /// Evenly from `from..to`.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        let unit = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        from + (to - from) * unit
    }

    /// From a normal distribution of mean 0 and deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.between(0.0, 1.0)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.between(0.0, 1.0)).cos()
    }

    /// From a gamma distribution of this shape, above 0, and scale 1 (Marsaglia and Tsang 2000).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.between(0.0, 1.0)).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.between(0.0, 1.0);
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// Any order is as likely as any other (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_keys_same_stream_other_keys_another() {
        let stream = |keys: &[u64]| Random::new(keys).bits();
        assert_eq!(stream(&[1, 2]), stream(&[1, 2]));
        let all = [stream(&[1, 2]), stream(&[2, 1]), stream(&[1]), stream(&[1, 2, 0]), stream(&[])];
        for (index, value) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(value));
        }
    }

    #[test]
    fn drawn_distributions_have_their_moments() {
        let mut random = Random::new(&[3]);
        let mut moments = |draw: &mut dyn FnMut(&mut Random) -> f64| {
            let drawn: Vec<f64> = (0..20_000).map(|_| draw(&mut random)).collect();
            let mean = drawn.iter().sum::<f64>() / 20_000.0;
            (mean, drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0)
        };
        let (mean, variance) = moments(&mut Random::normal);
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        // A gamma distribution's mean and variance are both its shape.
        for shape in [0.1, 1.0, 4.0] {
            let (mean, variance) = moments(&mut |random| random.gamma(shape));
            let near = |found: f64| (found - shape).abs() < 0.1 * shape + 0.01;
            assert!(near(mean) && near(variance), "{shape}: {mean} {variance}");
        }
    }

    #[test]
    fn numbers_are_even_and_in_range() {
        let mut random = Random::new(&[7]);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            counts[random.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
        assert!((0..1_000).all(|_| (-2.0..3.0).contains(&random.between(-2.0, 3.0))));
    }
}
