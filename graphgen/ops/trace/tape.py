"""A state with its tangents whose way through a field is differentiated as one function.

To torch a field with its tangents is two dozen functions, each of which costs more than its kernel on a few molecules
and gives back fresh arrays that torch then adds up. Here the way is written down, and one function of everything that
it met walks it back: gradients are added up in place, and a round of messages gives back those of its value and of its
tangents in one sweep. Where the gradient's own derivative is asked for, the way is gone again with
:class:`~graphgen.ops.trace.dual.Dual`, made of ops that torch differentiates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforming
from torch.autograd import forward_ad

from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Standin, is_traced
from graphgen.ops.dense import activate_pull, activate_push, activation_slope, check_linear, linear_kernel, softmax
from graphgen.ops.message_passing.messages import check_messages, pull_messages, pull_value, push_messages
from graphgen.ops.trace.dual import Dual, softmax_tangents


def push_dual(f: Callable[..., Any], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and its derivatives along v [K, N, F], for an f made of graphgen's ops; see :class:`Dual`.

    Raises:
        TypeError: f uses something else.
    """
    traced = torch.compiler.is_compiling() or transforming() or forward_ad._current_level >= 0
    start = Dual(x, v) if traced or is_traced(x) or not _native.runs(x) else Taped(Tape(), x, v)
    end = f(start)
    if not isinstance(end, type(start)):
        raise TypeError("divergence: with reach, the field must carry its state through graphgen's ops to its result")
    if isinstance(start, Taped) and isinstance(end, Taped):
        return _differentiable(start, end)
    return end.value, end.tangent


class _Gradient:
    """A sum that grows in place, once an array is nobody else's."""

    __slots__ = ("array", "ours")

    def __init__(self) -> None:
        self.array: Tensor | None = None
        self.ours = False

    def add(self, more: Tensor | None, ours: bool) -> None:
        if more is None:
            return
        if self.array is None:
            self.array, self.ours = more, ours
        elif self.ours:
            self.array += more
        elif ours:
            more += self.array
            self.array, self.ours = more, True
        else:
            self.array, self.ours = self.array + more, True

    def take(self) -> tuple[Tensor | None, bool]:
        array, self.array = self.array, None
        return array, self.ours


class Taped(Standin):
    """As :class:`Dual`, written down on a tape."""

    __slots__ = ("of_tangent", "of_value", "tangent", "tape", "value")

    def __init__(self, tape: Tape | None, value: Tensor, tangent: Tensor) -> None:
        self.tape, self.value, self.tangent = tape, value, tangent
        self.of_value, self.of_tangent = _Gradient(), _Gradient()

    def then(self, name: str, args: tuple[Any, ...], value: Tensor, tangent: Tensor) -> Taped:
        """What the method of that name gives."""
        assert self.tape is not None
        out = Taped(self.tape, value, tangent)
        if torch.is_grad_enabled():
            self.tape.steps.append(_Step(name, self, args, out))
            for argument in args:
                self.tape.meet(argument)
        return out

    def receive(self, of_value: Tensor | None, of_tangent: Tensor | None, ours: bool) -> None:
        self.of_value.add(of_value, ours)
        self.of_tangent.add(of_tangent, ours)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Taped:
        check_linear(self.value, weight, bias)
        value = linear_kernel(self.value, weight, bias)
        return self.then("linear", (weight, bias), value, _multiply(self.tangent, weight))

    def activation(self, kind: str) -> Taped:
        tangent, value = activate_push((self.value, None, None), (self.tangent, None, None), kind)
        return self.then("activation", (kind,), value, tangent)

    def node_update(self, own: Taped, received: Taped, kind: str) -> Taped:
        if not isinstance(own, Taped) or not isinstance(received, Taped):
            raise TypeError("node_update: h, own and received must all depend on the state")
        values = (own.value, received.value, self.value)
        tangent, value = activate_push(values, (own.tangent, received.tangent, self.tangent), kind)
        return self.then("node_update", (own, received, kind), value, tangent)

    def softmax(self) -> Taped:
        value = softmax(self.value)
        return self.then("softmax", (), value, softmax_tangents(value, self.tangent))

    def message_sum(self, source: Taped, edge_bias: Tensor, graph: GraphBatch, kind: str) -> Taped:
        if not isinstance(source, Taped):
            raise TypeError("message_sum: target and source must both depend on the state")
        parts = (self.value, source.value, edge_bias)
        check_messages(*parts, graph, kind)
        tangent, value = push_messages(parts, (self.tangent, source.tangent), graph, kind)
        return self.then("message_sum", (source, edge_bias, graph, kind), value, tangent)

    def __add__(self, other: Taped | Tensor | float) -> Taped:
        with torch.no_grad():
            if isinstance(other, Taped):
                value, tangent = self.value + other.value, self.tangent + other.tangent
            else:
                value, tangent = self.value + other, self.tangent
        return self.then("__add__", (other,), value, tangent)

    __radd__ = __add__

    def __mul__(self, other: Tensor | float) -> Taped:
        with torch.no_grad():
            value, tangent = self.value * other, self.tangent * other
        return self.then("__mul__", (other,), value, tangent)

    __rmul__ = __mul__


