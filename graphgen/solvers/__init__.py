"""Thin loops that carry a batch of graphs along a field."""

from graphgen.solvers.denoising_chain import denoising_chain
from graphgen.solvers.langevin import annealed_langevin, langevin
from graphgen.solvers.odeint import odeint
from graphgen.solvers.reverse_sde import reverse_sde
from graphgen.solvers.sdeint import sdeint

__all__ = ["annealed_langevin", "denoising_chain", "langevin", "odeint", "reverse_sde", "sdeint"]
