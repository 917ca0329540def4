"""The affine step for a loop: what its calls share is checked once, and a call pays for what changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforming
from torch.autograd import forward_ad

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops.noise import Stream
from graphgen.ops.stepping._affine import (
    MAX_TERMS,
    PerGraph,
    _check_keep,
    _keep_features,
    accumulated,
    noise_of,
    take_step,
)


class PreparedStep:
    """:func:`affine_noise_step` on states of one shape, with noise of one seed and stream.

    Derivatives are there if they could be asked for where this was made; then a call costs what the function does.

    Args:
        like: a state, [N, F].
        ptr, seed, stream, graph_ids, keep, symmetric: as :func:`affine_noise_step`.

    Attributes:
        broken: [B] int64, the number of the step whose result was the first of the graph not to be finite, or -1.
    """

    def __init__(
        self,
        like: Tensor,
        ptr: Tensor,
        *,
        seed: int = 0,
        stream: int = Stream.STEP,
        graph_ids: Tensor | None = None,
        keep: Tensor | None = None,
        symmetric: bool = False,
    ) -> None:
        if like.dim() != 2:
            raise ValueError(f"state: expected [N, F], got {list(like.shape)}")
        _check_keep(keep, like)
        self.noise = noise_of(ptr, graph_ids, seed, stream, 0, symmetric)
        self.keep = None if keep is None else keep.contiguous()
        self.shape, self.dtype = like.shape, like.dtype
        self.number_type = accumulated(like.dtype)
        self.graphs = self.noise.ptr.shape[0] - 1
        self.broken = torch.full((self.graphs,), -1, dtype=torch.int64, device=like.device)
        traced = torch.compiler.is_compiling() or transforming() or forward_ad._current_level >= 0
        self._looks = not traced  # at values, which a trace does not have
        self._direct = _native.runs(like) and not (traced or torch.is_grad_enabled())
        self._on_cpu = like.is_cpu
        *head, _, self._symmetric = self.noise.addresses()
        self._head = tuple(head)
        self._none = [(0,) * count for count in range(MAX_TERMS + 1)]
        self._keep = (_native.address(self.keep), _keep_features(self.keep))
        self._watch = self.broken.data_ptr()
        self._tail = (self.graphs, *like.shape, _native.DTYPES.get(like.dtype, 0))
        self._place = (0, torch.get_num_threads(), 0)

    def __call__(
        self,
        step: int,
        terms: Sequence[Tensor],
        coefficients: Sequence[PerGraph],
        noise: PerGraph = 0.0,
        diffusion: Tensor | None = None,
        out: Tensor | None = None,
        watched: bool = True,
    ) -> Tensor:
        """``sum_k coefficients[k] terms[k] + noise * diffusion * xi(step)``.

        Args:
            step: its number, 0 <= step < 2^32.
            terms, coefficients, noise, diffusion: as :func:`affine_noise_step`.
            out: a state that may be written instead of a new one, if there is no derivative.
            watched: whether ``broken`` hears of the result.
        """
        if not self._direct:
            key = self.noise._replace(step=step)
            result = take_step(terms, coefficients, key, noise, diffusion, self.keep)
            if watched and self._looks:
                self._look(result.detach(), step)
            return result
        # Few of Python's calls: on small molecules they are what a step costs.
        shape, dtype = self.shape, self.dtype
        arrays: list[int] = []
        numbers: Sequence[int] = self._none[len(terms)]
        scales: Sequence[PerGraph] = coefficients
        if len(coefficients) != len(terms):
            raise ValueError(f"a step takes as many coefficients as arrays, got {len(coefficients)} and {len(terms)}")
        held: Any = None  # what must live until the call
        for term in terms:
            if term.shape != shape or term.dtype is not dtype:
                raise ValueError(f"arrays of a step differ: {list(shape)} {dtype}, got {list(term.shape)} {term.dtype}")
            if not term.is_contiguous():
                term = term.contiguous()
                held = held, term
            arrays.append(term.data_ptr())
        for number in coefficients:
            if type(number) is not float:
                tensors, numbers, scales = self._per_graph(coefficients)
                held = held, tensors
                break
        spread, width, array = 0, noise, 0
        if type(noise) is not float:
            tensors, (spread,), (width,) = self._per_graph((noise,))
            held = held, tensors
        if diffusion is not None:
            if diffusion.shape != shape or diffusion.dtype is not dtype:
                raise ValueError(
                    f"diffusion: expected {list(shape)} {dtype}, got {list(diffusion.shape)} {diffusion.dtype}"
                )
            diffusion = diffusion.contiguous()
            array = diffusion.data_ptr()
        if out is None:
            out = torch.empty(shape, dtype=dtype, device=self.broken.device)
        elif out.shape != shape or out.dtype is not dtype or not out.is_contiguous():
            raise ValueError(f"out: expected contiguous {list(shape)} {dtype}, got {list(out.shape)} {out.dtype}")
        arguments = (
            *self._head,
            step,
            self._symmetric,
            arrays,
            numbers,
            scales,
            spread != 0 or width != 0,
            array,
            spread,
            width,
            *self._keep,
            out.data_ptr(),
            self._watch if watched else 0,
            *self._tail,
        )
        if self._on_cpu:
            status = _C.affine_noise_step(*arguments, *self._place)
            if status:
                _native.check(status)
        else:
            _native.call(_C.affine_noise_step, out, *arguments)
        return out

    def _per_graph(self, numbers: Sequence[PerGraph]) -> tuple[list[Tensor], list[int], list[float]]:
        """What there is per graph, its addresses or 0, and factors."""
        tensors, addresses, scales = [], [], []
        for number in numbers:
            if isinstance(number, Tensor):
                if number.shape != (self.graphs,):
                    raise ValueError(f"expected a number or [{self.graphs}], one per graph, got {list(number.shape)}")
                number = number.to(self.number_type).contiguous()
                tensors.append(number)
            addresses.append(number.data_ptr() if isinstance(number, Tensor) else 0)
            scales.append(1.0 if isinstance(number, Tensor) else number)
        return tensors, addresses, scales

    def _look(self, result: Tensor, step: int) -> None:
        ptr = self.noise.ptr
        wrong = (~torch.isfinite(result)).any(1).long().cumsum(0)
        before = torch.cat([wrong.new_zeros(1), wrong])
        fresh = (before[ptr[1:]] > before[ptr[:-1]]) & (self.broken < 0)
        self.broken.masked_fill_(fresh, step)