class _Step(NamedTuple):
    name: str  # of the method
    of: Taped
    args: tuple[Any, ...]
    out: Taped


class Tape:
    """The steps of a field, in order, and the tensors they met that may want a gradient."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []
        self.met: dict[int, Tensor] = {}
        self.gradients: dict[int, _Gradient] = {}
        # Where the way begins, whose tangents want no gradient; and the same if its value wants none either.
        self.start: Taped | None = None
        self.constant: Taped | None = None

    def meet(self, argument: Any) -> None:
        if isinstance(argument, Tensor) and argument.requires_grad:
            self.met[id(argument)] = argument

    def give(self, tensor: Tensor, gradient: Tensor | None, ours: bool = True) -> None:
        self.gradients.setdefault(id(tensor), _Gradient()).add(gradient, ours)

    def back(self, start: Taped, end: Taped, of_value: Tensor | None, of_tangent: Tensor | None) -> list[Tensor | None]:
        """What gradients at the end give to the tensors met."""
        self.start, self.constant = start, None if start.value.requires_grad else start
        end.receive(of_value, of_tangent, ours=False)
        for step in reversed(self.steps):
            (of_value, ours), (of_tangent, _) = step.out.of_value.take(), step.out.of_tangent.take()
            if of_value is not None or of_tangent is not None:
                _BACK.get(step.name, _back_by_torch)(self, step, of_value, of_tangent, ours)
        self.give(start.value, start.of_value.take()[0])
        start.of_tangent.take()
        self.start = self.constant = None  # which would keep the tape alive with it
        found = [self.gradients[key].array if key in self.gradients else None for key in self.met]
        self.gradients = {}
        return found

    def again(self, start: Taped, end: Taped) -> Dual:
        """The same way with ops that torch differentiates."""
        duals = {id(start): Dual(start.value, start.tangent)}
        for name, of, args, out in self.steps:
            others = [duals[id(argument)] if isinstance(argument, Taped) else argument for argument in args]
            duals[id(out)] = getattr(duals[id(of)], name)(*others)
        return duals[id(end)]


def _multiply(tangents: Tensor, weight: Tensor) -> Tensor:
    return linear_kernel(tangents.flatten(0, 1), weight, None).view(*tangents.shape[:2], weight.shape[1])


def _linear_back(tape: Tape, step: _Step, of_value: Any, of_tangent: Any, ours: bool) -> None:
    of, (weight, bias) = step.of, step.args
    if weight.requires_grad:
        if of_value is not None:
            tape.give(weight, of.value.t() @ of_value)
        if of_tangent is not None:
            tape.give(weight, of.tangent.flatten(0, 1).t() @ of_tangent.flatten(0, 1))
    if bias is not None and bias.requires_grad and of_value is not None:
        tape.give(bias, of_value.sum(0))
    turned = weight.t().contiguous()
    if of_value is not None and of is not tape.constant:
        of.of_value.add(linear_kernel(of_value, turned, None), True)
    if of_tangent is not None and of is not tape.start:
        of.of_tangent.add(_multiply(of_tangent, turned), True)


def _activation_back(tape: Tape, step: _Step, of_value: Any, of_tangent: Any, ours: bool) -> None:
    of, (kind,) = step.of, step.args
    if of_tangent is None:
        of.of_value.add(activation_slope(of.value, of_value, kind), True)
    else:
        to_z, to_along = activate_pull((of.value, None), (of.tangent, None), (of_value, of_tangent), kind)
        of.receive(to_z, to_along, ours=True)


def _node_update_back(tape: Tape, step: _Step, of_value: Any, of_tangent: Any, ours: bool) -> None:
    own, received, kind = step.args
    to_along = None
    if of_tangent is None:
        to_z = activation_slope(own.value + received.value, of_value, kind)
    else:
        parts, along = (own.value, received.value), (own.tangent, received.tangent)
        to_z, to_along = activate_pull(parts, along, (of_value, of_tangent), kind)
    own.receive(to_z, to_along, ours=False)
    received.receive(to_z, to_along, ours=False)
    step.of.receive(of_value, of_tangent, ours=ours)


def _message_back(tape: Tape, step: _Step, of_value: Any, of_tangent: Any, ours: bool) -> None:
    target, (source, edge_bias, graph, kind) = step.of, step.args
    parts, along = (target.value, source.value, edge_bias), (target.tangent, source.tangent)
    wanted = [0, 1, 2] if edge_bias.requires_grad else [0, 1]
    if of_tangent is None:
        found = pull_value(parts, of_value, graph, kind, wanted)
    else:
        found = pull_messages(parts, along, (of_value, of_tangent), graph, kind, [*wanted, 3, 4])
        target.of_tangent.add(found[-2], True)
        source.of_tangent.add(found[-1], True)
    target.of_value.add(found[0], True)
    source.of_value.add(found[1], True)
    if edge_bias.requires_grad:
        tape.give(edge_bias, found[2])


def _add_back(tape: Tape, step: _Step, of_value: Any, of_tangent: Any, ours: bool) -> None:
    of, (other,) = step.of, step.args
    if isinstance(other, Taped):
        other.receive(of_value, of_tangent, ours=False)
        of.receive(of_value, of_tangent, ours=False)
        return
    wants = isinstance(other, Tensor) and other.requires_grad
    if wants and of_value is not None:
        tape.give(other, of_value.sum_to_size(other.shape), ours=False)
    of.receive(of_value, of_tangent, ours=ours and not wants)


def _back_by_torch(tape: Tape, step: _Step, of_value: Any, of_tangent: Any, ours: bool) -> None:
    with torch.enable_grad():
        at = Dual(step.of.value.detach().requires_grad_(), step.of.tangent.detach().requires_grad_())
        out = getattr(at, step.name)(*step.args)
        met = [argument for argument in step.args if isinstance(argument, Tensor) and argument.requires_grad]
        pairs = [(out.value, of_value), (out.tangent, of_tangent)]
        ends, grads = zip(*((part, grad) for part, grad in pairs if grad is not None), strict=True)
        found = torch.autograd.grad(ends, [at.value, at.tangent, *met], grads, allow_unused=True)
    step.of.receive(found[0], found[1], ours=False)
    for tensor, gradient in zip(met, found[2:], strict=True):
        tape.give(tensor, gradient, ours=False)


_BACK: dict[str, Callable[..., None]] = {
    "linear": _linear_back,
    "activation": _activation_back,
    "node_update": _node_update_back,
    "message_sum": _message_back,
    "__add__": _add_back,
}


def _differentiable(start: Taped, end: Taped) -> tuple[Tensor, Tensor]:
    """The end's value and tangents, as functions of the tensors met."""
    tape = start.tape
    assert tape is not None
    tape.meet(start.value)
    for state in (start, *(step.out for step in tape.steps)):
        state.tape = None  # or they and their arrays would keep each other alive
    if not torch.is_grad_enabled() or not tape.met:
        return end.value, end.tangent
    return _Way.apply(tape, start, end, *tape.met.values())


class _Way(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tape: Tape, start: Taped, end: Taped, *met: Tensor) -> tuple[Tensor, Tensor]:
        ctx.way = tape, start, end
        ctx.save_for_backward(*met)  # torch then sees if they were changed in the meantime
        ctx.set_materialize_grads(False)
        return end.value.detach(), end.tangent.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        (tape, start, end), met = ctx.way, ctx.saved_tensors
        twice = torch.is_grad_enabled()
        if not twice and not any(map(is_traced, grads)):
            return None, None, None, *tape.back(start, end, *grads)
        with torch.enable_grad():
            last = tape.again(start, end)
            ends = [
                (part, grad) for part, grad in zip((last.value, last.tangent), grads, strict=True) if grad is not None
            ]
            parts, along = zip(*ends, strict=True)
            found = torch.autograd.grad(parts, met, along, create_graph=twice, allow_unused=True)
        return None, None, None, *found
