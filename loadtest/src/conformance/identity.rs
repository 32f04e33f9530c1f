//! Who is let in, as whom, and what the others are told.

use super::cluster::expect;
use super::{Cluster, Identity};
use crate::client::JSON;

/// 134: without credentials a request is `system:anonymous`; credentials that are wrong are not
/// ignored, unless others are right.
pub async fn a_stranger_is_refused_by_name_and_a_bad_token_altogether(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let target = "/api/v1/pods";
    let anonymous = cluster.client(&Identity::anonymous())?;
    let body = concat!(
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
        r#""message":"pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" "#,
        r#"in API group \"\" at the cluster scope","reason":"Forbidden","#,
        r#""details":{"kind":"pods"},"code":403}"#,
        "\n"
    );
    expect(&anonymous.get(target).await?, 403, JSON, body)?;

    let unauthorized = concat!(
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
        r#""message":"Unauthorized","reason":"Unauthorized","code":401}"#,
        "\n"
    );
    let bad_token = cluster.client(&Identity::anonymous().with_token("bad"))?;
    expect(&bad_token.get(target).await?, 401, JSON, unauthorized)?;

    let admin = cluster.user("admin", Some("system:masters"))?;
    let both = cluster.client(&admin.with_token("bad"))?;
    both.get(target).await?.ok()?;
    Ok(())
}
