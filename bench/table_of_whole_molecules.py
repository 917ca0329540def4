"""The table of the models that draw atoms and bonds together.

    graphgen train -i qm9 -m graph-dfm -o runs/qm9 ...
    python bench/table_of_whole_molecules.py runs/qm9 --json bench/results/whole_molecules.json
    python bench/table_of_whole_molecules.py runs/qm9 --sampling steps=10 steps=500,flaws=0 --seeds 0 --json ...
    python bench/table_of_whole_molecules.py runs/nvp --then qm9-cnf --json ...  # bonds of one, atoms of the other

Every attempt counts, as drawn. The distribution is that of the V_strict molecules beside 10,000 of the test split, its
floor that of as many training molecules as attempts; the control copies training molecules. What is in the JSON file
already is not done again, so an interrupted run goes on. Seconds passed, in the model and for reading its molecules.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from _bench import machine
from table_of_models import mean_of

import graphgen
from graphgen import ops
from graphgen.evaluate import evaluate
from graphgen.files import atomic_write
from graphgen.generated import Generated
from graphgen.molecules.encoded import Encoder
from graphgen.ops.noise import Stream
from graphgen.sampled import add_skeleton

_MEASURES = ("FCD", "NSPDK-MMD", "SNN", "Scaf", "IntDiv1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders that `graphgen train` wrote")
    parser.add_argument("-n", type=int, default=10_000, help="attempts (default 10000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of sampling (default 0 1 2)")
    parser.add_argument("--sampling", nargs="+", default=[""], help="options of the sampler (default: the model's own)")
    parser.add_argument("--then", help="a model of atoms, which draws those of every molecule anew")
    parser.add_argument("--no-fcd", action="store_true", help="leave out what takes longest")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, required=True, help="results, old and new")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found = json.loads(chosen.json.read_text()) if chosen.json.exists() else {"models": {}, "samples": []}
    found["machine"] = machine(chosen.device, chosen.threads)

    def keep() -> None:
        with atomic_write(chosen.json) as temporary:
            temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def done(*key: object) -> bool:
        return key in {tuple(row[name] for name in ("run", "sampling", "seed", "n")) for row in found["samples"]}

    second = graphgen.load(chosen.then) if chosen.then else None
    for run in chosen.runs:
        trained, name = graphgen.load(run), f"{run.name}, atoms by {chosen.then}" if second else run.name
        data = trained.data()
        found["models"] |= {one.folder.name: of_model(one) for one in (trained, second) if one is not None}
        control = f"training molecules of {data.name} again"
        if not done(control, "", 0, chosen.n):
            found["samples"].append(
                {"run": control, "sampling": "", "seed": 0} | judged(copies(data, chosen.n), data, not chosen.no_fcd)
            )
        for sampling in chosen.sampling:
            options = dict(option.split("=") for option in sampling.split(",") if option)
            for seed in chosen.seeds:
                if done(name, sampling, seed, chosen.n):
                    continue
                numbers = {option: json.loads(value) for option, value in options.items()}
                made = trained.generate(chosen.n, seed, device=chosen.device, **numbers)
                if second is not None:
                    made = in_two_stages(made, second, seed, chosen.device)
                seconds = dict(
                    zip(("model_seconds", "reading_seconds"), (round(x, 1) for x in made.seconds), strict=False)
                )
                row = {"run": name, "sampling": sampling, "seed": seed} | seconds
                found["samples"].append(row | judged(made, data, not chosen.no_fcd))
                keep()
    text = table(found)
    print(text)
    if chosen.markdown is not None:
        chosen.markdown.write_text(text, encoding="utf-8")


def of_model(trained: graphgen.TrainedModel) -> dict[str, Any]:
    return {
        "data": trained.run["data"]["name"],
        "model": trained.network.name,
        "settings": dict(trained.network.settings),
        "parameters": sum(weights.numel() for weights in trained.network.parameters()),
        "epochs": len(trained.run["epochs"]),
        "training": trained.run["settings"],
        "training_seconds": trained.run["epochs"][-1]["seconds"],
        "training_threads": trained.run["threads"],
    }


def in_two_stages(first: Generated, second: graphgen.TrainedModel, seed: int, device: str) -> Generated:
    """Atoms of another model on the bonds of these attempts; one that gives no skeleton stays as it was, a failure."""
    encoder = Encoder()
    failures = [smiles for smiles in first.smiles if not add_skeleton(encoder, smiles)]
    skeletons = encoder.finish("skeletons")
    made = second.generate(len(skeletons), seed, skeletons, nll_draws=0, device=device)
    assert first.seconds is not None and made.seconds is not None
    return Generated(
        [*made.smiles, *failures],
        [*made.reasons, *("no skeleton" if smiles is None else None for smiles in failures)],
        seconds=(first.seconds[0] + made.seconds[0], first.seconds[1] + made.seconds[1]),
    )


def copies(data: Any, n: int) -> Generated:
    """A sampler without a model: training molecules, drawn with replacement."""
    train = data.split("train")
    uniform = ops.uniform(torch.arange(n + 1), 1, 0, Stream.SIZE, 0, torch.arange(n), torch.float64).squeeze(1)
    rows = (uniform * len(train)).long().tolist()
    return Generated([train.smiles(i) for i in rows], [None] * n)


def judged(made: Generated, data: Any, with_fcd: bool) -> dict[str, Any]:
    result = evaluate(made, data.split("train"), reference=data.split("test"), with_fcd=with_fcd)
    row = result.rows[0].to_json()
    failures = row.pop("failures")
    pieces = failures.get("fragments", 0)
    kept = ("n", "V_strict", "V_full", "V_valence", "VU", "VUN", "unique_of_valid", "novel_of_unique")
    return {
        **{name: row[name] for name in kept},
        "in_pieces": pieces / row["n"],
        "other_failures": (sum(failures.values()) - pieces) / row["n"],
        **{m.name: m.value for m in result.measures if m.name in _MEASURES},
        "floors": {m.name: m.floor for m in result.measures if m.name in _MEASURES},
    }


def table(found: dict[str, Any]) -> str:
    """Markdown: mean over seeds, ± the standard deviation where there are several."""
    columns = ["attempts x seeds", "V_strict %", "in pieces %", "V_full %", "unique %", "novel %"]
    columns += ["V·U %", "V·U·N %", "FCD", "NSPDK", "model, s", "RDKit, s"]
    lines = [f"| | {' | '.join(columns)} |", "| --- " * (1 + len(columns)) + "|"]
    keys = [tuple(row[name] for name in ("run", "sampling", "n")) for row in found["samples"]]
    for run, sampling, n in dict.fromkeys(keys):
        rows = [row for row, key in zip(found["samples"], keys, strict=True) if key == (run, sampling, n)]

        def cell(name: str, digits: int = 2, times: float = 1, rows: Iterable[Any] = rows) -> str:
            values = [times * row[name] for row in rows if row.get(name) is not None]
            return mean_of(values, digits) if values else ""

        cells = [
            *(cell(name, 2, 100) for name in ("V_strict", "in_pieces", "V_full")),
            *(cell(name, 2, 100) for name in ("unique_of_valid", "novel_of_unique", "VU", "VUN")),
            cell("FCD", 3),
            cell("NSPDK-MMD", 4),
            cell("model_seconds", 0),
            cell("reading_seconds", 1),
        ]
        title = f"{run}, {sampling.replace(',', ', ')}" if sampling else run
        lines.append(f"| {title} | {n:,} x {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
