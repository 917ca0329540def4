"""Shifts that make another domain of grey images [N, side, side], 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from graphgen import ops
from graphgen.ops.noise import Stream


def inversion(images: Tensor, seed: int) -> Tensor:
    """Black for white."""
    return 1 - images


def noise(images: Tensor, seed: int) -> Tensor:
    """Gaussian noise of standard deviation 0.4 on every pixel, clipped to 0 to 1."""
    flat = images.flatten(1)
    drawn = ops.normal(torch.tensor([0, len(flat)]), flat.shape[1], seed, Stream.SHIFT)
    return (images + 0.4 * drawn.view_as(images)).clamp(0, 1)


def blur(images: Tensor, seed: int) -> Tensor:
    """A Gaussian of standard deviation an eighth of the side."""
    sigma = images.shape[1] / 8
    reach = math.ceil(2 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = line / line.sum()
    padded = functional.pad(images.unsqueeze(1), (reach,) * 4)
    return functional.conv2d(padded, (line[:, None] * line)[None, None]).squeeze(1)


def rotation(images: Tensor, seed: int) -> Tensor:
    """By 35 degrees, bilinear."""
    angle = math.radians(35)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    size = [len(images), 1, *images.shape[1:]]
    places = functional.affine_grid(turn.expand(len(images), 2, 3), size, align_corners=False)
    return functional.grid_sample(images.unsqueeze(1), places, align_corners=False).squeeze(1)


def contrast(images: Tensor, seed: int) -> Tensor:
    """Three tenths of it, about middle grey."""
    return 0.5 + 0.3 * (images - 0.5)


SHIFTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    shift.__name__: shift for shift in (contrast, blur, noise, rotation, inversion)
}
