//! The proxies' port: two gRPC services behind one listener.

use ::http::{Request, Response};
use fsm_proxy_config::ca::certificate_authority_server::{CertificateAuthority, CertificateAuthorityServer};
use fsm_proxy_config::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::codegen::Service;

use super::{ConnectionInfo, Handler, peer_identity};
use crate::publish::PeerIdentity;

/// Routes calls by service name, and tells the services who calls.
pub struct GrpcService<S, C> {
    stream: AggregatedDiscoveryServiceServer<S>,
    authority: CertificateAuthorityServer<C>,
}

impl<S, C> Clone for GrpcService<S, C> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), authority: self.authority.clone() }
    }
}

impl<S, C> GrpcService<S, C>
where
    S: AggregatedDiscoveryService,
    C: CertificateAuthority,
{
    /// The proxies' stream, and the signing of their certificates.
    pub fn new(stream: S, authority: C) -> Self {
        Self {
            stream: AggregatedDiscoveryServiceServer::new(stream),
            authority: CertificateAuthorityServer::new(authority),
        }
    }
}

impl<S, C> Handler<Body> for GrpcService<S, C>
where
    S: AggregatedDiscoveryService,
    C: CertificateAuthority,
{
    async fn handle(&self, mut request: Request<Incoming>) -> Response<Body> {
        let leaf = request.extensions().get::<ConnectionInfo>().and_then(|info| info.certificates.first());
        if let Some(identity) = leaf.and_then(peer_identity) {
            request.extensions_mut().insert(PeerIdentity(identity));
        }
        let mut this = self.clone();
        let (package, _) = request.uri().path().trim_start_matches('/').split_once('/').unwrap_or_default();
        let answered = match package {
            "envoy.service.discovery.v3.AggregatedDiscoveryService" => this.stream.call(request).await,
            "fsm.ca.v1.CertificateAuthority" => this.authority.call(request).await,
            other => Ok(tonic::Status::unimplemented(format!("this port has no service \"{other}\"")).into_http()),
        };
        match answered {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
