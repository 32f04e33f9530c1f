//! What the steps of an event and of a list cost: in time, and in instructions.
//!
//! ```text
//! cargo bench -p watershed-cache                  everything
//! cargo bench -p watershed-cache -- apply         what has "apply" in its name
//! ```
//!
//! Times are criterion's and as noisy as the machine. Instructions are counted by valgrind, where it
//! is installed, and compared with the run before; they hardly vary, so a change of a per cent means
//! something. Each file next to this one holds the cases of one step; a case is one closure that
//! both count.

mod apply;
mod case;
mod dispatch;
mod ingest;
mod instructions;
mod list;
mod scan;
mod subject;

use std::time::Duration;

use criterion::{BatchSize, Criterion};

use case::Case;

/// What the proxy allocates with.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let cases: Vec<Case> = [
        scan::cases(),
        apply::cases(),
        dispatch::cases(),
        ingest::cases(),
        list::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(name) = instructions::wanted() {
        return instructions::count(&cases, &name);
    }
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for case in &cases {
        time(&mut criterion, case);
    }
    criterion.final_summary();
    instructions::report(&cases);
}

fn time(criterion: &mut Criterion, case: &Case) {
    let mut steps = None; // prepared only if the filter lets the case run
    criterion.bench_function(&case.name, |bencher| {
        let steps = steps.get_or_insert_with(|| (case.prepare)());
        bencher.iter_batched(&mut steps.input, &mut steps.run, BatchSize::SmallInput);
    });
}
