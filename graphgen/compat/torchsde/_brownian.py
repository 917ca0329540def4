"""Brownian motions as torchsde has them, on :func:`graphgen.ops.brownian_increment`.

Nothing is stored but what a path is asked to meet, and a question has the same answer whatever came before it.
"""

from __future__ import annotations

import abc
import hashlib
import math
import struct
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphgen import ops
from graphgen.compat.torchsde.settings import LEVY_AREA_APPROXIMATIONS
from graphgen.ops import _native
from graphgen.ops.brownian import increment
from graphgen.ops.noise import Stream

_RESOLUTION = 26  # halvings of the whole interval, where no tolerance is given
ROUGH = 2.0**-8  # of a cell: times in float32 are this near to its end if they are meant to be there
_FEW = 8  # elements of a row, below which rows are not graphs of their own: a graph's noise comes by fours


class BaseBrownian(metaclass=abc.ABCMeta):
    """What a solver may ask of a Brownian motion."""

    __slots__ = ()

    @abc.abstractmethod
    def __call__(self, ta, tb=None, return_U=False, return_A=False): ...

    @abc.abstractmethod
    def __repr__(self): ...

    @property
    @abc.abstractmethod
    def dtype(self): ...

    @property
    @abc.abstractmethod
    def device(self): ...

    @property
    @abc.abstractmethod
    def shape(self): ...

    @property
    @abc.abstractmethod
    def levy_area_approximation(self): ...

    def size(self):
        return self.shape


def _number(name: str, value: Any) -> float:
    if (isinstance(value, Tensor) and value.numel() != 1) or not isinstance(value, (int, float, Tensor)):
        raise ValueError(f"{name}: expected a number or a tensor of one, got {value!r}")
    return float(value)


def _agreed(kind: str, values: list[Any], default: Any) -> Any:
    """The one value that all who have an opinion share."""
    if not values:
        return default
    if any(value != values[0] for value in values):
        raise ValueError(f"{kind} of W and H, or the one given, differ: {values}")
    return values[0]


