//! What the node knows about a pod, and how it says so in `status`. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A container's place in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before the next one starts.
    Init,
    /// An init container that stays (`restartPolicy: Always`).
    Sidecar,
    Main,
}

/// What a container does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Waiting { reason: String, message: Option<String> },
    Running { since: Timestamp, pid: i32 },
    Ended(Ended),
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub signal: Option<i32>,
    pub reason: String,
    pub message: Option<String>,
    pub started: Timestamp,
    pub finished: Timestamp,
    pub id: String,
}

/// One container as the node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    pub image: String,
    pub role: Role,
    pub state: State,
    pub last: Option<Ended>,
    pub restarts: i32,
    /// Runs, and its startup probe (if any) has succeeded.
    pub started: bool,
    /// Started, and its readiness probe (if any) succeeds.
    pub ready: bool,
    pub id: String,
}

/// A pod as the node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    pub containers: Vec<Seen>,
    /// IPv4 first; none yet while the pod has no network.
    pub pod_ips: Vec<String>,
    pub host_ip: String,
    pub started: Timestamp,
    /// No container will be started any more.
    pub over: bool,
    /// Why it was ended by the node, if it was.
    pub evicted: Option<String>,
}

impl Board {
    /// A pod none of whose containers has started. Restarts known from an earlier life of the cluster are counted on.
    pub fn new(pod: &Pod, host_ip: String, now: Timestamp) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let before = pod.status.clone().unwrap_or_default();
        let known =
            before.init_container_statuses.into_iter().flatten().chain(before.container_statuses.into_iter().flatten());
        let known: Vec<ContainerStatus> = known.collect();
        let init = spec.init_containers.into_iter().flatten().map(|c| {
            let role = if c.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
            (c, role)
        });
        let containers = init.chain(spec.containers.into_iter().map(|c| (c, Role::Main))).map(|(container, role)| {
            let before = known.iter().find(|s| s.name == container.name);
            let ran =
                before.and_then(|s| s.state.as_ref()).is_some_and(|s| s.running.is_some() || s.terminated.is_some());
            Seen {
                restarts: before.map_or(0, |s| s.restart_count + i32::from(ran)),
                name: container.name,
                image: container.image.unwrap_or_default(),
                role,
                state: State::Waiting { reason: "ContainerCreating".into(), message: None },
                last: None,
                started: false,
                ready: false,
                id: String::new(),
            }
        });
        let mut board = Self {
            containers: containers.collect(),
            pod_ips: Vec::new(),
            host_ip,
            started: now,
            over: false,
            evicted: None,
        };
        if board.containers.iter().any(|c| c.role != Role::Main) {
            board.wait_for_init();
        }
        board
    }

    fn wait_for_init(&mut self) {
        for container in self.containers.iter_mut() {
            container.state = State::Waiting { reason: "PodInitializing".into(), message: None };
        }
    }

    pub fn initialized(&self) -> bool {
        self.containers.iter().all(|c| match c.role {
            Role::Init => matches!(&c.state, State::Ended(ended) if ended.code == 0),
            Role::Sidecar => c.started,
            Role::Main => true,
        })
    }

    fn containers_ready(&self) -> bool {
        self.initialized() && self.containers.iter().all(|c| c.role == Role::Init || c.ready)
    }

    /// The pod's phase (Pod lifecycle, "Pod phase").
    pub fn phase(&self) -> &'static str {
        let ended = |c: &Seen| match &c.state {
            State::Ended(ended) => Some(ended.code),
            _ => None,
        };
        if self.over {
            let failed = self.evicted.is_some()
                || self.containers.iter().filter(|c| c.role != Role::Sidecar).any(|c| ended(c) != Some(0));
            return if failed { "Failed" } else { "Succeeded" };
        }
        let begun = self
            .containers
            .iter()
            .filter(|c| c.role == Role::Main)
            .any(|c| c.last.is_some() || !matches!(c.state, State::Waiting { .. }));
        if begun && self.initialized() { "Running" } else { "Pending" }
    }

    /// The status to publish. Conditions keep their transition time while they stay as they are; conditions of others stay.
    pub fn status(&self, pod: &Pod, now: Timestamp) -> PodStatus {
        let before = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let generation = pod.metadata.generation;
        let (initialized, ready) = (self.initialized(), self.containers_ready() && !self.over);
        let unready: Vec<_> =
            self.containers.iter().filter(|c| c.role != Role::Init && !c.ready).map(|c| c.name.as_str()).collect();
        let not_ready = || ("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")));
        let over = || ("PodCompleted", String::new());
        let why = |holds: bool| {
            let why = if self.over && self.phase() == "Succeeded" { over() } else { not_ready() };
            (!holds).then_some(why)
        };
        let gates = pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
        let gates_open =
            gates.into_iter().all(|g| before.iter().any(|c| c.type_ == g.condition_type && c.status == "True"));
        let own = [
            ("PodReadyToStartContainers", !self.pod_ips.is_empty() && !self.over, None),
            (
                "Initialized",
                initialized,
                (!initialized)
                    .then(|| ("ContainersNotInitialized", String::from("containers have not finished initializing"))),
            ),
            (
                "Ready",
                ready && gates_open,
                if ready && !gates_open {
                    Some(("ReadinessGatesNotReady", String::from("a readiness gate's condition is not True")))
                } else {
                    why(ready)
                },
            ),
            ("ContainersReady", ready, why(ready)),
            ("PodScheduled", true, None),
        ];
        let mut conditions: Vec<PodCondition> = own
            .into_iter()
            .map(|(kind, holds, why)| {
                let status = if holds { "True" } else { "False" };
                let same = before.iter().find(|c| c.type_ == kind && c.status == status);
                let (reason, message) =
                    why.map_or((None, None), |(r, m)| (Some(r.to_owned()), Some(m).filter(|m| !m.is_empty())));
                PodCondition {
                    type_: kind.to_owned(),
                    status: status.to_owned(),
                    last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
                    observed_generation: generation,
                    reason,
                    message,
                    ..PodCondition::default()
                }
            })
            .collect();
        conditions.extend(before.into_iter().filter(|c| !own_condition(&c.type_)));
        let of = |main: bool| {
            let statuses: Vec<_> =
                self.containers.iter().filter(|c| (c.role == Role::Main) == main).map(Seen::status).collect();
            (!statuses.is_empty()).then_some(statuses)
        };
        PodStatus {
            phase: Some(self.phase().to_owned()),
            reason: self.evicted.as_ref().map(|_| "Evicted".to_owned()),
            message: self.evicted.clone(),
            conditions: Some(conditions),
            container_statuses: of(true),
            init_container_statuses: of(false),
            pod_ip: self.pod_ips.first().cloned(),
            pod_ips: Some(self.pod_ips.iter().cloned().map(|ip| PodIP { ip }).collect::<Vec<_>>())
                .filter(|ips| !ips.is_empty()),
            host_ip: Some(self.host_ip.clone()),
            host_ips: Some(vec![HostIP { ip: self.host_ip.clone() }]),
            start_time: Some(Time(self.started)),
            observed_generation: generation,
            ..PodStatus::default()
        }
    }
}

