"""The CUDA kernels, as far as a compiler alone can judge them: no warning, no spill, no local stack.

Needs nvcc and no GPU; the numbers are checked in tests/ops wherever there is one. CUDAARCHS chooses the
architectures, as it does for the build: "80", "90" or "80;90", which is the default.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
KERNELS = sorted(CSRC.rglob("*.cu"))
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".cu", ".cuh", ".cpp", ".h"})
# Without contraction, so that the noise has the bits of the CPU's, and a step that is made of it.
STEPPING = ("affine_noise_step.cu", "noise_dot.cu", "embedded_step.cu", "step_control.cu")
OWN_FLAGS = {source: ["--fmad=false"] for source in ("noise.cu", "brownian.cu", "graph_dot.cu", *STEPPING)}

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")


def architectures() -> list[str]:
    return re.findall(r"\d+", os.environ.get("CUDAARCHS", "80;90"))


def compile_kernel(source: Path, architecture: str, folder: Path) -> subprocess.CompletedProcess:
    flags = ["-std=c++17", "-O3", "-Xptxas=-v", "-Werror=all-warnings", "-Xcompiler=-fPIC,-Wall,-Wextra"]
    flags += OWN_FLAGS.get(source.name, [])
    target = folder / f"{source.stem}.{architecture}.o"
    command = ["nvcc", *flags, f"-arch=sm_{architecture}", "-c", str(source), "-o", str(target)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What the compiler said of every kernel file on every architecture, compiled two at a time."""
    folder = tmp_path_factory.mktemp("cuda")
    jobs = [(source, architecture) for source in KERNELS for architecture in architectures()]
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda job: compile_kernel(*job, folder), jobs)
        return {(source.name, architecture): result for (source, architecture), result in zip(jobs, done, strict=True)}


@needs_nvcc
@pytest.mark.parametrize("architecture", architectures())
@pytest.mark.parametrize("source", [path.name for path in KERNELS])
def test_compiles_without_warning_spill_or_stack(reports, source, architecture):
    result = reports[source, architecture]
    assert result.returncode == 0, result.stdout
    assert "warning" not in result.stdout.lower(), result.stdout
    kernels = result.stdout.count("Compiling entry function")
    properties = re.findall(r"\d+ bytes stack frame.*", result.stdout)
    assert kernels > 0 and len(properties) >= kernels, "no ptxas report"
    unclean = {line for line in properties if re.findall(r"\d+", line) != ["0", "0", "0"]}
    assert not unclean, result.stdout


def test_the_build_knows_every_kernel_and_its_flags():
    lists = (ROOT / "CMakeLists.txt").read_text()
    for source in KERNELS:
        assert str(source.relative_to(ROOT)) in lists
        for flag in OWN_FLAGS.get(source.name, []):
            assert re.search(rf"{re.escape(source.name)}[^)]*{re.escape(flag)}", lists)


def test_grid_sizes_are_computed_in_one_place():
    launching = [path.name for path in SOURCES if "<<<" in path.read_text()]
    assert launching == ["launch.cuh"]


def test_no_sum_depends_on_the_order_of_threads():
    # Counts are whole numbers, the same in any order.
    calls = [call for path in SOURCES for call in re.findall(r"\batomic\w*\(.*", path.read_text())]
    assert [call for call in calls if not re.fullmatch(r"atomicAdd\([^;]*, 1ull\);", call)] == []


def test_the_core_includes_no_torch():
    assert [path.name for path in SOURCES if re.search(r"#include\s*[<\"](torch|ATen|c10)/", path.read_text())] == []
