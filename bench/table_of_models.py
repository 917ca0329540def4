"""The table of the models that put atoms on given bonds, beside the rules that learn nothing and published rows.

    graphgen train -i qm9 --field nn --epochs 30 -o runs/qm9-nn
    python bench/table_of_models.py runs/qm9-nn runs/zinc250k-nn --json bench/results/fixed_bonds.json

Every attempt counts; skeletons are those of the test split. What is in the JSON file already is not done again, so an
interrupted run goes on. "attempts" is the processor time of generating and decoding them, without the program's
start; "train" is the time that passed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from _bench import machine

import graphgen
from graphgen import likelihood
from graphgen.candidates import Candidates
from graphgen.evaluate import evaluate
from graphgen.files import atomic_write
from graphgen.latent import reconstruct
from graphgen.report.evaluation import Row

# How a model is sampled: options of its sample, and how one of several candidates is kept.
WAYS: dict[str, dict[str, tuple[dict[str, Any], Candidates | None]]] = {
    "graph-cnf": {
        "argmax": ({"steps": 10}, None),
        "categorical, T = 8": ({"steps": 10, "temperature": 8.0}, None),
        "likeliest valid of 4": ({"steps": 10}, Candidates(4, "likeliest", reject=True)),
    },
    "graph-sde": {
        "reverse diffusion, 50 steps": ({"steps": 50}, None),
        "reverse diffusion, 200 steps": ({"steps": 200}, None),
        "reverse diffusion, 1000 steps": ({"steps": 1000}, None),
        "50 steps with a Langevin correction each": ({"steps": 50, "corrections": 1}, None),
        "probability flow, 10 Runge-Kutta steps": ({"sampler": "ode", "steps": 10}, None),
    },
    "graph-ncsn": {
        "Langevin, 10 levels of 5 steps": ({"steps": 5}, None),
        "Langevin, 10 levels of 20 steps": ({"steps": 20}, None),
        "Langevin, 10 levels of 100 steps": ({"steps": 100}, None),
    },
    "graph-ddpm": {
        "ancestral, 50 steps": ({"steps": 50}, None),
        "ancestral, 200 steps": ({"steps": 200}, None),
        "ancestral, 1000 steps": ({"steps": 1000}, None),
        "ddim, 50 steps": ({"sampler": "ddim", "steps": 50}, None),
    },
}

# Validity, uniqueness and novelty in % as published, given training skeletons: Verma et al., NeurIPS 2022.
PUBLISHED = {
    "qm9": [("ModFlow 2D-EGNN", 96.2, 99.5, 100), ("ModFlow JT-3D-EGNN", 99.1, 99.3, 100)],
    "zinc250k": [("ModFlow 2D-EGNN", 94.8, 99.4, 100), ("ModFlow JT-3D-EGNN", 98.1, 99.3, 100)],
}

_HELD_OUT = 10_000  # molecules at equal distances that nats per atom are averaged over
_BACK_AND_FORTH = 2_000  # molecules that the inverse error is the largest of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders that `graphgen train` wrote")
    parser.add_argument("-n", type=int, default=10_000, help="attempts (default 10000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of sampling (default 0 1 2)")
    parser.add_argument("--seeds-of-candidates", type=int, nargs="*", help="fewer, or none, where candidates are drawn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, required=True, help="results, old and new")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found = (
        json.loads(chosen.json.read_text()) if chosen.json.exists() else {"models": {}, "samples": [], "controls": {}}
    )
    found["machine"] = machine(chosen.device, chosen.threads)

    def keep() -> None:
        with atomic_write(chosen.json) as temporary:
            temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    for run in chosen.runs:
        trained = graphgen.load(run)
        data = trained.data()
        if run.name not in found["models"]:
            found["models"][run.name] = of_model(trained, data.split("test"), chosen.device)
            keep()
        done = {(row["run"], row["way"], row["seed"]) for row in found["samples"]}
        for way, (sampling, candidates) in WAYS[trained.network.name].items():
            fewer = chosen.seeds if candidates is None else chosen.seeds_of_candidates
            for seed in chosen.seeds if fewer is None else fewer:
                if (run.name, way, seed) in done:
                    continue
                rows, extra = sampled(trained, data, chosen.n, seed, sampling, candidates, chosen.device)
                found["samples"].append({"run": run.name, "way": way, "seed": seed, **extra, **rows[0].to_json()})
                if len(rows) > 1 and data.name not in found["controls"]:
                    found["controls"][data.name] = [row.to_json() for row in rows[1:]]
                keep()
    keep()
    text = table(found)
    print(text)
    if chosen.markdown is not None:
        chosen.markdown.write_text(text, encoding="utf-8")


def of_model(trained: graphgen.TrainedModel, test: Any, device: str) -> dict[str, Any]:
    """What is said of a model once, whatever its sampling."""
    held_out = _spaced(test, _HELD_OUT)
    last = trained.run["epochs"][-1]
    about: dict[str, Any] = {
        "data": trained.run["data"]["name"],
        "model": trained.network.name,
        "settings": dict(trained.network.settings),
        "parameters": sum(weights.numel() for weights in trained.network.parameters()),
        "epochs": len(trained.run["epochs"]),
        "training": trained.run["settings"],
        "training_seconds": last["seconds"],
        "training_threads": trained.run["threads"],
    }
    if trained.has_likelihood:
        mean, error = likelihood.held_out_nats(trained.network, held_out, steps=10, device=device)
        about |= {"nats": mean, "nats_stderr": error, "nats_molecules": len(held_out)}
    if trained.has_marginals:
        about["top1"], about["top3"] = likelihood.held_out_top(trained.network, test, device=device)
    if hasattr(trained.network, "transport"):
        some = _spaced(test, _BACK_AND_FORTH)
        back = reconstruct(trained.network, some, steps=20, device=device)
        about |= {"inverse_error": back.largest_error, "identical": back.identical, "reconstructed": back.molecules}
    return about


def _spaced(molecules: Any, count: int) -> Any:
    count = min(len(molecules), count)
    return molecules.take(torch.arange(count) * len(molecules) // count)


def sampled(
    trained: graphgen.TrainedModel,
    data: Any,
    n: int,
    seed: int,
    sampling: dict[str, Any],
    candidates: Candidates | None,
    device: str,
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of one sampling and, where it is plain, of the controls."""
    test = data.split("test")
    began = time.process_time()
    made = trained.generate(
        n, seed, test, nll_draws=0, candidates=candidates, device=device, batch_size=512, **sampling
    )
    seconds = time.process_time() - began
    in_model, after = made.seconds
    extra: dict[str, Any] = {
        "cpu_seconds": round(seconds, 2),
        "model_seconds": round(in_model, 2),
        "reading_seconds": round(after, 2),
        "sampling": sampling,
    }
    if candidates is not None:
        extra["candidates"] = vars(candidates)
    if made.accepted is not None and candidates is not None:
        extra["accepted"] = float(made.accepted.sum()) / (n * candidates.count)
    with_controls = candidates is None and seed == 0
    judged = evaluate(made, data.split("train"), test, with_controls=with_controls)
    return list(judged.rows), extra


