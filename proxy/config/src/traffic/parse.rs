//! From the message to [`TrafficPolicy`]: every field is checked on its own.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::breaker::{CircuitBreaker, Threshold};
use super::health::{HealthCheck, Probe};
use super::{
    Algorithm, Balancing, Budget, HashKey, Limits, Outliers, Retry, SessionCookie, SlowStart, TrafficPolicy, Zones,
};
use crate::parse::{At, Result};
use crate::proto;

/// The service that the policy is for, and the port if it is for one only, by the resource's name.
pub(crate) fn applies_to(at: At<'_>) -> Result<(String, Option<u16>)> {
    let name = &at.0.name;
    let (service, port) = match name.rsplit_once(':') {
        None => (&**name, None),
        Some((service, port)) => match port.parse() {
            Ok(port) if port > 0 => (service, Some(port)),
            _ => return Err(at.invalid("name", format!("\"{port}\" is not a port: expected 1 to 65535"))),
        },
    };
    match service.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok((service.to_owned(), port)),
        _ => Err(at.invalid("name", format!("\"{service}\" is not a service: expected <namespace>/<name>[:<port>]"))),
    }
}

pub(crate) fn policy(at: At<'_>, message: &proto::TrafficPolicy) -> Result<TrafficPolicy> {
    Ok(TrafficPolicy {
        name: at.0.name.to_string(),
        balancing: message.load_balancer.as_ref().map(|one| balancing(at, one)).transpose()?.unwrap_or_default(),
        retry: message.retry.as_ref().map(|one| retry(at, one)).transpose()?,
        request_timeout: millis(message.request_timeout_ms),
        outliers: message.outliers.as_ref().map(|one| outliers(at, one)).transpose()?,
        limits: message.limits.as_ref().map(limits).unwrap_or_default(),
        health_check: message.health_check.as_ref().map(|one| health_check(at, one)).transpose()?,
        circuit_breaker: message.circuit_breaker.as_ref().map(|one| circuit_breaker(at, one)).transpose()?,
    })
}

/// Milliseconds; 0 is what nobody said.
fn millis(value: u32) -> Option<Duration> {
    (value > 0).then(|| Duration::from_millis(value.into()))
}

fn percent(at: At<'_>, field: &str, value: u32) -> Result<u32> {
    if value > 100 {
        return Err(at.invalid(field, format!("{value} is not a percentage: expected 0 to 100")));
    }
    Ok(value)
}

fn balancing(at: At<'_>, message: &proto::LoadBalancer) -> Result<Balancing> {
    let panic_threshold = message.panic_threshold_percent.unwrap_or(Balancing::DEFAULT_PANIC_THRESHOLD_PERCENT);
    Ok(Balancing {
        algorithm: algorithm(at, message)?,
        slow_start: message.slow_start.as_ref().map(|one| slow_start(at, one)).transpose()?,
        zones: message.zones.as_ref().map(|one| zones(at, one)).transpose()?,
        panic_threshold_percent: percent(at, "load_balancer.panic_threshold_percent", panic_threshold)?,
    })
}

