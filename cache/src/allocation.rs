//! What the allocator takes for a size: what memory is accounted in.
//!
//! Owns jemalloc's size classes, which the proxy allocates with: multiples of 16 up to 128, then
//! four to each doubling. A kilobyte and one byte takes 1,280. It refuses to ask the allocator: other
//! allocators round too, and a budget should not depend on which one runs. `tests/memory.rs` holds
//! it against the real thing.

/// Bytes taken for an allocation of `len` bytes.
pub(crate) const fn size(len: usize) -> usize {
    match len {
        0 => 0,
        1..=8 => 8,
        9..=128 => len.next_multiple_of(16),
        _ => {
            let doubling = (len - 1).ilog2();
            len.next_multiple_of(1 << (doubling - 2))
        }
    }
}

/// Bytes taken for a `T` behind an `Arc`.
pub(crate) const fn shared<T>() -> usize {
    size(2 * size_of::<usize>() + size_of::<T>())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_the_classes_of_jemalloc() {
        let classes = [
            8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768,
            896, 1024, 1280, 1536, 1792, 2048, 2560,
        ];
        let mut below = 0;
        for class in classes {
            for len in below + 1..=class {
                assert_eq!(super::size(len), class, "{len}");
            }
            below = class;
        }
        assert_eq!(super::size(0), 0);
        assert_eq!(super::size(100_000), 112 << 10);
    }
}
