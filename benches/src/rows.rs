//! The rows of the suite: made from their number, so that every answer can be checked.

/// Bytes of a value; with its 8-byte key a row has 100 and 8.
pub(crate) const VALUE_LEN: usize = 100;

/// A bijection of u64: consecutive numbers become keys in random order (splitmix64's finaliser).
pub(crate) fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The value of a key in its n-th generation: key, generation, then words of which every other one
/// repeats, as text does.
pub(crate) fn value(key: u64, generation: u64) -> [u8; VALUE_LEN] {
    let mut out = [0; VALUE_LEN];
    let mut word = scatter(key ^ generation.rotate_left(32));
    for (i, chunk) in out.chunks_mut(8).enumerate() {
        if i % 2 == 0 {
            word = scatter(word);
        }
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    out[..8].copy_from_slice(&key.to_le_bytes());
    out[8..16].copy_from_slice(&generation.to_le_bytes());
    out
}

/// True if a value belongs to its key: cheap enough for the timed part of a run.
#[inline]
pub(crate) fn belongs(key: u64, value: &[u8]) -> bool {
    value.len() == VALUE_LEN && value[..8] == key.to_le_bytes()
}

/// True if every byte of a value is what was written.
pub(crate) fn intact(key: u64, found: &[u8]) -> bool {
    let generation = found.get(8..16).and_then(|word| word.try_into().ok());
    generation.is_some_and(|word| found == value(key, u64::from_le_bytes(word)))
}

/// A small generator of a thread's own.
pub(crate) struct Random(u64);

impl Random {
    /// A stream of its own per seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random(scatter(seed))
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scatter(self.0)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Zipfian ranks with theta 0.99, as YCSB draws them (Gray et al., SIGMOD 1994).
#[derive(Clone)]
pub(crate) struct Zipf {
    n: f64,
    theta: f64,
    alpha: f64,
    eta: f64,
    zeta: f64,
}

impl Zipf {
    /// Ranks below `n`.
    pub(crate) fn new(n: u64) -> Zipf {
        let theta = 0.99;
        let zeta: f64 = (1..=n).map(|i| 1.0 / (i as f64).powf(theta)).sum();
        let zeta2 = 1.0 + 0.5f64.powf(theta);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - theta)) / (1.0 - zeta2 / zeta);
        Zipf {
            n: n as f64,
            theta,
            alpha: 1.0 / (1.0 - theta),
            eta,
            zeta,
        }
    }

    /// The next rank; 0 is the most frequent.
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let u = random.unit();
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.n * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.n as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_their_key() {
        assert!(belongs(7, &value(7, 3)));
        assert!(!belongs(8, &value(7, 3)));
        assert_ne!(value(7, 3)[16..], value(7, 4)[16..]);
        let mut bent = value(7, 3);
        assert!(intact(7, &bent) && !intact(7, &bent[..99]) && !intact(8, &bent));
        bent[99] ^= 1;
        assert!(!intact(7, &bent));
    }

    #[test]
    fn zipf_prefers_low_ranks() {
        let zipf = Zipf::new(1000);
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| zipf.draw(&mut random) < 10).count();
        assert!(
            (3000..6000).contains(&hits),
            "{hits} of 10,000 draws in the first 10 of 1,000"
        );
    }
}
