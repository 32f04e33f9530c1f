//! Walks a JSON value along a [`Shape`]: captures what the shape names, skips and checks the rest.

use std::ops::Range;

use super::super::DecodeError;
use super::super::lift::Captures;
use super::Scanner;
use crate::fields::shape::{Capture, JsonStep, NodeId, ROOT, Shape};

impl Scanner<'_> {
    /// Walks one value along the shape, and returns where it stands.
    pub(super) fn walk(
        &mut self,
        shape: &Shape<JsonStep>,
        captures: &mut Captures,
    ) -> Result<Range<usize>, DecodeError> {
        self.walk_node(shape, ROOT, captures)
    }

    fn walk_node(
        &mut self,
        shape: &Shape<JsonStep>,
        node: NodeId,
        captures: &mut Captures,
    ) -> Result<Range<usize>, DecodeError> {
        if std::mem::replace(&mut captures.visited[node], true) {
            forget(shape, node, captures);
        }
        let token = self.token();
        let start = self.at;
        let deeper = !shape.steps(node).is_empty();
        match (token, shape.capture(node)) {
            (Some(b'{'), Capture::Labels) => self.labels(captures)?,
            (Some(b'{'), Capture::Value(_) | Capture::Nothing) if deeper => {
                self.object(|scanner, key| {
                    match step(
                        shape,
                        node,
                        |step| matches!(step, JsonStep::Member(name) if **name == *key),
                    ) {
                        Some(next) => scanner.walk_node(shape, next, captures).map(drop),
                        None => scanner.skip().map(drop),
                    }
                })?;
            }
            (Some(b'['), Capture::Value(_) | Capture::Nothing) if deeper => {
                let mut first = step(shape, node, |step| *step == JsonStep::First);
                self.array(|scanner| match first.take() {
                    Some(next) => scanner.walk_node(shape, next, captures).map(drop),
                    None => scanner.skip().map(drop),
                })?;
            }
            (_, Capture::Labels) => {
                if &self.text[self.skip()?] != "null" {
                    return Err(DecodeError::Field("metadata.labels"));
                }
            }
            (_, Capture::Value(_) | Capture::Nothing) => {
                self.skip()?;
            }
        }
        if let Capture::Value(slot) = shape.capture(node) {
            captures.values[slot] = Some(start..self.at);
        }
        Ok(start..self.at)
    }

    fn labels(&mut self, captures: &mut Captures) -> Result<(), DecodeError> {
        self.expect(b'{', "labels")?;
        if self.token() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let (key, _) = self.key()?;
            let value = self.skip()?;
            captures.labels.push((key, value));
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b'}') => break self.at += 1,
                _ => return Err(self.malformed("labels")),
            }
        }
        Ok(())
    }
}

fn step(
    shape: &Shape<JsonStep>,
    node: NodeId,
    wanted: impl Fn(&JsonStep) -> bool,
) -> Option<NodeId> {
    shape
        .steps(node)
        .iter()
        .find(|(step, _)| wanted(step))
        .map(|&(_, next)| next)
}

/// A key came twice: what the first one held does not count.
fn forget(shape: &Shape<JsonStep>, node: NodeId, captures: &mut Captures) {
    match shape.capture(node) {
        Capture::Value(slot) => captures.values[slot] = None,
        Capture::Labels => captures.labels.clear(),
        Capture::Nothing => {}
    }
    for &(_, next) in shape.steps(node) {
        forget(shape, next, captures);
    }
}
