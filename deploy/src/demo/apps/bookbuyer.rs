//! bookbuyer and bookthief: the same loop, with different luck.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::web;

#[derive(Debug, clap::Args)]
pub struct BuyerArgs {
    /// The bookstore, as host:port.
    #[arg(long, env = "BOOKSTORE_SVC", default_value = "bookstore.bookstore.svc.cluster.local:14001")]
    bookstore: String,
    /// Pause after each round of two requests.
    #[arg(long, env = "CI_SLEEP_BETWEEN_REQUESTS_SECONDS", default_value_t = 1.0)]
    sleep_seconds: f64,
    /// Where `/raw` and `/reset` are served.
    #[arg(long, default_value_t = 14001)]
    port: u16,
}

/// What a buyer has seen; served as `/raw`.
#[derive(Clone, Debug, Default, Serialize)]
struct Sales {
    total: u64,
    ok: u64,
    /// 403, or the connection was refused or reset by policy before any answer.
    denied: u64,
    /// Everything else: 5xx, time-outs, answers that broke off.
    failed: u64,
    by_backend: BTreeMap<String, u64>,
    /// The last answer that was not a success.
    last_refusal: Option<String>,
}

impl Sales {
    fn count(&mut self, answer: &anyhow::Result<Response<Bytes>>) {
        self.total += 1;
        match answer {
            Ok(answer) if answer.status().is_success() => {
                self.ok += 1;
                let backend = answer.headers().get("identity").and_then(|value| value.to_str().ok());
                *self.by_backend.entry(backend.unwrap_or("unknown").to_owned()).or_default() += 1;
            }
            Ok(answer) => {
                if answer.status() == StatusCode::FORBIDDEN {
                    self.denied += 1;
                } else {
                    self.failed += 1;
                }
                self.last_refusal = Some(format!("{}: {}", answer.status(), String::from_utf8_lossy(answer.body())));
            }
            Err(error) => {
                self.failed += 1;
                self.last_refusal = Some(format!("{error:#}"));
            }
        }
    }
}

pub async fn run(name: &'static str, args: BuyerArgs) -> anyhow::Result<()> {
    let sales = Arc::new(Mutex::new(Sales::default()));
    let shopping = tokio::spawn(shop(name, args.bookstore, Duration::from_secs_f64(args.sleep_seconds), sales.clone()));
    let served = web::serve(args.port, move |request| {
        let answer = page(name, &sales, request.uri().path());
        async move { answer }
    })
    .await;
    shopping.abort();
    served
}

fn page(name: &str, sales: &Mutex<Sales>, path: &str) -> web::Answer {
    let mut sales = sales.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match path {
        "/raw" => web::json(&serde_json::json!(*sales)),
        "/reset" => {
            *sales = Sales::default();
            web::json(&serde_json::json!(*sales))
        }
        "/" => web::text(StatusCode::OK, format!("{name}: {sales:#?}\n")),
        _ => web::text(StatusCode::NOT_FOUND, "try /, /raw or /reset\n"),
    }
}

async fn shop(name: &'static str, bookstore: String, pause: Duration, sales: Arc<Mutex<Sales>>) {
    let mut client = web::Client::new(bookstore);
    let mut last_said = String::new();
    loop {
        for path in ["/books-bought", "/buy-a-book/new"] {
            let request = Request::get(path)
                .header("client-app", name)
                .header("user-agent", "Rust-http-client/1.1")
                .body(Full::default())
                .expect("the head is made of constants");
            let answer = client.send(request).await;
            let mut sales = sales.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            sales.count(&answer);
            let said = match &answer {
                Ok(answer) => format!("{} {path}", answer.status()),
                Err(error) => format!("{path}: {error:#}"),
            };
            if said != last_said {
                println!("{said}");
                last_said = said;
            }
        }
        tokio::time::sleep(pause).await;
    }
}
