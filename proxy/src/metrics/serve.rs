//! The page that Prometheus reads.

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};

use crate::accept::Accepted;
use crate::context::Context;
use crate::metrics::Form;
use crate::serve::{Answer, Opening, serve_http1};
use crate::stream::Body;

/// The path of the page.
pub const PATH: &str = "/stats/prometheus";

/// Serves one connection of a scraper.
pub async fn connection(context: Arc<Context>, accepted: Accepted) {
    let Accepted { stream, permit: _permit, .. } = accepted;
    let answer = Page(Arc::clone(&context));
    serve_http1(stream, answer, Some(context.limits.head_timeout), &context.limits, &context.drain).await;
}

#[derive(Clone)]
struct Page(Arc<Context>);

impl Answer for Page {
    const WEBSOCKETS: bool = false;

    async fn request(self, request: Box<Request<Body>>) -> Response<Body> {
        if request.uri().path() != PATH {
            let mut response = Response::new(Body::text(format!("the metrics are at {PATH}\n")));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let form = Form::wanted(accept);
        let mut response = Response::new(Body::text(self.0.metrics.page(&self.0.state(), form)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
        response
    }

    async fn connect(self, _head: Parts, opening: Opening) {
        opening.unsupported();
    }
}
