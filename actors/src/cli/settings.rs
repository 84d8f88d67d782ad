//! Settings of the MeshConfig that concern the controller itself, followed while it runs.

use fsm_api::duration::parse_duration;
use fsm_api::mesh_config::MeshConfigSpec;
use tokio::sync::watch;

use crate::ca::Signer;
use crate::concern::injection::Injection;
use crate::telemetry::LogLevel;

/// Applies the settings of every version until the control plane ends: the lifetime of certificates, and the log level
/// unless it was given on the command line.
pub async fn follow(mut injection: watch::Receiver<Injection>, signer: Signer, level: Option<LogLevel>) {
    loop {
        let config = injection.borrow_and_update().mesh().config.clone();
        apply(&config, &signer, level.as_ref());
        if injection.changed().await.is_err() {
            return;
        }
    }
}

fn apply(config: &MeshConfigSpec, signer: &Signer, level: Option<&LogLevel>) {
    let validity = &config.certificate.service_cert_validity_duration;
    // An invalid value was refused at admission; if it got in anyway, the default counts.
    signer.set_validity(parse_duration(validity).ok().filter(|validity| !validity.is_zero()));
    if let Some(level) = level {
        level.set(&config.observability.fsm_log_level);
    }
}
