"""The noise contract in integer and float32 torch operations; the engine's kernels give the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def check(ptr: Tensor, features: int, seed: int, stream: int, step: int, graph_ids: Tensor | None) -> None:
    """Refuse numbers that the counter cannot hold."""
    for name, value, bits in (("seed", seed, 64), ("stream", stream, 16), ("step", step, 32)):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} = {value}: expected 0 <= {name} < 2^{bits}")
    if ptr.dim() != 1 or ptr.numel() == 0 or features < 0:
        raise ValueError(f"ptr must be [B + 1] and features >= 0, got {list(ptr.shape)} and {features}")
    if graph_ids is not None and graph_ids.shape != (ptr.numel() - 1,):
        raise ValueError(f"graph_ids: expected [{ptr.numel() - 1}], one per graph, got {list(graph_ids.shape)}")


def philox(counter: list[Tensor], seed: int) -> list[Tensor]:
    """Philox4x32-10 on four int64 tensors that hold 32-bit words."""
    keys = [seed & _MASK, seed >> 32]
    for _ in range(10):
        high0, low0 = _multiply_wide(counter[0], 0xD2511F53)
        high1, low1 = _multiply_wide(counter[2], 0xCD9E8D57)
        counter = [high1 ^ counter[1] ^ keys[0], low1, high0 ^ counter[3] ^ keys[1], low0]
        keys = [(keys[0] + 0x9E3779B9) & _MASK, (keys[1] + 0xBB67AE85) & _MASK]
    return counter


def _multiply_wide(words: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    # By 16-bit halves: a full product would not fit the sign bit of int64.
    low = words * (factor & 0xFFFF)
    middle = words * (factor >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def _words(
    ptr: Tensor,
    features: int,
    seed: int,
    stream: int,
    step: int,
    graph_ids: Tensor | None,
    symmetric: bool,
    per_block: int,
) -> tuple[list[Tensor], Tensor]:
    """The four words of every element's block, and the element's place in its block."""
    check(ptr, features, seed, stream, step, graph_ids)
    ptr = ptr.long()
    if int(ptr[0]) != 0 or bool((ptr.diff() < 0).any()):
        raise IndexError("ptr: must start at 0 and never fall")
    if graph_ids is not None and bool((graph_ids.long() >> 48 != 0).any()):
        raise ValueError("graph_ids: expected numbers in [0, 2^48)")
    ids = torch.arange(ptr.numel() - 1, device=ptr.device) if graph_ids is None else graph_ids.long()
    counts = ptr.diff() * features
    graph = ids.repeat_interleave(counts)
    first = (ptr[:-1] * features).repeat_interleave(counts)
    element = torch.arange(graph.numel(), device=ptr.device) - first
    if symmetric:
        element = _pair_number(element // max(features, 1), _sides(ptr).repeat_interleave(counts)) * features + (
            element % max(features, 1)
        )
    counter = [
        element // per_block,
        torch.full_like(graph, step),
        graph & _MASK,
        stream | (graph >> 32) << 16,
    ]
    return philox(counter, seed), element % per_block


def _sides(ptr: Tensor) -> Tensor:
    """The n of graphs that have n * n rows."""
    sides = ptr.diff().double().sqrt().round().long()
    if bool((sides * sides != ptr.diff()).any()):
        raise IndexError("ptr: the rows of a graph must be the pairs of its nodes, and their number a square")
    return sides


def _pair_number(row: Tensor, side: Tensor) -> Tensor:
    one, other = row // side, row % side
    high, low = torch.maximum(one, other), torch.minimum(one, other)
    return high * (high + 1) // 2 + low


def _pick(words: list[Tensor], which: Tensor) -> Tensor:
    return torch.stack(words).gather(0, which.unsqueeze(0)).squeeze(0)


def uniform(
    ptr: Tensor,
    features: int,
    seed: int,
    stream: int = 0,
    step: int = 0,
    graph_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    symmetric: bool = False,
) -> Tensor:
    """See :func:`graphgen.ops.uniform`."""
    words, place = _words(ptr, features, seed, stream, step, graph_ids, symmetric, 4)
    return ((_pick(words, place) >> 8).float() * 2.0**-24).view(int(ptr[-1]), features).to(dtype)


def rademacher(
    ptr: Tensor,
    features: int,
    seed: int,
    stream: int = 0,
    step: int = 0,
    graph_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    symmetric: bool = False,
) -> Tensor:
    """See :func:`graphgen.ops.rademacher`."""
    words, place = _words(ptr, features, seed, stream, step, graph_ids, symmetric, 128)
    bit = (_pick(words, place // 32) >> (place % 32)) & 1
    return (bit * 2 - 1).view(int(ptr[-1]), features).to(dtype)


def normal(
    ptr: Tensor,
    features: int,
    seed: int,
    stream: int = 0,
    step: int = 0,
    graph_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    symmetric: bool = False,
) -> Tensor:
    """See :func:`graphgen.ops.normal`."""
    words, place = _words(ptr, features, seed, stream, step, graph_ids, symmetric, 4)
    pairs = [*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])]
    return _pick(pairs, place).view(int(ptr[-1]), features).to(dtype)


def _horner(x: Tensor, coefficients: list[float]) -> Tensor:
    total = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def _log_unit(u: Tensor) -> Tensor:
    shifted = u.view(torch.int32).long() - 0x3F3504F3
    exponent = (shifted >> 23).float()
    x = ((shifted & 0x7FFFFF) + 0x3F3504F3).int().view(torch.float32) - 1.0
    z = x * x
    y = _horner(
        x,
        [
            7.0376836292e-2,
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        ],
    )
    y = y * x * z + exponent * -2.12194440e-4
    y = y + z * -0.5
    return x + y + exponent * 0.693359375


def _box_muller(word0: Tensor, word1: Tensor) -> tuple[Tensor, Tensor]:
    u = ((word0 >> 16).float() * 65536.0 + (word0 & 0xFFFF).float()) * 2.0**-32 + 2.0**-33
    # By way of float64, since torch's float32 root is not always the nearest.
    radius = (_log_unit(u) * -2.0).double().sqrt().float()
    quarter = ((word1 + 0x20000000) & _MASK) >> 30
    rest = (word1 - (quarter << 30)) & _MASK
    angle = (rest - ((rest >> 31) << 32)).float() * 1.4629180792671596e-9
    z = angle * angle
    sine = _horner(z, [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1]) * z * angle + angle
    cosine = _horner(z, [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2]) * z * z
    cosine = cosine - z * 0.5 + 1.0
    odd = (quarter & 1).bool()
    along, across = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    first = torch.where(((quarter + 1) & 2).bool(), -along, along)
    second = torch.where((quarter & 2).bool(), -across, across)
    return radius * first, radius * second
