"""The way from tensors to the engine: addresses, codes and status."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphgen import _C

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
INDICES = {torch.int32: 0, torch.int64: 1}
ROWS = {**DTYPES, torch.int32: 3, torch.int64: 4}  # what the ops on rows take
REDUCES = {"sum": 0, "mean": 1}
ROW_REDUCES = {**REDUCES, "max": 2, "min": 3, "mul": 4}
ACTIVATIONS = {"silu": 0, "tanh": 1, "relu": 2, "softplus": 3}
DISTRIBUTIONS = {"uniform": 0, "normal": 1, "rademacher": 2}


def _lend_torch_threads() -> None:
    """Let the engine run on the threads torch already has; where that is not GNU OpenMP it keeps its own."""
    if sys.platform != "linux":
        return
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        loaded = {line.split(maxsplit=5)[-1].strip() for line in maps if "libgomp" in line}
    folder = os.path.dirname(torch.__file__)
    # Other packages may have brought a team of their own: torch's is beside torch, or the only one there is.
    mine = [path for path in loaded if path.startswith(folder)] or list(loaded)
    if len(mine) == 1:
        team = ctypes.CDLL(mine[0]).GOMP_parallel
        _C.lend_openmp(ctypes.cast(team, ctypes.c_void_p).value or 0)


_lend_torch_threads()

_ERRORS = {1: ValueError, 2: IndexError}
_CUDA = _C.built_with_cuda()


def runs(tensor: Tensor) -> bool:
    """Whether the engine has a kernel for this tensor; the reference implementation serves the others."""
    kind = tensor.device.type
    return (kind == "cpu" or (kind == "cuda" and _CUDA)) and tensor.dtype in DTYPES


def runs_rows(tensor: Tensor) -> bool:
    """The same for the ops on rows, which take integers too."""
    return (tensor.is_cpu or (tensor.is_cuda and _CUDA)) and tensor.dtype in ROWS


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _cuda_place(tensor: Tensor) -> tuple[int, int, int]:
    """(device, threads, stream), which every engine call takes last."""
    return 1, 0, torch.cuda.current_stream(tensor.device).cuda_stream


def call(function: Callable[..., int], on: Tensor, *arguments: Any) -> None:
    """Run one engine function where `on` lives; a failure becomes the Python error it is."""
    if not on.is_cuda:
        status = function(*arguments, 0, torch.get_num_threads(), 0)
    elif on.device.index == torch.cuda.current_device():
        status = function(*arguments, *_cuda_place(on))
    else:
        with torch.cuda.device(on.device):
            status = function(*arguments, *_cuda_place(on))
    if status:
        check(status)


def check(status: int) -> None:
    """Turn what an engine call returned into the Python error it is."""
    if status:
        raise _ERRORS.get(status, RuntimeError)(_C.message())
