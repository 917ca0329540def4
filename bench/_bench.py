"""The one timing helper: warm-up, interleaved rounds, medians, and how close to the machine's ceilings they are.

Candidates are timed side by side, one sample of each per round, so that whatever slows the machine down slows all of
them. A sample is as many calls as take about two milliseconds; the number reported is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

import graphgen
from graphgen import _C, GraphBatch

SAMPLE_SECONDS = 2e-3


@dataclass
class Case:
    """One thing to time in several ways, ours first.

    `bytes` counts every input read once and every output written once, `flops` the arithmetic; what they take at the
    measured ceilings is the floor. Leave both 0 where there is no honest count.
    """

    name: str
    shape: dict[str, int]
    candidates: dict[str, Callable[[], object]]
    bytes: int = 0
    flops: int = 0
    dtype: torch.dtype = torch.float32
    skipped: dict[str, str] = field(default_factory=dict)


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--rounds", type=int, default=31, help="samples of each candidate (default 31)")
    parser.add_argument("--seed", type=int, default=0, help="of the data (default 0)")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--json", type=Path, help="write the results here")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    if chosen.device == "cuda" and not _C.built_with_cuda():
        parser.error("--device cuda: this engine was built without CUDA")
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
    return chosen


class Timer:
    """Seconds per call of a function, with the device's own clock on CUDA."""

    def __init__(self, device: str) -> None:
        self.device = device

    def sample(self, call: Callable[[], object], calls: int) -> float:
        if self.device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(calls):
                call()
            end.record()
            torch.cuda.synchronize()
            return start.elapsed_time(end) / 1e3 / calls
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls

    def calls_per_sample(self, call: Callable[[], object]) -> int:
        for _ in range(3):
            call()
        return max(1, min(10_000, round(SAMPLE_SECONDS / max(self.sample(call, 1), 1e-7))))


def medians(candidates: dict[str, Callable[[], object]], device: str, rounds: int) -> dict[str, dict[str, float]]:
    """Per candidate the median and the quartiles of its seconds per call."""
    timer = Timer(device)
    calls = {name: timer.calls_per_sample(call) for name, call in candidates.items()}
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            samples[name].append(timer.sample(call, calls[name]))
    return {name: _summary(values) for name, values in samples.items()}


