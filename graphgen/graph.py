"""GraphBatch: the one graph type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforming
from torch._C._functorch import is_functorch_wrapped_tensor as _is_wrapped
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack


class Adjacency(NamedTuple):
    """Edges grouped by the node that sums over them: row i owns the slots ``rowptr[i]:rowptr[i + 1]``.

    ``neighbor[s]`` is the node at the other end of slot s. ``edge[s]`` is the edge (a row of any
    per-edge tensor) that slot s stands for; None means slot s is edge s.
    """

    rowptr: Tensor
    neighbor: Tensor
    edge: Tensor | None


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """A batch of directed graphs as one disconnected graph in compressed rows.

    Every per-edge tensor handed to an op is in the order of ``col``: sorted by target, stable. A tensor in the
    order of the ``edge_index`` the batch was made from becomes so by ``tensor[graph.perm]``. Empty graphs,
    isolated nodes, self-loops and duplicate edges are legal. All index tensors share the dtype (int32 or int64)
    and device of that ``edge_index``.

    Attributes:
        ptr: [B + 1] nodes ``ptr[g]:ptr[g + 1]`` belong to graph g.
        rowptr: [N + 1] edges ``rowptr[i]:rowptr[i + 1]`` enter node i.
        col: [E] source node of each edge.
        perm: [E] place of each edge in the original ``edge_index``.
        edge_attr: [E, ...] in the order of ``col``, or None.
        num_edge_types: 1 + the largest value of a 1-D integer ``edge_attr``, else 0.
    """

    ptr: Tensor
    rowptr: Tensor
    col: Tensor
    perm: Tensor
    edge_attr: Tensor | None = None
    num_edge_types: int = 0
    _shared: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        num_nodes: int,
        batch: Tensor | None = None,
        ptr: Tensor | None = None,
        edge_attr: Tensor | None = None,
    ) -> GraphBatch:
        """Build and validate a batch.

        Args:
            edge_index: [2, E] int32 or int64, rows (source, target).
            num_nodes: N, nodes of all graphs together.
            batch: [N] graph of each node, ascending; or
            ptr: [B + 1] graph boundaries. With neither, all nodes are one graph.
            edge_attr: [E, ...] in the order of ``edge_index``. A 1-D integer tensor is read as edge types.

        Raises:
            IndexError: an edge leaves the nodes or its graph; the message names the edge.
            ValueError: shapes or dtypes that do not fit.
        """
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise ValueError(f"edge_index: expected shape [2, E], got {list(edge_index.shape)}")
        if edge_index.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"edge_index: expected int32 or int64, got {edge_index.dtype}")
        if edge_index.dtype == torch.int32 and max(num_nodes, edge_index.shape[1]) > 2**31 - 1:
            raise ValueError("edge_index: this many nodes or edges do not fit int32; use int64")
        if batch is not None and ptr is not None:
            raise ValueError("give batch or ptr, not both")
        dtype, device = edge_index.dtype, edge_index.device
        if ptr is None:
            ptr = _ptr_of(batch, num_nodes) if batch is not None else torch.tensor([0, num_nodes])
        ptr = ptr.to(device=device, dtype=dtype)
        _check_ptr(ptr, num_nodes)
        if edge_attr is not None and (edge_attr.dim() == 0 or edge_attr.shape[0] != edge_index.shape[1]):
            raise ValueError(
                f"edge_attr: expected {edge_index.shape[1]} rows, one per edge, got shape {list(edge_attr.shape)}"
            )
        source, target = edge_index.contiguous()
        _check_edges(source, target, num_nodes, ptr)
        perm = torch.argsort(target, stable=True)
        sorted_attr = None if edge_attr is None else edge_attr[perm]
        return cls(
            ptr=ptr,
            rowptr=_rowptr_of(target, num_nodes),
            col=source[perm],
            perm=perm.to(dtype),
            edge_attr=sorted_attr,
            num_edge_types=_count_types(sorted_attr),
        )

    @property
    def num_graphs(self) -> int:
        return self.ptr.numel() - 1

    @property
    def num_nodes(self) -> int:
        return self.rowptr.numel() - 1

    @property
    def num_edges(self) -> int:
        return self.col.numel()

    @property
    def device(self) -> torch.device:
        return self.col.device

    # By hand: torch.compile cannot trace functools.cached_property before Python 3.12.
    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """What depends on nothing but the graph, made once by ``make`` and kept under that name."""
        if name not in self._shared:
            if not torch.compiler.is_compiling() and transforming() and not _is_wrapped(self.col):
                # The graph is from outside; what is made inside a transform is its wrapper, which must not outlive it.
                with temporarily_clear_interpreter_stack():
                    self._shared[name] = make()
            else:
                self._shared[name] = make()
        return self._shared[name]

    @property
    def batch(self) -> Tensor:
        """[N] graph of each node."""
        return self.shared("batch", lambda: _rows_of(self.ptr, self.num_nodes))

    @property
    def target(self) -> Tensor:
        """[E] target node of each edge, ascending."""
        return self.shared("target", lambda: _rows_of(self.rowptr, self.num_edges))

    @property
    def edge_index(self) -> Tensor:
        """[2, E] (source, target) in the order of ``col``."""
        return torch.stack([self.col, self.target])

    @property
    def degree(self) -> Tensor:
        """[N] number of edges that enter each node."""
        return self.rowptr.diff()

    @property
    def transpose(self) -> GraphBatch:
        """The same graphs with every edge turned round, cached; its ``perm`` indexes this batch's edges."""
        return self.shared("transpose", self._turned)

    def _turned(self) -> GraphBatch:
        order = torch.argsort(self.col, stable=True)
        return GraphBatch(
            ptr=self.ptr,
            rowptr=_rowptr_of(self.col, self.num_nodes),
            col=self.target[order],
            perm=order.to(self.col.dtype),
            edge_attr=None if self.edge_attr is None else self.edge_attr[order],
            num_edge_types=self.num_edge_types,
        )

    @property
    def incoming(self) -> Adjacency:
        """Edges by target."""
        return Adjacency(self.rowptr, self.col, None)

    @property
    def outgoing(self) -> Adjacency:
        """Edges by source."""
        turned = self.transpose
        return Adjacency(turned.rowptr, turned.col, turned.perm)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GraphBatch:
        """The batch on another device; a transpose already made moves along."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> GraphBatch:
        """The batch in page-locked memory, for copies to a GPU that overlap work."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, move: Any) -> GraphBatch:
        moved = replace(
            self,
            ptr=move(self.ptr),
            rowptr=move(self.rowptr),
            col=move(self.col),
            perm=move(self.perm),
            edge_attr=None if self.edge_attr is None else move(self.edge_attr),
        )
        if "transpose" in self._shared:
            moved._shared["transpose"] = self._shared["transpose"]._map(move)
        return moved

    @classmethod
    def from_pyg(cls, data: Any) -> GraphBatch:
        """From a ``torch_geometric.data.Data`` or ``Batch``: edge_index, num_nodes, ptr or batch, edge_attr.

        An ``edge_attr`` of shape [E, 1] and integer dtype becomes [E]. Node features stay with the caller.
        """
        ptr = getattr(data, "ptr", None)
        batch = getattr(data, "batch", None) if ptr is None else None
        edge_attr = getattr(data, "edge_attr", None)
        if isinstance(edge_attr, Tensor) and edge_attr.shape[1:] == (1,) and not edge_attr.dtype.is_floating_point:
            edge_attr = edge_attr[:, 0]
        return cls.from_edge_index(data.edge_index, data.num_nodes, batch=batch, ptr=ptr, edge_attr=edge_attr)

    def to_pyg(self, x: Tensor | None = None) -> Any:
        """A ``torch_geometric.data.Batch`` with these edges in the order of ``col`` and node features x."""
        from torch_geometric.data import Batch, Data

        graphs = []
        bounds = self.ptr.tolist()
        edge_bounds = self.rowptr[self.ptr].tolist()
        for g, (first, last) in enumerate(pairwise(bounds)):
            edges = slice(edge_bounds[g], edge_bounds[g + 1])
            graphs.append(
                Data(
                    x=None if x is None else x[first:last],
                    edge_index=self.edge_index[:, edges].long() - first,
                    edge_attr=None if self.edge_attr is None else self.edge_attr[edges],
                    num_nodes=last - first,
                )
            )
        return Batch.from_data_list(graphs)


