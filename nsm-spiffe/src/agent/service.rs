use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use nsm_sdk::identity::{Bundles, Svid};
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::Caller;
use super::identities::Identities;
use crate::proto::spiffe_workload_api_server::SpiffeWorkloadApi;
use crate::proto::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
};

/// The Workload API of a development agent (SPIFFE Workload API specification, X.509 profile).
pub(super) struct WorkloadService {
    pub(super) identities: Arc<Identities>,
    pub(super) stopping: CancellationToken,
}

impl WorkloadService {
    /// What `make` says of the caller: now, and again after each change that makes a difference, until the agent stops or has nothing to say to this caller.
    fn updates<T, R>(
        &self,
        request: &Request<R>,
        make: fn(&Identities, &Caller) -> Result<T, Status>,
    ) -> Result<Response<BoxStream<'static, Result<T, Status>>>, Status>
    where
        T: PartialEq + Clone + Send + Sync + 'static,
    {
        checked(request)?;
        let caller = request.extensions().get().copied().unwrap_or_default();
        let identities = Arc::clone(&self.identities);
        // The first is made here: a caller who is nobody gets the refusal as the call's answer.
        let changes = identities.changes();
        let first = make(&identities, &caller)?;
        let later = stream::unfold(Some((first.clone(), changes)), move |state| {
            let identities = Arc::clone(&identities);
            async move {
                let (mut last, mut changes) = state?;
                loop {
                    changes.changed().await.ok()?;
                    match make(&identities, &caller) {
                        Ok(same) if same == last => {}
                        Ok(next) => {
                            last = next.clone();
                            return Some((Ok(next), Some((last, changes))));
                        }
                        Err(status) => return Some((Err(status), None)),
                    }
                }
            }
        });
        let updates = stream::once(async { Ok(first) }).chain(later);
        Ok(Response::new(updates.take_until(self.stopping.clone().cancelled_owned()).boxed()))
    }
}

/// The header that every call must carry, so that nobody is talked into calling an agent by a URL alone.
fn checked<R>(request: &Request<R>) -> Result<(), Status> {
    match request.metadata().get("workload.spiffe.io") {
        Some(value) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument("the header `workload.spiffe.io: true` is missing")),
    }
}

/// In the words by which SPIRE's agent says it, which clients know.
fn nobody() -> Status {
    Status::permission_denied("no identity issued")
}

fn svids(identities: &Identities, caller: &Caller) -> Result<X509svidResponse, Status> {
    let svid = identities.svid(caller).map_err(|error| {
        tracing::warn!(%error, ?caller, "no SVID for a caller");
        Status::internal(error.to_string())
    })?;
    let svid = svid.ok_or_else(nobody)?;
    let bundles = identities.bundles();
    let own = identities.trust_domain();
    let federated = bundles.trust_domains().filter(|domain| *domain != own);
    Ok(X509svidResponse {
        svids: vec![entry(&svid, &bundles, own)],
        crl: Vec::new(),
        federated_bundles: federated.map(|domain| bundle(&bundles, domain)).collect(),
    })
}

fn entry(svid: &Svid, bundles: &Bundles, trust_domain: &str) -> X509svid {
    X509svid {
        spiffe_id: svid.id().to_string(),
        x509_svid: joined(svid.chain()),
        x509_svid_key: svid.key().secret_pkcs8_der().to_vec(),
        bundle: joined(bundles.roots(trust_domain)),
        hint: String::new(),
    }
}

fn bundles(identities: &Identities, caller: &Caller) -> Result<X509BundlesResponse, Status> {
    if !identities.is_known(caller) {
        return Err(nobody());
    }
    let bundles = identities.bundles();
    let bundles: BTreeMap<_, _> = bundles.trust_domains().map(|domain| bundle(&bundles, domain)).collect();
    Ok(X509BundlesResponse { crl: Vec::new(), bundles })
}

/// DER tells by itself where one certificate ends and the next begins.
fn joined(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    certificates.iter().flat_map(|one| one.iter().copied()).collect()
}

/// A trust domain's SPIFFE ID, and its roots one after the other.
fn bundle(bundles: &Bundles, trust_domain: &str) -> (String, Vec<u8>) {
    (format!("spiffe://{trust_domain}"), joined(bundles.roots(trust_domain)))
}

fn no_jwt() -> Status {
    Status::unimplemented("this development agent serves X.509-SVIDs only; use SPIRE for JWT-SVIDs")
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadService {
    type FetchX509SVIDStream = BoxStream<'static, Result<X509svidResponse, Status>>;
    type FetchX509BundlesStream = BoxStream<'static, Result<X509BundlesResponse, Status>>;
    type FetchJWTBundlesStream = BoxStream<'static, Result<JwtBundlesResponse, Status>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.updates(&request, svids)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.updates(&request, bundles)
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        checked(&request)?;
        Err(no_jwt())
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        checked(&request)?;
        Err(no_jwt())
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        checked(&request)?;
        Err(no_jwt())
    }
}
