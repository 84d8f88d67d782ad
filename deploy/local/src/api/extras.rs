//! Subresources with a kind of their own, and logs.

use std::sync::Arc;

use http::Method;

use super::media::Form;
use super::path::Target;
use super::reading;
use super::routes::{Answer, Reply, Request, plain};
use super::server::{LogOptions, Server};
use super::status::ApiError;
use super::streaming;
use super::verbs::{finish, writing};
use super::writing::{Part, Way};

/// Answers a request for such a subresource.
pub async fn answer(
    server: &Arc<Server>,
    request: &Request,
    target: &Target,
    subresource: &str,
) -> Result<Reply, ApiError> {
    let method = &request.method;
    match subresource {
        "log" if *method == Method::GET => log(server, request, target).await,
        "exec" | "attach" | "portforward" => streaming::answer(server, request, target, subresource).await,
        "binding" | "eviction" | "token" if *method == Method::POST => {
            let body = request.json()?;
            let options = request.options("CreateOptions", false)?;
            let mut writing = writing(server, request, target, options);
            let result = match subresource {
                "binding" => writing.bind(&body).await,
                "eviction" => writing.evict(&body).await,
                _ => writing.token(body),
            };
            finish(writing, &target.resource, result.map(|value| (201, value)), Form::Whole)
        }
        "finalize" if *method == Method::PUT => {
            let body = request.json()?;
            let options = request.options("UpdateOptions", false)?;
            let mut writing = writing(server, request, target, options);
            let result = writing
                .update(Part::Sub("finalize"), Way::Replace, |old| {
                    let mut next = old.clone();
                    let finalizers = body["spec"].get("finalizers").cloned();
                    super::object::put(super::object::map(&mut next, "spec"), "finalizers", finalizers);
                    Ok(next)
                })
                .await;
            finish(writing, &target.resource, result.map(|value| (200, value)), Form::Whole)
        }
        "ephemeralcontainers" if *method == Method::GET => {
            let value = reading::get(server, target, &request.query, Form::Whole).await?;
            Ok(plain(Answer::value(200, value)))
        }
        "ephemeralcontainers" => Err(ApiError::not_implemented(
            "ephemeral containers are not run by this one-machine cluster: enter the pod's namespaces with nsenter",
        )),
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn log(server: &Arc<Server>, request: &Request, target: &Target) -> Result<Reply, ApiError> {
    let pod = reading::find(server, target)?;
    let query = &request.query;
    let count = |name: &str| query.number(name).map(|n| n.and_then(|n| usize::try_from(n).ok()));
    let options = LogOptions {
        container: Some(streaming::container_of(&pod.value, query.get("container"))?.to_owned()),
        follow: query.flag("follow"),
        tail_lines: count("tailLines")?,
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since_seconds: query.number("sinceSeconds")?,
        limit_bytes: count("limitBytes")?,
    };
    let node = server.node()?;
    let (namespace, name) = (super::object::namespace(&pod.value), super::object::name(&pod.value));
    Ok(plain(Answer::Log(node.logs(namespace, name, options).await?)))
}
