//! bookwarehouse: counts what was sold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, StatusCode};

use super::{bookstore::parse_count, web};

#[derive(Debug, clap::Args)]
pub struct WarehouseArgs {
    #[arg(long, default_value_t = 14001)]
    port: u16,
}

pub async fn run(args: WarehouseArgs) -> anyhow::Result<()> {
    let restocked = Arc::new(AtomicU64::new(0));
    web::serve(args.port, move |request| {
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET, "/liveness" | "/readiness" | "/startup") => web::text(StatusCode::OK, "well\n"),
            (&Method::POST, "/" | "/restock-books") => match parse_count(request.body()) {
                Some(books) => {
                    let total = restocked.fetch_add(books, Ordering::Relaxed) + books;
                    web::json(&serde_json::json!({ "restocked": total }))
                }
                None => web::text(StatusCode::BAD_REQUEST, "the body must be a number of books\n"),
            },
            (&Method::GET, "/raw") => web::json(&serde_json::json!({ "restocked": restocked.load(Ordering::Relaxed) })),
            _ => web::text(StatusCode::NOT_FOUND, "no such page\n"),
        };
        async move { answer }
    })
    .await
}
