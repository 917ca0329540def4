"""The steps of a solve in which every graph has its own, as calls of the engine that are prepared once.

An adaptive solve of a small molecule is mostly such calls: checking arguments anew each time would cost more than they.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforming

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops.reference.attempts import Attempts as ReferenceAttempts
from graphgen.ops.stepping._affine import accumulated, noise_of, partial_sums
from graphgen.ops.stepping.tableaus import Tableau

_PARTS = 4  # GG_PARTS
Block = tuple[Tensor, Tensor]  # rows [N, F] of the state, and the boundaries [B + 1] of the graphs' own


class Point(NamedTuple):
    """A state three times: the memory that the engine works on, its addresses, and what a field is given of it."""

    flat: list[Tensor]
    at: tuple[int, ...]
    given: Any


@dataclass(frozen=True)
class Rules:
    """How the steps of a solve are chosen.

    Attributes:
        start, span: where time begins and how far it goes; it runs backwards where ``backwards``.
        atol, rtol: what is tolerated of an element: atol + rtol max(|before|, |after|).
        equal_steps: so many steps of one length, whatever the error; 0 for steps by the error.
        safety, shrink, grow: the next step is safety error^(-1/order) times the last, within [shrink, grow].
        smallest: a step of this share of the span that is still not good ends the graph's solve.
    """

    start: float
    span: float
    backwards: bool = False
    atol: float = 1e-5
    rtol: float = 1e-5
    equal_steps: int = 0
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 5.0
    smallest: float = 1e-7


class Attempts:
    """Where every graph stands, and the calls that take it further.

    Attributes:
        done: [B] float64, how much of the span lies behind each graph.
        length: [B] float64, of the step it tries next.
        h: [B], the same with its direction; 0 for a graph that has arrived or failed.
        times: of each stage of that step the time [B].
        accepted: [B] bool, whether its last step was good.
        failed_at: [B] int64, the step at which it failed, or -1.

    The tensors are written anew by every call of `control`.
    """

    def __init__(self, tableau: Tableau, blocks: Sequence[Block], rules: Rules) -> None:
        like, ptr = blocks[0]
        graphs, device, real = ptr.shape[0] - 1, like.device, accumulated(like.dtype)
        self.tableau, self.rules = tableau, rules
        self.done = torch.zeros(graphs, dtype=torch.float64, device=device)
        self.length = torch.full_like(self.done, rules.span)
        self.h = torch.zeros(graphs, dtype=real, device=device)
        self.time = torch.zeros((len(tableau.c), graphs), dtype=real, device=device)
        self.times = self.time.unbind(0)
        self.accepted = torch.zeros(graphs, dtype=torch.bool, device=device)
        self.failed_at = torch.full((graphs,), -1, dtype=torch.int64, device=device)
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)
        self.norms = [torch.zeros(graphs, dtype=real, device=device) for _ in blocks]
        self.ptrs = [boundaries.long().contiguous() for _, boundaries in blocks]
        self.features = [rows.shape[1] for rows, _ in blocks]
        self._on_cuda = like.is_cuda
        self._place = torch.get_num_threads(), 0
        self._rooms = [partial_sums(rows, noise_of(bounds, None, 0, 0, 0, False)) for rows, bounds in blocks]
        self._blocks = [self._prepared(k, rows) for k, (rows, _) in enumerate(blocks)]
        self._control = self._prepared_control(_native.DTYPES[like.dtype])

    def stage(self, i: int, y: Point, slope: Sequence[Tensor], out: Point) -> None:
        """The state of stage i into `out`, given the slope of the stage before it. Rows [N, F], contiguous."""
        at, to, place = y.at, out.at, self._place
        for k, calls in enumerate(self._blocks):
            status = calls.stage(i, at[k], slope[k].data_ptr(), to[k], *place)
            if status:
                _native.check(status)

    def finish(self, y: Point, slope: Sequence[Tensor], out: Point | None) -> None:
        """The result into `out`, unless the last stage was it, and how wrong it is, given the last slope."""
        for k, calls in enumerate(self._blocks):
            status = calls.finish(y.at[k], slope[k].data_ptr(), 0 if out is None else out.at[k], *self._place)
            if status:
                _native.check(status)

    def control(self, step: int, tried: bool = True) -> None:
        """Decide on the step of this number, which every graph has tried, and prepare the next."""
        if self._on_cuda:
            self.counts.zero_()
            self._place = 0, torch.cuda.current_stream(self.h.device).cuda_stream
        status = self._control.run(step, tried, *self._place)
        if status:
            _native.check(status)

    def _prepared(self, k: int, rows: Tensor) -> Any:
        tableau, rules = self.tableau, self.rules
        # Of equal steps only whether they are finite is asked, and what is not makes this tolerance NaN.
        error, atol, rtol = tableau.error, rules.atol, rules.rtol
        if rules.equal_steps:
            error, atol, rtol = (0.0,) * len(tableau.b), 1.0, 0.0
        return _C.RungeKuttaCalls(
            tableau.a,
            tableau.b,
            error,
            self.ptrs[k].data_ptr(),
            self.h.data_ptr(),
            self.norms[k].data_ptr(),
            _native.address(self._rooms[k]),
            atol,
            rtol,
            self.h.shape[0],
            *rows.shape,
            _native.DTYPES[rows.dtype],
            int(self._on_cuda),
        )

    def _prepared_control(self, dtype: int) -> Any:
        rules = self.rules
        return _C.StepControlCalls(
            [norm.data_ptr() for norm in self.norms],
            [ptr.data_ptr() for ptr in self.ptrs],
            self.features,
            self.done.data_ptr(),
            self.length.data_ptr(),
            self.h.data_ptr(),
            self.time.data_ptr(),
            self.accepted.data_ptr(),
            self.failed_at.data_ptr(),
            self.counts.data_ptr(),
            self.tableau.c,
            rules.start,
            -1.0 if rules.backwards else 1.0,
            rules.span,
            rules.safety,
            rules.shrink,
            rules.grow,
            rules.smallest,
            self.h.shape[0],
            rules.equal_steps,
            self.tableau.error_order,
            dtype,
            int(self._on_cuda),
        )


def begin(tableau: Tableau, blocks: Sequence[Block], rules: Rules) -> Attempts | ReferenceAttempts:
    """The attempts of a solve; plain torch's where the engine has no kernels, or may not look."""
    fits = len(blocks) <= _PARTS and all(_native.runs(rows) for rows, _ in blocks) and not transforming()
    return Attempts(tableau, blocks, rules) if fits else ReferenceAttempts(tableau, blocks, rules)
