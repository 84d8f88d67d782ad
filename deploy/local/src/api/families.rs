//! The address families of a Service, and its address in each.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::object::{items, map, text};
use super::services::{KUBERNETES, NAME_SERVER};
use super::status::FieldError;

/// The ranges of ClusterIPs: the first address and how many there are.
const RANGE4: (u32, u32) = (u32::from_be_bytes([10, 96, 0, 0]), 1 << 20);
const RANGE6: (u128, u32) = (0xfd00_0010_0096 << 80, 1 << 16);
/// The lower part of the ranges is left to Services that name their address.
const NAMED: u32 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    IPv4,
    IPv6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::IPv4 } else { Self::IPv6 }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::IPv4),
            "IPv6" => Some(Self::IPv6),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::IPv4 => Self::IPv6,
            Self::IPv6 => Self::IPv4,
        }
    }

    fn at(self, offset: u32) -> IpAddr {
        match self {
            Self::IPv4 => Ipv4Addr::from_bits(RANGE4.0 + offset).into(),
            Self::IPv6 => Ipv6Addr::from_bits(RANGE6.0 + u128::from(offset)).into(),
        }
    }

    fn has(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.to_bits().wrapping_sub(RANGE4.0) < RANGE4.1,
            IpAddr::V6(address) => address.to_bits().wrapping_sub(RANGE6.0) < u128::from(RANGE6.1),
        }
    }

    /// A free address; the first of the range if none is to be taken.
    fn free(self, used: &HashSet<&str>, dry: bool) -> Option<IpAddr> {
        if dry {
            return Some(self.at(0));
        }
        let size = if self == Self::IPv4 { RANGE4.1 } else { RANGE6.1 };
        let (random, dynamic) = (u32::from_be_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk()?), size - NAMED - 1);
        let candidates = (0..dynamic).map(|i| self.at(NAMED + random.wrapping_add(i) % dynamic));
        let kept = [IpAddr::from(KUBERNETES), IpAddr::from(NAME_SERVER)];
        candidates.into_iter().find(|address| !used.contains(address.to_string().as_str()) && !kept.contains(address))
    }
}

/// What addresses are given from.
pub struct Pool<'a> {
    /// Whether the cluster has Services of both families, or of IPv4 only.
    pub dual: bool,
    /// Addresses of other Services.
    pub used: HashSet<&'a str>,
    /// Those the Service had before it was changed.
    pub before: HashSet<&'a str>,
    /// Nothing is taken.
    pub dry: bool,
}

/// What a Service asks for that a cluster does not have, whether it is one of both families or not.
pub fn check_wishes(service: &Value, dual: bool) -> Vec<FieldError> {
    let spec = &service["spec"];
    let mut errors = Vec::new();
    if text(spec, &["ipFamilyPolicy"]) == "RequireDualStack" && !dual {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], detail));
    }
    for (i, named) in items(spec, &["ipFamilies"]).iter().enumerate() {
        let field = format!("spec.ipFamilies[{i}]");
        match Family::named(named.as_str().unwrap_or_default()) {
            Some(Family::IPv6) if !dual => {
                errors.push(FieldError::invalid(field, named, "not configured on this cluster"));
            }
            Some(_) => {}
            None => errors.push(FieldError::unsupported(field, named, &["IPv4", "IPv6"])),
        }
    }
    errors
}

/// Gives a Service its families and an address in each (Kubernetes, "IPv4/IPv6 dual-stack", Services). A service that is changed names
/// what it has.
pub fn give(service: &mut Value, pool: &Pool<'_>) -> Vec<FieldError> {
    match decide(&service["spec"], pool) {
        Ok(decided) => {
            let spec = map(service, "spec");
            spec.insert("clusterIP".into(), json!(decided.addresses.first()));
            spec.insert("clusterIPs".into(), json!(decided.addresses));
            spec.insert("ipFamilies".into(), decided.families.iter().map(|family| family.name()).collect());
            spec.insert("ipFamilyPolicy".into(), json!(decided.policy));
            Vec::new()
        }
        Err(error) => vec![error],
    }
}

struct Decided {
    policy: String,
    families: Vec<Family>,
    addresses: Vec<String>,
}

