//! The real kubectl, talking to a server under test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How long an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a command printed, and whether it succeeded.
pub struct Outcome {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

pub struct Kubectl {
    dir: PathBuf,
}

/// Runs commands of kubectl against the server whose kubeconfig is in a directory.
pub async fn run(dir: &Path, commands: impl FnOnce(&Kubectl) + Send + 'static) {
    let kubectl = Kubectl { dir: dir.to_owned() };
    tokio::task::spawn_blocking(move || commands(&kubectl)).await.expect("kubectl behaves");
}

impl Kubectl {
    /// A kubectl that has not been started yet.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(words.split(' '))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.dir)
            .env("KUBECONFIG", self.dir.join("kubeconfig"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs kubectl with words separated by spaces, and a manifest on its standard input.
    pub fn run(&self, words: &str, input: &str) -> Outcome {
        let mut child = self.command(words).spawn().expect("kubectl runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads its input");
        let output = child.wait_with_output().expect("kubectl ends");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Outcome { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Forwards a port of this machine to one of a pod, a Service or a Deployment, until it is dropped.
    pub fn forward(&self, to: &str, port: u16) -> Forward {
        let mut child = self.command(&format!("port-forward {to} :{port}")).spawn().expect("kubectl runs");
        let mut talk = BufReader::new(child.stdout.take().expect("piped"));
        let mut said = String::new();
        talk.read_line(&mut said).expect("kubectl says where it listens");
        let local = said.rsplit_once(" ->").and_then(|(left, _)| left.rsplit_once(':')).map(|(_, port)| port.parse());
        Forward { child, _talk: talk, port: local.expect(&said).expect("a port") }
    }

    pub fn ok(&self, words: &str, input: &str) -> String {
        let outcome = self.run(words, input);
        assert!(outcome.ok, "kubectl {words}: {}{}", outcome.out, outcome.err);
        outcome.out
    }
}

/// A forwarded port.
pub struct Forward {
    child: Child,
    /// Kept: kubectl ends when it can't say more.
    _talk: BufReader<ChildStdout>,
    /// The port of this machine.
    pub port: u16,
}

impl Forward {
    /// Sends a text over a connection of its own, and gives the answer.
    pub fn ask(&self, text: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(text.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn have_kubectl() -> bool {
    let have = Command::new("kubectl").arg("version").arg("--client").output().is_ok_and(|o| o.status.success());
    if !have {
        println!("skipped: needs kubectl in PATH");
    }
    have
}
