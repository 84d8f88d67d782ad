//! The real kubectl, talking to a server under test.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a command printed, and whether it succeeded.
pub struct Outcome {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

pub struct Kubectl<'a> {
    dir: &'a Path,
}

impl<'a> Kubectl<'a> {
    /// A kubectl for the server whose kubeconfig is in a directory.
    pub fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    /// A kubectl that has not been started yet.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(words.split(' '))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir)
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

    pub fn ok(&self, words: &str, input: &str) -> String {
        let outcome = self.run(words, input);
        assert!(outcome.ok, "kubectl {words}: {}{}", outcome.out, outcome.err);
        outcome.out
    }
}

pub fn have_kubectl() -> bool {
    let have = Command::new("kubectl").arg("version").arg("--client").output().is_ok_and(|o| o.status.success());
    if !have {
        println!("skipped: needs kubectl in PATH");
    }
    have
}
