"""Node-wise products and activations whose bits do not depend on the batch.

torch's matrix product may add in another order when the number of rows changes, and its vectorised activations may
round the last few elements of an array differently from the others. Both would let one molecule's result depend on
its batch mates; these ops do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops._op import Op, Standin, eager, loop_batch
from graphgen.ops._products import Products
from graphgen.ops.reference import dense as reference

# ---- linear ---------------------------------------------------------------------------------------------------------


def linear_kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not _native.runs(x):
        return reference.linear(x, weight, bias)
    x, weight = x.contiguous(), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    out = x.new_empty((x.shape[0], weight.shape[1]))
    _native.call(
        _C.linear,
        x,
        x.data_ptr(),
        weight.data_ptr(),
        _native.address(bias),
        out.data_ptr(),
        x.shape[0],
        x.shape[1],
        weight.shape[1],
        _native.DTYPES[x.dtype],
    )
    return out


def _linear_fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1]))


def _linear_vjp(args, grad, needs):
    x, weight, _ = args
    return (
        _linear(grad, weight.t(), None) if needs[0] else None,
        x.t() @ grad if needs[1] else None,
        grad.sum(0) if needs[2] else None,
    )


def _linear_jvp(args, tangents):
    x, weight, _ = args
    dx, dweight, dbias = tangents
    out = None
    if dx is not None:
        out = _linear(dx, weight, dbias)
    if dweight is not None:
        along = _linear(x, dweight, dbias if out is None else None)
        out = along if out is None else out + along
    return dbias.expand(x.shape[0], -1).clone() if out is None else out


def _linear_vmap(args, in_dims, size):
    x, weight, bias = args
    x_dim, weight_dim, bias_dim = in_dims
    if weight_dim is None and bias_dim is None:
        stacked = x.movedim(x_dim, 0)
        return _linear(stacked.reshape(-1, x.shape[-1]), weight, bias).unflatten(0, stacked.shape[:2]), 0
    return loop_batch(_linear, args, in_dims, size)


_linear = Op(
    "linear",
    "(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    linear_kernel,
    _linear_fake,
    _linear_vjp,
    _linear_jvp,
    _linear_vmap,
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight + bias``, each row's bits independent of the other rows.

    Args:
        x: [N, K] float32, float64 or bfloat16 (accumulated in float32).
        weight: [K, M], same dtype. Note the order: columns are outputs.
        bias: [M], same dtype, or None.

    Returns:
        [N, M].

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    if isinstance(x, Standin):
        return x.linear(weight, bias)
    check_linear(x, weight, bias)
    return _linear(x, weight, bias)


def check_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuse what :func:`linear` does not take."""
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[0]:
        raise ValueError(f"linear: x {list(x.shape)} and weight {list(weight.shape)} do not multiply")
    if x.dtype != weight.dtype or (bias is not None and (bias.dtype != x.dtype or bias.shape != weight.shape[1:])):
        raise ValueError(f"linear: weight and bias must have the dtype of x ({x.dtype}), bias shape [M]")


# ---- activation -----------------------------------------------------------------------------------------------------


# The family of products of graphgen/ops/_products.py, element by element; a term has one part.
def _activation_kernel(order: int):
    def kernel(*args) -> tuple[Tensor, ...]:
        *terms, kind, wanted = args
        x = terms[0]
        if not _native.runs(x):
            return reference.activation_gradient(terms, kind, wanted)
        terms = [None if term is None else term.contiguous() for term in terms]
        outputs = [torch.empty_like(terms[0]) for _ in wanted]
        addresses = [0 if term is None else term.data_ptr() for term in terms] + [0] * (8 - len(terms))
        for m, out in zip(wanted, outputs, strict=True):
            addresses[4 + m] = out.data_ptr()
        _native.call(_C.activate, x, addresses, x.numel(), order, _native.ACTIVATIONS[kind], _native.DTYPES[x.dtype])
        return tuple(outputs)

    return kernel


def _activation_fake(*args) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(args[0], memory_format=torch.contiguous_format) for _ in args[-1])


