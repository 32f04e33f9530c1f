//! One thing that is measured.

use bytes::Bytes;
use watershed_cache::Object;

/// A named measurement.
pub(crate) struct Case {
    /// `step/what`
    pub(crate) name: String,
    /// How many events, or objects, one run is about: what instructions are divided by.
    pub(crate) units: u64,
    /// Runs of which instructions are counted.
    pub(crate) runs: usize,
    /// Sets the stage; costs nothing in any figure.
    pub(crate) prepare: Box<dyn Fn() -> Steps>,
}

/// What a run uses up.
pub(crate) enum Input {
    Nothing,
    Object(Object),
    /// Pieces of an upstream body.
    Chunks(Vec<Bytes>),
}

/// What a run does.
pub(crate) struct Steps {
    /// Makes what the next run uses up; not measured.
    pub(crate) input: Box<dyn FnMut() -> Input>,
    /// What is measured.
    pub(crate) run: Box<dyn FnMut(Input)>,
}

impl Case {
    /// A case of one unit.
    pub(crate) fn new(name: impl Into<String>, prepare: impl Fn() -> Steps + 'static) -> Self {
        Self {
            name: name.into(),
            units: 1,
            runs: 100,
            prepare: Box::new(prepare),
        }
    }

    /// The same about more units.
    pub(crate) fn of(self, units: u64) -> Self {
        Self { units, ..self }
    }

    /// The same, counted more or less often.
    pub(crate) fn runs(self, runs: usize) -> Self {
        Self { runs, ..self }
    }
}

impl Steps {
    /// A run that uses nothing up.
    pub(crate) fn plain(mut run: impl FnMut() + 'static) -> Self {
        Self {
            input: Box::new(|| Input::Nothing),
            run: Box::new(move |_| run()),
        }
    }

    /// A run that takes an object.
    pub(crate) fn objects(
        mut input: impl FnMut() -> Object + 'static,
        mut run: impl FnMut(Object) + 'static,
    ) -> Self {
        Self {
            input: Box::new(move || Input::Object(input())),
            run: Box::new(move |input| match input {
                Input::Object(object) => run(object),
                Input::Nothing | Input::Chunks(_) => unreachable!("made just above"),
            }),
        }
    }

    /// A run that takes pieces of an upstream body.
    pub(crate) fn chunks(
        mut input: impl FnMut() -> Vec<Bytes> + 'static,
        mut run: impl FnMut(Vec<Bytes>) + 'static,
    ) -> Self {
        Self {
            input: Box::new(move || Input::Chunks(input())),
            run: Box::new(move |input| match input {
                Input::Chunks(chunks) => run(chunks),
                Input::Nothing | Input::Object(_) => unreachable!("made just above"),
            }),
        }
    }
}
