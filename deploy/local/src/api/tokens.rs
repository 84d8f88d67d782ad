//! ServiceAccount tokens: JSON Web Tokens signed with ES256 (RFC 7515, RFC 7518 section 3.4).

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::pki::{PkiError, write_private};

/// The issuer and the default audience of tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Signs and verifies tokens with a key kept in the data directory.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    id: String,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a token isn't accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token was not signed by this cluster")]
    Signature,
    #[error("the token was issued by another cluster: {0}")]
    Issuer(String),
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("{0}")]
    Revoked(String),
}

impl TokenKey {
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join("sa.key");
        let refuse = |what: &dyn std::fmt::Display| {
            PkiError::Tls(format!(
                "the token key {} can't be used ({what}); remove it to make a new one",
                path.display()
            ))
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                    .map_err(|e| refuse(&e))?;
                let text = URL_SAFE_NO_PAD.encode(document.as_ref());
                write_private(&path, &text)?;
                text
            }
            Err(source) => return Err(PkiError::File { path, source }),
        };
        let pkcs8 = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|e| refuse(&e))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).map_err(|e| refuse(&e))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.public_key().as_ref()));
        Ok(Self { pair, id })
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, PkiError> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", encode(&header), encode(claims));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), input.as_bytes())
            .map_err(|_| PkiError::Tls("can't sign a token".into()))?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// The claims of a token that this key signed and that is valid at `now` (Unix seconds).
    pub fn verify(&self, token: &str, now: i64) -> Result<Value, TokenError> {
        let (input, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (_, claims) = input.split_once('.').ok_or(TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(input.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Malformed)?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
        if claims["iss"] != ISSUER {
            return Err(TokenError::Issuer(claims["iss"].as_str().unwrap_or_default().into()));
        }
        if claims["exp"].as_i64().is_none_or(|expiry| expiry <= now) {
            return Err(TokenError::Expired);
        }
        if claims["nbf"].as_i64().is_some_and(|start| start > now + 60) {
            return Err(TokenError::Early);
        }
        Ok(claims)
    }

    /// The public key as a JSON Web Key set (RFC 7517).
    pub fn key_set(&self) -> Value {
        // The uncompressed point: 0x04, x, y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at((point.len() - 1) / 2);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

/// The audiences of a token.
pub fn audiences(claims: &Value) -> Vec<String> {
    match &claims["aud"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(Into::into).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unexpired_tokens_of_this_key_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let key = TokenKey::open(dir.path()).unwrap();
        let token = key.sign(&json!({"iss": ISSUER, "exp": 1000, "aud": ["fsm"]})).unwrap();
        let again = TokenKey::open(dir.path()).unwrap();
        assert_eq!(audiences(&again.verify(&token, 999).unwrap()), ["fsm"]);
        assert_eq!(again.verify(&token, 1000), Err(TokenError::Expired));
        assert_eq!(TokenKey::open(other.path()).unwrap().verify(&token, 1), Err(TokenError::Signature));
        assert_eq!(key.verify("a.b", 1), Err(TokenError::Malformed));
        let forged = token.replacen('.', ".e30", 1);
        assert_eq!(key.verify(&forged, 1), Err(TokenError::Signature));
    }
}
