//! The programs of the bookstore demo, as applets of the CLI: what FSM's users know from its demo, on any HTTP client.
//!
//! They know nothing of the mesh: plain HTTP/1.1 to service names. Everything else is the mesh's doing.

mod bookbuyer;
mod bookstore;
mod bookwarehouse;
mod web;

use clap::{Parser, Subcommand};

/// Run one program of the bookstore demo (used by the demo's manifests).
#[derive(Debug, Parser)]
pub struct AppArgs {
    #[command(subcommand)]
    app: App,
}

#[derive(Debug, Subcommand)]
enum App {
    /// Buys books for ever, and counts which bookstore answered.
    Bookbuyer(bookbuyer::BuyerArgs),
    /// Asks for the same books without being allowed to.
    Bookthief(bookbuyer::BuyerArgs),
    /// Sells books, and tells the warehouse.
    Bookstore(bookstore::StoreArgs),
    /// Counts what was sold.
    Bookwarehouse(bookwarehouse::WarehouseArgs),
}

pub async fn run(args: AppArgs) -> anyhow::Result<()> {
    match args.app {
        App::Bookbuyer(args) => bookbuyer::run("bookbuyer", args).await,
        App::Bookthief(args) => bookbuyer::run("bookthief", args).await,
        App::Bookstore(args) => bookstore::run(args).await,
        App::Bookwarehouse(args) => bookwarehouse::run(args).await,
    }
}
