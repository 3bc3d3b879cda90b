//! A registry that cannot show who it is: what it was told is taken back.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::BoxStream;
use nsm_api::registry::network_service_endpoint_registry_server::{
    NetworkServiceEndpointRegistry, NetworkServiceEndpointRegistryServer,
};
use nsm_api::registry::{NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceEndpointResponse};
use nsm_chain::{Call, Code, LinkInfo, Tokens};
use nsm_sdk::identity::{DevAuthority, Es256Tokens, PolicySet, SvidSource};
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::Site;
use nsm_sdk::transport::{BindOptions, Server, Transport};
use tonic::{Request, Response, Status};

use crate::kit::{HERE, SOON};
use crate::tokens::nse;

/// A registry that signs with `signer`, or sends no path back, and notes what it is asked.
struct Registry {
    signer: Arc<dyn SvidSource>,
    silent: AtomicBool,
    asked: Mutex<Vec<String>>,
}

impl Registry {
    fn note(&self, verb: &str, name: &str) {
        self.asked.lock().unwrap().push(format!("{verb}{name}"));
    }
}

#[tonic::async_trait]
impl NetworkServiceEndpointRegistry for Registry {
    type FindStream = BoxStream<'static, Result<NetworkServiceEndpointResponse, Status>>;

    async fn register(
        &self,
        request: Request<NetworkServiceEndpoint>,
    ) -> Result<Response<NetworkServiceEndpoint>, Status> {
        self.note("+", &request.get_ref().name);
        let link: &LinkInfo = request.extensions().get().unwrap();
        let own =
            Es256Tokens::new(Arc::clone(&self.signer), SOON).token(link.peer.as_ref().map(|peer| &peer.id)).unwrap();
        let callers = request.metadata().get("nsm-client-token").unwrap().to_str().unwrap().to_owned();
        let mut response = Response::new(request.into_inner());
        if !self.silent.load(Ordering::SeqCst) {
            let path = format!(r#"{{"Index":0,"PathSegments":[{{"token":"{callers}"}},{{"token":"{}"}}]}}"#, own.text);
            response.metadata_mut().insert("path", path.parse().unwrap());
        }
        Ok(response)
    }

    async fn find(&self, _: Request<NetworkServiceEndpointQuery>) -> Result<Response<Self::FindStream>, Status> {
        Ok(Response::new(Box::pin(futures::stream::pending())))
    }

    async fn unregister(&self, request: Request<NetworkServiceEndpoint>) -> Result<Response<()>, Status> {
        self.note("-", &request.get_ref().name);
        Ok(Response::new(()))
    }
}

#[tokio::test]
async fn an_answer_without_the_servers_own_token_is_refused_and_undone() {
    let authority = DevAuthority::new("example.org").unwrap();
    let issue = |name: &str| authority.issue(&format!("/{name}")).unwrap();
    let (honest, other) = (issue("registry"), issue("other"));
    for (signer, silent, good) in [(&honest, false, true), (&honest, true, false), (&other, false, false)] {
        let registry =
            Arc::new(Registry { signer: Arc::clone(signer), silent: AtomicBool::new(silent), asked: Mutex::default() });
        let server = Server::new(Transport::mtls(Arc::clone(&honest), SOON))
            .with(NetworkServiceEndpointRegistryServer::from_arc(Arc::clone(&registry)));
        let server = server.bind(&[HERE.parse().unwrap()], &BindOptions::default()).await.unwrap();
        let url = server.addresses()[0].to_string();
        let client = |policies: PolicySet| {
            let channels = Site::mtls(issue("nse-1")).channels();
            RegistryClient::builder("nse-1").connect(channels, url.as_str()).policies(policies).build().unwrap()
        };
        let asked = || std::mem::take(&mut *registry.asked.lock().unwrap());

        let stock = client(PolicySet::registry_client());
        let answer = stock.endpoints.request(Call::new(nse("nse-1")).within(SOON)).await;
        if !good {
            assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied);
            assert_eq!(asked(), ["+nse-1", "-nse-1"]);
            // Whoever trusts it all the same says so.
            let open = client(PolicySet::allow_all());
            open.endpoints.request(Call::new(nse("nse-1")).within(SOON)).await.unwrap();
            assert_eq!(asked(), ["+nse-1"]);
            continue;
        }
        answer.unwrap();
        // What was good once stays, whatever a later answer looks like.
        registry.silent.store(true, Ordering::SeqCst);
        let answer = stock.endpoints.request(Call::new(nse("nse-1")).within(SOON)).await;
        assert_eq!(asked(), ["+nse-1", "+nse-1"]);
        drop(answer);
    }
}
