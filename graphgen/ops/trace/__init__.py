"""The divergence of a field, per graph."""

from graphgen.ops.trace._divergence import divergence
from graphgen.ops.trace.dots import graph_dot, graph_scale
from graphgen.ops.trace.probes import probe_dot

__all__ = ["divergence", "graph_dot", "graph_scale", "probe_dot"]
