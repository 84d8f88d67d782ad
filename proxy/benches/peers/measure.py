"""Starts each pair, puts load on it, and reads what it cost."""

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

import peers

# The service and the tool of each scenario.
SCENARIOS = {
    "http1-64": ("HTTP", "wrk"),  # HTTP/1.1, 64 connections kept alive
    "http1-1": ("HTTP", "wrk"),  # one connection
    "http1-rate": ("HTTP", "rate"),  # at a fixed rate on 64 connections, timed from when a request was due
    "h2-8x32": ("H2", "h2load"),  # HTTP/2, 8 connections of 32 streams
    "new-http": ("HTTP", "wrk"),  # a connection of the client for each request
    "new-opaque": ("CONN", "wrk"),  # the same as opaque TCP: a TLS handshake each, unless the mesh shares connections
    "opaque-64": ("CONN", "wrk"),  # 64 opaque connections kept alive
    "handshakes": ("HTTP", "handshakes"),  # mutual TLS with the inbound proxy, full ones, and nothing else
    "tcp-1": ("TCP", "iperf3"),  # one stream
    "tcp-8": ("TCP", "iperf3"),  # eight
    "idle-http": ("HTTP", "hold"),  # memory, and with 1,000 idle connections
    "idle-opaque": ("CONN", "hold"),
}
IDLE = 1000
TICKS = os.sysconf("SC_CLK_TCK")
GET = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"


