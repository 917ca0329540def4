"""One differentiable kernel, in the three faces torch needs.

* A direct call when nothing is traced or differentiated: a microsecond or two of host time.
* An ``autograd.Function`` with jvp and vmap rules for autograd, gradgrad and torch.func.
* A registered op for torch.compile, which refuses a Function that has a jvp rule as soon as a gradient is needed.

Rules are written in terms of other ops, so every derivative is again one of our kernels. Double backward inside
torch.compile does not exist in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforming
from torch._C._functorch import is_legacy_batchedtensor as _is_grad_batch
from torch._C._functorch import unwrap_if_dead as _unwrap
from torch.autograd import forward_ad

_LIBRARY = torch.library.Library("graphgen", "DEF")


class _Fusing:
    """Whether ops push values and tangents forward together, which is cheaper.

    The results then remember their values' past and not their tangents': a backward pass from here would lose these.
    It is noticed, and :func:`push_forward` goes the slower way that torch provides.
    """

    active = False
    spoiled = False


_fusing = _Fusing()


def push_forward(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and its derivative along v, both differentiable."""
    if transforming():
        value, tangent, *_ = torch.func.jvp(f, (x,), (v,))
        return value, tangent
    value, tangent = _push_forward(f, x, v, fused=True)
    if _fusing.spoiled:
        value, tangent = _push_forward(f, x, v, fused=False)
    return value, torch.zeros_like(value) if tangent is None else tangent


def _push_forward(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor, fused: bool) -> tuple[Tensor, Tensor | None]:
    # By dual tensors, which cost a tenth of torch.func's host time per op.
    _fusing.active, _fusing.spoiled = fused, False
    try:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(x, v)))
    finally:
        _fusing.active = False


class Op:
    """A kernel with its derivative rules.

    Args:
        name: name in the torch library, ``graphgen::name``.
        schema: torch schema of arguments and result.
        kernel: ``kernel(*args) -> Tensor`` on plain tensors, or a tuple of them.
        fake: the same without data, for tracing.
        vjp: ``vjp(args, grad, needs) -> one gradient or None per argument``. Of several results, grad is the tuple
            of their gradients, None where a result has none.
        jvp: ``jvp(args, tangents) -> Tensor`` or tuple; a tangent is None where an argument (a result) has none.
        vmap: ``vmap(args, in_dims, batch_size) -> (Tensor, out_dim)``, or a tuple of each.
        push: ``push(args, tangents) -> (result, tangent)`` where both together cost less than the op and its jvp.
        keeps_result: hand vjp and jvp the results too, behind the arguments.
        chooses: the last argument lists which of the schema's results a call gives.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        kernel: Callable[..., Any],
        fake: Callable[..., Any],
        vjp: Callable[..., tuple[Tensor | None, ...]],
        jvp: Callable[..., Any],
        vmap: Callable[..., tuple[Any, Any]],
        push: Callable[..., tuple[Any, Any]] | None = None,
        keeps_result: bool = False,
        chooses: bool = False,
    ) -> None:
        # Numbers come first; the indices behind them are neither traced nor differentiated, and need not be looked at.
        self.numbers = numbers = _leading_numbers(schema)
        self.direct = kernel
        self.kernel = lambda *args: kernel(*map(_materialised, args[:numbers]), *args[numbers:])
        self.vjp, self.jvp, self.vmap, self.push = vjp, jvp, vmap, push or self._push
        self.keeps_result, self.chooses = keeps_result, chooses
        self.has_many = schema.rpartition("->")[2].strip() != "Tensor"
        self.function = _make_function(self)
        # Without the search for default arguments that torch adds where setup_context is defined: 15 us a call.
        self.recorded = super(torch.autograd.Function, self.function).apply  # type: ignore[misc]
        self.registered = _register(self, name, schema, fake)

    def __call__(self, *args: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.registered(*args)
        if transforming():
            traced = any(isinstance(argument, Tensor) and is_traced(argument) for argument in args)
            return self.registered(*args) if traced else self.function.apply(*args)
        if _fusing.active:
            primals, tangents = zip(*map(_unpacked, args), strict=True)
            if any(tangent is not None for tangent in tangents):
                return _packed(*self.push(primals, tangents))
        # One pass over the arguments: this is much of what a call on a small molecule costs.
        tracked, differentiable, ready = torch.is_grad_enabled(), forward_ad._current_level >= 0, True
        for argument in args[: self.numbers or None]:
            if isinstance(argument, Tensor):
                if is_traced(argument):
                    return self.registered(*args)
                differentiable = differentiable or (tracked and argument.requires_grad)
                ready = ready and not (argument._is_zerotensor() or argument.is_neg())
        if differentiable:
            return self.recorded(*args)
        return self.direct(*args) if ready else self.kernel(*args)

    def _push(self, args: tuple[Any, ...], tangents: tuple[Tensor | None, ...]) -> tuple[Any, Any]:
        result = self(*args)
        kept: tuple[Any, ...] = ()
        if self.keeps_result:
            kept = result if self.has_many else (result,)
        return result, self.jvp((*args, *kept), (*tangents, *(None for _ in kept)))


def _unpacked(argument: Any) -> tuple[Any, Tensor | None]:
    """An argument's value and tangent."""
    if isinstance(argument, Tensor) and argument.is_floating_point():
        return forward_ad.unpack_dual(argument)
    return argument, None


