"""torchdiffeq 0.2.5 on graphgen's steps; ``graphgen.compat.install("torchdiffeq")``.

Names, arguments and results are those of torchdiffeq: the same methods with the same choice of steps, so that results
agree to rounding. Its Runge-Kutta methods (dopri5, bosh3, fehlberg2, adaptive_heun, euler, midpoint, heun2, heun3 and
rk4) run here for real states, with `odeint` and with the adjoint. Whatever else is asked for (Adams and SciPy methods,
dopri8, events, complex states, callbacks, norms and tolerances of one's own, gradients by `t` through the steps, rarer
options) goes to torchdiffeq itself, which then has to be installed.
"""

from graphgen import __version__ as _own_version
from graphgen.compat.torchdiffeq._adjoint import odeint_adjoint
from graphgen.compat.torchdiffeq._events import odeint_dense, odeint_event
from graphgen.compat.torchdiffeq._odeint import odeint

# The release whose interface this is, and whose hands it is in.
__version__ = f"0.2.5+graphgen.{_own_version}"

__all__ = ["__version__", "odeint", "odeint_adjoint", "odeint_dense", "odeint_event"]