/// Conditions the node agent is the author of.
pub(super) fn own_condition(kind: &str) -> bool {
    matches!(kind, "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled")
}

impl Seen {
    fn status(&self) -> ContainerStatus {
        let state = match &self.state {
            State::Waiting { reason, message } => ContainerState {
                waiting: Some(ContainerStateWaiting { reason: Some(reason.clone()), message: message.clone() }),
                ..ContainerState::default()
            },
            State::Running { since, .. } => ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
                ..ContainerState::default()
            },
            State::Ended(ended) => ended.state(),
        };
        let done = self.role == Role::Init && matches!(&self.state, State::Ended(ended) if ended.code == 0);
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: if self.id.is_empty() { String::new() } else { format!("fsm-local://{}", self.image) },
            container_id: Some(self.id.clone()).filter(|id| !id.is_empty()),
            state: Some(state),
            last_state: self.last.as_ref().map(Ended::state).or(Some(ContainerState::default())),
            restart_count: self.restarts,
            started: Some(self.started),
            ready: self.ready || done,
            ..ContainerStatus::default()
        }
    }
}

impl Ended {
    fn state(&self) -> ContainerState {
        let ended = ContainerStateTerminated {
            exit_code: self.code,
            signal: self.signal,
            reason: Some(self.reason.clone()),
            message: self.message.clone(),
            started_at: Some(Time(self.started)),
            finished_at: Some(Time(self.finished)),
            container_id: Some(self.id.clone()).filter(|id| !id.is_empty()),
        };
        ContainerState { terminated: Some(ended), ..ContainerState::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "generation": 1}, "spec": {
            "initContainers": [{"name": "setup"}, {"name": "sidecar", "restartPolicy": "Always"}],
            "containers": [{"name": "app"}]}, "status": {"conditions": [{"type": "custom", "status": "True"}]}}))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn ended(code: i32) -> State {
        let (reason, id) = ("Completed".into(), String::new());
        State::Ended(Ended { code, signal: None, reason, message: None, started: now(), finished: now(), id })
    }

    fn conditions(board: &Board) -> Vec<String> {
        let status = board.status(&pod(), now());
        let conditions = status.conditions.unwrap();
        conditions.into_iter().filter(|c| c.status == "True").map(|c| c.type_).collect()
    }

    #[test]
    fn a_pod_goes_from_pending_through_init_to_ready_and_its_end() {
        let mut board = Board::new(&pod(), "10.244.0.1".into(), now());
        assert_eq!((board.phase(), conditions(&board)), ("Pending", vec!["PodScheduled".into(), "custom".into()]));
        board.pod_ips = vec!["10.244.0.2".into()];
        board.containers[0].state = ended(0);
        board.containers[1].state = State::Running { since: now(), pid: 1 };
        assert_eq!((board.phase(), board.initialized()), ("Pending", false));
        (board.containers[1].started, board.containers[1].ready) = (true, true);
        board.containers[2].state = State::Running { since: now(), pid: 2 };
        assert_eq!((board.phase(), board.initialized()), ("Running", true));
        assert!(!conditions(&board).contains(&"Ready".to_owned()));
        (board.containers[2].started, board.containers[2].ready) = (true, true);
        let all = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", "custom"];
        assert_eq!(conditions(&board), all);
        board.containers[2].state = ended(1);
        board.over = true;
        assert_eq!(board.phase(), "Failed");
        board.containers[2].state = ended(0);
        assert_eq!(board.phase(), "Succeeded");
    }

    #[test]
    fn restarts_of_an_earlier_life_are_counted_on() {
        let mut pod = pod();
        pod.status = serde_json::from_value(
            json!({"containerStatuses": [{"name": "app", "image": "", "imageID": "", "ready": true,
            "restartCount": 2, "state": {"running": {}}}]}),
        )
        .unwrap();
        assert_eq!(Board::new(&pod, String::new(), now()).containers[2].restarts, 3);
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_stays() {
        let mut pod = pod();
        pod.status = serde_json::from_value(json!({"conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"}]}))
        .unwrap();
        let status = Board::new(&pod, String::new(), now()).status(&pod, now());
        let time = |kind: &str| {
            let conditions = status.conditions.as_ref().unwrap();
            conditions.iter().find(|c| c.type_ == kind).unwrap().last_transition_time.clone().unwrap().0.to_string()
        };
        assert_eq!(
            (time("PodScheduled").as_str(), time("Ready").as_str()),
            ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
        );
    }
}