fn decide(spec: &Value, pool: &Pool<'_>) -> Result<Decided, FieldError> {
    let mut wanted: Vec<String> =
        items(spec, &["clusterIPs"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if wanted.is_empty() {
        wanted.extend(Some(text(spec, &["clusterIP"])).filter(|ip| !ip.is_empty()).map(str::to_owned));
    }
    let headless = wanted.first().is_some_and(|first| first == "None");
    let mut addresses = Vec::new();
    for (i, text) in wanted.iter().enumerate().filter(|_| !headless) {
        addresses.push(check(i, text, pool)?);
    }
    let mut families = Vec::new();
    families.extend(items(spec, &["ipFamilies"]).iter().filter_map(|f| Family::named(f.as_str().unwrap_or_default())));
    for address in &addresses[families.len().min(addresses.len())..] {
        families.push(Family::of(*address));
    }
    if families.is_empty() {
        families.push(Family::IPv4);
    }
    let policy = match text(spec, &["ipFamilyPolicy"]) {
        "" if families.len() > 1 => "RequireDualStack",
        "" => "SingleStack",
        policy => policy,
    };
    if policy == "SingleStack" {
        families.truncate(1);
    } else if let ([one], true) = (&families[..], pool.dual) {
        let one = *one;
        families.push(one.other());
    }
    addresses.truncate(families.len());
    for (i, (family, address)) in families.iter().zip(&addresses).enumerate() {
        if *family != Family::of(*address) {
            let detail = format!("expected an {} value as indicated by `ipFamilies[{i}]`", family.name());
            return Err(FieldError::invalid(format!("spec.clusterIPs[{i}]"), &json!(address.to_string()), detail));
        }
    }
    for family in families.iter().skip(addresses.len()).filter(|_| !headless) {
        let full = || FieldError::forbidden("spec.clusterIPs", "the range of ClusterIPs is full");
        addresses.push(family.free(&pool.used, pool.dry).ok_or_else(full)?);
    }
    let addresses = if headless { vec!["None".to_owned()] } else { addresses.iter().map(IpAddr::to_string).collect() };
    Ok(Decided { policy: policy.to_owned(), families, addresses })
}

/// An address a Service names, at its place in the list. It may keep one it had before.
fn check(place: usize, wanted: &str, pool: &Pool<'_>) -> Result<IpAddr, FieldError> {
    let Ok(address) = wanted.parse::<IpAddr>() else {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        return Err(FieldError::invalid(format!("spec.clusterIPs[{place}]"), &json!(wanted), detail));
    };
    if pool.before.contains(wanted) {
        return Ok(address);
    }
    let refused = |detail: String| Err(FieldError::invalid("spec.clusterIPs", &json!([wanted]), detail));
    if !Family::has(address) {
        let range = if address.is_ipv4() { "10.96.0.0/12" } else { "fd00:10:96::/112" };
        return refused(format!(
            "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
        ));
    }
    if pool.used.contains(wanted) {
        return refused(format!("failed to allocate IP {address}: provided IP is already allocated"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool<'a>(dual: bool, used: &[&'a str], before: &[&'a str]) -> Pool<'a> {
        Pool { dual, used: used.iter().copied().collect(), before: before.iter().copied().collect(), dry: true }
    }

    fn given(spec: Value, pool: &Pool<'_>) -> Result<String, String> {
        let mut service = json!({"spec": spec});
        let unfit = check_wishes(&service, pool.dual).pop();
        if let Some(error) = unfit.or_else(|| give(&mut service, pool).pop()) {
            return Err(format!("{error:?}"));
        }
        let spec = &service["spec"];
        assert_eq!(spec["clusterIP"], spec["clusterIPs"][0]);
        Ok(format!("{} {} {}", spec["ipFamilyPolicy"].as_str().unwrap(), spec["ipFamilies"], spec["clusterIPs"]))
    }

    #[test]
    fn a_service_has_an_address_of_each_family_it_asks_for() {
        let of = |spec| given(spec, &pool(true, &[], &[])).unwrap();
        assert_eq!(of(json!({})), r#"SingleStack ["IPv4"] ["10.96.0.0"]"#);
        assert_eq!(of(json!({"ipFamilies": ["IPv6"]})), r#"SingleStack ["IPv6"] ["fd00:10:96::"]"#);
        let both = r#"["IPv4","IPv6"] ["10.96.0.0","fd00:10:96::"]"#;
        assert_eq!(of(json!({"ipFamilyPolicy": "PreferDualStack"})), format!("PreferDualStack {both}"));
        assert_eq!(of(json!({"ipFamilies": ["IPv4", "IPv6"]})), format!("RequireDualStack {both}"));
        assert_eq!(
            of(json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "fd00:10:96::7"})),
            r#"RequireDualStack ["IPv6","IPv4"] ["fd00:10:96::7","10.96.0.0"]"#
        );
        assert_eq!(
            of(json!({"ipFamilyPolicy": "PreferDualStack", "clusterIP": "None"})),
            r#"PreferDualStack ["IPv4","IPv6"] ["None"]"#
        );
    }

    #[test]
    fn a_service_keeps_its_addresses_when_its_policy_changes() {
        let (four, six) = ("10.96.3.4", "fd00:10:96::34");
        let of = |policy: &str, has: &[&str]| {
            given(json!({"ipFamilyPolicy": policy, "clusterIPs": has}), &pool(true, &[four, six], has)).unwrap()
        };
        let more = of("PreferDualStack", &[four]);
        assert!(more.starts_with(&format!(r#"PreferDualStack ["IPv4","IPv6"] ["{four}","fd00:10:96::"#)), "{more}");
        assert_eq!(of("SingleStack", &[four, six]), format!(r#"SingleStack ["IPv4"] ["{four}"]"#));
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let refused = |dual, spec| given(spec, &pool(dual, &["10.96.0.9"], &[])).unwrap_err();
        let taken = refused(true, json!({"clusterIPs": ["10.96.0.9"]}));
        assert!(taken.contains("already allocated"), "{taken}");
        assert!(refused(true, json!({"clusterIPs": ["10.0.0.9"]})).contains("10.96.0.0/12"));
        assert!(refused(true, json!({"clusterIPs": ["fd00::1"]})).contains("fd00:10:96::/112"));
        let other = refused(true, json!({"ipFamilies": ["IPv6"], "clusterIPs": ["10.96.0.8"]}));
        assert!(other.contains("expected an IPv6 value"), "{other}");
        assert!(refused(false, json!({"ipFamilies": ["IPv6"]})).contains("not configured on this cluster"));
        assert!(
            refused(false, json!({"ipFamilyPolicy": "RequireDualStack"})).contains("not configured for dual-stack")
        );
        let preferred = given(json!({"ipFamilyPolicy": "PreferDualStack"}), &pool(false, &[], &[])).unwrap();
        assert_eq!(preferred, r#"PreferDualStack ["IPv4"] ["10.96.0.0"]"#);
    }

    #[test]
    fn free_addresses_are_in_their_range_and_nobody_elses() {
        let used = HashSet::new();
        for family in [Family::IPv4, Family::IPv6] {
            let address = family.free(&used, false).unwrap();
            assert!(Family::has(address) && Family::of(address) == family, "{address}");
        }
    }
}
