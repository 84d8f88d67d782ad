//! A client's session with a container: `kubectl exec` and `kubectl attach`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;

use super::Agent;
use super::context::Context;
use super::launch::Streams;
use super::logs::{Stream, sink_of, stream_of};
use super::status::State;
use super::terminal;
use crate::api::{Output, Purpose, Session, SessionError, SessionRequest, TerminalSize};

/// How much is read from a process at once.
const CHUNK_BYTES: usize = 16 << 10;
/// How long output is waited for after the process has ended: what it started may hold its outputs open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Agent {
    /// Runs a command in a container, or joins its process, until it ends.
    pub fn session(
        &self,
        namespace: &str,
        pod: &str,
        request: SessionRequest,
        session: Session,
    ) -> BoxFuture<'static, Result<(), SessionError>> {
        let refused = |why: String| -> BoxFuture<'static, _> { Box::pin(async { Err(SessionError::Refused(why)) }) };
        let ctx = match self.ask(namespace, pod, |shown| shown.live.clone()) {
            Ok(Some(ctx)) => ctx,
            Ok(None) => return refused(format!("pod {pod} is not running; see `kubectl describe pod {pod}`")),
            Err(error) => return refused(error.to_string()),
        };
        match request.purpose.clone() {
            Purpose::Exec(argv) => Box::pin(exec(ctx, argv, request, session)),
            Purpose::Attach => Box::pin(attach(ctx, request, session)),
        }
    }
}

async fn exec(
    ctx: Arc<Context>,
    argv: Vec<String>,
    request: SessionRequest,
    session: Session,
) -> Result<(), SessionError> {
    let streams =
        if request.tty { Streams::Terminal(*session.size.borrow()) } else { Streams::Pipes { stdin: request.stdin } };
    let mut process = ctx.exec(&request.container, argv, streams).await.map_err(SessionError::Refused)?;
    // The pod may end while a client holds on to a process of it.
    drop(ctx);
    let ends = process.take_streams();
    let broken = |e: std::io::Error| SessionError::Refused(format!("the command's streams can't be used: {e}"));
    let open = |end: Option<OwnedFd>| end.map(stream_of).transpose().map_err(broken);
    let (stdout, stderr) = (open(ends.stdout)?, open(ends.stderr)?);
    let stdin = ends.stdin.map(sink_of).transpose().map_err(broken)?;
    let Session { stdin: typed, output, size } = session;
    let outputs = join(
        carry(stdout, Output::Stdout, request.stdout.then(|| output.clone())),
        carry(stderr, Output::Stderr, request.stderr.then(|| output.clone())),
    );
    let mut outputs = std::pin::pin!(outputs);
    let mut input = std::pin::pin!(async {
        if let Some(mut stdin) = stdin.filter(|_| request.stdin) {
            feed(typed, &mut stdin).await;
            if request.tty {
                // A terminal stays open; the client is gone when its input ends, and that is seen by the output.
                std::future::pending::<()>().await;
            }
        } else if request.tty {
            std::future::pending::<()>().await;
        }
    });
    let mut resize = std::pin::pin!(follow_size(size, ends.terminal.map(Arc::new)));
    let (mut fed, mut said) = (false, false);
    let exit = loop {
        tokio::select! {
            exit = process.ended() => break exit,
            () = &mut input, if !fed => fed = true,
            () = &mut resize => {}
            _ = &mut outputs, if !said => said = true,
            () = output.closed() => process.kill_group(),
        }
    };
    if !said {
        timeout(LAST_WORDS, outputs).await.ok();
    }
    if exit.code == 0 { Ok(()) } else { Err(SessionError::Exit(exit.code)) }
}

