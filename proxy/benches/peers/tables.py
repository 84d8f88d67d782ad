"""Medians of the measurements as Markdown."""

from measure import SCENARIOS, median


def markdown(records):
    parts = []
    for workers in sorted({record["workers"] for record in records}):
        for scenario in SCENARIOS:
            rows = [record for record in records if (record["workers"], record["scenario"]) == (workers, scenario)]
            if rows:
                parts.append(f"**{scenario}, {workers} worker{'s' if workers > 1 else ''}**\n\n" + table(scenario, rows))
    return "\n\n".join(parts)


def table(scenario, rows):
    columns = {
        "hold": [("idle MiB out, in", lambda r: pair(r["idle_kib"], 1024)),
                 ("KiB a connection out, in", lambda r: pair(r["kib_per_connection"], 1))],
        "iperf3": [("Gbit/s", lambda r: [r["gbit_per_s"]]),
                   ("pair CPU s per GiB", lambda r: [r.get("pair_cpu_s_per_gib")]),
                   ("peak MiB out, in", lambda r: pair(r["peak_kib"], 1024))],
    }.get(SCENARIOS[scenario][1], [
        ("requests/s", lambda r: [r["per_s"]]),
        ("pair CPU µs a request", lambda r: [r.get("pair_cpu_us")]),
        ("p50 µs", lambda r: [r.get("p50_us")]),
        ("p90 µs", lambda r: [r.get("p90_us")]),
        ("p99 µs", lambda r: [r.get("p99_us")]),
        ("p99.9 µs", lambda r: [r.get("p999_us")]),
        ("errors", lambda r: [r["errors"]]),
        ("peak MiB out, in", lambda r: pair(r["peak_kib"], 1024)),
    ])
    names = list(dict.fromkeys(record["peer"] for record in rows))
    lines = ["| peer | " + " | ".join(title for title, _ in columns) + " | runs |", "| --- " * (len(columns) + 2) + "|"]
    for name in names:
        mine = [record for record in rows if record["peer"] == name]
        cells = [cell([of(record) for record in mine]) for _, of in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(mine)} |")
    return "\n".join(lines)


def pair(values, unit):
    """Inbound was started first."""
    return [value / unit for value in reversed(values)]


def cell(runs):
    """The median of each part over the runs."""
    parts = [median(values) for values in zip(*runs)]
    if not parts or None in parts:
        return "–"
    return ", ".join(f"{part:,.0f}" if part >= 100 or part == 0 else f"{part:.2f}" for part in parts)
