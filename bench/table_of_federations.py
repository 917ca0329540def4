"""DualAdapt beside what adapts nothing, what adapts in one place, and what may see labels; on both suites.

    python bench/table_of_federations.py --json bench/results/federated.json --markdown bench/results/federated.md

Accuracy on each client's test examples, per cent, mean and standard deviation over seeds, after the last round. What
is in the JSON file already is not done again, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _bench import machine

from graphgen.federated import baselines
from graphgen.federated.server import Server
from graphgen.federated.settings import Settings
from graphgen.federated.simulate import simulate
from graphgen.federated.suites import Suite
from graphgen.federated.suites.digits import digits
from graphgen.federated.suites.molecules import molecules
from graphgen.files import atomic_write

# Chosen on seeds 100 to 104, which are not in the table.
SUITES: dict[str, tuple[Callable[..., Suite], Settings]] = {
    "digits": (digits, Settings()),
    "molecules": (molecules, Settings(pretrain_steps=600, start="global")),
}
Accuracies = dict[str, float]


def dual_adapt(suite: Suite, server: Server, settings: Settings) -> Accuracies:
    with tempfile.TemporaryDirectory() as folder:
        return simulate(suite, settings, folder, progress=False)[-1]["accuracy"]


def longer(suite: Suite, settings: Settings) -> Accuracies:
    """As many steps on the source as DualAdapt's server takes, which alone may better the clients."""
    steps = settings.pretrain_steps + settings.rounds * settings.server_steps
    server = Server(suite.source, suite.networks, replace(settings, pretrain_steps=steps))
    server.pretrain()
    return baselines.source_only(server, suite, own_statistics=False)


def each(one: Callable[[Any], float]) -> Callable[[Suite, Server, Settings], Accuracies]:
    return lambda suite, server, settings: {domain.name: one(domain, server, settings) for domain in suite.clients}


ROWS: dict[str, Callable[[Suite, Server, Settings], Accuracies]] = {
    "source only": lambda suite, server, _: baselines.source_only(server, suite, own_statistics=False),
    "source only, trained as long": lambda suite, _, settings: longer(suite, settings),
    "source only, clients' statistics": lambda suite, server, _: baselines.source_only(server, suite, True),
    "DualAdapt": dual_adapt,
    "DualAdapt, source's statistics": lambda suite, server, settings: dual_adapt(
        suite, server, replace(settings, own_statistics=False)
    ),
    "DualAdapt, Algorithm 1 to the letter": lambda suite, server, settings: dual_adapt(
        suite, server, replace(settings, own_statistics=False, weights="source", start="global")
    ),
    "MCD, a client at a time (source and target in one place)": each(
        lambda domain, server, settings: baselines.maximum_classifier_discrepancy(server, domain, settings)
    ),
    "FedAvg (sees labels)": lambda suite, server, settings: baselines.federated_averaging(server, suite, settings),
    "target supervised (sees labels)": each(
        lambda domain, server, settings: baselines.supervised(server.networks, domain, settings)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True, help="results, old and new")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found: dict[str, Any] = (
        json.loads(chosen.json.read_text()) if chosen.json.exists() else {"machine": machine("cpu", chosen.threads)}
    )
    for name in chosen.suites:
        make, settings = SUITES[name]
        for seed in chosen.seeds:
            missing = [row for row in chosen.rows if str(seed) not in found.get(name, {}).get(row, {})]
            if not missing:
                continue
            suite, settings = make(seed=seed), replace(settings, seed=seed)
            server = Server(suite.source, suite.networks, settings)
            server.pretrain()
            for row in missing:
                started = time.perf_counter()
                accuracy = ROWS[row](suite, server, settings)
                seconds = round(time.perf_counter() - started, 1)
                result = {"accuracy": accuracy, "seconds": seconds}
                found.setdefault(name, {}).setdefault(row, {})[str(seed)] = result
                print(name, seed, row, accuracy, seconds, flush=True)
                _write(chosen.json, json.dumps(found, indent=1) + "\n")
    if chosen.markdown:
        _write(chosen.markdown, "\n".join(table(name, found[name]) for name in SUITES if name in found))


def table(name: str, rows: dict[str, Any]) -> str:
    clients = list(next(iter(next(iter(rows.values())).values()))["accuracy"])
    seeds = sorted({seed for results in rows.values() for seed in results}, key=int)
    lines = [
        f"| {name}, seeds {', '.join(seeds)}: accuracy, % | {' | '.join(clients)} | mean |",
        f"|---|{'---|' * (len(clients) + 1)}",
    ]
    for row in ROWS:
        if row not in rows:
            continue
        results = [one["accuracy"] for one in rows[row].values()]
        cells = [_cell([result[client] for result in results]) for client in clients]
        mean = _cell([statistics.mean(result.values()) for result in results])
        lines.append(f"| {row} | {' | '.join(cells)} | {mean} |")
    return "\n".join([*lines, ""])


def _cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
