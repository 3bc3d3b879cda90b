//! Counters for Prometheus: one page over HTTP.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nsm_mechanisms::{Metered, Readings};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::settings::values::{Malformed, Switch};

/// Where counters can be read.
#[derive(Debug, Clone, Args)]
pub(crate) struct Prometheus {
    /// Serve counters of requests and of each connection to Prometheus, at /metrics, without encryption.
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    prometheus: Switch,

    /// Where they are served: an address and a port, or a port of all addresses.
    #[arg(long, value_name = "ADDRESS", default_value = ":8081")]
    prometheus_listen_on: Place,

    /// What the name of each counter begins with.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prometheus_metrics_prefix: Prefix,
}

/// An IP address and a port; without an address, all of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(Option<std::net::IpAddr>, u16);

impl FromStr for Place {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let wrong = || Malformed("it is no address and port; write 127.0.0.1:8081, [::1]:8081 or :8081".into());
        match text.strip_prefix(':') {
            Some(port) => port.parse().map(|port| Self(None, port)).map_err(|_| wrong()),
            None => text.parse().map(|at: SocketAddr| Self(Some(at.ip()), at.port())).map_err(|_| wrong()),
        }
    }
}

/// The beginning of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix(String);

impl FromStr for Prefix {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let letter = |at: usize, c: char| c.is_ascii_alphabetic() || c == '_' || (at > 0 && c.is_ascii_digit());
        match text.len() <= 64 && text.chars().enumerate().all(|(at, c)| letter(at, c)) {
            true => Ok(Self(text.to_owned())),
            false => Err(Malformed("a name has letters, digits and underscores, at most 64; write it so".into())),
        }
    }
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Serving(AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How many may be connected at once; more wait.
const READERS: usize = 8;
/// How long a reader may take to ask, and then to read.
const READER: Duration = Duration::from_secs(10);

impl Prometheus {
    /// Serves, if that was asked for.
    pub(crate) async fn serve<D: Metered>(
        &self,
        name: &str,
        readings: Readings<D>,
    ) -> Result<Option<Serving>, Failure> {
        if !self.prometheus.0 {
            return Ok(None);
        }
        let Place(ip, port) = self.prometheus_listen_on;
        let listener = listen(ip, port).await.map_err(|error| {
            let cause = format!("counters cannot be served at port {port}: {error}");
            Failure::at(name, cause, "choose another NSM_PROMETHEUS_LISTEN_ON")
        })?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!("counters at http://{address}/metrics");
        }
        let prefix = self.prometheus_metrics_prefix.0.as_str().into();
        Ok(Some(Serving(tokio::spawn(accept(listener, Page { readings, prefix })).abort_handle())))
    }
}

/// All addresses are those of both families, where there are both.
async fn listen(ip: Option<std::net::IpAddr>, port: u16) -> io::Result<TcpListener> {
    match ip {
        Some(ip) => TcpListener::bind((ip, port)).await,
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            bound => bound,
        },
    }
}

/// What is served.
struct Page<D> {
    readings: Readings<D>,
    prefix: Arc<str>,
}

impl<D> Clone for Page<D> {
    fn clone(&self) -> Self {
        Self { readings: self.readings.clone(), prefix: Arc::clone(&self.prefix) }
    }
}

async fn accept<D: Metered>(listener: TcpListener, page: Page<D>) {
    let readers = Arc::new(Semaphore::new(READERS));
    loop {
        let Ok(place) = Arc::clone(&readers).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = page.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // Who is slower, or talks something else, is let go.
                    let _ended = timeout(READER * 2, talk(stream, page)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a reader of counters could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn talk<D: Metered>(stream: TcpStream, page: Page<D>) -> hyper::Result<()> {
    let answer = service_fn(|request: Request<Incoming>| {
        let page = page.clone();
        async move { Ok::<_, Infallible>(page.answer(&request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(READER).keep_alive(false);
    server.serve_connection(TokioIo::new(stream), answer).await
}

impl<D: Metered> Page<D> {
    async fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        let mut response = Response::default();
        let (status, kind, text) = match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => {
                let text = self.readings.prometheus(&self.prefix).await;
                (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
            }
            (_, "/metrics") => {
                response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
                (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned())
            }
            _ => (StatusCode::NOT_FOUND, "text/plain", "see /metrics\n".to_owned()),
        };
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
        *response.body_mut() = text;
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_and_a_port_or_a_port() {
        assert_eq!(":8081".parse(), Ok(Place(None, 8081)));
        assert_eq!("[::1]:0".parse(), Ok(Place(Some(Ipv6Addr::LOCALHOST.into()), 0)));
        for wrong in ["", "8081", "localhost:1", ":x", ":70000", "::1:8081"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_is_the_beginning_of_a_name() {
        assert!("nsm_1".parse::<Prefix>().is_ok() && "".parse::<Prefix>().is_ok());
        for wrong in ["1", "a-b", "a b", "ä", &"x".repeat(65)] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }
}
