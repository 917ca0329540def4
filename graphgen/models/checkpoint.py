"""Models on disk: safetensors for the numbers, JSON for everything else, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write

LOG = "training.json"
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
FORMAT = 1


def write(folder: str | os.PathLike[str], description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write a model to a folder. The description goes last, so a folder that has one is complete."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    save_tensors(path / WEIGHTS, weights)
    write_json(path / DESCRIPTION, {"format": FORMAT, **description})


def read(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the weights in a folder.

    Raises:
        GraphgenError: no model there, or files that are damaged or of a newer format.
    """
    path = Path(folder)
    if not (path / DESCRIPTION).is_file():
        raise GraphgenError(f"{path}: {_why_no_model(path)}")
    description = read_json(path / DESCRIPTION)
    if description.get("format") != FORMAT:
        raise GraphgenError(
            f"{path / DESCRIPTION}: format {description.get('format')!r}, this version reads {FORMAT}; update graphgen"
        )
    return description, read_tensors(path / WEIGHTS)


def _why_no_model(path: Path) -> str:
    if not path.exists():
        return "no such folder; give one that `graphgen train` wrote"
    if not path.is_dir():
        return "is a file; give the folder that holds the model"
    if (path / WEIGHTS).exists() or not any(path.iterdir()):
        return f"holds no finished model ({DESCRIPTION} is missing): training ended before its first epoch; train again"
    return f"no model here ({DESCRIPTION} is missing); give a folder that `graphgen train` wrote"


def read_log(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The training log in a folder; empty if there is none.

    Raises:
        GraphgenError: it is damaged.
    """
    path = Path(folder) / LOG
    return read_json(path) if path.exists() else {}


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_write(path) as temporary:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that :func:`save_tensors` wrote.

    Raises:
        GraphgenError: a missing or damaged file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise GraphgenError(
            f"{path}: cannot be read ({error}); the checkpoint is damaged, train or copy it again"
        ) from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        GraphgenError: a missing or damaged file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GraphgenError(
            f"{path}: cannot be read ({error}); the checkpoint is damaged, train or copy it again"
        ) from None
    if not isinstance(content, dict):
        raise GraphgenError(f"{path}: not a JSON object; the checkpoint is damaged, train or copy it again")
    return content
