//! What the containers of one pod share while it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use super::Agent;
use super::cgroup::Cgroup;
use super::console::{Console, Consoles};
use super::env::{self, EnvError, Facts, Sources, expand};
use super::image::{PROGRAMS_DIR, UnknownImage};
use super::intercept::Attached;
use super::launch::{Launch, Process, Root, Streams, launch};
use super::logs::ContainerLog;
use super::rootfs::{Bind, RootSpec};
use super::status::{Board, Seen};
use super::termination;
use super::volume::{VolumeError, Volumes};
use crate::dns::DOMAIN;
use crate::net::PodNet;

/// The pod's surroundings, made before its first container.
pub(super) struct Context {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub net: PodNet,
    pub cgroup: Cgroup,
    pub facts: Facts,
    pub volumes: Volumes,
    pub board: watch::Sender<Board>,
    pub logs: BTreeMap<String, Arc<ContainerLog>>,
    /// The running containers' processes, for those who join them.
    pub consoles: Consoles,
    /// Keeps interception in place for as long as the pod has processes.
    pub _intercepted: Option<Attached>,
}

/// Why a container's process can't be prepared.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error(transparent)]
    Image(#[from] UnknownImage),
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("the API refused: {0}")]
    Api(#[from] kube::Error),
    #[error("the file for the termination message can't be made: {0}")]
    Termination(#[source] std::io::Error),
    #[error("{0}")]
    Unsupported(String),
}

impl PrepareError {
    /// The reason in the container's status, as the kubelet names it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Image(_) => "ErrImagePull",
            _ => "CreateContainerConfigError",
        }
    }
}

