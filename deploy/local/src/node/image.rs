//! What an image means on one machine: a program to run. Nothing is pulled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;

/// Where the programs of known images appear inside a container.
pub const PROGRAMS_DIR: &str = "/opt/fsm/bin";

/// An image known to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The name its program is called by (`argv[0]`).
    pub program: String,
    /// The executable on this machine.
    pub executable: PathBuf,
}

/// Known images by repository (without registry, tag and digest).
#[derive(Debug, Clone, Default)]
pub struct Images {
    by_repository: BTreeMap<String, Image>,
}

/// Why a container can't be started from what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "image \"{image}\" is not known to the local cluster, and the container has no command; local containers run programs of \
     this machine: set `command` to one, or use one of the images {known}"
)]
pub struct UnknownImage {
    image: String,
    known: String,
}

impl Images {
    /// The images of FSM itself, all run by one executable that looks at the name it is called by.
    pub fn of_fsm(executable: &Path) -> Self {
        let mut images = Self::default();
        for program in ["fsm", "fsm-proxy", "fsm-controller", "fsm-interceptor"] {
            images.add(&format!("flomesh/{program}"), program, executable);
        }
        images
    }

    /// Makes `repository` known.
    pub fn add(&mut self, repository: &str, program: &str, executable: &Path) {
        let image = Image { program: program.to_owned(), executable: executable.to_owned() };
        self.by_repository.insert(repository.to_owned(), image);
    }

    pub fn find(&self, reference: &str) -> Option<&Image> {
        let repository = repository(reference);
        self.by_repository.get(repository).or_else(|| {
            // A registry's host may stand before the repository.
            let (host, rest) = repository.split_once('/')?;
            let is_host = host.contains(['.', ':']) || host == "localhost";
            self.by_repository.get(rest).filter(|_| is_host)
        })
    }

    /// The programs to show in containers, each once.
    pub fn programs(&self) -> impl Iterator<Item = &Image> {
        self.by_repository.values()
    }

    /// The words of the container's command line, not yet expanded. `command` replaces the image's program, `args` follow
    /// either (as in Kubernetes).
    pub fn command_line(&self, container: &Container) -> Result<Vec<String>, UnknownImage> {
        let reference = container.image.clone().unwrap_or_default();
        let command = container.command.clone().filter(|c| !c.is_empty());
        let mut words = match (command, self.find(&reference)) {
            (Some(command), _) => command,
            (None, Some(image)) => vec![image.program.clone()],
            (None, None) => {
                let known = self.by_repository.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(UnknownImage { image: reference, known });
            }
        };
        words.extend(container.args.iter().flatten().cloned());
        Ok(words)
    }
}

/// `host:5000/a/b:tag@sha256:…` → `host:5000/a/b`
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rfind(':') {
        Some(colon) if !name[colon..].contains('/') => &name[..colon],
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(image: &str, command: &[&str], args: &[&str]) -> Container {
        let words = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect());
        Container { image: Some(image.into()), command: words(command), args: words(args), ..Container::default() }
    }

    #[test]
    fn an_image_is_found_by_its_repository_whatever_registry_and_tag() {
        let images = Images::of_fsm(Path::new("/bin/fsm"));
        for reference in [
            "flomesh/fsm-proxy",
            "flomesh/fsm-proxy:1.2",
            "docker.io/flomesh/fsm-proxy:latest",
            "localhost:5000/flomesh/fsm-proxy@sha256:00",
        ] {
            assert_eq!(images.find(reference).unwrap().program, "fsm-proxy", "{reference}");
        }
        assert_eq!(images.find("other/flomesh/fsm-proxy"), None);
        assert_eq!(images.find("flomesh/fsm-proxy-init"), None);
    }

    #[test]
    fn command_replaces_the_program_and_args_follow() {
        let images = Images::of_fsm(Path::new("/bin/fsm"));
        let line = |c| images.command_line(&c).unwrap().join(" ");
        assert_eq!(line(container("flomesh/fsm-proxy:latest", &[], &["sidecar"])), "fsm-proxy sidecar");
        assert_eq!(line(container("busybox", &["sh", "-c"], &["true"])), "sh -c true");
        let error = images.command_line(&container("nginx:1", &[], &["-g"])).unwrap_err().to_string();
        assert!(error.contains("\"nginx:1\"") && error.contains("set `command`"), "{error}");
    }
}
