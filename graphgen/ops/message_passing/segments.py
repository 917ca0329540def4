"""Reduce over ragged rows, and what its derivatives need."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops._op import Op, eager, fold_batch, loop_batch, unfold_batch
from graphgen.ops.reference import message_passing as reference

# Sum and mean have the broadcast as their transpose, and it has them. The derivative of a maximum picks the elements
# that won, whose transpose places them. That of a product multiplies by the segment's other rows. So all derivatives
# are kernels, but for the second of a product, which is composed of plain operations.
#
# Every op takes an `order`: slot k of the segments stands for row order[k]. With the order in which rows of equal
# index follow each other, a segment op is a scatter.


def _plain_order(src: Tensor, order: Tensor | None) -> Tensor:
    return src if order is None else src[order.long()]


def _to_order(slots: Tensor, order: Tensor | None) -> Tensor:
    return slots if order is None else torch.empty_like(slots).index_copy(0, order.long(), slots)


def _checked(src: Tensor, ptr: Tensor, order: Tensor | None, rows: int) -> tuple[Tensor, Tensor, Tensor | None]:
    if order is not None:
        if order.shape != (rows,) or order.dtype != ptr.dtype:
            raise ValueError(f"order must be [{rows}] {ptr.dtype}, got {list(order.shape)} {order.dtype}")
        order = order.contiguous()
    return src.contiguous(), ptr.contiguous(), order


def _reduce(src: Tensor, ptr: Tensor, order: Tensor | None, reduce: str, arg: Tensor | None) -> Tensor:
    src, ptr, order = _checked(src, ptr, order, src.shape[0])
    rows, features = src.shape
    segments = ptr.shape[0] - 1
    out = src.new_empty((segments, features))
    _native.call(
        _C.segment_reduce,
        src,
        src.data_ptr(),
        ptr.data_ptr(),
        0 if order is None else order.data_ptr(),
        out.data_ptr(),
        0 if arg is None else arg.data_ptr(),
        segments,
        features,
        _native.ROWS[src.dtype],
        _native.INDICES[ptr.dtype],
        _native.ROW_REDUCES[reduce],
        rows,
    )
    return out


def _segment_reduce_kernel(src: Tensor, ptr: Tensor, reduce: str, order: Tensor | None = None) -> Tensor:
    if not _native.runs_rows(src):
        return reference.segment_reduce(_plain_order(src, order), ptr, reduce)
    return _reduce(src, ptr, order, reduce, None)


def _extreme_kernel(reduce: str):
    def kernel(src: Tensor, ptr: Tensor, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not _native.runs_rows(src):
            plain = reference.segment_max if reduce == "max" else reference.segment_min
            values, arg = plain(_plain_order(src, order), ptr)
            return values, arg if order is None else torch.cat([order.long(), order.new_tensor([src.shape[0]])])[arg]
        arg = src.new_empty((ptr.shape[0] - 1, src.shape[1]), dtype=torch.int64)
        return _reduce(src, ptr, order, reduce, arg), arg

    return kernel


def _segment_broadcast_kernel(src: Tensor, ptr: Tensor, rows: int, reduce: str, order: Tensor | None = None) -> Tensor:
    if not _native.runs_rows(src):
        return _to_order(reference.segment_broadcast(src, ptr, rows, reduce), order)
    return _spread(_C.segment_broadcast, src, ptr, order, rows, _native.REDUCES[reduce])


def _spread(entry, src: Tensor, ptr: Tensor, order: Tensor | None, rows: int, *reduce: int) -> Tensor:
    """A kernel that writes the rows of the segments; on CUDA not those of none."""
    src, ptr, order = _checked(src, ptr, order, rows)
    shape = (rows, src.shape[1])
    out = src.new_zeros(shape) if src.is_cuda else src.new_empty(shape)
    _native.call(
        entry,
        src,
        src.data_ptr(),
        ptr.data_ptr(),
        0 if order is None else order.data_ptr(),
        out.data_ptr(),
        ptr.shape[0] - 1,
        src.shape[1],
        _native.ROWS[src.dtype],
        _native.INDICES[ptr.dtype],
        *reduce,
        rows,
    )
    return out


def _segment_others_kernel(src: Tensor, ptr: Tensor, order: Tensor | None = None) -> Tensor:
    if not _native.runs_rows(src):
        return _to_order(reference.segment_others(_plain_order(src, order), ptr), order)
    if src.dtype == torch.bfloat16:
        return _segment_others_kernel(src.float(), ptr, order).bfloat16()
    return _spread(_C.segment_others, src, ptr, order, src.shape[0])


def _check_arg(name: str, src: Tensor, arg: Tensor) -> None:
    if arg.dim() != 2 or arg.dtype != torch.int64 or arg.shape[1] != src.shape[1]:
        raise ValueError(f"{name}: arg must be [S, {src.shape[1]}] int64, got {list(arg.shape)} {arg.dtype}")


def _pick_kernel(src: Tensor, arg: Tensor) -> Tensor:
    _check_arg("pick", src, arg)
    if not _native.runs_rows(src):
        return reference.pick(src, arg)
    src, arg = src.contiguous(), arg.contiguous()
    out = src.new_empty(arg.shape)
    sizes = (src.shape[0], src.shape[1], arg.shape[0], _native.ROWS[src.dtype])
    _native.call(_C.pick, src, src.data_ptr(), arg.data_ptr(), out.data_ptr(), *sizes)
    return out


def _place_kernel(src: Tensor, arg: Tensor, rows: int) -> Tensor:
    _check_arg("place", src, arg)
    if not _native.runs_rows(src):
        return reference.place(src, arg, rows)
    src, arg = src.contiguous(), arg.contiguous()
    out = src.new_zeros((rows, src.shape[1]))
    sizes = (rows, src.shape[1], arg.shape[0], _native.ROWS[src.dtype])
    _native.call(_C.place_rows, src, src.data_ptr(), arg.data_ptr(), out.data_ptr(), *sizes)
    return out


def _along_others(src: Tensor, along: Tensor, ptr: Tensor, order: Tensor | None) -> Tensor:
    """The derivative of segment_others: symmetric, so it serves vjp and jvp."""
    if order is None:
        return reference.segment_others_along(src, along, ptr)
    in_slots = reference.segment_others_along(src[order.long()], along[order.long()], ptr)
    return in_slots[order.argsort()]


def _segment_reduce_vjp(args, grad, needs):
    src, ptr, reduce, order = args
    rows = src.shape[0]
    if reduce in _extremes:
        out = _place(grad, _extremes[reduce](src, ptr, order)[1], rows)
    elif reduce == "mul":
        out = _segment_broadcast(grad, ptr, rows, "sum", order) * _segment_others(src, ptr, order)
    else:
        out = _segment_broadcast(grad, ptr, rows, reduce, order)
    return out, None, None, None


def _segment_reduce_jvp(args, tangents):
    src, ptr, reduce, order = args
    if reduce in _extremes:
        return _pick(tangents[0], _extremes[reduce](src, ptr, order)[1])
    if reduce == "mul":
        return _segment_reduce(tangents[0] * _segment_others(src, ptr, order), ptr, "sum", order)
    return _segment_reduce(tangents[0], ptr, reduce, order)


def _extreme_vjp(args, grads, needs):
    src, _, _, _, arg = args
    if grads[0] is None:
        return None, None, None
    return _place(grads[0], arg, src.shape[0]), None, None


def _vmap(op_of, others: tuple[int, ...]):
    """vmap that puts columns side by side, as long as none of the tensors at `others` is batched."""

    def vmap(args, in_dims, size):
        op = op_of()
        if any(in_dims[at] is not None for at in others):
            return loop_batch(op, args, in_dims, size)
        out = op(fold_batch(args[0], in_dims[0], size), *args[1:])
        if not op.has_many:
            return unfold_batch(out, size)
        return tuple(unfold_batch(part, size)[0] for part in out), (1,) * len(out)

    return vmap


def _argument_vmap(op_of):
    """The same where the second tensor has the features too."""

    def vmap(args, in_dims, size):
        src, arg = (fold_batch(args[at], in_dims[at], size) for at in (0, 1))
        return unfold_batch(op_of()(src, arg, *args[2:]), size)

    return vmap


_segment_reduce: Op = Op(
    "segment_reduce",
    "(Tensor src, Tensor ptr, str reduce, Tensor? order=None) -> Tensor",
    _segment_reduce_kernel,
    lambda src, ptr, reduce, order=None: src.new_empty((ptr.shape[0] - 1, src.shape[1])),
    _segment_reduce_vjp,
    _segment_reduce_jvp,
    _vmap(lambda: _segment_reduce, (1, 3)),
)
_extremes: dict[str, Op] = {
    reduce: Op(
        f"segment_{reduce}",
        "(Tensor src, Tensor ptr, Tensor? order=None) -> (Tensor, Tensor)",
        _extreme_kernel(reduce),
        lambda src, ptr, order=None: (
            src.new_empty((ptr.shape[0] - 1, src.shape[1])),
            src.new_empty((ptr.shape[0] - 1, src.shape[1]), dtype=torch.int64),
        ),
        _extreme_vjp,
        lambda args, tangents: (_pick(tangents[0], args[4]), None),
        _vmap(lambda reduce=reduce: _extremes[reduce], (1, 2)),
        keeps_result=True,
    )
    for reduce in ("max", "min")
}
_segment_broadcast: Op = Op(
    "segment_broadcast",
    "(Tensor src, Tensor ptr, SymInt rows, str reduce, Tensor? order=None) -> Tensor",
    _segment_broadcast_kernel,
    lambda src, ptr, rows, reduce, order=None: src.new_empty((rows, src.shape[1])),
    lambda args, grad, needs: (_segment_reduce(grad, args[1], args[3], args[4]), None, None, None, None),
    lambda args, tangents: _segment_broadcast(tangents[0], *args[1:]),
    _vmap(lambda: _segment_broadcast, (1, 4)),
)
_segment_others: Op = Op(
    "segment_others",
    "(Tensor src, Tensor ptr, Tensor? order=None) -> Tensor",
    _segment_others_kernel,
    lambda src, ptr, order=None: torch.empty_like(src, memory_format=torch.contiguous_format),
    lambda args, grad, needs: (_along_others(args[0], grad, *args[1:]), None, None),
    lambda args, tangents: _along_others(args[0], tangents[0], *args[1:]),
    _vmap(lambda: _segment_others, (1, 2)),
)
_pick: Op = Op(
    "pick",
    "(Tensor src, Tensor arg) -> Tensor",
    _pick_kernel,
    lambda src, arg: src.new_empty(arg.shape),
    lambda args, grad, needs: (_place(grad, args[1], args[0].shape[0]), None),
    lambda args, tangents: _pick(tangents[0], args[1]),
    _argument_vmap(lambda: _pick),
)
_place: Op = Op(
    "place",
    "(Tensor src, Tensor arg, SymInt rows) -> Tensor",
    _place_kernel,
    lambda src, arg, rows: src.new_empty((rows, src.shape[1])),
    lambda args, grad, needs: (_pick(grad, args[1]), None, None),
    lambda args, tangents: _place(tangents[0], *args[1:]),
    _argument_vmap(lambda: _place),
)


def _check_segments(name: str, src: Tensor, ptr: Tensor) -> None:
    if ptr.dim() != 1 or ptr.shape[0] == 0 or ptr.dtype not in _native.INDICES:
        raise ValueError(f"{name}: ptr must be [S + 1] int32 or int64, got {list(ptr.shape)} {ptr.dtype}")
    if src.dim() == 0:
        raise ValueError(f"{name}: src needs at least one dimension")
    if src.device != ptr.device:
        raise ValueError(f"{name}: src is on {src.device}, ptr on {ptr.device}; move one")


def _check_reduce(name: str, reduce: str, reduces: dict[str, int]) -> None:
    if reduce not in reduces:
        raise ValueError(f"{name}: reduce must be one of {list(reduces)}, got {reduce!r}")


def _flat(src: Tensor) -> Tensor:
    return src if src.dim() == 2 else src.reshape(src.shape[0], prod(src.shape[1:]))


def _unflat(out: Tensor, src: Tensor) -> Tensor:
    return out if src.dim() == 2 else out.reshape(out.shape[0], *src.shape[1:])


def segment_reduce(src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
    """Reduce ragged rows: ``out[s] = reduce of src[ptr[s]:ptr[s + 1]]``.

    Args:
        src: [R, ...] float32, float64, bfloat16 (accumulated in float32), int32 or int64 (which wrap around).
        ptr: [S + 1] int32 or int64, never falling, within [0, R].
        reduce: "sum", "mean" (of integers: the floor), "max", "min" or "mul". An empty segment gives 0, a product of
            nothing 1. A NaN is the maximum and the minimum of its segment. The gradient of a maximum goes to the
            first row that has it.

    Returns:
        [S, ...].

    Raises:
        IndexError: a segment that leaves the rows (CPU; a CUDA call clamps, since it does not wait to look).
        ValueError: shapes or dtypes that do not fit.
    """
    _check_segments("segment_reduce", src, ptr)
    _check_reduce("segment_reduce", reduce, _native.ROW_REDUCES)
    op = _segment_reduce.direct if eager(src) else _segment_reduce
    return _unflat(op(_flat(src), ptr, reduce, None), src)


def _segment_extreme(name: str, reduce: str, src: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    _check_segments(name, src, ptr)
    op = _extremes[reduce].direct if eager(src) else _extremes[reduce]
    values, arg = op(_flat(src), ptr, None)
    return _unflat(values, src), _unflat(arg, src)


def segment_max(src: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum of ragged rows and where it is.

    Args:
        src, ptr: as :func:`segment_reduce`.

    Returns:
        values [S, ...], differentiable, and arg [S, ...] int64: the row of src that each comes from, the lowest on
        ties, the first NaN if there is one. An empty segment has the value 0 and the row R.

    Raises:
        IndexError, ValueError: as segment_reduce.
    """
    return _segment_extreme("segment_max", "max", src, ptr)


def segment_min(src: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """The minimum of ragged rows and where it is; otherwise :func:`segment_max`."""
    return _segment_extreme("segment_min", "min", src, ptr)


def segment_broadcast(src: Tensor, ptr: Tensor, rows: int, reduce: str = "sum") -> Tensor:
    """The transpose of :func:`segment_reduce`: row r of segment s gets ``src[s]`` ("mean": over its length).

    Args:
        src: [S, ...]; ptr: [S + 1]; rows: R, the length of the result. Rows in no segment are 0.

    Returns:
        [R, ...].

    Raises:
        IndexError, ValueError: as segment_reduce.
    """
    _check_segments("segment_broadcast", src, ptr)
    _check_reduce("segment_broadcast", reduce, _native.REDUCES)
    if src.shape[0] != ptr.shape[0] - 1:
        raise ValueError(f"segment_broadcast: src {list(src.shape)} needs {ptr.shape[0] - 1} rows")
    op = _segment_broadcast.direct if eager(src) else _segment_broadcast
    return _unflat(op(_flat(src), ptr, rows, reduce, None), src)
