"""The divergence of a field, per graph."""

from graphgen.ops.trace._divergence import divergence
from graphgen.ops.trace.dots import graph_dot, graph_scale
from graphgen.ops.trace.hutchinson import add_in_order
from graphgen.ops.trace.probes import check_probes, draw_probe

__all__ = ["add_in_order", "check_probes", "divergence", "draw_probe", "graph_dot", "graph_scale"]