def _summary(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median_s": middle, "lower_quartile_s": low, "upper_quartile_s": high}


def copy_bandwidth(device: str, moved: int, rounds: int) -> float:
    """Bytes per second, read plus written, of a copy that moves this many bytes into memory already there."""
    source = torch.ones(max(moved // 8, 1024), dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    seconds = medians({"copy": lambda: target.copy_(source)}, device, rounds)["copy"]["median_s"]
    return 8 * source.numel() / seconds


def matrix_peak(device: str, dtype: torch.dtype, rounds: int, size: int | None = None) -> float:
    """Operations per second of the vendor's square matrix product."""
    size = size or (8192 if device == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    seconds = medians({"product": lambda: torch.mm(a, b, out=out)}, device, rounds)["product"]["median_s"]
    return 2 * size**3 / seconds


def machine(device: str, threads: int) -> dict[str, object]:
    """What the numbers were measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": name,
        "kind": device,
        "threads": threads if device == "cpu" else None,
        "instruction_set": _C.instruction_set(),
        "load": os.getloadavg()[0],
        "graphgen": graphgen.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def run(name: str, cases: list[Case], chosen: argparse.Namespace) -> None:
    """Time every case, print a table, write the JSON."""
    cases = [case for case in cases if chosen.only in case.name]
    about = machine(chosen.device, chosen.threads)
    print(f"{name}: {about['device']}, {_place(chosen)}, torch {about['torch']}, {chosen.rounds} rounds, medians")
    print(f"{'case':<44}{'ours':>10}  {'floor':>6}  others (time, times ours)")
    peaks: dict[torch.dtype, float] = {}
    rows = []
    for case in cases:
        times = medians(case.candidates, chosen.device, chosen.rounds)
        row = {"case": case.name, **case.shape, "dtype": str(case.dtype).removeprefix("torch."), "times": times}
        ours, *others = times
        base = times[ours]["median_s"]
        row["ratio"] = {other: times[other]["median_s"] / base for other in others}
        if case.bytes or case.flops:
            if case.flops and case.dtype not in peaks:
                peaks[case.dtype] = matrix_peak(chosen.device, case.dtype, min(chosen.rounds, 7))
            by_copy = case.bytes / copy_bandwidth(chosen.device, case.bytes, min(chosen.rounds, 11))
            by_sums = case.flops / peaks[case.dtype] if case.flops else 0.0
            row |= {"bytes": case.bytes, "flops": case.flops, "floor_s": max(by_copy, by_sums)}
            row |= {"bound": "bytes" if by_copy >= by_sums else "flops", "fraction_of_ceiling": row["floor_s"] / base}
        row["skipped"] = case.skipped
        rows.append(row)
        _print_row(case, row, base, others)
    for reason in sorted({f"{who}: {why}" for case in cases for who, why in case.skipped.items()}):
        print(f"skipped {reason}")
    if chosen.json:
        result = {"benchmark": name, **about, "rounds": chosen.rounds, "seed": chosen.seed, "cases": rows}
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")


def _place(chosen: argparse.Namespace) -> str:
    return "CUDA" if chosen.device == "cuda" else f"{chosen.threads} thread{'s' * (chosen.threads > 1)}"


def _print_row(case: Case, row: dict, base: float, others: list[str]) -> None:
    shape = " ".join(f"{key}={value}" for key, value in case.shape.items())
    floor = f"{row['fraction_of_ceiling']:>6.0%}" if "fraction_of_ceiling" in row else f"{'':>6}"
    times = {other: _time(row["times"][other]["median_s"]) for other in others}
    beside = "  ".join(f"{other} {times[other]} {row['ratio'][other]:.1f}x" for other in others)
    print(f"{case.name + ' ' + shape:<44}{_time(base):>10}  {floor}  {beside}", flush=True)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


# ---- data -----------------------------------------------------------------------------------------------------------

NODES, BONDS = 9, 10  # of a molecule the size of QM9's


def molecules(count: int, device: str) -> GraphBatch:
    """A batch of rings with a tail and a bridge: 9 atoms and 10 bonds each, both directions, three bond types."""
    ring = [(k, (k + 1) % 7) for k in range(7)]
    return _copies([*ring, (0, 7), (7, 8), (2, 5)], NODES, count, device)


LARGE_NODES = 38  # of the largest molecules of ZINC250k


def large_molecules(count: int, device: str) -> GraphBatch:
    """A batch of chains with a ring of six at every ninth atom: 38 atoms and 41 bonds each, otherwise as above."""
    chain = [(k, k + 1) for k in range(LARGE_NODES - 1)]
    return _copies([*chain, *((k, k + 5) for k in range(0, LARGE_NODES - 5, 9))], LARGE_NODES, count, device)


def _copies(pairs: list[tuple[int, int]], nodes: int, count: int, device: str) -> GraphBatch:
    bonds = torch.tensor(pairs).t()
    one = torch.cat([bonds, bonds.flip(0)], 1)
    shifts = nodes * torch.arange(count).repeat_interleave(one.shape[1])
    kind = torch.randint(0, 3, (len(pairs),)).repeat(2 * count)
    ptr = nodes * torch.arange(count + 1)
    graph = GraphBatch.from_edge_index(one.repeat(1, count) + shifts, nodes * count, ptr=ptr, edge_attr=kind)
    _ = graph.transpose  # made once per batch, like the batch itself
    return graph.to(device)


SIZES = [(1024, 64), (1024, 5), (1024, 128), (16, 64), (1, 64)]  # molecules, features


def torch_scatter():
    """The library, or why it is not here."""
    try:
        import torch_scatter as library
    except (ImportError, OSError) as error:
        return None, f"not installed ({error.__class__.__name__}); pip install graphgen[peers]"
    return library, ""
