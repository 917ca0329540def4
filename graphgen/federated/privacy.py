"""An upload that says less about a client's examples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphgen import ops
from graphgen.federated.protocol import Message
from graphgen.federated.settings import Settings
from graphgen.ops.noise import Stream


def protected(
    answer: Mapping[str, Tensor], like: Mapping[str, Tensor], settings: Settings, who: int, round: int
) -> Message:
    """The answer with its difference from what was broadcast clipped, and Gaussian noise on it.

    The difference of all tensors, as one vector, is scaled down to norm ``clip``; then every number gets noise of
    standard deviation ``noise * clip``. One client's answer, whatever its examples, thereby moves by at most
    ``2 clip``, so this is the Gaussian mechanism for the client's whole data in every round (Dwork and Roth 2014,
    appendix A; McMahan et al. 2018).

    Args:
        like: of the same names and shapes; what the answer would be of a client that learnt nothing.
    """
    if not settings.clip:
        return dict(answer)
    change = torch.cat([(answer[name] - like[name]).flatten() for name in like])
    change = change * (settings.clip / change.norm().clamp(min=settings.clip))
    if settings.noise:
        ptr, ids = torch.tensor([0, change.numel()]), torch.tensor([who])
        draw = ops.normal(ptr, 1, settings.seed, Stream.UPLOAD, round, ids, change.dtype).squeeze(1)
        change = change + settings.noise * settings.clip * draw
    pieces = change.split([tensor.numel() for tensor in like.values()])
    return {name: tensor + piece.view_as(tensor) for (name, tensor), piece in zip(like.items(), pieces, strict=True)}
