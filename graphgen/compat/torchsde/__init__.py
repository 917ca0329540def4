"""torchsde 0.2.6 on graphgen's noise and steps; ``graphgen.compat.install("torchsde")``.

Names, arguments and results are those of torchsde. Different on purpose:

* a Brownian motion is a function of its entropy and of time, whatever was asked of it before, and stores no tree; a
  fixed step costs the same over any span of time, and fixed steps are taken at ``t0 + k dt``, not at sums of dt;
* a state that is not finite raises GraphgenError, which names the step and its time;
* ``display_binary_tree`` has no tree to display, and asking for a point brings no warning: it costs the same.

``sdeint_adjoint`` is torchsde's own solver on these motions, and needs torchsde installed beside the drop-in.
"""

from graphgen import __version__ as _own_version
from graphgen.compat.torchsde import settings, types
from graphgen.compat.torchsde._adjoint import sdeint_adjoint
from graphgen.compat.torchsde._brownian import (
    BaseBrownian,
    BrownianInterval,
    BrownianPath,
    BrownianTree,
    ReverseBrownian,
    brownian_interval_like,
)
from graphgen.compat.torchsde._sde import BaseSDE, SDEIto, SDEStratonovich
from graphgen.compat.torchsde._solve import sdeint

# The release whose interface this is, and whose hands it is in.
__version__ = f"0.2.6+graphgen.{_own_version}"

__all__ = [
    "BaseBrownian",
    "BaseSDE",
    "BrownianInterval",
    "BrownianPath",
    "BrownianTree",
    "ReverseBrownian",
    "SDEIto",
    "SDEStratonovich",
    "__version__",
    "brownian_interval_like",
    "sdeint",
    "sdeint_adjoint",
    "settings",
    "types",
]