class Group:
    """A program and its children, measured and ended together."""

    running = []

    def __init__(self, argv, env, work, cpu):
        argv = argv if cpu is None else ["taskset", "-c", str(cpu), *argv]
        with open(os.path.join(work, "log"), "ab") as log:
            self.process = subprocess.Popen(argv, env=env, cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        Group.running.append(self)

    def pids(self):
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.process.pid and fields[0] != "Z":
                yield name, fields

    def cpu(self):
        """Seconds of processor time so far."""
        return sum(int(tick) for _, fields in self.pids() for tick in fields[11:13]) / TICKS

    def memory(self):
        """KiB: resident, counting what processes share once, and the most that was resident."""
        held, most = 0, 0
        for pid, _ in self.pids():
            with open(f"/proc/{pid}/smaps_rollup") as file:
                held += int(re.search(r"^Pss: +(\d+)", file.read(), re.M)[1])
            with open(f"/proc/{pid}/status") as file:
                most += int(re.search(r"^VmHWM:\s+(\d+)", file.read(), re.M)[1])
        return held, most

    def stop(self):
        Group.running.remove(self)
        for kill in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + 3
            while list(self.pids()) and time.monotonic() < until:
                os.killpg(self.process.pid, kill) if kill is signal.SIGKILL or until - time.monotonic() > 2.9 else None
                self.process.poll()
                time.sleep(0.05)
        self.process.wait()


def request(address):
    """A connection and the answer to a request on it."""
    connection = socket.create_connection(address, 5)
    connection.sendall(GET)
    answer = b""
    while not answer.endswith(b"x" * 1024):
        more = connection.recv(65536)
        if not more:
            break
        answer += more
    return connection, answer


def wait_for(what, condition):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{what} did not start")


def all_of(tools, names, options):
    """One record for each peer, scenario, number of workers and round."""
    legs = ("APP", "IN", "OUT")
    ports = {(leg, name): options.port + 4 * row + column for row, leg in enumerate(legs)
             for column, name in enumerate(peers.SERVICES)}
    ports["APP", "CONN"] = ports["APP", "HTTP"]
    try:
        for turn in range(options.rounds):
            for workers in map(int, options.workers.split(",")):
                pinned = workers == 1 and os.cpu_count() > 1
                cpus = (os.cpu_count() - 1, 0) if pinned else (None, None)
                work = fresh(tools, "application")
                servers = [Group(argv, tools.env, work, cpus[1]) for argv in peers.application(tools, ports, work)]
                scenarios = options.scenarios.split(",")
                idle = [[one] for one in scenarios if SCENARIOS[one][1] == "hold"]
                loaded = [one for one in scenarios if SCENARIOS[one][1] != "hold"]
                for name in names:
                    # Memory is told of a pair that has done nothing else.
                    for some in [loaded] + (idle if name != "none" else []):
                        yield from one_pair(tools, name, some, workers, turn, ports, servers, cpus, options)
                for server in servers:
                    server.stop()
    finally:
        for group in list(Group.running):
            group.stop()


def fresh(tools, name):
    work = os.path.join(tools.scratch, "work", name)
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    return work


def one_pair(tools, name, scenarios, workers, turn, ports, servers, cpus, options):
    env = tools.env | {f"{leg}_{service}": str(port) for (leg, service), port in ports.items()}
    env["WORKERS"] = str(workers)
    entry = "APP" if name == "none" else "OUT"
    pair = {}
    for side in () if name == "none" else ("inbound", "outbound"):
        work = fresh(tools, f"{name}-{side}")
        pair[side] = Group(peers.PEERS[name](tools, side, ports, work, workers), env, work, cpus[0])
    wait_for(name, lambda: b" 200 " in request(("127.0.0.1", ports[entry, "HTTP"]))[1][:15])
    for scenario in scenarios:
        service, tool = SCENARIOS[scenario]
        if tool == "handshakes" and not pair:
            continue
        address = ("127.0.0.1", ports[entry, service])
        if tool in ("wrk", "h2load"):
            load(tools, scenario, address, cpus[1], options, 1)  # connections are made, memory is found
        record = {"peer": name, "workers": workers, "round": turn, "scenario": scenario}
        groups = pair | {"application": servers[1 if service == "TCP" else 0]}
        before, idle = {side: group.cpu() for side, group in groups.items()}, memory(pair)
        busy, start = machine(), time.monotonic()
        if tool == "hold":
            record |= hold(address, pair)
        elif tool == "handshakes":
            record |= handshakes(tools, name, ports, cpus[1], options)
        else:
            record |= load(tools, scenario, address, cpus[1], options, options.seconds)
        took = time.monotonic() - start
        cpu = {side: group.cpu() - before[side] for side, group in groups.items()}
        record["cpu_s"] = {side: round(used, 3) for side, used in cpu.items()}
        record["others_cpu"] = round((machine() - busy - sum(cpu.values()) - record.pop("client_s", 0)) / took, 2)
        record["idle_kib"], record["peak_kib"] = [idle[s][0] for s in pair], [memory(pair)[s][1] for s in pair]
        per = record.get("requests") or record.get("bytes", 0) / 2**30
        if per and pair:
            used = cpu["inbound"] + cpu["outbound"]
            record["pair_cpu_us" if "requests" in record else "pair_cpu_s_per_gib"] = round(
                used / per * (1e6 if "requests" in record else 1), 3)
        print(json.dumps(record), file=sys.stderr)
        yield record
    for group in pair.values():
        group.stop()


def memory(pair):
    return {side: group.memory() for side, group in pair.items()}


def machine():
    """Seconds of processor time that the whole machine has used."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, hard, soft = map(int, file.readline().split()[1:8])
    return (user + nice + system + hard + soft) / TICKS


def hold(address, pair):
    before = memory(pair)
    connections = [request(address)[0] for _ in range(IDLE)]
    time.sleep(1)
    held = [round((now[0] - before[side][0]) / IDLE, 2) for side, now in memory(pair).items()]
    for connection in connections:
        connection.close()
    return {"kib_per_connection": held}


def handshakes(tools, name, ports, cpu, options):
    argv = [tools.path("pair"), "handshakes", f"127.0.0.1:{ports['IN', 'HTTP']}", str(options.seconds),
            "pair" if name == "fsm" else "files"]
    text, client = run(argv, tools, cpu)
    return json.loads(text) | {"client_s": client}


def load(tools, scenario, address, cpu, options, seconds):
    host, port = address
    url, seconds = f"http://{host}:{port}/", max(1, round(seconds))
    tool = SCENARIOS[scenario][1]
    if tool == "wrk":
        connections = {"http1-64": 64, "opaque-64": 64, "http1-1": 1}.get(scenario, 32)
        argv = [tools.path("wrk"), "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-H", "Host: app.test", url]
        argv += ["-H", "Connection: close"] if scenario.startswith("new-") else []
        text, client = run(argv, tools, cpu)
        unit = {"us": 1, "ms": 1e3, "s": 1e6}
        quantiles = {f"p{at}_us": round(float(value) * unit[kind])
                     for at, value, kind in re.findall(r"^ +(\d+)% +([\d.]+)(us|ms|s)$", text, re.M)}
        requests = int(re.search(r"(\d+) requests in", text)[1])
        wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        broken = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        errors = sum(int(match) for found in (wrong, broken) if found for match in found.groups())
        return {"requests": requests, "per_s": round(float(re.search(r"Requests/sec: +([\d.]+)", text)[1])),
                "errors": errors, "client_s": client} | quantiles
    if tool == "rate":
        argv = [tools.path("pair"), "rate", f"{host}:{port}", "64", str(options.rate), str(seconds)]
        text, client = run(argv, tools, cpu)
        return json.loads(text) | {"client_s": client}
    if tool == "h2load":
        argv = [tools.path("h2load"), "-t1", "-c8", "-m32", f"-D{seconds}", "-H", ":authority: app.test", url]
        text, client = run(argv, tools, cpu)
        requests = int(re.search(r"(\d+) 2xx", text)[1])
        return {"requests": requests, "per_s": round(requests / seconds), "client_s": client,
                "errors": int(re.search(r"(\d+) errored", text)[1])}
    argv = [tools.path("iperf3"), "-J", "-c", host, "-p", str(port), "-P", scenario[-1], "-t", str(seconds)]
    text, client = run(argv, tools, cpu)
    received = json.loads(text)["end"]["sum_received"]
    return {"bytes": received["bytes"], "gbit_per_s": round(received["bits_per_second"] / 1e9, 3), "errors": 0,
            "client_s": client}


def run(argv, tools, cpu):
    """What a load generator prints, and the processor time that it took."""
    argv = argv if cpu is None else ["taskset", "-c", str(cpu), *argv]
    before = os.times()
    done = subprocess.run(argv, env=tools.env, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"{argv}: {done.stdout[-500:]}{done.stderr[-500:]}")
    after = os.times()
    return done.stdout, after.children_user + after.children_system - before.children_user - before.children_system


def median(values):
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None