class BrownianInterval(BaseBrownian):
    """Increments of a Brownian motion over ``[t0, t1]``, of its time integral and of its Levy area.

    Arguments as torchsde's. The path is a function of ``entropy``, the shape, ``dt`` (or, without it, the step of the
    first solver that uses the object) and the times: it does not depend on what was asked before. With ``dt`` an
    increment between multiples of it from ``t0`` costs one normal a step; elsewhere, and everywhere if
    ``halfway_tree``, one costs some 2 log2((t1 - t0) / tol) normals. ``pool_size`` and ``cache_size`` change nothing.

    Raises:
        ValueError: times that are no numbers or out of order, a bad tolerance, an unknown approximation, W and H that
            do not agree.
    """

    def __init__(
        self,
        t0=0.0,
        t1=1.0,
        size=None,
        dtype=None,
        device=None,
        entropy=None,
        dt=None,
        tol=0.0,
        pool_size=8,
        cache_size=45,
        halfway_tree=False,
        levy_area_approximation=LEVY_AREA_APPROXIMATIONS.none,
        W=None,
        H=None,
    ):
        self._start, self._end = _number("t0", t0), _number("t1", t1)
        if self._start > self._end:
            raise ValueError(f"t0 = {self._start} is after t1 = {self._end}")
        self.dt = None if dt is None else _number("dt", dt)
        if halfway_tree and dt is not None:
            raise ValueError("dt has no use with halfway_tree=True: leave it out")
        if tol < 0 or (halfway_tree and tol == 0):
            raise ValueError(f"tol = {tol}: expected a {'positive' if halfway_tree else 'non-negative'} number")
        if levy_area_approximation not in LEVY_AREA_APPROXIMATIONS:
            raise ValueError(
                f"levy_area_approximation: expected one of {LEVY_AREA_APPROXIMATIONS}, got {levy_area_approximation!r}"
            )
        given = [tensor for tensor in (W, H) if tensor is not None]
        for tensor in given:
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                raise ValueError(f"W and H must be tensors of floating point numbers, got {tensor!r}")
        sizes = [tuple(tensor.shape) for tensor in given]
        if size is None and not sizes:
            raise ValueError("the shape is unknown: give size, W or H")
        self._size = _agreed("shapes", ([] if size is None else [tuple(size)]) + sizes, ())
        self._dtype = _agreed(
            "dtypes", ([] if dtype is None else [dtype]) + [x.dtype for x in given], torch.get_default_dtype()
        )
        self._device = _agreed(
            "devices",
            ([] if device is None else [torch.device(device)]) + [x.device for x in given],
            torch.device("cpu"),
        )
        # numpy's generator is the one that torchsde's users seed.
        self.entropy = np.random.randint(0, 2**31 - 1) if entropy is None else entropy
        self.tol, self.pool_size, self.cache_size, self.halfway_tree = tol, pool_size, cache_size, halfway_tree
        self._levy_area_approximation = levy_area_approximation
        self._has_integral = levy_area_approximation != LEVY_AREA_APPROXIMATIONS.none
        self._has_area = levy_area_approximation in (LEVY_AREA_APPROXIMATIONS.davie, LEVY_AREA_APPROXIMATIONS.foster)
        self.seed = int(self.entropy) % (1 << 64)
        self._cell = self.dt
        self._missing: tuple[Tensor | None, Tensor | None] | None = None if given else (None, None)
        self._met = (W, H)
        self._lay_out()

    # ---- how the path is drawn --------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Rows as graphs, as a fused step sees a state of this shape."""
        numel = math.prod(self._size)
        rows = self._size[0] if self._size else 1
        features = numel // rows if rows else 1
        if features < _FEW:
            rows, features = 1, numel
        self.rows, self.features = rows, features
        self.ptr = torch.arange(rows + 1, device=self._device)
        self._drawn = self._dtype if self._dtype in _native.DTYPES else torch.float32

    def expect(self, dt: float) -> None:
        """Solvers say their step before they begin; who came first decides."""
        if self._cell is None and not self.halfway_tree and dt > 0:
            self._cell = dt

    def _cells(self) -> tuple[float, int]:
        """Length of a cell, and how often it is halved."""
        span = self._end - self._start
        if self._cell is None:
            self._cell = span
        cell = self._cell or 1.0
        finest = self.tol or span * 2.0**-_RESOLUTION or 1.0
        return cell, min(47, max(0, math.ceil(math.log2(max(cell / finest, 1.0)))))

    def _since(self, time: float, cell: float, slack: float) -> float:
        """A time from t0 on; what is as near to the end of a cell as `slack` of it is there."""
        since = time - self._start
        boundary = round(since / cell)
        return boundary * cell if abs(since / cell - boundary) <= slack else since

    def _free(self, start: float, end: float, integral: bool, slack: float) -> tuple[Tensor, Tensor | None]:
        """Of the path that has not been asked to meet anything."""
        cell, depth = self._cells()
        found = increment(
            self.ptr,
            None,
            self.rows,
            self.features,
            self._since(start, cell, slack),
            self._since(end, cell, slack),
            self.seed,
            cell,
            depth,
            Stream.BROWNIAN,
            self._drawn,
            integral,
        )
        w, u = found if isinstance(found, tuple) else (found, None)
        w = w.view(self._size).to(self._dtype)
        return w, None if u is None else u.view(self._size).to(self._dtype)

    def first_of_steps(self, start: float, dt: float) -> int | None:
        """Which normals of the noise contract the step from `start` on draws, and each step after it the next; None if
        steps of dt are no cells of this path, or it is asked to meet something."""
        if self._met != (None, None) or self._cell != dt:
            return None
        first = (start - self._start) / dt
        return round(first) if abs(first - round(first)) < 1e-9 and first >= 0 else None

    def _misses(self) -> tuple[Tensor | None, Tensor | None]:
        """By how much the free path misses the W and the H it is asked to meet at the end."""
        if self._missing is None:
            span = self._end - self._start
            w, h = self._met
            free_w, free_u = self._free(self._start, self._end, True, 0.0)
            assert free_u is not None
            free_h = free_u / span - free_w / 2 if span else free_w
            self._missing = (None if w is None else w - free_w, None if h is None else h - free_h)
        return self._missing

    def _path(self, start: float, end: float, integral: bool, slack: float) -> tuple[Tensor, Tensor | None]:
        w, u = self._free(start, end, integral, slack)
        missing_w, missing_h = self._misses()
        span = self._end - self._start
        # A Gaussian path given its end, or its area, is a free one moved along its mean given these.
        if missing_w is not None:
            w = w + missing_w * ((end - start) / span)
            u = None if u is None else u + missing_w * ((end - start) ** 2 / (2 * span))
        if missing_h is not None:
            a, b = (start - self._start) / span, (end - self._start) / span
            w = w + missing_h * (6 * b * (1 - b) - 6 * a * (1 - a))
            below = span * (3 * b * b - 2 * b**3 - 3 * a * a + 2 * a**3) - (end - start) * 6 * a * (1 - a)
            u = None if u is None else u + missing_h * below
        return w, u

    def _area(self, start: float, end: float, w: Tensor, u: Tensor) -> Tensor:
        """Levy's area given W and H: its conditional mean, and noise of Davie's or Foster's size."""
        if w.dim() < 2:
            return torch.zeros_like(w)
        span = end - start
        if span == 0:
            return w.new_zeros((*w.shape, w.shape[-1]))
        h = u / span - w / 2
        key = hashlib.blake2b(struct.pack("<Qdd", self.seed, start, end), digest_size=8).digest()
        shape = (*w.shape, w.shape[-1])
        noise = ops.normal(
            torch.tensor([0, math.prod(shape)], device=self._device),
            1,
            int.from_bytes(key, "little"),
            stream=Stream.BROWNIAN,
            dtype=self._drawn,
        )
        noise = noise.view(shape).to(self._dtype)
        if self._levy_area_approximation == LEVY_AREA_APPROXIMATIONS.foster:
            squares = h.square()
            size = (span / 10 * (span / 10 + squares.unsqueeze(-1) + squares.unsqueeze(-2))).sqrt()
        else:
            size = torch.full_like(noise, span / math.sqrt(12))
        mean = h.unsqueeze(-1) * w.unsqueeze(-2)
        return mean - mean.transpose(-1, -2) + size * (noise - noise.transpose(-1, -2))

    # ---- what is asked of it ----------------------------------------------------------------------------------------

    def _within(self, name: str, time: float) -> float:
        if time < self._start or time > self._end:
            warnings.warn(f"{name} = {time} is outside [{self._start}, {self._end}], whose end is taken", stacklevel=3)
        return min(max(time, self._start), self._end)

    def __call__(self, ta, tb=None, return_U=False, return_A=False):
        rough = any(isinstance(t, Tensor) and t.dtype.itemsize < 8 for t in (ta, tb))
        start, end = (self._start, float(ta)) if tb is None else (float(ta), float(tb))
        start, end = self._within("ta", start), self._within("tb" if tb is not None else "ta", end)
        if start > end:
            raise RuntimeError(f"ta = {start} is after tb = {end}")
        return self.between(start, end, ROUGH if rough else 0.0, return_U, return_A)

    def between(self, start: float, end: float, slack: float, return_U: bool = False, return_A: bool = False) -> Any:
        """The same of times that are in order and within the interval."""
        need = (return_U and self._has_integral) or (return_A and self._has_area)
        w, u = self._path(start, end, need, slack)
        if not return_U and not return_A:
            return w
        area = None
        if return_A and self._has_area:
            assert u is not None
            area = self._area(start, end, w, u)
        found: list[Tensor | None] = [w]
        if return_U:
            found.append(u if self._has_integral else None)
        if return_A:
            found.append(area)
        return tuple(found)

    def __repr__(self):
        return (
            f"{type(self).__name__}(t0={self._start:.3f}, t1={self._end:.3f}, size={self._size}, dtype={self._dtype}, "
            f"device={self._device!r}, entropy={self.entropy}, dt={self.dt}, tol={self.tol}, "
            f"levy_area_approximation={self._levy_area_approximation!r})"
        )

    @property
    def dtype(self):
        return self._dtype

    @property
    def device(self):
        return self._device

    @property
    def shape(self):
        return self._size

    @property
    def levy_area_approximation(self):
        return self._levy_area_approximation


