#!/usr/bin/env python3
"""Makes cases.jsonl.zst from a directory of recordings of a real kube-apiserver.

    ./pack.py RECORDINGS

The recordings are one JSON file for each case (discovery/, http/, admission/) or one JSON line for each event (watch/). Only what the tests read is kept: requests with their answers, and webhooks with what they were asked and answered. What
is written here is a line of JSON for each case, packed with the program zstd. See docs/local-cluster.md, "Recorded answers".
"""

import json
import pathlib
import subprocess
import sys

REQUEST_HEADERS = ("Accept", "Content-Type", "If-None-Match", "Impersonate-User", "Impersonate-Group", "Authorization")
KEPT = ("query", "request_body", "request_body_text", "request_body_base64", "response_body", "response_body_text", "stream_ended_by")


def exchange(recorded):
    kept = {key: recorded[key] for key in ("n", "method", "path", "status")}
    kept.update({key: recorded[key] for key in KEPT if recorded.get(key) is not None})
    if recorded.get("response_stream") is not None:
        kept["response_stream"] = [line["line"] for line in recorded["response_stream"]]
    if "answered_by" in recorded or "forwarded_with" in recorded:
        kept["altered"] = True
    for key in ("request_body_omitted", "response_body_omitted", "response_body_base64"):
        if key in recorded:
            kept[key] = True
    # kube-rs writes them small.
    headers = {"-".join(word.capitalize() for word in key.split("-")): value for key, value in recorded["request_headers"].items()}
    kept["request_headers"] = {key: value for key, value in headers.items() if key in REQUEST_HEADERS}
    return kept


def call(recorded):
    body = recorded.get("request_body")
    return {
        "webhook": recorded.get("webhook"), "path": recorded["path"],
        "request": body.get("request", {}) if isinstance(body, dict) else None,
        "status": recorded.get("status"), "headers": recorded.get("response_headers", {}),
        "body": recorded.get("response_body"), "text": recorded.get("response_body_text"),
    }


def cases(root):
    # What kubectl and kube-rs sent is below http/CLIENT-VERSION.
    clients = [(client.name, f"http/{client.name}") for client in sorted((root / "http").iterdir()) if client.is_dir()]
    groups = [("discovery", "discovery"), ("http", "http"), *clients, ("reactions", "admission/reactions")]
    for group, directory in groups:
        for file in sorted((root / directory).glob("*.json")):
            recorded = json.loads(file.read_text())
            case = {"case": f"{group}/{file.stem}", "exchanges": [exchange(e) for e in recorded["exchanges"]]}
            if "webhook" in recorded:
                case["webhook"] = recorded["webhook"]
                case["calls"] = [call(c) for c in recorded.get("webhook_calls", [])]
            yield case
    for file in sorted((root / "admission/requests").glob("*.json")):
        recorded = json.loads(file.read_text())
        yield {"case": f"reviews/{file.stem}", "trigger": recorded["trigger"], "calls": [call(c) for c in recorded["calls"]]}
    for file in sorted((root / "watch").glob("*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        if "request" in lines[0]:
            events = [{"t_ms": line["t_ms"], "event": line["event"]} for line in lines[1:] if "event" in line]
            yield {"case": f"watch/{file.stem}", "request": lines[0]["request"], "status": lines[0]["status"], "events": events,
                   "ended_by": lines[-1].get("ended_by")}


def main():
    packed = [json.dumps(case, separators=(",", ":"), ensure_ascii=False) for case in cases(pathlib.Path(sys.argv[1]))]
    text = "".join(f"{line}\n" for line in packed)
    target = pathlib.Path(__file__).parent / "cases.jsonl.zst"
    subprocess.run(["zstd", "-q", "-f", "--ultra", "-22", "-o", target], input=text.encode(), check=True)
    print(f"{len(packed)} cases, {len(text)} bytes, {target.stat().st_size} packed")


if __name__ == "__main__":
    main()