def _ptr_of(batch: Tensor, num_nodes: int) -> Tensor:
    if batch.shape != (num_nodes,):
        raise ValueError(f"batch: expected shape [{num_nodes}], one graph per node, got {list(batch.shape)}")
    if num_nodes and (int(batch[0]) < 0 or bool((batch.diff() < 0).any())):
        raise ValueError("batch: graph numbers must be >= 0 and ascending")
    counts = torch.bincount(batch.long()) if num_nodes else batch.new_zeros(0).long()
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _check_ptr(ptr: Tensor, num_nodes: int) -> None:
    if ptr.dim() != 1 or ptr.numel() == 0:
        raise ValueError(f"ptr: expected shape [B + 1], got {list(ptr.shape)}")
    if int(ptr[0]) != 0 or int(ptr[-1]) != num_nodes or bool((ptr.diff() < 0).any()):
        raise ValueError(f"ptr: must start at 0, never fall and end at num_nodes = {num_nodes}")


def _check_edges(source: Tensor, target: Tensor, num_nodes: int, ptr: Tensor) -> None:
    if source.numel() == 0:
        return
    outside = (source < 0) | (source >= num_nodes) | (target < 0) | (target >= num_nodes)
    if bool(outside.any()):
        e = int(outside.nonzero()[0])
        raise IndexError(f"edge {e} ({int(source[e])} -> {int(target[e])}) leaves the {num_nodes} nodes of the batch")
    if ptr.numel() > 2:
        home = torch.bucketize(source, ptr[1:], right=True)
        crossing = home != torch.bucketize(target, ptr[1:], right=True)
        if bool(crossing.any()):
            e = int(crossing.nonzero()[0])
            raise IndexError(
                f"edge {e} ({int(source[e])} -> {int(target[e])}) leaves graph {int(home[e])} for another one"
            )


def _rowptr_of(rows: Tensor, num_rows: int) -> Tensor:
    # Not by bincount, whose result has a size that torch.compile cannot know.
    counts = rows.new_zeros(num_rows + 1).index_add_(0, rows + 1, torch.ones_like(rows))
    return counts.cumsum(0).to(rows.dtype)


def _rows_of(rowptr: Tensor, total: int) -> Tensor:
    rows = torch.arange(rowptr.numel() - 1, device=rowptr.device, dtype=rowptr.dtype)
    return rows.repeat_interleave(rowptr.diff(), output_size=total)


def _count_types(edge_attr: Tensor | None) -> int:
    if edge_attr is None or edge_attr.dim() != 1 or edge_attr.dtype.is_floating_point or edge_attr.numel() == 0:
        return 0
    low, high = torch.aminmax(edge_attr)
    if int(low) < 0:
        raise IndexError(f"edge_attr: edge types must be >= 0, found {int(low)}")
    return int(high) + 1
