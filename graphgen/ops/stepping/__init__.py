"""Fused solver steps for a batch of graphs, with their noise made inside the kernel."""

from graphgen.ops.stepping._affine import affine_noise_step
from graphgen.ops.stepping.prepared import PreparedStep
from graphgen.ops.stepping.runge_kutta import rk_combine, rk_combine_with_error
from graphgen.ops.stepping.sdes import SDE, VE, VP, SubVP
from graphgen.ops.stepping.steps import (
    annealed_langevin_step,
    ddpm_step,
    euler_maruyama_step,
    heun_step,
    langevin_step,
    probability_flow_step,
    reverse_sde_step,
)
from graphgen.ops.stepping.tableaus import BOSH3, DOPRI5, EULER, HEUN, METHODS, MIDPOINT, RK4, TABLEAUS, TSIT5, Tableau

__all__ = [
    "BOSH3",
    "DOPRI5",
    "EULER",
    "HEUN",
    "METHODS",
    "MIDPOINT",
    "RK4",
    "SDE",
    "TABLEAUS",
    "TSIT5",
    "VE",
    "VP",
    "PreparedStep",
    "SubVP",
    "Tableau",
    "affine_noise_step",
    "annealed_langevin_step",
    "ddpm_step",
    "euler_maruyama_step",
    "heun_step",
    "langevin_step",
    "probability_flow_step",
    "reverse_sde_step",
    "rk_combine",
    "rk_combine_with_error",
]
