//! The functions that Kubernetes adds to CEL, as far as definitions in common use need them.
//!
//! Durations and instants are whole nanoseconds here, quantities are numbers: they compare and add up as they should, but aren't
//! types of their own.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, DeclarationError, ExecutionError, Value};
use regex::Regex;

type Text = Arc<String>;
type List = Arc<Vec<Value>>;

/// Adds them to a context.
pub fn add(context: &mut Context<'_, '_>) -> Result<(), DeclarationError> {
    context.add_function("find", |This(text): This<Text>, pattern: Text| {
        let pattern = regex("find", &pattern)?;
        Ok::<_, ExecutionError>(Value::from(pattern.find(&text).map_or("", |found| found.as_str())))
    })?;
    context.add_function("findAll", |This(text): This<Text>, pattern: Text| {
        let pattern = regex("findAll", &pattern)?;
        let all: Vec<Value> = pattern.find_iter(&text).map(|found| Value::from(found.as_str())).collect();
        Ok::<_, ExecutionError>(Value::List(Arc::new(all)))
    })?;
    context.add_function("isSorted", |This(list): This<List>| {
        list.is_sorted_by(|a, b| a.partial_cmp(b).is_some_and(Ordering::is_le))
    })?;
    context.add_function("sum", |This(list): This<List>| sum(&list))?;
    context.add_function("min", |This(list): This<List>| extreme("min", &list, Ordering::Less))?;
    context.add_function("max", |This(list): This<List>| extreme("max", &list, Ordering::Greater))?;
    context.add_function("duration", |text: Text| {
        duration_ns(&text).ok_or_else(|| ExecutionError::function_error("duration", format!("{text:?} is no duration")))
    })?;
    context.add_function("timestamp", |text: Text| {
        let instant: Result<jiff::Timestamp, _> = text.parse();
        let nanoseconds = instant.ok().and_then(|instant| i64::try_from(instant.as_nanosecond()).ok());
        nanoseconds.ok_or_else(|| ExecutionError::function_error("timestamp", format!("{text:?} is no time")))
    })?;
    context.add_function("isIP", |text: Text| text.parse::<IpAddr>().is_ok())?;
    context.add_function("isCIDR", |text: Text| text.parse::<ipnet::IpNet>().is_ok())?;
    context.add_function("isURL", |text: Text| is_url(&text))?;
    context.add_function("isQuantity", |text: Text| quantity(&text).is_some())?;
    context.add_function("quantity", |text: Text| {
        quantity(&text).ok_or_else(|| ExecutionError::function_error("quantity", format!("{text:?} is no quantity")))
    })?;
    context.add_function("isGreaterThan", |This(a): This<f64>, b: f64| a > b)?;
    context.add_function("isLessThan", |This(a): This<f64>, b: f64| a < b)?;
    context.add_function("compareTo", |This(a): This<f64>, b: f64| a.partial_cmp(&b).map_or(0, |order| order as i64))
}

fn regex(function: &str, pattern: &str) -> Result<Regex, ExecutionError> {
    Regex::new(pattern).map_err(|error| ExecutionError::function_error(function, error.to_string()))
}

fn sum(list: &[Value]) -> Result<Value, ExecutionError> {
    let mut total = Value::Int(0);
    for item in list {
        total = match (total, item) {
            (Value::Int(a), Value::Int(b)) => Value::Int(a.saturating_add(*b)),
            (Value::Int(0), Value::Float(b)) => Value::Float(*b),
            (Value::Float(a), Value::Float(b)) => Value::Float(a + b),
            (_, other) => {
                let message = format!("{} can't be added up", other.type_of());
                return Err(ExecutionError::function_error("sum", message));
            }
        };
    }
    Ok(total)
}

fn extreme(function: &str, list: &[Value], wanted: Ordering) -> Result<Value, ExecutionError> {
    let better = |best: Value, item: &Value| if item.partial_cmp(&best) == Some(wanted) { item.clone() } else { best };
    let (first, rest) =
        list.split_first().ok_or_else(|| ExecutionError::function_error(function, "the list is empty"))?;
    Ok(rest.iter().fold(first.clone(), better))
}

/// A duration as Go writes it: `1h30m`, `250ms`.
pub fn duration_ns(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
        let (unit, size) = units.into_iter().find(|(unit, _)| {
            rest.strip_prefix(unit).is_some_and(|after| !after.starts_with(|c: char| c.is_alphabetic()))
        })?;
        total += number * size;
        rest = &rest[unit.len()..];
    }
    Some((sign * total) as i64)
}

/// Whether a text is an absolute URL or an absolute path.
fn is_url(text: &str) -> bool {
    if text.starts_with('/') {
        return true;
    }
    text.split_once("://").is_some_and(|(scheme, rest)| {
        let mut letters = scheme.chars();
        letters.next().is_some_and(|c| c.is_ascii_alphabetic())
            && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && !rest.is_empty()
            && !rest.contains(char::is_whitespace)
    })
}

/// A quantity as a number: `500m`, `1Gi`, `2e3`.
pub fn quantity(text: &str) -> Option<f64> {
    let suffixes = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (number, factor) =
        suffixes.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor))).unwrap_or((text, 1.0));
    let plain = number.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    number.parse::<f64>().ok().filter(|number| plain && number.is_finite()).map(|number| number * factor)
}
