//! Kubernetes objects in protobuf, as far as kubectl sends them: `kubectl create namespace`, `create deployment`, `create token`
//! and their kin have no other form. Answers are always JSON, which kubectl accepts.
//!
//! A kind or a field that isn't in the tables is refused, never dropped.

mod kinds;

use serde_json::{Map, Number, Value, json};

/// Every object begins with this.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("the body is no protobuf object of Kubernetes: {0}")]
    Malformed(&'static str),
    #[error("protobuf is read for the kinds that `kubectl create` makes, and {api_version} {kind} is none of them")]
    UnknownKind { api_version: String, kind: String },
    #[error("protobuf field {number} of {message} is not known to this API server")]
    UnknownField { message: String, number: u64 },
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    number: u64,
    name: &'static str,
    kind: Kind,
}

/// What a field holds. Without `Maybe`, the empty value is the same as none.
#[derive(Debug)]
pub enum Kind {
    Text,
    MaybeText,
    Texts,
    Number,
    MaybeNumber,
    Flag,
    MaybeFlag,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    TextMap,
    /// Values are base64 in JSON.
    BytesMap,
    /// An integer or a name.
    Port,
    /// The server decides it.
    Skipped,
}

/// Reads a body as JSON.
pub fn read(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Malformed("it doesn't begin with k8s\\0"))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader(envelope);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Wire::Bytes(bytes)) => {
                let mut types = Reader(bytes);
                while let Some((number, value)) = types.field()? {
                    match (number, value) {
                        (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            // Encoding and content type of the inner object: always empty.
            _ => {}
        }
    }
    let fields = kinds::fields(&api_version, &kind)
        .ok_or_else(|| ProtobufError::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
    let mut object = message(fields, raw, &kind)?;
    object.insert("apiVersion".into(), json!(api_version));
    object.insert("kind".into(), json!(kind));
    Ok(Value::Object(object))
}

fn message(fields: &[Field], bytes: &[u8], path: &str) -> Result<Map<String, Value>, ProtobufError> {
    let mut object = Map::new();
    let mut reader = Reader(bytes);
    while let Some((number, value)) = reader.field()? {
        let field = fields.iter().find(|field| field.number == number);
        let field = field.ok_or_else(|| ProtobufError::UnknownField { message: path.into(), number })?;
        let inner = format!("{path}.{}", field.name);
        let found = match (&field.kind, value) {
            (Kind::Skipped, _) => None,
            (Kind::Text, Wire::Bytes(bytes)) => Some(text(bytes)?).filter(|t| !t.is_empty()).map(Value::String),
            (Kind::MaybeText, Wire::Bytes(bytes)) => Some(Value::String(text(bytes)?)),
            // Negative numbers are written as 64 bits.
            (Kind::Number, Wire::Number(n)) => Some(n).filter(|n| *n != 0).map(|n| json!(n.cast_signed())),
            (Kind::MaybeNumber, Wire::Number(n)) => Some(Value::Number(Number::from(n.cast_signed()))),
            (Kind::Flag, Wire::Number(n)) => (n != 0).then_some(Value::Bool(true)),
            (Kind::MaybeFlag, Wire::Number(n)) => Some(Value::Bool(n != 0)),
            (Kind::Message(fields), Wire::Bytes(bytes)) => Some(Value::Object(message(fields, bytes, &inner)?)),
            (Kind::Port, Wire::Bytes(bytes)) => port(bytes)?,
            (Kind::Texts, Wire::Bytes(bytes)) => {
                push(&mut object, field.name, Value::String(text(bytes)?));
                None
            }
            (Kind::Messages(fields), Wire::Bytes(bytes)) => {
                let item = Value::Object(message(fields, bytes, &inner)?);
                push(&mut object, field.name, item);
                None
            }
            (Kind::TextMap | Kind::BytesMap, Wire::Bytes(bytes)) => {
                let (key, value) = entry(bytes, matches!(field.kind, Kind::BytesMap))?;
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                super::object::as_map(map).insert(key, value);
                None
            }
            _ => return Err(ProtobufError::Malformed("a field has another wire type")),
        };
        if let Some(found) = found {
            object.insert(field.name.into(), found);
        }
    }
    Ok(object)
}

fn push(object: &mut Map<String, Value>, name: &str, item: Value) {
    if let Some(list) = object.entry(name).or_insert_with(|| json!([])).as_array_mut() {
        list.push(item);
    }
}

fn entry(bytes: &[u8], binary: bool) -> Result<(String, Value), ProtobufError> {
    use base64::Engine;
    let (mut key, mut value) = (String::new(), &[][..]);
    let mut reader = Reader(bytes);
    while let Some((number, found)) = reader.field()? {
        match (number, found) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => return Err(ProtobufError::Malformed("a map entry has a third field")),
        }
    }
    let value = if binary { base64::engine::general_purpose::STANDARD.encode(value) } else { text(value)? };
    Ok((key, Value::String(value)))
}

/// `IntOrString`: a type, a number and a text.
fn port(bytes: &[u8]) -> Result<Option<Value>, ProtobufError> {
    let (mut is_text, mut number, mut name) = (false, 0, String::new());
    let mut reader = Reader(bytes);
    while let Some((field, value)) = reader.field()? {
        match (field, value) {
            (1, Wire::Number(n)) => is_text = n == 1,
            (2, Wire::Number(n)) => number = n.cast_signed(),
            (3, Wire::Bytes(bytes)) => name = text(bytes)?,
            _ => return Err(ProtobufError::Malformed("a port has an unknown field")),
        }
    }
    Ok(match (is_text, number) {
        (true, _) => Some(json!(name)),
        (false, 0) => None,
        (false, number) => Some(json!(number)),
    })
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Malformed("a text is not UTF-8"))
}

/// A value on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                let (value, rest) =
                    self.0.split_at_checked(length).ok_or(ProtobufError::Malformed("it ends too early"))?;
                self.0 = rest;
                Wire::Bytes(value)
            }
            _ => return Err(ProtobufError::Malformed("a field has a wire type that objects don't use")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::Malformed("it ends too early"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Malformed("a number is too long"))
    }
}

#[cfg(test)]
mod tests;