def table(found: dict[str, Any]) -> str:
    """Markdown, one table a data set: mean over seeds, ± the standard deviation where there are several."""
    lines: list[str] = []
    for name in dict.fromkeys(model["data"] for model in found["models"].values()):
        attempts = max(row["n"] for row in found["samples"] if found["models"][row["run"]]["data"] == name)
        lines += [
            f"**{name}**, {attempts:,} attempts a seed",
            "",
            "| | V_strict % | V·U % | V·U·N % | label recovery % | top-1 / top-3 % | KL atom types | nats/atom | "
            "inverse error | accepted % | train, s | attempts, CPU s |",
            "| --- " * 12 + "|",
        ]
        for run, model in found["models"].items():
            if model["data"] != name:
                continue
            ways = [row["way"] for row in found["samples"] if row["run"] == run]
            for k, way in enumerate(dict.fromkeys(ways)):
                rows = [row for row in found["samples"] if row["run"] == run and row["way"] == way]
                lines.append(
                    _line(f"**{_title(model)}**, {way}" if k == 0 else f"{_title(model)}, {way}", rows, model, k)
                )
        for row in found["controls"].get(name, []):
            top = f"{100 * row['top1']:.1f} / {100 * row['top3']:.1f}" if row["top1"] is not None else ""
            nats = row["nats_per_atom"]
            cells = [
                *(f"{100 * row[key]:.2f}" for key in ("V_strict", "VU", "VUN")),
                f"{100 * row['label_recovery']:.2f}",
                top,
                f"{row['kl_atom_types']:.3f}",
                "" if nats is None else f"{nats:.3f} ± {row['nats_per_atom_stderr']:.3f}",
            ]
            lines.append(f"| {row['name']} | {' | '.join(cells)} | | | | |")
        for title, valid, unique, novel in PUBLISHED.get(name, []):
            lines.append(
                f"| {title} as published, given training skeletons | {valid} valid | {unique} unique | {novel} novel |"
                + " |" * 8
            )
        lines.append("")
    return "\n".join(lines)


def _title(model: dict[str, Any]) -> str:
    return f"{model['model']} {model['settings']['field']}, {model['epochs']} epochs"


def _line(title: str, rows: list[dict[str, Any]], model: dict[str, Any], k: int) -> str:
    seeds = f" ({len(rows)} seeds)" if len(rows) > 1 else " (1 seed)"
    once = ["", "", "", ""]
    if k == 0:
        once = [
            f"{100 * model['top1']:.1f} / {100 * model['top3']:.1f}" if "top1" in model else "",
            f"{model['nats']:.3f} ± {model['nats_stderr']:.3f}" if "nats" in model else "",
            f"{model['inverse_error']:.1e}" if "inverse_error" in model else "",
            f"{model['training_seconds']:.0f}",
        ]
    cells = [
        *(mean_of(100 * row[key] for row in rows) for key in ("V_strict", "VU", "VUN", "label_recovery")),
        once[0],
        mean_of((row["kl_atom_types"] for row in rows), 3),
        once[1],
        once[2],
        mean_of(100 * row["accepted"] for row in rows) if "accepted" in rows[0] else "",
        once[3],
        mean_of((row["cpu_seconds"] for row in rows), 0),
    ]
    return f"| {title}{seeds} | {' | '.join(cells)} |"


def mean_of(values: Iterable[float], digits: int = 2) -> str:
    numbers = list(values)
    mean = f"{statistics.fmean(numbers):.{digits}f}"
    return mean if len(numbers) < 2 else f"{mean} ± {statistics.stdev(numbers):.{digits}f}"


if __name__ == "__main__":
    main()
