//! Other proxies, to compare with: Envoy and nginx, as they are installed, with no more than forwarding configured.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Another proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Envoy,
    Nginx,
}

/// One that runs; it is ended when this is dropped.
pub struct Running {
    process: Child,
    _files: tempfile::TempDir,
}

impl Peer {
    /// Whether it is installed.
    pub fn is_here(self) -> bool {
        let version = match self {
            Self::Envoy => Command::new("envoy").arg("--version").output(),
            Self::Nginx => Command::new("nginx").arg("-v").output(),
        };
        version.is_ok_and(|output| output.status.success())
    }

    /// Starts it before `application`; gives where it listens.
    pub async fn start(self, application: SocketAddr) -> (Running, SocketAddr) {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let files = tempfile::tempdir().unwrap();
        let (file, configuration) = match self {
            Self::Envoy => ("envoy.yaml", envoy(address, application)),
            Self::Nginx => ("nginx.conf", nginx(address, application)),
        };
        let path = files.path().join(file);
        std::fs::write(&path, configuration).unwrap();
        let mut command = match self {
            Self::Envoy => {
                let mut command = Command::new("envoy");
                command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "critical", "-c"]);
                command.arg(&path);
                command
            }
            Self::Nginx => {
                let mut command = Command::new("nginx");
                command.arg("-e").arg(files.path().join("error.log")).arg("-p").arg(files.path()).arg("-c").arg(&path);
                command
            }
        };
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let running = Running { process, _files: files };
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), listens).await.expect("the other proxy listens");
        (running, address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn nginx(address: SocketAddr, application: SocketAddr) -> String {
    format!(
        "daemon off;
         master_process off;
         pid nginx.pid;
         events {{}}
         http {{
             access_log off;
             client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
             large_client_header_buffers 8 64k;
             proxy_http_version 1.1;
             proxy_set_header Connection \"\";
             proxy_set_header Host $http_host;
             proxy_next_upstream off;
             server {{ listen {address}; location / {{ proxy_pass http://{application}; }} }}
         }}"
    )
}

fn envoy(address: SocketAddr, application: SocketAddr) -> String {
    let extension = "type.googleapis.com/envoy.extensions.filters";
    let socket = |at: SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", at.ip(), at.port());
    let (listen, upstream) = (socket(address), socket(application));
    format!(
        "static_resources:
  listeners:
  - address: {listen}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": {extension}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: odd
          max_request_headers_kb: 64
          common_http_protocol_options: {{max_headers_count: 256}}
          route_config:
            virtual_hosts:
            - {{name: all, domains: ['*'], routes: [{{match: {{prefix: ''}}, route: {{cluster: application}}}}]}}
          http_filters:
          - name: router
            typed_config: {{\"@type\": {extension}.http.router.v3.Router}}
  clusters:
  - name: application
    connect_timeout: 5s
    load_assignment:
      cluster_name: application
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {upstream}}}}}]}}]
"
    )
}
