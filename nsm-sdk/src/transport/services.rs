use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

type Served = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// The gRPC services of a server, by full name such as `networkservice.NetworkService`.
#[derive(Clone, Default)]
pub struct Services {
    by_name: Arc<BTreeMap<&'static str, Served>>,
}

impl Services {
    /// These services and one more: a generated server, or one in tower layers. It replaces an earlier one of the same name.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        Arc::make_mut(&mut self.by_name).insert(S::NAME, Served::new(service));
        self
    }

    /// The full names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.by_name.keys().copied()
    }

    /// Answers one call, `Unimplemented` if no service of that name is served.
    pub(super) fn call(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send + use<> {
        let name = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let service = name.and_then(|(service, _)| self.by_name.get(service)).cloned();
        async move {
            match service {
                Some(service) => match service.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
                None => Status::unimplemented("this service is not served here").into_http(),
            }
        }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}
