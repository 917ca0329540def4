"""Thin loops that carry a batch of graphs along a field."""

from graphgen.solvers.odeint import odeint

__all__ = ["odeint"]
