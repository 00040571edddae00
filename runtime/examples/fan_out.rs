//! Tasks that submit tasks: counts the solutions of the n-queens puzzle. How many tasks there are
//! is found out on the way. A task that waits for others gives its CPU to them meanwhile.

use rdist::prelude::*;

/// Rows that are split into tasks; below them, a task counts by itself.
const SPLIT_ROWS: u32 = 3;

/// Columns and diagonals that are attacked, as bits.
#[rdist::value]
#[derive(Debug, Clone, Copy)]
struct Board {
    size: u32,
    row: u32,
    columns: u32,
    left: u32,
    right: u32,
}

impl Board {
    /// The boards with one queen more, in the next row.
    fn next(self) -> impl Iterator<Item = Self> {
        let taken = self.columns | self.left | self.right;
        let free = (0..self.size).map(|column| 1 << column).filter(move |bit| taken & bit == 0);
        free.map(move |bit| Self {
            row: self.row + 1,
            columns: self.columns | bit,
            left: (self.left | bit) << 1,
            right: (self.right | bit) >> 1,
            ..self
        })
    }

    fn count(self) -> u64 {
        if self.row == self.size { 1 } else { self.next().map(Self::count).sum() }
    }
}

#[rdist::task]
fn solve(cx: &Context, board: Board) -> Result<u64> {
    if board.row == SPLIT_ROWS {
        return Ok(board.count());
    }
    let parts: Vec<ObjectRef<u64>> = board.next().map(|next| solve.submit(cx, next)).collect();
    Ok(cx.get_all(&parts)?.iter().sum())
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let size = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10);
    let board = Board { size, row: 0, columns: 0, left: 0, right: 0 };
    println!("{size} queens: {} solutions", solve.submit(&cx, board).await?);
    Ok(())
}