fn algorithm(at: At<'_>, message: &proto::LoadBalancer) -> Result<Algorithm> {
    use proto::BalancerAlgorithm::{ConsistentHash, LeastRequest, PeakEwma, RoundRobin};
    let algorithm = proto::BalancerAlgorithm::try_from(message.algorithm).map_err(|_| {
        let reason = format!("{} is an unknown algorithm; upgrade this proxy", message.algorithm);
        at.invalid("load_balancer.algorithm", reason)
    })?;
    let only = |field: &str, owner: &str| {
        at.invalid(
            format!("load_balancer.{field}"),
            format!("is for {owner} only: remove it, or choose that algorithm"),
        )
    };
    if algorithm != ConsistentHash && !message.hash_keys.is_empty() {
        return Err(only("hash_keys", "CONSISTENT_HASH"));
    }
    if algorithm != ConsistentHash && message.session.is_some() {
        return Err(only("session", "CONSISTENT_HASH"));
    }
    if algorithm != PeakEwma && message.latency_decay_ms > 0 {
        return Err(only("latency_decay_ms", "PEAK_EWMA"));
    }
    Ok(match algorithm {
        LeastRequest => Algorithm::LeastRequest,
        PeakEwma => {
            Algorithm::PeakEwma { decay: millis(message.latency_decay_ms).unwrap_or(Balancing::DEFAULT_LATENCY_DECAY) }
        }
        RoundRobin => Algorithm::RoundRobin,
        ConsistentHash => {
            if message.slow_start.is_some() || message.zones.is_some() {
                let field = if message.slow_start.is_some() { "slow_start" } else { "zones" };
                let reason =
                    "does not go with CONSISTENT_HASH, where the key alone says where a request goes: remove it";
                return Err(at.invalid(format!("load_balancer.{field}"), reason));
            }
            if message.hash_keys.is_empty() && message.session.is_none() {
                let reason = "is empty: say what to hash, such as a header, or set session";
                return Err(at.invalid("load_balancer.hash_keys", reason));
            }
            let keys = message.hash_keys.iter().enumerate().map(|(index, key)| hash_key(at, index, key));
            let session = message.session.as_ref().map(|one| session(at, one)).transpose()?;
            Algorithm::ConsistentHash { keys: keys.collect::<Result<_>>()?, session }
        }
    })
}

fn hash_key(at: At<'_>, index: usize, message: &proto::HashKey) -> Result<HashKey> {
    use proto::hash_key::Of;
    let invalid = |reason: String| at.invalid(format!("load_balancer.hash_keys[{index}]"), reason);
    let named = |what: &str, name: &str| match name {
        "" => Err(invalid(format!("the name of the {what} is empty"))),
        name => Ok(name.to_owned()),
    };
    match &message.of {
        Some(Of::Header(name)) => HeaderName::from_bytes(name.as_bytes())
            .map(HashKey::Header)
            .map_err(|_| invalid(format!("\"{name}\" is not a header name"))),
        Some(Of::Cookie(name)) => named("cookie", name).map(HashKey::Cookie),
        Some(Of::QueryParameter(name)) => named("query parameter", name).map(HashKey::QueryParameter),
        Some(Of::SourceAddress(true)) => Ok(HashKey::SourceAddress),
        Some(Of::Path(true)) => Ok(HashKey::Path),
        Some(Of::SourceAddress(false) | Of::Path(false)) => Err(invalid("false has no meaning: remove the key".into())),
        None => Err(invalid("unknown kind of key; upgrade this proxy".into())),
    }
}

fn session(at: At<'_>, message: &proto::SessionCookie) -> Result<SessionCookie> {
    let name = &message.name;
    // Names of cookies and of headers are made of the same characters.
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(at.invalid("load_balancer.session.name", format!("\"{name}\" is not the name of a cookie")));
    }
    let max_age = (message.max_age_s > 0).then(|| Duration::from_secs(message.max_age_s.into()));
    Ok(SessionCookie { name: name.clone(), max_age })
}

fn slow_start(at: At<'_>, message: &proto::SlowStart) -> Result<SlowStart> {
    let window = millis(message.window_ms).ok_or_else(|| {
        at.invalid("load_balancer.slow_start.window_ms", "is 0: say how long it takes, or remove slow_start")
    })?;
    let or = |value: u32, default: u32| f64::from(if value == 0 { default } else { value }) / 100.0;
    percent(at, "load_balancer.slow_start.min_weight_percent", message.min_weight_percent)?;
    Ok(SlowStart { window, least: or(message.min_weight_percent, 10), aggression: or(message.aggression_percent, 100) })
}

fn zones(at: At<'_>, message: &proto::ZonePreference) -> Result<Zones> {
    let mut clients = BTreeMap::new();
    for (index, one) in message.clients.iter().enumerate() {
        if clients.insert(one.zone.clone(), one.clients).is_some() {
            let reason = format!("zone \"{}\" is there twice: say its clients once", one.zone);
            return Err(at.invalid(format!("load_balancer.zones.clients[{index}].zone"), reason));
        }
    }
    Ok(Zones { own: String::new(), clients })
}

