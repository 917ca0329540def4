"""sdeint_adjoint: torchsde's own, on our Brownian motions, whose noise backwards costs no more than forwards."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.compat.torchsde._brownian import BrownianInterval
from graphgen.compat.torchsde._original import original
from graphgen.compat.torchsde._sde import parts_of
from graphgen.compat.torchsde._solve import check_sde, chosen_method, finite, noise_size, sdeint, times_of
from graphgen.compat.torchsde.settings import METHODS


def sdeint_adjoint(
    sde,
    y0,
    ts,
    bm=None,
    method=None,
    adjoint_method=None,
    dt=1e-3,
    adaptive=False,
    adjoint_adaptive=False,
    rtol=1e-5,
    adjoint_rtol=1e-5,
    atol=1e-4,
    adjoint_atol=1e-4,
    dt_min=1e-5,
    options=None,
    adjoint_options=None,
    adjoint_params=None,
    names=None,
    logqp=False,
    extra=False,
    extra_solver_state=None,
    **unused_kwargs,
):
    """:func:`sdeint` with gradients by the stochastic adjoint; torchsde's function of this name does the solving.

    Raises:
        ImportError: torchsde is not installed.
        ValueError: what torchsde refuses.
        GraphgenError: the state is not finite; it says after which step, and at what time.

    Source: Li, Wong, Chen and Duvenaud, Scalable gradients for stochastic differential equations (AISTATS 2020).
    """
    library = original("sdeint_adjoint")
    fits = isinstance(y0, Tensor) and y0.dim() == 2 and (method is None or method in METHODS)
    if bm is None and fits:
        check_sde(sde)
        _, chosen = chosen_method(method, sde)
        ts = times_of(ts, y0)
        size = noise_size(parts_of(sde, names), sde.noise_type, ts[0], y0, None)
        bm = BrownianInterval(
            ts[0],
            ts[-1],
            size=(y0.shape[0], size + (logqp and sde.noise_type == "diagonal")),
            dtype=y0.dtype,
            device=y0.device,
            levy_area_approximation=chosen.area,
        )
    if isinstance(bm, BrownianInterval) and not adaptive:
        bm.expect(float(dt))
    shared = dict(
        bm=bm,
        method=method,
        dt=dt,
        adaptive=adaptive,
        rtol=rtol,
        atol=atol,
        dt_min=dt_min,
        options=options,
        names=names,
        logqp=logqp,
        extra_solver_state=extra_solver_state,
    )
    found = library.sdeint_adjoint(
        sde,
        y0,
        ts,
        adjoint_method=adjoint_method,
        adjoint_adaptive=adjoint_adaptive,
        adjoint_rtol=adjoint_rtol,
        adjoint_atol=adjoint_atol,
        adjoint_options=adjoint_options,
        adjoint_params=adjoint_params,
        extra=extra,
        **shared,
        **unused_kwargs,
    )
    if not finite(found if isinstance(found, Tensor) else found[0]):
        with torch.no_grad():
            sdeint(sde, y0, ts, **shared)  # which says where, for the noise is the same
    return found
