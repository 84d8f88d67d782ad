//! bookstore: sells books, and tells the warehouse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use tokio::sync::mpsc;

use super::web;

#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    /// The name given in the `Identity` header of each answer, e.g. bookstore-v1.
    #[arg(long, env = "IDENTITY", default_value = "bookstore")]
    identity: String,
    /// The warehouse, as host:port.
    #[arg(long, env = "WAREHOUSE_SVC", default_value = "bookwarehouse.bookwarehouse.svc.cluster.local:14001")]
    warehouse: String,
    #[arg(long, default_value_t = 14001)]
    port: u16,
}

struct Store {
    identity: HeaderValue,
    books_sold: AtomicU64,
    restocked: AtomicU64,
    restock_failures: AtomicU64,
    orders: mpsc::Sender<u64>,
}

/// Restock orders that may wait for the warehouse; more are counted as failures.
const WAITING_ORDERS: usize = 64;

pub async fn run(args: StoreArgs) -> anyhow::Result<()> {
    let (orders, waiting) = mpsc::channel(WAITING_ORDERS);
    let store = Arc::new(Store {
        identity: HeaderValue::from_str(&args.identity)?,
        books_sold: AtomicU64::new(0),
        restocked: AtomicU64::new(0),
        restock_failures: AtomicU64::new(0),
        orders,
    });
    let restocking = tokio::spawn(restock(args.warehouse, waiting, store.clone()));
    let served = web::serve(args.port, move |request| {
        let mut answer = store.answer(&request);
        answer.headers_mut().insert("identity", store.identity.clone());
        answer.headers_mut().insert("booksbought", store.books_sold.load(Ordering::Relaxed).into());
        async move { answer }
    })
    .await;
    restocking.abort();
    served
}

impl Store {
    fn answer(&self, request: &Request<Bytes>) -> web::Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/liveness" | "/readiness" | "/startup") => web::text(StatusCode::OK, "well\n"),
            (&Method::GET, "/" | "/raw") => web::json(&self.counters()),
            (&Method::GET, "/books-bought") => web::json(&self.counters()),
            (&Method::POST, "/books-bought") => match parse_count(request.body()) {
                Some(count) => {
                    self.books_sold.store(count, Ordering::Relaxed);
                    web::json(&self.counters())
                }
                None => web::text(StatusCode::BAD_REQUEST, "the body must be a number of books\n"),
            },
            (&Method::GET, "/buy-a-book/new") => {
                self.books_sold.fetch_add(1, Ordering::Relaxed);
                if self.orders.try_send(1).is_err() {
                    self.restock_failures.fetch_add(1, Ordering::Relaxed);
                }
                web::json(&self.counters())
            }
            (&Method::GET, "/reset") => {
                for counter in [&self.books_sold, &self.restocked, &self.restock_failures] {
                    counter.store(0, Ordering::Relaxed);
                }
                web::json(&self.counters())
            }
            _ => web::text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }

    fn counters(&self) -> serde_json::Value {
        serde_json::json!({
            "identity": self.identity.to_str().unwrap_or_default(),
            "booksSold": self.books_sold.load(Ordering::Relaxed),
            "restocked": self.restocked.load(Ordering::Relaxed),
            "restockFailures": self.restock_failures.load(Ordering::Relaxed),
        })
    }
}

/// A count of books, sent as plain text.
pub fn parse_count(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.trim().parse().ok()
}

async fn restock(warehouse: String, mut waiting: mpsc::Receiver<u64>, store: Arc<Store>) {
    let mut client = web::Client::new(warehouse);
    while let Some(books) = waiting.recv().await {
        let request = Request::post("/restock-books")
            .body(Full::new(Bytes::from(books.to_string())))
            .expect("the head is made of constants");
        let counter = match client.send(request).await {
            Ok(answer) if answer.status().is_success() => &store.restocked,
            Ok(answer) => {
                println!("the warehouse answered {}", answer.status());
                &store.restock_failures
            }
            Err(error) => {
                println!("the warehouse did not answer: {error:#}");
                &store.restock_failures
            }
        };
        counter.fetch_add(books, Ordering::Relaxed);
    }
}