fn retry(at: At<'_>, message: &proto::Retry) -> Result<Retry> {
    let each = |field: &str, numbers: &[u32], allowed: std::ops::RangeInclusive<u32>, what: &str| {
        let checked = numbers.iter().enumerate().map(|(index, number)| match allowed.contains(number) {
            true => Ok(*number as u16),
            false => {
                let (first, last) = (allowed.start(), allowed.end());
                let reason = format!("{number} is not {what}: expected {first} to {last}");
                Err(at.invalid(format!("retry.{field}[{index}]"), reason))
            }
        });
        checked.collect::<Result<Vec<u16>>>()
    };
    let base = millis(message.backoff_base_ms).unwrap_or(Retry::DEFAULT_BACKOFF_BASE);
    let max = millis(message.backoff_max_ms).unwrap_or(base * 10);
    if max < base {
        let reason = format!("{} ms is less than the base, {} ms: raise it", max.as_millis(), base.as_millis());
        return Err(at.invalid("retry.backoff_max_ms", reason));
    }
    let retry = Retry {
        attempts: message.attempts.max(1),
        per_try_timeout: millis(message.per_try_timeout_ms),
        statuses: each("statuses", &message.statuses, 400..=599, "the status of a failure")?,
        server_errors: message.server_errors,
        grpc_statuses: each("grpc_statuses", &message.grpc_statuses, 1..=16, "the gRPC status of a failure")?,
        resets: message.resets,
        non_idempotent: message.non_idempotent,
        backoff_base: base,
        backoff_max: max,
        budget: budget(at, message.budget.as_ref())?,
    };
    let status = !retry.statuses.is_empty() || !retry.grpc_statuses.is_empty() || retry.server_errors;
    if !(status || retry.resets || retry.per_try_timeout.is_some()) {
        return Err(
            at.invalid("retry", "names nothing to send again after: add statuses, resets or a per-try time-out")
        );
    }
    Ok(retry)
}

fn budget(at: At<'_>, message: Option<&proto::RetryBudget>) -> Result<Budget> {
    let Some(message) = message else { return Ok(Budget::default()) };
    let given = message.percent.unwrap_or(Budget::default().percent);
    Ok(Budget {
        percent: percent(at, "retry.budget.percent", given)?,
        least: message.min_concurrent.unwrap_or(Budget::default().least),
    })
}

/// A count; 0 is what nobody said.
fn count(value: u32) -> Option<u32> {
    (value > 0).then_some(value)
}

fn outliers(at: At<'_>, message: &proto::OutlierDetection) -> Result<Outliers> {
    let base = millis(message.base_ejection_ms).unwrap_or(Duration::from_secs(30));
    let longest = millis(message.max_ejection_ms).unwrap_or(base.max(Duration::from_secs(300)));
    if longest < base {
        let reason = format!("{} ms is less than the base, {} ms: raise it", longest.as_millis(), base.as_millis());
        return Err(at.invalid("outliers.max_ejection_ms", reason));
    }
    let outliers = Outliers {
        errors: count(message.consecutive_errors),
        gateway_errors: count(message.consecutive_gateway_errors),
        connect_failures: count(message.consecutive_connect_failures),
        interval: millis(message.interval_ms).unwrap_or(Duration::from_secs(10)),
        base,
        longest,
        max_percent: percent(at, "outliers.max_ejection_percent", message.max_ejection_percent.unwrap_or(50))?,
    };
    if outliers.errors.or(outliers.gateway_errors).or(outliers.connect_failures).is_none() {
        return Err(at.invalid("outliers", "names nothing to eject for: set consecutive_errors or one of the others"));
    }
    Ok(outliers)
}

