"""torch_scatter.segment_csr: reduce ranges of rows, and repeat a row over its range."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.compat.torch_scatter._rows import (
    check,
    computable,
    product,
    segment_broadcast,
    segment_extreme,
    segment_reduce,
    write,
)


def _check_range(many: Tensor, length: int) -> None:
    """What the kernels cannot see: rows of a batch that are those of the next."""
    if torch.jit.is_scripting():
        pass
    elif torch.compiler.is_compiling():
        return  # no value can be looked at
    if many.device.type == "cpu" and many.numel() > 0 and (int(many.min()) < 0 or int(many.max()) > length):
        raise IndexError(f"indptr leaves the {length} rows that there are")


def _boundaries(indptr: Tensor, lead: list[int], length: int) -> Tensor:
    """One row of boundaries for all batches ``lead``, whose rows lie behind one another.

    Between the last segment of a batch and the first of the next comes one that is nobody's, as after the last batch.
    """
    count = indptr.size(-1)
    if len(lead) == 0:
        return indptr
    batches = product(lead)
    many = indptr.long().expand(lead + [count]).reshape(batches, count)
    _check_range(many, length)
    shifts = torch.arange(batches, device=many.device).unsqueeze(1) * length
    return torch.cat([(many + shifts).reshape(-1), many.new_full([1], batches * length)])


def _checked(src: Tensor, indptr: Tensor) -> Tensor:
    """The boundaries, of which there has to be one at least."""
    check(src, indptr)
    return indptr.new_zeros(list(indptr.shape[:-1]) + [1]) if indptr.size(-1) == 0 else indptr


def _fold(src: Tensor, indptr: Tensor) -> tuple[Tensor, Tensor]:
    dim = indptr.dim() - 1
    if src.dim() <= dim:
        raise ValueError("segment_csr: indptr must not have more dimensions than src")
    if dim == 0 and src.dim() == 2:
        return computable(src), indptr
    shape = list(src.shape)
    ptr = _boundaries(indptr, shape[:dim], shape[dim])
    return computable(src).reshape(product(shape[: dim + 1]), product(shape[dim + 1 :])), ptr


def _unfold(rows: Tensor, src: Tensor, indptr: Tensor) -> Tensor:
    dim = indptr.dim() - 1
    if dim == 0 and src.dim() == 2:
        return rows
    count = indptr.size(-1) - 1
    lead, rest = list(src.shape[:dim]), list(src.shape[dim + 1 :])
    if dim == 0:
        return rows.reshape([count] + rest)
    return rows.reshape(lead + [count + 1] + rest).narrow(dim, 0, count).contiguous()


def _reduced(src: Tensor, indptr: Tensor, out: Tensor | None, reduce: str) -> Tensor:
    indptr = _checked(src, indptr)
    rows, ptr = _fold(src, indptr)
    return write(_unfold(segment_reduce(rows, ptr, reduce), src, indptr).to(src.dtype), out)


def _extreme(src: Tensor, indptr: Tensor, out: Tensor | None, largest: bool) -> tuple[Tensor, Tensor]:
    indptr = _checked(src, indptr)
    rows, ptr = _fold(src, indptr)
    values, arg = segment_extreme(rows, ptr, largest)
    values, arg = _unfold(values, src, indptr).to(src.dtype), _unfold(arg, src, indptr)
    dim = indptr.dim() - 1
    if dim > 0:
        # From places among all batches to places in one.
        lead = list(src.shape[:dim])
        length, batches = src.size(dim), product(lead)
        shifts = torch.arange(batches, device=arg.device).reshape(lead + [1] * (src.dim() - dim))
        arg = (arg - shifts * length).clamp(max=length)
    return write(values, out), arg


def segment_sum_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Sum; see :func:`segment_csr`."""
    return _reduced(src, indptr, out, "sum")


def segment_add_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Sum; see :func:`segment_csr`."""
    return _reduced(src, indptr, out, "sum")


def segment_mean_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Mean, of integers rounded down; see :func:`segment_csr`."""
    return _reduced(src, indptr, out, "mean")


def segment_min_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Minimum and, int64, where along E it first occurs: E in an empty segment. See :func:`segment_csr`."""
    return _extreme(src, indptr, out, False)


def segment_max_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Maximum; otherwise as :func:`segment_min_csr`."""
    return _extreme(src, indptr, out, True)


def segment_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """``out[.., s, ..] = reduce of src[.., indptr[.., s]:indptr[.., s + 1], ..]``.

    Args:
        src: [.., E, ..]; floating point or integer.
        indptr: [.., S + 1] int64 or int32, never falling, within [0, E]; the dimensions before S + 1 broadcast. An
            indptr without entries has no segments.
        out: [.., S, ..], where to write the result; what it held before takes no part. Returned.
        reduce: "sum" or "add", "mean", "min", "max"; an empty segment gives 0.

    Raises:
        IndexError: boundaries that fall or leave the rows, on the CPU.
        RuntimeError: an indptr that does not broadcast.
        ValueError: another reduce, an ``out`` of another shape.
    """
    if reduce == "sum" or reduce == "add":
        return _reduced(src, indptr, out, "sum")
    if reduce == "mean":
        return _reduced(src, indptr, out, "mean")
    if reduce == "min":
        return _extreme(src, indptr, out, False)[0]
    if reduce == "max":
        return _extreme(src, indptr, out, True)[0]
    raise ValueError("segment_csr: reduce must be sum, add, mean, min or max, got " + reduce)


def gather_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """``out[.., e, ..] = src[.., s, ..]`` for e in ``indptr[.., s]:indptr[.., s + 1]``, the transpose of segment_csr.

    Args:
        src: [.., S, ..].
        indptr: [.., S + 1], never falling; the dimensions before S + 1 broadcast.
        out: [.., E, ..], where to write the result. Returned. Without it E is the last boundary.

    Returns:
        [.., E, ..], 0 where no segment is.

    Raises:
        IndexError, RuntimeError: as segment_csr.
        ValueError: an indptr for another number of segments, an ``out`` of another shape.
    """
    indptr = _checked(src, indptr)
    dim = indptr.dim() - 1
    count = src.size(dim)
    if count != indptr.size(-1) - 1 and src.numel() > 0:
        raise ValueError(f"gather_csr: indptr must have {count + 1} entries for {count} segments")
    if src.numel() == 0:
        indptr = indptr.new_zeros([count + 1])
    length = out.size(dim) if out is not None else int(indptr.reshape(-1)[-1])
    lead, rest = list(src.shape[:dim]), list(src.shape[dim + 1 :])
    ptr = _boundaries(indptr, lead, length)
    rows = computable(src)
    if dim > 0:
        rows = torch.cat([rows, rows.new_zeros(lead + [1] + rest)], dim)
    rows = rows.reshape(ptr.size(0) - 1, product(rest))
    found = segment_broadcast(rows, ptr, product(lead) * length)
    return write(found.reshape(lead + [length] + rest).to(src.dtype), out)
