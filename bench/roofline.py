"""The machine's ceilings: copies by size, matrix products by dtype, on the CPU and on CUDA where there is one.

python bench/roofline.py [--threads 1] [--json ceilings.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from _bench import copy_bandwidth, machine, matrix_peak

CPU_BYTES = [1 << 15, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 28]
CUDA_BYTES = [1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30, 1 << 33]


def measure(device: str, threads: int, rounds: int, small: bool) -> dict[str, object]:
    sizes = (CUDA_BYTES if device == "cuda" else CPU_BYTES)[: 2 if small else None]
    dtypes = [torch.float32, torch.float64, torch.bfloat16] if device == "cuda" else [torch.float32, torch.float64]
    result = machine(device, threads)
    result["copy_bytes_per_s"] = {str(size): copy_bandwidth(device, size, rounds) for size in sizes}
    result["matrix_flops_per_s"] = {
        str(dtype).removeprefix("torch."): matrix_peak(device, dtype, rounds, 256 if small else None)
        for dtype in dtypes
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="all", help="cpu, cuda or all (default)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--small", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if chosen.device != "all":
        devices = [chosen.device]
    results = [measure(device, chosen.threads, chosen.rounds, chosen.small) for device in devices]
    for result in results:
        print(f"{result['device']} ({result['kind']}, {chosen.threads} CPU thread(s), torch {result['torch']})")
        for size, rate in result["copy_bytes_per_s"].items():
            print(f"  copy moving {int(size) / 2**20:10.3f} MiB   {rate / 1e9:9.1f} GB/s")
        for dtype, rate in result["matrix_flops_per_s"].items():
            print(f"  matrix product {dtype:<10}      {rate / 1e9:9.1f} GFLOP/s")
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps({"benchmark": "roofline", "machines": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
