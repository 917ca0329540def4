"""torchsde.types: the names it gives to what functions take and return."""

from collections.abc import Callable, Sequence
from typing import Any, Dict, Optional, Tuple, Union  # noqa: UP035  (users import them from here)

import torch

Tensor = torch.Tensor
Tensors = Sequence[Tensor]
TensorOrTensors = Tensor | Tensors
Scalar = float | Tensor
Vector = Sequence[float] | Tensor
Module = torch.nn.Module
Modules = Sequence[Module]
ModuleOrModules = Module | Modules
Size = torch.Size
Sizes = Sequence[Size]

__all__ = [
    "Any",
    "Callable",
    "Dict",
    "Module",
    "ModuleOrModules",
    "Modules",
    "Optional",
    "Scalar",
    "Sequence",
    "Size",
    "Sizes",
    "Tensor",
    "TensorOrTensors",
    "Tensors",
    "Tuple",
    "Union",
    "Vector",
]