def _batch_at(place: int, term: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    if term is None:
        return None
    if dim is not None:
        return term.movedim(dim, place)
    return term.unsqueeze(place).expand(*term.shape[:place], size, *term.shape[place:])


def _activation_vmap(order: int):
    def vmap(args, in_dims, size):
        *terms, kind, wanted = args
        batched = [_batch_at(0, term, dim, size) for term, dim in zip(terms, in_dims, strict=False)]
        return _activations.ops[order](*batched, kind, wanted), (0,) * len(wanted)

    return vmap


def _make_activation(order: int, rules: dict[str, Any]) -> Op:
    terms = ", ".join(f"Tensor? z{m}" for m in range(1, order + 1))
    schema = f"(Tensor x, {terms}{', ' * (order > 0)}str kind, int[] wanted) -> ({', '.join(['Tensor'] * (order + 1))})"
    return Op(
        f"activation_{order}",
        schema,
        _activation_kernel(order),
        _activation_fake,
        vmap=_activation_vmap(order),
        chooses=True,
        **rules,
    )


def activate_push(values: Sequence[Any], along: Sequence[Any], kind: str) -> tuple[Tensor, Tensor]:
    """The engine's activate_push, of (x, y, skip) and their tangents [K, ...], of which but the first may be None.

    Gives the tangents and the value.
    """
    values, along = _contiguous(values), _contiguous(along)
    x, moved = values[0], along[0]
    tangent, value = torch.empty_like(moved), torch.empty_like(x)
    addresses = [*map(_native.address, (*values, *along)), value.data_ptr(), tangent.data_ptr()]
    codes = _native.ACTIVATIONS[kind], _native.DTYPES[x.dtype]
    _native.call(_C.activate_push, x, addresses, x.numel(), moved.shape[0], *codes)
    return tangent, value


def activate_pull(
    values: Sequence[Any],
    along: Sequence[Any],
    grads: tuple[Tensor | None, Tensor],
    kind: str,
    wanted: Sequence[int] = (0, 1),
) -> tuple[Tensor, ...]:
    """The engine's activate_pull, of (x, y) and their tangents, of which y's may be None."""
    values, along, grads = _contiguous(values), _contiguous(along), _contiguous(grads)
    x, moved = values[0], along[0]
    outputs = [torch.empty_like((x, moved)[code]) for code in wanted]
    results = [0, 0]
    for code, out in zip(wanted, outputs, strict=True):
        results[code] = out.data_ptr()
    addresses = [*map(_native.address, (*values, *along, *grads)), *results]
    codes = _native.ACTIVATIONS[kind], _native.DTYPES[x.dtype]
    _native.call(_C.activate_pull, x, addresses, x.numel(), moved.shape[0], *codes)
    return tuple(outputs)


def _contiguous(tensors: Sequence[Tensor | None]) -> Any:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _activation_push_kernel(x: Tensor, along: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    if not _native.runs(x):
        return reference.activation_push(x, along, kind)
    return activate_push((x, None, None), (along, None, None), kind)


def _activation_pull_kernel(x, along, value_grad, tangent_grad, kind: str, wanted) -> tuple[Tensor, ...]:
    if not _native.runs(x):
        return reference.activation_pull(x, along, value_grad, tangent_grad, kind, wanted)
    return activate_pull((x, None), (along, None), (value_grad, tangent_grad), kind, wanted)


def _activation_push_vmap(args, in_dims, size):
    x, along, kind = args
    batched = _batch_at(0, x, in_dims[0], size), _batch_at(1, along, in_dims[1], size)
    return _activations.push(*batched, kind), (1, 0)


def _activation_pull_vmap(args, in_dims, size):
    *terms, kind, wanted = args
    at = (0, 1, 0, 1)
    batched = [_batch_at(at[m], term, in_dims[m], size) for m, term in enumerate(terms)]
    return _activations.pull(*batched, kind, wanted), tuple(at[code] for code in wanted)


def _make_activation_push(rules: dict[str, Any]) -> Op:
    return Op(
        "activation_push",
        "(Tensor x, Tensor along, str kind) -> (Tensor, Tensor)",
        _activation_push_kernel,
        lambda x, along, kind: (torch.empty_like(along), torch.empty_like(x)),
        vmap=_activation_push_vmap,
        **rules,
    )


def _make_activation_pull(rules: dict[str, Any]) -> Op:
    return Op(
        "activation_pull",
        "(Tensor x, Tensor along, Tensor? value_grad, Tensor tangent_grad, str kind, int[] wanted) -> (Tensor, Tensor)",
        _activation_pull_kernel,
        lambda x, along, value_grad, tangent_grad, kind, wanted: tuple(torch.empty_like((x, along)[m]) for m in wanted),
        vmap=_activation_pull_vmap,
        chooses=True,
        **rules,
    )


_activations: Products = Products("activation", 1, 1, _make_activation, _make_activation_push, _make_activation_pull)


def activation(x: Tensor, kind: str = "silu") -> Tensor:
    """``kind`` of every element; differentiable three times.

    Args:
        kind: "silu", x sigmoid(x); "tanh"; "relu", whose slopes at 0 are 0; or "softplus", log(1 + exp(x)).
        x: any shape, float32, float64 or bfloat16.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in _native.ACTIVATIONS:
        raise ValueError(f"activation: expected one of {sorted(_native.ACTIVATIONS)}, got {kind!r}")
    if isinstance(x, Standin):
        return x.activation(kind)
    return _activations.ops[0](x, kind, (0,))[0]


def activation_slope(x: Tensor, direction: Tensor, kind: str) -> Tensor:
    """The activation's derivative at x times a direction of the same shape."""
    return _activations.ops[1](x, direction, kind, (0,))[0]


def activation_push(x: Tensor, along: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The activation of x and its derivatives [K, ...] along K directions of the shape of x, in one pass."""
    tangent, value = _activations.push(x, along, kind)
    return value, tangent


# ---- node update ----------------------------------------------------------------------------------------------------


def _node_update_kernel(h: Tensor, own: Tensor, received: Tensor, kind: str) -> Tensor:
    if not _native.runs(h):
        return h + reference.activation(own + received, kind)
    values = _contiguous((own, received, h))
    out = torch.empty_like(values[0])
    addresses = [*(value.data_ptr() for value in values), 0, 0, 0, out.data_ptr(), 0]
    _native.call(_C.activate_push, h, addresses, h.numel(), 0, _native.ACTIVATIONS[kind], _native.DTYPES[h.dtype])
    return out


def _node_update_vjp(args, grad, needs):
    _, own, received, kind = args
    slope = activation_slope(own + received, grad, kind) if needs[1] or needs[2] else None
    return grad if needs[0] else None, slope if needs[1] else None, slope if needs[2] else None, None


def _node_update_jvp(args, tangents):
    _, own, received, kind = args
    skip, *along = tangents[:3]
    moved = [part for part in along if part is not None]
    if not moved:
        return skip.clone()
    slope = activation_slope(own + received, sum(moved[1:], moved[0]), kind)
    return slope if skip is None else skip + slope


_node_update: Op = Op(
    "node_update",
    "(Tensor h, Tensor own, Tensor received, str kind) -> Tensor",
    _node_update_kernel,
    lambda h, own, received, kind: torch.empty_like(h, memory_format=torch.contiguous_format),
    _node_update_vjp,
    _node_update_jvp,
    lambda args, dims, size: (
        _node_update(*(_batch_at(0, part, dim, size) for part, dim in zip(args[:3], dims, strict=False)), args[3]),
        0,
    ),
)


def node_update(h: Tensor, own: Tensor, received: Tensor, kind: str = "silu") -> Tensor:
    """``h + act(own + received)``, what a node makes of its messages, in one pass; differentiable three times.

    Args:
        h, own, received: any one shape, float32, float64 or bfloat16.
        kind: as :func:`activation`'s.

    Raises:
        ValueError: an unknown kind, or shapes or dtypes that differ.
    """
    if kind not in _native.ACTIVATIONS:
        raise ValueError(f"node_update: expected one of {sorted(_native.ACTIVATIONS)}, got {kind!r}")
    if isinstance(h, Standin):
        return h.node_update(own, received, kind)
    if not h.shape == own.shape == received.shape or not h.dtype == own.dtype == received.dtype:
        raise ValueError("node_update: h, own and received must have one shape and one dtype")
    if eager(h, own, received):
        return _node_update.direct(h, own, received, kind)
    return _node_update(h, own, received, kind)


# ---- softmax --------------------------------------------------------------------------------------------------------


def _softmax_kernel(x: Tensor) -> Tensor:
    if not _native.runs(x):
        return reference.softmax(x)
    x = x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        _native.call(_C.softmax, x, x.data_ptr(), out.data_ptr(), x.shape[0], x.shape[1], _native.DTYPES[x.dtype])
    return out


def _softmax_slope(x: Tensor, direction: Tensor) -> Tensor:
    """The Jacobian of a softmax is symmetric, so one product serves both modes."""
    probability = _softmax(x)
    weighted = probability * direction
    total = _linear(weighted, weighted.new_ones((weighted.shape[1], 1)), None)
    return weighted - probability * total


def _softmax_vmap(args, in_dims, size):
    stacked = args[0].movedim(in_dims[0], 0)
    return _softmax(stacked.reshape(-1, stacked.shape[-1])).view_as(stacked), 0


_softmax = Op(
    "softmax",
    "(Tensor x) -> Tensor",
    _softmax_kernel,
    lambda x: torch.empty_like(x, memory_format=torch.contiguous_format),
    lambda args, grad, needs: (_softmax_slope(args[0], grad),),
    lambda args, tangents: _softmax_slope(args[0], tangents[0]),
    _softmax_vmap,
)


def softmax(x: Tensor) -> Tensor:
    """Softmax over the last dimension of x [N, F]; each row's bits independent of the other rows.

    Raises:
        ValueError: x is not a matrix.
    """
    if isinstance(x, Standin):
        return x.softmax()
    if x.dim() != 2:
        raise ValueError(f"softmax: expected x [N, F], got {list(x.shape)}")
    return _softmax(x)