class _Derived(BaseBrownian):
    """A motion that asks another one."""

    def __init__(self, interval: BaseBrownian) -> None:
        self._interval = interval

    def __repr__(self):
        return f"{type(self).__name__}({self._interval!r})"

    @property
    def dtype(self):
        return self._interval.dtype

    @property
    def device(self):
        return self._interval.device

    @property
    def shape(self):
        return self._interval.shape

    @property
    def levy_area_approximation(self):
        return self._interval.levy_area_approximation


class ReverseBrownian(_Derived):
    """The same motion with time run backwards: its increment over [ta, tb] is that over [-tb, -ta], sign and all."""

    def __init__(self, base_brownian):
        super().__init__(base_brownian)
        self.base_brownian = base_brownian

    def __call__(self, ta, tb=None, return_U=False, return_A=False):
        return self.base_brownian(-tb, -ta, return_U=return_U, return_A=return_A)


class _From(_Derived):
    """A motion that starts at w0, and whose value at one time is asked for."""

    _w0: Tensor

    def __call__(self, t, tb=None, return_U=False, return_A=False):
        found = self._interval(t, tb, return_U=return_U, return_A=return_A)
        return found + self._w0 if tb is None and not return_U and not return_A else found


class BrownianPath(_From):
    """A motion from w0 at t0, over a time of 1; ``window_size`` changes nothing."""

    def __init__(self, t0, w0, window_size=8):
        super().__init__(BrownianInterval(t0, t0 + 1, size=w0.shape, dtype=w0.dtype, device=w0.device))
        self._w0 = w0


class BrownianTree(_From):
    """A motion from w0 at t0 to w1 at t1, a function of ``entropy`` alone; the rest changes nothing but ``tol``."""

    def __init__(self, t0, w0, t1=None, w1=None, entropy=None, tol=1e-6, pool_size=24, cache_depth=9, safety=None):
        super().__init__(
            BrownianInterval(
                t0,
                t0 + 1 if t1 is None else t1,
                size=w0.shape,
                dtype=w0.dtype,
                device=w0.device,
                entropy=entropy,
                tol=tol,
                pool_size=pool_size,
                halfway_tree=True,
                W=None if w1 is None else w1 - w0,
            )
        )
        self._w0 = w0


def brownian_interval_like(y, t0=0.0, t1=1.0, size=None, dtype=None, device=None, **kwargs):
    """A :class:`BrownianInterval` of a tensor's shape, dtype and device, but for those that are given."""
    return BrownianInterval(
        t0=t0,
        t1=t1,
        size=y.shape if size is None else size,
        dtype=y.dtype if dtype is None else dtype,
        device=y.device if device is None else device,
        **kwargs,
    )
