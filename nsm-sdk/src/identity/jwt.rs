//! The compact form of a signed token (RFC 7515 §3.1), as far as path tokens need it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Claims, TokenRejected};

/// A token taken apart, nothing verified.
pub(super) struct Parts<'a> {
    pub(super) algorithm: String,
    pub(super) claims: Claims,
    /// What is signed.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

pub(super) fn split(token: &str) -> Result<Parts<'_>, TokenRejected> {
    let malformed = |part| TokenRejected::Malformed { part };
    if token.len() > MAX_LEN {
        return Err(TokenRejected::TooLong { length: token.len(), limit: MAX_LEN });
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(malformed("form"))?;
    let (header, payload) = signed.split_once('.').ok_or(malformed("form"))?;
    let decode = |text: &str, part| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed(part));
    let header: Header = object(&decode(header, "header")?).ok_or(malformed("header"))?;
    let claims = object(&decode(payload, "claims")?).ok_or(malformed("claims"))?;
    let signature = decode(signature, "signature")?;
    Ok(Parts { algorithm: header.alg, claims, signed, signature })
}

/// Reads a JSON object. (serde would take an array for a struct as well.)
fn object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(json).ok())?
}

/// `header.claims.signature`, with `sign` over the first two.
pub(super) fn join<E>(
    algorithm: &str,
    claims: &serde_json::Value,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<String, E> {
    let header = serde_json::json!({ "alg": algorithm, "typ": "JWT" });
    let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
    let signature = sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// Path tokens take a few hundred bytes, even with SPIFFE IDs of full length (2048 bytes each) under 8 KiB.
const MAX_LEN: usize = 8192;