fn circuit_breaker(at: At<'_>, message: &proto::CircuitBreaker) -> Result<CircuitBreaker> {
    let time = |field: &str, value: u32| {
        let reason = "is 0: say how long, or remove circuit_breaker";
        millis(value).ok_or_else(|| at.invalid(format!("circuit_breaker.{field}"), reason))
    };
    let threshold = |field: &str, amount: u32, share: u32| match share {
        ..=1_000_000 => Ok(Threshold { amount: count(amount), per_million: count(share) }),
        _ => {
            let reason = format!("{share} is more than all: expected 1 to 1000000");
            Err(at.invalid(format!("circuit_breaker.{field}"), reason))
        }
    };
    let breaker = CircuitBreaker {
        window: time("window_ms", message.window_ms)?,
        least: message.min_requests.max(1),
        errors: threshold("errors_per_million", message.errors, message.errors_per_million)?,
        slow_after: millis(message.slow_after_ms),
        slow: threshold("slow_per_million", message.slow, message.slow_per_million)?,
        degraded: time("degraded_ms", message.degraded_ms)?,
        status: match message.degraded_status {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            status => {
                let known = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
                known.and_then(|status| StatusCode::from_u16(status).ok()).ok_or_else(|| {
                    let reason = format!("{status} is not the status of an answer: expected 200 to 599");
                    at.invalid("circuit_breaker.degraded_status", reason)
                })?
            }
        },
        content: message.degraded_content.clone(),
    };
    let nothing = Threshold::default();
    if breaker.slow_after.is_some() != (breaker.slow != nothing) {
        let reason = "goes with slow or slow_per_million: set both, or none";
        return Err(at.invalid("circuit_breaker.slow_after_ms", reason));
    }
    if breaker.errors == nothing && breaker.slow == nothing {
        let reason = "names nothing to open for: set errors, errors_per_million, slow or slow_per_million";
        return Err(at.invalid("circuit_breaker", reason));
    }
    Ok(breaker)
}

fn limits(message: &proto::CircuitLimits) -> Limits {
    Limits {
        connections: count(message.connections),
        requests: count(message.requests),
        retries: count(message.retries),
        pending: count(message.pending_requests),
    }
}

fn health_check(at: At<'_>, message: &proto::HealthCheck) -> Result<HealthCheck> {
    use proto::health_check::Probe as Written;
    let probe = match &message.probe {
        Some(Written::Http(http)) => {
            if !http.path.starts_with('/') || http.path.parse::<http::uri::PathAndQuery>().is_err() {
                let reason = format!("\"{}\" is not a path: begin it with /", http.path);
                return Err(at.invalid("health_check.http.path", reason));
            }
            let host = http.host.parse::<http::uri::Authority>();
            if !http.host.is_empty() && host.is_err() {
                let reason = format!("\"{}\" is not a host name with perhaps a port", http.host);
                return Err(at.invalid("health_check.http.host", reason));
            }
            let status = |(index, number): (usize, &u32)| match number {
                100..=599 => Ok(*number as u16),
                _ => Err(at.invalid(
                    format!("health_check.http.statuses[{index}]"),
                    format!("{number} is not a status: expected 100 to 599"),
                )),
            };
            let statuses = http.statuses.iter().enumerate().map(status).collect::<Result<_>>()?;
            Probe::Http { path: http.path.clone(), host: http.host.clone(), statuses }
        }
        Some(Written::Grpc(grpc)) => Probe::Grpc { service: grpc.service.clone() },
        Some(Written::Tcp(true)) => Probe::Tcp,
        Some(Written::Tcp(false)) => return Err(at.invalid("health_check.tcp", "false has no meaning: remove it")),
        None => return Err(at.invalid("health_check", "says not what to ask: add http, grpc or tcp")),
    };
    Ok(HealthCheck {
        probe,
        interval: millis(message.interval_ms).unwrap_or(Duration::from_secs(5)),
        timeout: millis(message.timeout_ms).unwrap_or(Duration::from_secs(1)),
        unhealthy_after: count(message.unhealthy_after).unwrap_or(3),
        healthy_after: count(message.healthy_after).unwrap_or(2),
    })
}
