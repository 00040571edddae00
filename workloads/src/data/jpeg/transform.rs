//! From a block's frequencies to its samples: the accurate integer transform of libjpeg (Loeffler,
//! Ligtenberg and Moschytz), whose every bit it gives, eight columns and then eight rows at a time.

use std::num::Wrapping;

/// Frequencies, row after row; what lies behind the 64 takes what has no place in a block.
pub(super) type Block = [i32; 128];

type Lane = Wrapping<i32>;

/// Bits behind the point of the factors, and of what is between the two passes.
const FACTOR_BITS: usize = 13;
const PASS_BITS: usize = 2;

const fn lane(value: i32) -> Lane {
    Wrapping(value)
}

#[inline(always)]
fn pass<const SHIFT: usize>(v: [Lane; 8]) -> [Lane; 8] {
    let rounding = lane(1 << (SHIFT - 1));
    let both = (v[2] + v[6]) * lane(4433);
    let (sum, difference) = (both + v[2] * lane(6270), both - v[6] * lane(15137));
    let zero = ((v[0] + v[4]) << FACTOR_BITS) + rounding;
    let four = ((v[0] - v[4]) << FACTOR_BITS) + rounding;
    let even = [zero + sum, four + difference, four - difference, zero - sum];

    let all = (v[1] + v[3] + v[5] + v[7]) * lane(9633);
    let outer = (v[7] + v[1]) * lane(-7373);
    let inner = (v[5] + v[3]) * lane(-20995);
    let high = (v[7] + v[3]) * lane(-16069) + all;
    let low = (v[5] + v[1]) * lane(-3196) + all;
    let odd = [
        v[1] * lane(12299) + outer + low,
        v[3] * lane(25172) + inner + high,
        v[5] * lane(16819) + inner + low,
        v[7] * lane(2446) + outer + high,
    ];
    let at = |index: usize| {
        let value =
            if index < 4 { even[index] + odd[index] } else { even[7 - index] - odd[7 - index] };
        value >> SHIFT
    };
    [at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)]
}

/// Writes a block's samples to the start of `target`, whose rows are `stride` apart.
#[inline(always)]
pub(super) fn samples(block: &Block, target: &mut [u8], stride: usize) {
    let mut between = [[lane(0); 8]; 8];
    for x in 0..8 {
        let column = std::array::from_fn(|y| lane(block[y * 8 + x]));
        let column = pass::<{ FACTOR_BITS - PASS_BITS }>(column);
        for y in 0..8 {
            between[y][x] = column[y];
        }
    }
    let mut rows = [[0_u8; 8]; 8];
    for y in 0..8 {
        let row = pass::<{ FACTOR_BITS + PASS_BITS + 3 }>(between[y]);
        for x in 0..8 {
            rows[y][x] = (row[x].0 + 128).clamp(0, 255) as u8;
        }
    }
    for (row, target) in rows.iter().zip(target.chunks_mut(stride)) {
        target[..8].copy_from_slice(row);
    }
}

/// The same for a block of which there is the `first` value only.
#[inline(always)]
pub(super) fn even(first: i32, target: &mut [u8], stride: usize) {
    let sample = (first.wrapping_add(4 + (128 << 3)) >> 3).clamp(0, 255) as u8;
    for target in target.chunks_mut(stride).take(8) {
        target[..8].fill(sample);
    }
}
