//! Path tokens: theirs verify against the certificates of the corpus, and ours, by the same keys, for their check.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nsm_api::SpiffeId;
use nsm_chain::Tokens;
use nsm_sdk::identity::{Audience, Bundles, Claims, Es256Tokens, FixedSvid, Svid, TokenRejected, TokenVerifier};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::corpus::{directory, read};

/// A token and what it claims.
#[derive(Serialize, Deserialize)]
pub(crate) struct Signed {
    name: String,
    signer: String,
    subject: String,
    audience: Vec<String>,
    /// In seconds since 1970.
    expires: u64,
    text: String,
}

impl Signed {
    fn assert_claims(&self, claims: &Claims) {
        assert_eq!(claims.subject.as_deref(), Some(self.subject.as_str()), "{}", self.name);
        let audience = if self.audience.is_empty() { Audience::None } else { Audience::List(self.audience.clone()) };
        assert_eq!(claims.audience, audience, "{}", self.name);
        assert_eq!(claims.expires(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(self.expires)), "{}", self.name);
    }
}

/// Longer than the certificates: a token ends with the one of its signer.
const FOREVER: Duration = Duration::from_secs(200 * 365 * 24 * 3600);

fn corpus() -> Vec<Signed> {
    read("tokens.json")
}

fn svid(name: &str) -> Svid {
    let file = |suffix: &str| directory().join(format!("{name}{suffix}"));
    let certificate = CertificateDer::from_pem_file(file(".pem")).unwrap();
    Svid::new(vec![certificate], PrivatePkcs8KeyDer::from_pem_file(file(".key.pem")).unwrap()).unwrap()
}

fn leaf(name: &str) -> Arc<[u8]> {
    Arc::from(svid(name).chain()[0].as_ref())
}

/// The same claims, signed by us.
pub(crate) fn ours() -> Vec<Signed> {
    let sign = |mut token: Signed| {
        let source = Arc::new(FixedSvid::new(svid(&token.signer), Bundles::default()));
        let audience = token.audience.first().map(|id| SpiffeId::new(id).unwrap());
        let signed = Es256Tokens::new(source, FOREVER).token(audience.as_ref()).unwrap();
        token.text = signed.text.to_string();
        token
    };
    corpus().into_iter().map(sign).collect()
}

#[test]
fn tokens_of_the_reference_verify_and_claim_what_they_should() {
    let verifier = TokenVerifier::new();
    for token in corpus() {
        let claims = verifier.verify(&token.text, &leaf(&token.signer), SystemTime::now()).unwrap();
        token.assert_claims(&claims);
        let other = if token.signer == "client" { "server" } else { "client" };
        assert_eq!(
            verifier.verify(&token.text, &leaf(other), SystemTime::now()),
            Err(TokenRejected::Signature),
            "{}",
            token.name
        );
    }
}

#[test]
fn our_tokens_claim_the_same() {
    let verifier = TokenVerifier::new();
    for token in ours() {
        let claims = verifier.verify(&token.text, &leaf(&token.signer), SystemTime::now()).unwrap();
        token.assert_claims(&claims);
    }
}
