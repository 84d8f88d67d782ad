//! Job → Pods that run to completion.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::job_plan::{INDEX, Plan, plan};
use super::owned::is_controlled_by;
use super::pods::from_template;
use super::{Context, ReconcileError};

pub(super) async fn reconcile(job: Arc<Job>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    let namespace = job.namespace().unwrap_or_default();
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let spec = job.spec.clone().unwrap_or_default();
    for (field, set) in [
        ("podFailurePolicy", spec.pod_failure_policy.is_some()),
        ("successPolicy", spec.success_policy.is_some()),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.is_some()),
    ] {
        if set {
            let why = format!("spec.{field} is not supported by the local cluster; remove it from the Job");
            ctx.events.warn(job.as_ref(), "FailedCreate", &why);
            return Ok(Action::await_change());
        }
    }
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut pods = api.list(&ListParams::default()).await?.items;
    pods.retain(|pod| is_controlled_by(pod, job.as_ref()));
    let plan = plan(&job, &pods, Timestamp::now());
    if plan.forget {
        let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &namespace);
        jobs.delete(&job.name_any(), &DeleteParams::foreground()).await?;
        return Ok(Action::await_change());
    }
    carry_out(&job, &ctx, &api, &plan).await?;
    publish(&job, &ctx, &plan.status).await?;
    Ok(plan.look_again.map_or_else(Action::await_change, Action::requeue))
}

async fn carry_out(job: &Job, ctx: &Context, api: &Api<Pod>, plan: &Plan) -> Result<(), ReconcileError> {
    for name in &plan.delete {
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => ctx.events.note(job, "SuccessfulDelete", &format!("Deleted pod: {name}")),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    for index in &plan.create {
        match api.create(&PostParams::default(), &pod(job, *index)).await {
            Ok(pod) => ctx.events.note(job, "SuccessfulCreate", &format!("Created pod: {}", pod.name_any())),
            Err(error) => {
                ctx.events.warn(job, "FailedCreate", &format!("Error creating: {}", crate::refusal::sentence(&error)));
                return Err(error.into());
            }
        }
    }
    Ok(())
}

async fn publish(job: &Job, ctx: &Context, status: &JobStatus) -> Result<(), ReconcileError> {
    if job.status.as_ref() == Some(status) {
        return Ok(());
    }
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &job.namespace().unwrap_or_default());
    let mut patch = json!({"status": status});
    // A resumed Job has no completed or suspended time; a merge patch has to say so.
    for field in ["startTime", "completionTime", "active", "failed", "succeeded"] {
        patch["status"].as_object_mut().map(|s| s.entry(field).or_insert(serde_json::Value::Null));
    }
    match api.patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let newly = |kind: &str| {
        let has = |s: &JobStatus| s.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True");
        has(status) && !job.status.as_ref().is_some_and(has)
    };
    if newly("Complete") {
        ctx.events.note(job, "Completed", "Job completed");
    }
    if newly("Failed") {
        let failed = status.conditions.iter().flatten().find(|c| c.type_ == "Failed");
        let (reason, message) = failed.map(|c| (c.reason.clone(), c.message.clone())).unwrap_or_default();
        ctx.events.warn(job, &reason.unwrap_or_default(), &message.unwrap_or_default());
    }
    Ok(())
}

fn pod(job: &Job, index: Option<i32>) -> Pod {
    let template = job.spec.clone().unwrap_or_default().template;
    let mut pod = from_template(job, &template);
    pod.metadata.generate_name = Some(format!("{}-", job.name_any()));
    let Some(index) = index else { return pod };
    pod.metadata.generate_name = Some(format!("{}-{index}-", job.name_any()));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname.get_or_insert_with(|| format!("{}-{index}", job.name_any()));
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let variable =
                EnvVar { name: "JOB_COMPLETION_INDEX".to_owned(), value: Some(index.to_string()), ..EnvVar::default() };
            container.env.get_or_insert_default().push(variable);
        }
    }
    pod
}
