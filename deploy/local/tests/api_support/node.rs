//! A node agent whose pods are this machine: commands run as processes beside the test, ports are those of 127.0.0.1.

use std::process::Stdio;

use bytes::Bytes;
use fsm_local::api::{ApiError, LogOptions, NodeBackend, Output, Purpose, Session, SessionError, SessionRequest};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;

pub struct ThisMachine;

impl NodeBackend for ThisMachine {
    fn logs(
        &self,
        _namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Bytes>, ApiError>> {
        let line = format!("{pod}/{} says hello\n", options.container.unwrap_or_default());
        std::future::ready(Ok(futures::stream::iter([Bytes::from(line)]).boxed())).boxed()
    }

    fn session(
        &self,
        _namespace: &str,
        _pod: &str,
        request: SessionRequest,
        session: Session,
    ) -> BoxFuture<'static, Result<(), SessionError>> {
        match request.purpose {
            Purpose::Exec(command) => run(command, session).boxed(),
            Purpose::Attach => sizes(session).boxed(),
        }
    }

    fn dial(&self, _namespace: &str, _pod: &str, port: u16) -> BoxFuture<'_, Result<TcpStream, String>> {
        async move { TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string()) }.boxed()
    }
}

async fn run(command: Vec<String>, mut session: Session) -> Result<(), SessionError> {
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| SessionError::Refused(error.to_string()))?;
    let (mut stdin, out, err) =
        (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let (output, error_output) = (session.output.clone(), session.output.clone());
    let feed = async move {
        while let Some(bytes) = session.stdin.recv().await {
            stdin.write_all(&bytes).await.ok();
        }
        drop(stdin);
        std::future::pending::<()>().await;
    };
    let done = async {
        tokio::join!(copy(out, output, Output::Stdout), copy(err, error_output, Output::Stderr), child.wait()).2
    };
    tokio::select! {
        status = done => match status.expect("the end of the process").code() {
            Some(0) => Ok(()),
            code => Err(SessionError::Exit(code.unwrap_or(137))),
        },
        () = feed => Ok(()),
        () = session.output.closed() => Err(SessionError::Exit(137)),
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Output>, wrap: fn(Bytes) -> Output) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        to.send(wrap(Bytes::copy_from_slice(&buffer[..read]))).await.ok();
    }
}

/// Tells the sizes of the client's terminal until its input ends.
async fn sizes(mut session: Session) -> Result<(), SessionError> {
    loop {
        tokio::select! {
            typed = session.stdin.recv() => if typed.is_none() { return Ok(()) },
            Ok(()) = session.size.changed() => {
                let size = session.size.borrow_and_update().unwrap_or_default();
                let text = format!("{}x{}\n", size.width, size.height);
                session.output.send(Output::Stdout(text.into())).await.ok();
            }
        }
    }
}
