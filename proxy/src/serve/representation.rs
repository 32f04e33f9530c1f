//! The representation of an answer: form, indentation, compression.
//!
//! Owns: which of the representations a client may ask for the cache can give.
//! Refuses, so that the request is passed through:
//! * Tables: cells such as the age of an object are computed when the apiserver answers, from
//!   columns only it knows; a remembered one would be stale in a second.
//! * YAML: go-yaml's choice of quotes and folds depends on every string of an object.
//! * an object asked for as a list, or a list as an object: the 406 names a Go type of the
//!   apiserver's, and comes after a 404 or 410.

use http::HeaderMap;
use watershed_cache::{
    Resource,
    encoding::{Encoding, Extent, Form},
};

use super::{Instead, Reason};
use crate::negotiate::{self, Action, Media, Negotiated, NotAcceptable, Transform};

/// See the module text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Representation {
    /// What of an object is sent, and in which encoding.
    pub(crate) form: Form,
    /// Whether JSON is indented.
    pub(crate) pretty: bool,
    /// Whether a long body is compressed.
    pub(crate) gzip: bool,
}

impl Representation {
    /// What was negotiated for `action`, if the cache can give it.
    pub(crate) fn of(
        negotiated: Result<Negotiated, NotAcceptable>,
        headers: &HeaderMap,
        action: Action,
    ) -> Result<Self, Instead> {
        let negotiated = match negotiated {
            Ok(negotiated) => negotiated,
            // This one comes after everything else, the opened watch included.
            Err(NotAcceptable::Stream) => return Err(Reason::Representation.into()),
            Err(refused) => {
                return Err(refused
                    .status()
                    .map_or_else(|| Reason::Representation.into(), Instead::from));
            }
        };
        let (encoding, pretty) = match negotiated.media {
            Media::Json { pretty } => (Encoding::Json, pretty),
            Media::Protobuf => (Encoding::Protobuf, false),
            Media::Yaml => return Err(Reason::Representation.into()),
        };
        let extent = match (negotiated.transform, action) {
            (Transform::None, _) => Extent::Whole,
            (Transform::PartialObjectMetadata(version), Action::Get | Action::Watch)
            | (Transform::PartialObjectMetadataList(version), Action::List) => {
                Extent::Metadata(version)
            }
            (
                Transform::Table(_)
                | Transform::PartialObjectMetadata(_)
                | Transform::PartialObjectMetadataList(_),
                _,
            ) => return Err(Reason::Representation.into()),
        };
        Ok(Self {
            form: Form { encoding, extent },
            pretty,
            gzip: action != Action::Watch && negotiate::accepts_gzip(headers),
        })
    }

    /// The encoding in which the cache has to hold objects of `resource`. Custom resources come in
    /// JSON only, their metadata leaves in protobuf too.
    pub(crate) fn held(&self, resource: &Resource) -> Encoding {
        if resource.custom {
            Encoding::Json
        } else {
            self.form.encoding
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, HeaderValue};
    use watershed_cache::encoding::MetaVersion;

    use super::*;
    use crate::{negotiate::Endpoint, request::Query};

    fn representation(accept: &'static str, action: Action, custom: bool) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let endpoint = Endpoint { action, custom };
        let negotiated = negotiate::negotiate(&headers, &Query::default(), endpoint);
        match Representation::of(negotiated, &headers, action) {
            Ok(Representation { form, pretty, .. }) => {
                let encoding = match form.encoding {
                    Encoding::Json => "json",
                    Encoding::Protobuf => "protobuf",
                };
                let extent = match form.extent {
                    Extent::Whole => "",
                    Extent::Metadata(MetaVersion::V1) => " metadata",
                    Extent::Metadata(MetaVersion::V1Beta1) => " metadata v1beta1",
                };
                format!("{encoding}{extent}{}", if pretty { " pretty" } else { "" })
            }
            Err(Instead::Forward(reason)) => format!("forward {}", reason.as_str()),
            Err(Instead::Refuse(status)) => format!("refuse {}", status.code()),
        }
    }

    #[test]
    fn what_the_cache_cannot_give_is_passed_through() {
        use Action::{Get, List, Watch};
        let one = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1beta1";
        let protobuf =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let whole = "application/vnd.kubernetes.protobuf";
        let table = "application/json;as=Table;g=meta.k8s.io;v=v1,application/json";
        for (accept, action, custom, want) in [
            ("", Get, false, "json"),
            (whole, List, false, "protobuf"),
            ("application/json;pretty=1", List, true, "json pretty"),
            ("application/json;pretty=1", Watch, true, "json"),
            (one, Get, false, "json metadata"),
            (one, Watch, true, "json metadata"),
            (one, List, false, "forward representation"),
            (list, List, true, "json metadata v1beta1"),
            (list, Get, false, "forward representation"),
            (list, Watch, false, "forward representation"),
            (protobuf, Watch, false, "protobuf metadata"),
            (protobuf, Get, true, "protobuf metadata"),
            (whole, Get, true, "refuse 406"),
            (table, List, false, "forward representation"),
            (table, Watch, true, "forward representation"),
            ("application/yaml", Get, false, "forward representation"),
            ("application/yaml", Watch, false, "forward representation"),
            ("text/html", Get, false, "refuse 406"),
        ] {
            let got = representation(accept, action, custom);
            assert_eq!(got, want, "{accept} {action:?} {custom}");
        }
    }
}
