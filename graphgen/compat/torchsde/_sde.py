"""What a solver needs of an SDE, from whichever of its methods the user wrote."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graphgen.compat.torchsde.settings import NOISE_TYPES, SDE_TYPES


class BaseSDE(abc.ABC, nn.Module):
    """A module that knows its ``noise_type`` and its ``sde_type``.

    Raises:
        ValueError: one of the two is unknown.
    """

    def __init__(self, noise_type, sde_type):
        super().__init__()
        for name, value, known in (("noise", noise_type, NOISE_TYPES), ("sde", sde_type, SDE_TYPES)):
            if value not in known:
                raise ValueError(f"{name} type: expected one of {known}, got {value!r}")
        self.noise_type, self.sde_type = noise_type, sde_type


class SDEIto(BaseSDE):
    """dy = f(t, y) dt + g(t, y) dW in the sense of Ito."""

    def __init__(self, noise_type):
        super().__init__(noise_type, SDE_TYPES.ito)


class SDEStratonovich(BaseSDE):
    """dy = f(t, y) dt + g(t, y) o dW in the sense of Stratonovich."""

    def __init__(self, noise_type):
        super().__init__(noise_type, SDE_TYPES.stratonovich)


# What a user may write, by torchsde's names, and the keys of `names=`.
PARTS = {
    "f": "drift",
    "g": "diffusion",
    "h": "prior_drift",
    "g_prod": "diffusion_prod",
    "f_and_g": "drift_and_diffusion",
    "f_and_g_prod": "drift_and_diffusion_prod",
}
_RENAMED = ("drift", "diffusion", "prior_drift", "drift_and_diffusion", "drift_and_diffusion_prod")
Part = Callable[..., Any]


def parts_of(sde: Any, names: dict[str, str] | None) -> dict[str, Part]:
    """The methods that are there."""
    chosen = {key: names[key] for key in _RENAMED if key in names} if names else {}
    found = {part: getattr(sde, chosen.get(role, part), None) for part, role in PARTS.items()}
    return {part: method for part, method in found.items() if method is not None}


def product(noise_type: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The diffusion times a vector."""
    if noise_type == NOISE_TYPES.diagonal:
        return torch.mul
    return lambda g, v: torch.bmm(g, v.unsqueeze(-1)).squeeze(-1)


class Problem:
    """An SDE with every part a solver asks for; RuntimeError from those that cannot be had."""

    def __init__(self, parts: dict[str, Part], noise_type: str, sde_type: str) -> None:
        self.noise_type, self.sde_type = noise_type, sde_type
        self.prod = product(noise_type)
        self.f: Part = parts.get("f", _lacking("f"))
        self.g: Part = parts.get("g", _lacking("g"))
        self.f_and_g: Part = parts.get("f_and_g", lambda t, y: (self.f(t, y), self.g(t, y)))
        self.g_prod: Part = parts.get("g_prod", lambda t, y, v: self.prod(self.g(t, y), v))
        self.f_and_g_prod: Part = parts.get(
            "f_and_g_prod", self._separate if "f" in parts and "g_prod" in parts else self._together
        )
        # Whether drift and diffusion may be had apart, so that their product with noise can be left to a fused step.
        self.is_plain = "f_and_g_prod" not in parts and ("f_and_g" in parts or {"f", "g"} <= parts.keys())
        self.is_plain = self.is_plain and "g_prod" not in parts

    def _separate(self, t: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.f(t, y), self.g_prod(t, y, v)

    def _together(self, t: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        f, g = self.f_and_g(t, y)
        return f, self.prod(g, v)

    def squeezed(self, g: Tensor) -> Tensor:
        """A diffusion that multiplies noise of one number or of as many as the state has: [B, d]."""
        return g.squeeze(2) if g.dim() == 3 else g

    def along_itself(self, t: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor | float]:
        """g, and its derivative along itself times v: sum over j, l of g_jl dg_jl / dy_i v_l."""
        higher = torch.is_grad_enabled()
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            g = self.g(t, y)
            weight = g * (v if g.dim() == 2 else v.unsqueeze(-2))
            slope = _vjp(g, y, weight, higher)
        return g, 0.0 if slope is None else slope

    def along_area(self, t: Tensor, y: Tensor, area: Tensor) -> Tensor | float:
        """sum over j, k, l of dg_il / dy_j g_jk area_kl, of general noise; other noise commutes."""
        if self.noise_type != NOISE_TYPES.general:
            return 0.0
        higher = torch.is_grad_enabled()
        total: Tensor | float = 0.0
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            g = self.g(t, y)
            columns = torch.bmm(g, area).unbind(-1)
            for column, tangent in zip(g.unbind(-1), columns, strict=True):
                # A product with the Jacobian is the derivative of one with its transpose, which is linear in `dual`.
                dual = torch.zeros_like(column, requires_grad=True)
                pulled = _vjp(column, y, dual, True)
                pushed = None if pulled is None else _vjp(pulled, dual, tangent, higher)
                total = total if pushed is None else total + pushed
        return total


def _vjp(of: Tensor, by: Tensor, weight: Tensor, higher: bool) -> Tensor | None:
    if not of.requires_grad:
        return None
    return torch.autograd.grad(of, by, weight, retain_graph=True, create_graph=higher, allow_unused=True)[0]


def _lacking(name: str) -> Part:
    def lacking(*_: Any) -> Tensor:
        raise RuntimeError(f"this method needs the SDE's {name!r}, which it does not have")

    return lacking


def with_log_ratio(parts: dict[str, Part], noise_type: str) -> dict[str, Part]:
    """The SDE with one more coordinate, half the squared size of (f - h) / g added up: log q / p of path measures.

    Raises:
        AttributeError: f, g and h must all be there.
    """
    missing = {"f", "g", "h"} - parts.keys()
    if missing:
        raise AttributeError(f"logqp=True needs drift, diffusion and prior drift; there is no {sorted(missing)}")
    f_of, g_of, h_of = parts["f"], parts["g"], parts["h"]
    diagonal = noise_type == NOISE_TYPES.diagonal

    def f_and_g(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        y = y[:, :-1]
        f, g, h = f_of(t, y), g_of(t, y), h_of(t, y)
        if diagonal:
            # A diffusion this small divides as if it were no smaller.
            tiny = 1e-7
            u = (f - h) / torch.where(g.abs().detach() > tiny, g, tiny * g.sign())
        else:
            u = torch.bmm(g.pinverse(), (f - h).unsqueeze(-1)).squeeze(-1)
        return torch.cat([f, 0.5 * u.square().sum(1, keepdim=True)], 1), still(y, g)

    def still(y: Tensor, g: Tensor) -> Tensor:
        """No noise on the last coordinate."""
        return torch.cat([g, g.new_zeros((y.shape[0], 1) if diagonal else (y.shape[0], 1, g.shape[2]))], 1)

    return {
        "f": lambda t, y: f_and_g(t, y)[0],
        "g": lambda t, y: still(y, g_of(t, y[:, :-1])),
        "f_and_g": f_and_g,
    }
