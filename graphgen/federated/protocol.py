"""What crosses the boundary between server and client: tensors of these names, and nothing else.

    broadcast     extractor.*  statistics.*  global.*  start.*  mixture.*
    upload        local.*  mixture.*
    introduction  mixture.*                                            of a client that joins late

``extractor`` is G, ``statistics`` the source's means and variances for its layers, ``global`` F_g, ``start`` what the
local classifier starts as, ``local`` F_l; ``mixture`` is the source's in a broadcast and the client's in an upload.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Message = dict[str, Tensor]

BROADCAST = ("extractor", "statistics", "global", "start", "mixture")
UPLOAD = ("local", "mixture")
INTRODUCTION = ("mixture",)


class NoAnswer(Exception):
    """A client left before its upload was there."""


def pack(**parts: Mapping[str, Tensor]) -> Message:
    """A message of named parts, each of named tensors."""
    return {f"{part}.{name}": tensor.detach() for part, tensors in parts.items() for name, tensor in tensors.items()}


def part(message: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one part, by their names within it."""
    start = f"{name}."
    return {key.removeprefix(start): tensor for key, tensor in message.items() if key.startswith(start)}


def expected(broadcast: Mapping[str, Tensor], parts: tuple[str, ...] = UPLOAD) -> Message:
    """What the answer to a broadcast differs from in values alone: its names, shapes and dtypes."""
    sources = {"local": "start", "mixture": "mixture"}
    return pack(**{name: part(broadcast, sources[name]) for name in parts})


def objection(answer: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> str | None:
    """Why a client's answer cannot be used, or None."""
    if missing := like.keys() - answer.keys():
        return f"lacks {min(missing)}"
    if unknown := answer.keys() - like.keys():
        return f"holds {min(unknown)}, which is not in the protocol"
    for name, tensor in like.items():
        found = answer[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            return f"{name} is {found.dtype} {list(found.shape)}, not {tensor.dtype} {list(tensor.shape)}"
        if not bool(torch.isfinite(found).all()):
            return f"{name} holds numbers that are not finite"
    return None


def size(message: Mapping[str, Tensor]) -> int:
    """Bytes of its tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in message.values())
