"""How an op with a kernel for its value and one for its gradient becomes one that autograd can differentiate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphgen.ops import _native
from graphgen.ops._op import differentiates, transforming

Values = tuple[Tensor, ...]


class KernelOp:
    """A function of tensors, whose last arguments are no tensors and have no derivative.

    A second derivative, a transform of torch.func, a compiler and a dtype without a kernel get the reference, which
    plain autograd differentiates.

    Args:
        reference: the same in plain torch.
        forward: ``(*tensors, *rest) -> values``.
        pull: ``(tensors, rest, gradients of the values) -> gradients``; None leaves derivatives to the reference.
        tensors: how many of the arguments are tensors, or None in their place.
    """

    def __init__(
        self,
        reference: Callable[..., Any],
        forward: Callable[..., Values],
        pull: Callable[[tuple[Any, ...], tuple[Any, ...], Values], tuple[Tensor | None, ...]] | None,
        tensors: int,
    ) -> None:
        self.reference, self.forward, self.tensors = reference, forward, tensors
        self.function = None if pull is None else _make_function(self, pull)

    def __call__(self, *args: Any) -> Values:
        first = args[0]
        if not _has_kernel(first) or torch.compiler.is_compiling() or transforming():
            return _as_tuple(self.reference(*args))
        if differentiates(*args[: self.tensors]):
            return _as_tuple(self.reference(*args)) if self.function is None else self.function.apply(*args)
        return self.forward(*map(_contiguous, args[: self.tensors]), *args[self.tensors :])

    def differentiable_pull(self, args: tuple[Any, ...], grads: Values, needs: tuple[bool, ...]) -> Any:
        """The gradients as a function that autograd can go through again."""
        wanted = [args[k] for k in range(self.tensors) if needs[k]]
        with torch.enable_grad():
            values = _as_tuple(self.reference(*args))
            found = iter(torch.autograd.grad(values, wanted, grads, create_graph=True, allow_unused=True))
        return tuple(next(found) if needed else None for needed in needs)


def _has_kernel(x: Tensor) -> bool:
    return _native.runs(x) and not (x.is_cpu and x.dtype == torch.bfloat16)


def _as_tuple(values: Any) -> Values:
    return values if isinstance(values, tuple) else (values,)


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().contiguous()


def _make_function(op: KernelOp, pull: Callable[..., tuple[Tensor | None, ...]]) -> Any:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Values:
            ctx.save_for_backward(*args[: op.tensors])
            ctx.rest = args[op.tensors :]
            return op.forward(*map(_contiguous, args[: op.tensors]), *ctx.rest)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            args, needs = ctx.saved_tensors, ctx.needs_input_grad
            if torch.is_grad_enabled():
                return op.differentiable_pull((*args, *ctx.rest), grads, needs)
            found = pull(tuple(map(_contiguous, args)), ctx.rest, tuple(grad.contiguous() for grad in grads))
            return *found, *(None for _ in ctx.rest)

    return Function
