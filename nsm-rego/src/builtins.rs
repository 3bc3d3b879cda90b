//! The functions that NSM's policies need and regorus does not have: two for tokens, and the time as the call has it.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regorus::{Engine, Extension, Value};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::pem::parse_x509_pem;

/// A function's name and the number of its arguments.
type Signature = (&'static str, u8);

const DECODE: Signature = ("io.jwt.decode", 1);
const VERIFY_ES256: Signature = ("io.jwt.verify_es256", 2);
/// Nanoseconds since 1970, the same all through one evaluation.
const NOW_NS: Signature = ("time.now_ns", 0);

/// All of them.
pub(crate) const ADDED: [Signature; 3] = [DECODE, VERIFY_ES256, NOW_NS];

/// Longer ones are no tokens here; the stock policies know the same limit.
const LONGEST_TOKEN: usize = 8192;

/// Those that need no call.
pub(crate) fn add(engine: &mut Engine) -> Result<(), String> {
    extend(engine, DECODE, |arguments| decode(text(&arguments, 0)?))?;
    extend(engine, VERIFY_ES256, |arguments| Some(verify_es256(text(&arguments, 0)?, text(&arguments, 1)?)?.into()))
}

/// The time of one call.
pub(crate) fn add_now(engine: &mut Engine, now: SystemTime) -> Result<(), String> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    extend(engine, NOW_NS, move |_| Some(now.into()))
}

/// What a function cannot make sense of is undefined, as in OPA.
fn extend(
    engine: &mut Engine,
    (name, arguments): Signature,
    function: impl Fn(Vec<Value>) -> Option<Value> + Clone + Send + Sync + 'static,
) -> Result<(), String> {
    let extension: Box<dyn Extension> =
        Box::new(move |arguments: Vec<Value>| Ok(function(arguments).unwrap_or(Value::Undefined)));
    engine.add_extension(name.to_owned(), arguments, extension).map_err(|error| error.to_string())
}

fn text(arguments: &[Value], at: usize) -> Option<&str> {
    arguments.get(at)?.as_string().ok().map(|text| &**text)
}

struct Parts<'a> {
    header: serde_json::Value,
    claims: serde_json::Value,
    signed: &'a str,
    signature: Vec<u8>,
}

/// Takes a token apart (RFC 7515 §3.1): three parts, the first two JSON objects.
fn parts(token: &str) -> Option<Parts<'_>> {
    let short = token.len() <= LONGEST_TOKEN;
    let (signed, signature) = token.rsplit_once('.').filter(|_| short)?;
    let (header, claims) = signed.split_once('.')?;
    let object = |part: &str| -> Option<serde_json::Value> {
        let json: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
        json.is_object().then_some(json)
    };
    Some(Parts {
        header: object(header)?,
        claims: object(claims)?,
        signed,
        signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
    })
}

/// `[header, claims, signature in hexadecimal]`.
fn decode(token: &str) -> Option<Value> {
    let Parts { header, claims, signature, .. } = parts(token)?;
    let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Value::from(vec![header.into(), claims.into(), hex.into()]))
}

/// Whether the token is signed, by ES256 and nothing else, with the P-256 key in the PEM certificate.
fn verify_es256(token: &str, certificate: &str) -> Option<bool> {
    let parts = parts(token)?;
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let key = certificate.public_key();
    let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return None;
    }
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.subject_public_key.data);
    Some(parts.header["alg"] == "ES256" && key.verify(parts.signed.as_bytes(), &parts.signature).is_ok())
}