async fn attach(ctx: Arc<Context>, request: SessionRequest, session: Session) -> Result<(), SessionError> {
    let name = &request.container;
    let (console, log) = (ctx.consoles.of(name), ctx.logs.get(name));
    let Some((console, log)) = console.zip(log) else {
        return Err(SessionError::Refused(format!(
            "container {name} is not running, so there is nothing to attach to"
        )));
    };
    let container = ctx.pod.spec.iter().flat_map(|s| &s.containers).find(|c| c.name == *name);
    let once = container.is_some_and(|c| c.stdin_once == Some(true));
    let mut board = ctx.board.subscribe();
    let mut live = log.live();
    let pid = console.pid;
    // The pod may end while a client looks on.
    drop(ctx);
    let Session { stdin: typed, output, size } = session;
    let mut input = std::pin::pin!(async {
        if let Some(stdin) = console.stdin.as_ref().filter(|_| request.stdin) {
            let mut stdin = stdin.lock().await;
            if let Some(open) = stdin.as_mut() {
                feed(typed, open).await;
            }
            if once {
                stdin.take();
            }
        }
        std::future::pending::<()>().await;
    });
    let runs = |state: &State| matches!(state, State::Running { pid: now, .. } if *now == pid);
    let mut ended = std::pin::pin!(async {
        let over = |board: &super::status::Board| !board.containers.iter().any(|c| c.name == *name && runs(&c.state));
        // Its run is noted a moment after its process can be joined.
        board.wait_for(|board| !over(board)).await.ok();
        board.wait_for(over).await.ok();
    });
    let mut resize = std::pin::pin!(follow_size(size, console.terminal.clone()));
    let over = tokio::select! {
        () = &mut ended => true,
        () = &mut input => true,
        () = &mut resize => true,
        () = show(&mut live, &request, &output) => false,
        () = output.closed() => false,
    };
    // A run is noted as ended when all it wrote has been taken.
    while over && let Ok(chunk) = live.try_recv() {
        let Some(next) = wanted(chunk, &request) else { continue };
        if output.send(next).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Sends a process's output to the client, or takes it and throws it away.
async fn carry(source: Option<pipe::Receiver>, kind: fn(Bytes) -> Output, to: Option<mpsc::Sender<Output>>) {
    let Some(mut source) = source else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    // A terminal that nobody has open any more is an error to read.
    while let Ok(read @ 1..) = source.read(&mut chunk).await {
        if let Some(to) = &to
            && to.send(kind(Bytes::copy_from_slice(&chunk[..read]))).await.is_err()
        {
            return;
        }
    }
}

/// Writes what the client types until it ends.
async fn feed(mut typed: mpsc::Receiver<Bytes>, stdin: &mut pipe::Sender) {
    while let Some(bytes) = typed.recv().await {
        if stdin.write_all(&bytes).await.is_err() {
            // The process does not read any more. What else comes is taken, so that the client is not held up.
            while typed.recv().await.is_some() {}
            return;
        }
    }
}

/// Keeps a terminal at the client's size; never resolves.
async fn follow_size(mut size: watch::Receiver<Option<TerminalSize>>, terminal: Option<Arc<OwnedFd>>) {
    if let Some(terminal) = terminal {
        loop {
            let wanted = *size.borrow_and_update();
            if let Some(TerminalSize { width, height }) = wanted
                && let Err(error) = terminal::resize(terminal.as_fd(), width, height)
            {
                tracing::debug!(%error, "a terminal keeps its size");
            }
            if size.changed().await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// Sends what a container writes to the client until either ends.
async fn show(
    live: &mut broadcast::Receiver<(Stream, Bytes)>,
    request: &SessionRequest,
    output: &mpsc::Sender<Output>,
) {
    loop {
        let chunk = match live.recv().await {
            Ok(chunk) => chunk,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if let Some(next) = wanted(chunk, request)
            && output.send(next).await.is_err()
        {
            return;
        }
    }
}

fn wanted((stream, bytes): (Stream, Bytes), request: &SessionRequest) -> Option<Output> {
    match stream {
        Stream::Stdout => request.stdout.then_some(Output::Stdout(bytes)),
        Stream::Stderr => request.stderr.then_some(Output::Stderr(bytes)),
    }
}
