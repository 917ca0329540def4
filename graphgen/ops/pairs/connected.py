"""Which atoms hang together."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.ops.pairs.layout import Pairs


def pair_connected(bonded: Tensor, pairs: Pairs) -> Tensor:
    """Whether a way along bonds leads from the one atom of a pair to the other.

    Args:
        bonded: [T] bool, which pairs are bonded.
        pairs: which atoms they are.

    Returns:
        [T] bool.

    Raises:
        ValueError: another number of pairs.
    """
    if bonded.shape != (len(pairs.first),):
        raise ValueError(
            f"pair_connected: expected a truth for each of {len(pairs.first)} pairs, got {list(bonded.shape)}"
        )
    (count, most), _, upper, lower, _ = pairs.padded
    # A float32 product of zeros and ones counts ways exactly, and torch has none of truths.
    reached = torch.eye(most, device=bonded.device).repeat(count, 1, 1).view(-1)
    known = bonded.repeat(2).float()
    reached = reached.index_copy(0, torch.cat((upper, lower)), known).view(count, most, most)
    length = 1
    while length < most - 1:
        reached, length = (reached @ reached).clamp(max=1), 2 * length
    return reached.view(-1)[upper] > 0
