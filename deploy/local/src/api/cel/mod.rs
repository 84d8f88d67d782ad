//! CEL, the expression language of `x-kubernetes-validations` and `matchConditions`.
//!
//! Expressions are parsed, not type-checked: a real server also refuses rules that name unknown fields.

mod functions;
mod values;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cel::extensions::{lists, math, strings};
use cel::{Context, Env, Program};
use serde_json::Value;

pub use functions::{duration_ns, quantity};
pub use values::{plain, typed};

/// A value as expressions see it.
pub type CelValue = cel::Value;

/// Why an expression gives nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CelError {
    #[error("the expression {0:?} is no CEL: {1}")]
    Syntax(String, String),
    #[error("{0}")]
    Evaluation(String),
    #[error("the expression {0:?} gives {1}, not {2}")]
    Type(String, String, &'static str),
}

type Parsed = Result<Arc<Program>, CelError>;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for extension in [strings, lists, math] {
        env.add_extension(extension).expect("each extension is added once");
    }
    // As in cel-go.
    env.set_error_on_duplicate_map_keys(false);
    Arc::new(env)
});

/// Expressions come from a few definitions and webhooks, and are evaluated again and again.
static PROGRAMS: LazyLock<Mutex<HashMap<String, Parsed>>> = LazyLock::new(Mutex::default);
/// So many expressions are kept parsed.
const MOST_PROGRAMS: usize = 10_000;

/// An expression that was parsed.
#[derive(Debug, Clone)]
pub struct Expression {
    source: String,
    program: Arc<Program>,
}

impl Expression {
    pub fn parse(source: &str) -> Result<Self, CelError> {
        let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
        if programs.len() >= MOST_PROGRAMS {
            programs.clear();
        }
        let parsed = programs.entry(source.to_owned()).or_insert_with(|| {
            let program = ENVIRONMENT.compile(source);
            program.map(Arc::new).map_err(|error| CelError::Syntax(source.into(), error.to_string()))
        });
        Ok(Self { source: source.into(), program: parsed.clone()? })
    }

    /// Whether the expression names a variable.
    pub fn names(&self, variable: &str) -> bool {
        self.program.references().has_variable(variable)
    }

    /// Evaluates to a truth.
    pub fn truth(&self, variables: &[(&str, CelValue)]) -> Result<bool, CelError> {
        match self.evaluate(variables)? {
            cel::Value::Bool(truth) => Ok(truth),
            other => Err(CelError::Type(self.source.clone(), other.type_of().to_string(), "bool")),
        }
    }

    /// Evaluates to a text.
    pub fn text(&self, variables: &[(&str, CelValue)]) -> Result<String, CelError> {
        match self.evaluate(variables)? {
            cel::Value::String(text) => Ok(text.to_string()),
            other => Err(CelError::Type(self.source.clone(), other.type_of().to_string(), "string")),
        }
    }

    fn evaluate(&self, variables: &[(&str, CelValue)]) -> Result<CelValue, CelError> {
        let mut context = Context::with_env(ENVIRONMENT.clone());
        functions::add(&mut context).map_err(|error| CelError::Evaluation(error.to_string()))?;
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        self.program.execute(&context).map_err(|error| {
            // In lower case, as everything that is said here.
            let text = error.to_string();
            let mut letters = text.chars();
            let first = letters.next().map(|c| c.to_ascii_lowercase());
            CelError::Evaluation(first.into_iter().chain(letters).collect())
        })
    }
}

/// Evaluates conditions about JSON documents, as webhooks have them.
pub fn holds(source: &str, variables: &[(&str, &Value)]) -> Result<bool, CelError> {
    let variables: Vec<(&str, CelValue)> = variables.iter().map(|(name, value)| (*name, plain(value))).collect();
    Expression::parse(source)?.truth(&variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn truth(source: &str) -> bool {
        let object = json!({"a": 1, "names": ["x", "y"], "labels": {"k": "v"}, "text": "hello", "ratio": 0.5});
        holds(source, &[("self", &object)]).unwrap_or_else(|error| panic!("{source}: {error}"))
    }

    #[test]
    fn the_language_and_its_macros() {
        for source in [
            "self.a == 1 && has(self.labels) && !has(self.nothing)",
            "self.names.all(n, size(n) == 1) && self.names.exists_one(n, n == 'x')",
            "self.names.map(n, n + '!') == ['x!', 'y!'] && self.names.filter(n, n > 'x') == ['y']",
            "'k' in self.labels && self.labels['k'] == 'v'",
            "self.text.startsWith('he') && self.text.matches('^[a-z]+$') && self.text.contains('ell')",
            "self.a > 0 ? self.ratio < 1.0 : false",
            "type(self.a) == int && string(self.a) == '1' && int('7') == 7",
            "self.?nothing.orValue('') == '' && self.a in [1, 2]",
        ] {
            assert!(truth(source), "{source}");
        }
    }

    #[test]
    fn what_kubernetes_adds_to_the_language() {
        for source in [
            "'a-b'.split('-') == ['a', 'b'] && 'AbC'.lowerAscii() == 'abc' && ['a', 'b'].join(',') == 'a,b'",
            "'x1y22'.find('[0-9]+') == '1' && 'x1y22'.findAll('[0-9]+') == ['1', '22']",
            "[1, 2, 2].isSorted() && [1, 2, 3].sum() == 6 && [1, 5, 3].max() == 5 && [4, 2].min() == 2",
            "duration('1m') > duration('30s') && duration('1h30m') == duration('90m') && duration('0s') == duration('0ms')",
            "isIP('10.0.0.1') && !isIP('10.0.0') && isCIDR('10.0.0.0/8') && isIP('::1')",
            "isURL('https://example.com/x') && !isURL('nonsense')",
            "isQuantity('1Gi') && quantity('1500m').isGreaterThan(quantity('1')) && quantity('1Ki').compareTo(quantity('1024')) == 0",
        ] {
            assert!(truth(source), "{source}");
        }
    }

    #[test]
    fn what_can_not_be_parsed_or_evaluated_says_why() {
        assert!(matches!(Expression::parse("self.a ==").unwrap_err(), CelError::Syntax(..)));
        let error = holds("self.nosuch == 1", &[("self", &json!({}))]).unwrap_err();
        assert!(error.to_string().contains("nosuch"), "{error}");
        assert!(matches!(holds("1 + 1", &[]).unwrap_err(), CelError::Type(..)));
    }
}
