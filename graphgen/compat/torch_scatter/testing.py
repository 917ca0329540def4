"""torch_scatter.testing: what its tests run over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

reductions = ["sum", "add", "mean", "min", "max"]
dtypes = [torch.half, torch.bfloat16, torch.float, torch.double, torch.int, torch.long]
grad_dtypes = [torch.float, torch.double]
devices = [torch.device("cpu"), *([torch.device("cuda:0")] if torch.cuda.is_available() else [])]


def tensor(x: Any, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    return None if x is None else torch.tensor(x, device=device).to(dtype)
