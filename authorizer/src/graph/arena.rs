//! Values by number.
//!
//! Owns values in pieces of fixed size that never move, so that growing copies nothing while
//! readers wait, and leaves no half-empty vector behind. Numbers of removed values are used again.
//! Memory is not given back: it is that of the most values there ever were. Invariant: a number is
//! valid from `insert` to `remove`.

use std::ops::{Index, IndexMut};

const PIECE: usize = 1024;

#[derive(Debug)]
pub(super) struct Arena<T> {
    pieces: Vec<Vec<T>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        let (pieces, free) = (Vec::new(), Vec::new());
        Self { pieces, free }
    }
}

impl<T: Default> Arena<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self[number] = value;
            return number;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let full = self.pieces.len() - 1;
        let piece = &mut self.pieces[full];
        piece.push(value);
        let number = full * PIECE + piece.len() - 1;
        u32::try_from(number).expect("values of a graph are fewer than 2^32")
    }

    pub(super) fn remove(&mut self, number: u32) -> T {
        self.free.push(number);
        std::mem::take(&mut self[number])
    }

    /// What stands at a number, also after it was removed; `None` beyond all numbers.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        self.pieces.get(number / PIECE)?.get(number % PIECE)
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        let places: usize = self.pieces.iter().map(Vec::len).sum();
        places - self.free.len()
    }

    /// Bytes held, without what the values hold.
    pub(super) fn bytes(&self) -> usize {
        let pieces = self.pieces.len() * PIECE * size_of::<T>();
        let lists = self.pieces.capacity() * size_of::<Vec<T>>();
        pieces + lists + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Arena<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        let number = number as usize;
        &self.pieces[number / PIECE][number % PIECE]
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        let number = number as usize;
        &mut self.pieces[number / PIECE][number % PIECE]
    }
}