def _packed(result: Any, tangent: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(map(_packed, result, tangent))
    return result if tangent is None else forward_ad.make_dual(result, tangent)


def _materialised(argument: Any) -> Any:
    """Autograd's symbolic zeros have no memory, and a lazily negated view has that of the other sign."""
    if isinstance(argument, Tensor):
        if argument._is_zerotensor():
            return torch.zeros(argument.shape, dtype=argument.dtype, device=argument.device)
        if argument.is_neg():
            return argument.resolve_neg()
    return argument


def is_traced(argument: Any) -> bool:
    kind = type(argument)
    if kind is Tensor:
        return _is_grad_batch(argument)  # of torch.autograd.grad(is_grads_batched=True), which only ops can see into
    return isinstance(argument, Tensor) and kind is not torch.nn.Parameter


def differentiates(*args: Any) -> bool:
    """Whether a derivative of a call with these arguments may be asked for."""
    if torch.compiler.is_compiling() or transforming() or forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(
        isinstance(argument, Tensor) and (argument.requires_grad or is_traced(argument)) for argument in args
    )


def eager(*tensors: Tensor | None) -> bool:
    """Whether nothing is traced or differentiated: then ``Op.direct`` may be called at once.

    This, the allocation of the result and the engine's call are all a call on a small molecule should cost.
    """
    if torch.compiler.is_compiling() or transforming() or forward_ad._current_level >= 0:
        return False
    tracked = torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is not None and (
            (tracked and tensor.requires_grad)
            or (type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter)
            or _is_grad_batch(tensor)
            or tensor._is_zerotensor()
            or tensor.is_neg()
        ):
            return False
    return True


# Arguments that are indices, by their names in the schemas.
_INDICES = {"ptr", "rowptr", "neighbor", "index", "arg", "order"}


def _leading_numbers(schema: str) -> int:
    parameters = [parameter.split() for parameter in schema[1 : schema.index(")")].split(",")]
    is_number = [kind in ("Tensor", "Tensor?") and name not in _INDICES for kind, name, *_ in parameters]
    return (*is_number, False).index(False)


def _results(op: Op, output: Any) -> tuple[Tensor, ...]:
    """Those that are kept."""
    if not op.keeps_result:
        return ()
    return output if op.has_many else (output,)


def _saved(ctx: Any) -> tuple[Any, ...]:
    """Arguments, then results kept. A pullback of torch.func.vjp outlives its transform, whose wrappers are empty."""
    count, rest = ctx.rest
    tensors = [None if tensor is None else _unwrap(tensor) for tensor in ctx.saved_tensors]
    return (*tensors[:count], *(_unwrap(a) if isinstance(a, Tensor) else a for a in rest), *tensors[count:])


def _make_function(op: Op) -> Any:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> Any:
            return op.kernel(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            # Numbers go where autograd watches over them; indices have no past.
            kept = (*inputs[: op.numbers], *_results(op, output))
            ctx.save_for_backward(*kept)
            ctx.save_for_forward(*kept)
            ctx.rest = op.numbers, inputs[op.numbers :]
            if op.has_many:
                ctx.set_materialize_grads(False)
                ctx.mark_non_differentiable(*(part for part in output if not part.dtype.is_floating_point))

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
            _fusing.spoiled = True
            return op.vjp(_saved(ctx), grads if op.has_many else grads[0], ctx.needs_input_grad)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            tangents = tuple(tangent if isinstance(tangent, Tensor) else None for tangent in tangents)
            return op.jvp(_saved(ctx), tangents)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
            # A batch of no elements cannot be folded and unfolded: nothing would tell the widths.
            rule = op.vmap if info.batch_size else partial(loop_batch, op)
            return rule(args, in_dims, info.batch_size)

    return Function


def _register(op: Op, name: str, schema: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    in_schema = _all_results(schema.rpartition("->")[2].count("Tensor")) if op.chooses else lambda function: function
    _LIBRARY.impl(name, in_schema(op.kernel), "CompositeExplicitAutograd")
    torch.library.register_fake(f"graphgen::{name}", in_schema(fake), lib=_LIBRARY)

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        _fusing.spoiled = True
        tensors = iter(ctx.saved_tensors)
        args = tuple(next(tensors) if rest is None else rest[0] for rest in ctx.rest)
        chosen = tuple(grads[k] for k in args[-1]) if op.chooses else grads
        return op.vjp(args, chosen if op.has_many else grads[0], ctx.needs_input_grad)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        kept = (*inputs, *_results(op, output))
        ctx.save_for_backward(*(argument for argument in kept if isinstance(argument, Tensor)))
        ctx.rest = [None if isinstance(argument, Tensor) else (argument,) for argument in kept]

    torch.library.register_autograd(f"graphgen::{name}", backward, setup_context=setup_context, lib=_LIBRARY)
    registered = getattr(torch.ops.graphgen, name).default
    if not op.chooses:
        return registered

    def call(*args: Any) -> tuple[Tensor, ...]:
        results = registered(*args)
        return (results,) if isinstance(results, Tensor) else tuple(results[k] for k in args[-1])

    return call


def _all_results(count: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A schema has a fixed number of results; those that were not chosen are empty."""

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        def results(*args: Any) -> Any:
            chosen = dict(zip(args[-1], function(*args), strict=True))
            like = next(iter(chosen.values()))
            if count == 1:
                return like  # to torch a tuple of one is none
            return tuple(chosen[k] if k in chosen else like.new_empty(0) for k in range(count))

        return results

    return of


class Standin:
    """Stands for a tensor in the arguments of an op, which it is asked to carry out."""

    def linear(self, weight: Tensor, bias: Tensor | None) -> Any:
        raise TypeError(f"linear: not for a {type(self).__name__}")

    def activation(self, kind: str) -> Any:
        raise TypeError(f"activation: not for a {type(self).__name__}")

    def softmax(self) -> Any:
        raise TypeError(f"softmax: not for a {type(self).__name__}")

    def node_update(self, own: Any, received: Any, kind: str) -> Any:
        raise TypeError(f"node_update: not for a {type(self).__name__}")

    def message_sum(self, source: Any, edge_bias: Tensor, graph: Any, kind: str) -> Any:
        raise TypeError(f"message_sum: not for a {type(self).__name__}")


def fold_batch(tensor: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """[..., rows, features] with a vmap dimension -> [..., rows, size * features], an unbatched one repeated."""
    if tensor is None:
        return None
    if dim is None:
        return tensor.unsqueeze(-2).expand(*tensor.shape[:-1], size, -1).flatten(-2)
    return tensor.movedim(dim, -2).flatten(-2)


def loop_batch(op: Op, args: tuple[Any, ...], in_dims: tuple[int | None, ...], size: int) -> tuple[Any, Any]:
    """vmap as one call per element, for the arguments that no single call can take together."""

    def call(element: Callable[[Tensor, int], Tensor]) -> Any:
        return op(*(a if d is None else element(a, d) for a, d in zip(args, in_dims, strict=True)))

    if size == 0:  # the shapes come from an element of zeros
        one = call(lambda a, d: a.new_zeros([n for at, n in enumerate(a.shape) if at != d % a.dim()]))
        empty = [part.new_empty((0, *part.shape)) for part in (one if op.has_many else [one])]
        return (tuple(empty), (0,) * len(empty)) if op.has_many else (empty[0], 0)
    calls = [call(lambda a, d, k=k: a.select(d, k)) for k in range(size)]  # type: ignore[misc]
    if op.has_many:
        parts = tuple(torch.stack(part) for part in zip(*calls, strict=True))
        return parts, (0,) * len(parts)
    return torch.stack(calls), 0


def unfold_batch(tensor: Tensor, size: int) -> tuple[Tensor, int]:
    """The inverse of fold_batch: [..., rows, size * features] -> ([..., rows, size, features], the place of size)."""
    return tensor.unflatten(-1, (size, tensor.shape[-1] // size)), tensor.dim() - 1
