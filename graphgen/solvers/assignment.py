"""The linear assignment problem, for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor


def assign(cost: Tensor) -> Tensor:
    """[B, n] int64: the column of each row, every column once, of the least total cost.

    Shortest augmenting paths with dual prices: rows enter one at a time, and each takes the cheapest way to a free
    column, all problems of the batch side by side. At most n^2 rounds of element-wise work on [B, n].

    Args:
        cost: [B, n, n], finite.

    Source: Kuhn 1955 (the Hungarian method); Jonker and Volgenant, Computing 38, 1987, for the augmenting paths.
    """
    many, n, _ = cost.shape
    cost = cost.detach().double()
    each = torch.arange(many, device=cost.device)
    # Column n stands for the row that enters; row n is what a free column holds.
    price_row, price_column = cost.new_zeros(many, n + 1), cost.new_zeros(many, n + 1)
    row_of = torch.full((many, n + 1), n, device=cost.device)
    for row in range(n):
        row_of[:, n] = row
        at, found = torch.full((many,), n, device=cost.device), torch.zeros(many, dtype=torch.bool, device=cost.device)
        distance = cost.new_full((many, n), torch.inf)
        came_from = torch.full((many, n), n, device=cost.device)
        passed = torch.zeros(many, n + 1, dtype=torch.bool, device=cost.device)
        while not bool(found.all()):
            passed[each, at] |= ~found
            here = row_of[each, at]
            reduced = cost[each, here.clamp(max=n - 1)] - price_row[each, here].unsqueeze(1) - price_column[:, :n]
            nearer = (reduced < distance) & ~passed[:, :n] & ~found.unsqueeze(1)
            distance = torch.where(nearer, reduced, distance)
            came_from = torch.where(nearer, at.unsqueeze(1), came_from)
            step, next_at = distance.masked_fill(passed[:, :n], torch.inf).min(1)
            step = torch.where(found, 0.0, step).unsqueeze(1)
            price_row.scatter_add_(1, row_of, torch.where(passed, step, 0.0))
            price_column -= torch.where(passed, step, 0.0)
            distance = torch.where(passed[:, :n], distance, distance - step)
            at = torch.where(found, at, next_at)
            found = row_of[each, at] == n
        for _ in range(row + 1):  # along the path, every column hands its row on
            moving = at < n
            before = torch.where(moving, came_from[each, at.clamp(max=n - 1)], n)
            row_of[each, at] = torch.where(moving, row_of[each, before], row_of[each, at])
            at = torch.where(moving, before, at)
    return row_of[:, :n].argsort(1)