impl Context {
    /// Changes what is known of one container.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut Seen)) {
        self.board.send_modify(|board| {
            if let Some(seen) = board.containers.iter_mut().find(|c| c.name == name) {
                change(seen);
            }
        });
    }

    pub fn seen(&self, name: &str) -> Option<Seen> {
        self.board.borrow().containers.iter().find(|c| c.name == name).cloned()
    }

    pub fn cgroup_of(&self, container: &str) -> Cgroup {
        self.cgroup.child(container)
    }

    /// Everything needed to start the container's process.
    pub async fn prepare(&self, container: &Container) -> Result<Launch, PrepareError> {
        let words = self.agent.images.command_line(container)?;
        let env = env::environment(&self.pod, container, &self.facts, &self.sources(container).await?)?;
        let mut binds =
            self.volumes.binds(&container.name, container.volume_mounts.as_deref().unwrap_or_default(), &env)?;
        for image in self.agent.images.programs() {
            let target = PathBuf::from(PROGRAMS_DIR).join(&image.program);
            binds.push(Bind { source: image.executable.clone(), target, read_only: true });
        }
        let dir = self.agent.dirs.termination(&self.pod);
        binds.push(termination::file(&dir, container).map_err(PrepareError::Termination)?);
        let own = container.security_context.as_ref();
        let pods = self.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let user = own.and_then(|s| s.run_as_user).or(pods.and_then(|s| s.run_as_user));
        let group = own.and_then(|s| s.run_as_group).or(pods.and_then(|s| s.run_as_group));
        let id = |what: &str, value: Option<i64>| {
            value
                .map(u32::try_from)
                .transpose()
                .map_err(|_| PrepareError::Unsupported(format!("{what} is out of range")))
        };
        Ok(Launch {
            argv: words.iter().map(|word| expand(word, &env)).collect(),
            env,
            cwd: container.working_dir.clone().filter(|d| !d.is_empty()).map(PathBuf::from),
            user: id("runAsUser", user)?,
            group: id("runAsGroup", group)?,
            root: Root::New(RootSpec {
                scratch: self.agent.dirs.scratch(),
                hostname: env::hostname(&self.pod),
                all_devices: own.is_some_and(|s| s.privileged == Some(true)),
                files: self.files(),
                binds,
            }),
            netns: self.net.netns.clone(),
            cgroup: self.cgroup_of(&container.name),
            streams: if container.tty == Some(true) {
                Streams::Terminal(None)
            } else {
                Streams::Pipes { stdin: container.stdin == Some(true) }
            },
        })
    }

    /// Starts another process beside the one of a running container, with the same surroundings.
    pub async fn exec(&self, container: &str, argv: Vec<String>, streams: Streams) -> Result<Process, String> {
        let Some(console) = self.consoles.of(container) else {
            return Err(format!("container {container} of pod {} is not running", self.pod.name_any()));
        };
        let Console { pid, mut spec, .. } = console;
        spec.argv = argv;
        spec.streams = streams;
        spec.root = Root::Of { pid };
        if matches!(streams, Streams::Terminal(_)) {
            spec.env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
        }
        launch(spec).await.map_err(|e| e.to_string())
    }

    /// What a container says about its run that ended with `code`.
    pub fn last_words(&self, container: &Container, code: i32) -> Option<String> {
        let (dir, containers) = (self.agent.dirs.termination(&self.pod), self.logs.len());
        termination::message(&dir, container, containers, code, self.logs.get(&container.name)?)
    }

    async fn sources(&self, container: &Container) -> Result<Sources, kube::Error> {
        let (maps, secrets) = env::references(container);
        let namespace = self.pod.namespace().unwrap_or_default();
        let mut sources = Sources::default();
        let api: Api<ConfigMap> = Api::namespaced(self.agent.client.clone(), &namespace);
        for name in maps {
            if let Some(found) = api.get_opt(&name).await? {
                sources.config_maps.insert(name, found);
            }
        }
        let api: Api<Secret> = Api::namespaced(self.agent.client.clone(), &namespace);
        for name in secrets {
            if let Some(found) = api.get_opt(&name).await? {
                sources.secrets.insert(name, found);
            }
        }
        Ok(sources)
    }

    /// Name resolution inside the pod (`dnsPolicy`, `dnsConfig`, `hostAliases`).
    fn files(&self) -> Vec<(PathBuf, String)> {
        let namespace = self.pod.namespace().unwrap_or_default();
        let spec = self.pod.spec.clone().unwrap_or_default();
        let hostname = env::hostname(&self.pod);
        let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
        if spec.dns_policy.as_deref() != Some("None") {
            servers.push(self.agent.net.plan().dns.to_string());
            searches = vec![format!("{namespace}.svc.{DOMAIN}"), format!("svc.{DOMAIN}"), DOMAIN.to_owned()];
            options.push("ndots:5".to_owned());
        }
        if let Some(config) = &spec.dns_config {
            servers.extend(config.nameservers.iter().flatten().cloned());
            searches.extend(config.searches.iter().flatten().cloned());
            for option in config.options.iter().flatten() {
                let name = option.name.clone().unwrap_or_default();
                options.retain(|o| o.split(':').next() != Some(&name));
                options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
            }
        }
        let servers: String = servers.iter().map(|s| format!("nameserver {s}\n")).collect();
        let resolv = format!("{servers}search {}\noptions {}\n", searches.join(" "), options.join(" "));
        let fqdn =
            spec.subdomain.filter(|s| !s.is_empty()).map(|s| format!("{hostname}.{s}.{namespace}.svc.{DOMAIN}\t"));
        let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
        for ip in &self.facts.pod_ips {
            hosts.push_str(&format!("{ip}\t{}{hostname}\n", fqdn.as_deref().unwrap_or_default()));
        }
        for alias in spec.host_aliases.iter().flatten() {
            hosts.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
        }
        vec![
            ("/etc/resolv.conf".into(), resolv),
            ("/etc/hosts".into(), hosts),
            ("/etc/hostname".into(), format!("{hostname}\n")),
        ]
    }

    /// An identifier of one run of a container, in the form the API expects.
    pub fn run_id(&self, container: &str, run: u32) -> String {
        format!(
            "fsm-local://{}/{container}/{run}-{}",
            self.pod.uid().unwrap_or_default(),
            Timestamp::now().as_millisecond()
        )
    }
}
