from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphgen import GraphBatch


@given(seed=st.integers(0, 10**6), index=st.sampled_from([torch.int32, torch.int64]))
def test_compressed_rows_hold_every_edge_once_sorted_stably(seed, index):
    generator = torch.Generator().manual_seed(seed)
    nodes, edges = (int(torch.randint(low, 12, (), generator=generator)) for low in (1, 0))
    edge_index = torch.randint(0, nodes, (2, edges), generator=generator).to(index)
    kind = torch.randint(0, 4, (edges,), generator=generator)
    graph = GraphBatch.from_edge_index(edge_index, nodes, edge_attr=kind)

    expected = sorted(range(edges), key=lambda e: int(edge_index[1, e]))  # Python's sort is stable
    assert graph.perm.tolist() == expected
    assert torch.equal(graph.edge_index, edge_index[:, expected])
    assert torch.equal(graph.edge_attr, kind[expected])
    assert graph.num_edge_types == (int(kind.max()) + 1 if edges else 0)
    assert graph.degree.tolist() == [int((edge_index[1] == i).sum()) for i in range(nodes)]
    assert {t.dtype for t in (graph.ptr, graph.rowptr, graph.col, graph.perm, graph.target)} == {index}
    assert (graph.num_graphs, graph.num_nodes, graph.num_edges) == (1, nodes, edges)


@given(seed=st.integers(0, 10**6), index=st.sampled_from([torch.int32, torch.int64]))
def test_transpose_is_the_same_edges_turned_round(make_graph, seed, index):
    graph = make_graph(seed, index=index)
    turned = graph.transpose
    assert torch.equal(turned.edge_index.flip(0), graph.edge_index[:, turned.perm])
    assert torch.equal(turned.edge_attr, graph.edge_attr[turned.perm])
    assert bool((turned.target.diff() >= 0).all())
    assert graph.transpose is turned
    assert {t.dtype for t in (turned.rowptr, turned.col, turned.perm)} == {index}
    slots = graph.outgoing
    assert torch.equal(slots.neighbor, graph.target[slots.edge])


def test_batch_vector_and_ptr_say_the_same():
    edge_index = torch.tensor([[0, 1, 3], [1, 0, 4]])
    batch = torch.tensor([0, 0, 2, 3, 3])
    graph = GraphBatch.from_edge_index(edge_index, 5, batch=batch)
    assert graph.ptr.tolist() == [0, 2, 2, 3, 5]  # graph 1 is empty
    assert torch.equal(graph.batch, batch)
    assert torch.equal(GraphBatch.from_edge_index(edge_index, 5, ptr=graph.ptr).batch, batch)


def test_nothing_at_all_is_a_graph():
    graph = GraphBatch.from_edge_index(torch.empty(2, 0, dtype=torch.int64), 0, ptr=torch.tensor([0]))
    assert (graph.num_graphs, graph.num_nodes, graph.num_edges) == (0, 0, 0)
    assert graph.transpose.num_edges == 0
    assert graph.batch.tolist() == []


EDGES = torch.tensor([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("edge_index", "arguments", "error", "says"),
    [
        (torch.tensor([[0, 5], [1, 0]]), {}, IndexError, r"edge 1 \(5 -> 0\) leaves the 4 nodes"),
        (torch.tensor([[0, 1], [1, -1]]), {}, IndexError, r"edge 1 \(1 -> -1\)"),
        (
            torch.tensor([[0, 1], [1, 2]]),
            {"ptr": torch.tensor([0, 2, 4])},
            IndexError,
            r"edge 1 .* leaves graph 0",
        ),
        (EDGES, {"edge_attr": torch.tensor([0, -2])}, IndexError, "found -2"),
        (EDGES, {"edge_attr": torch.tensor([0])}, ValueError, "expected 2 rows"),
        (EDGES, {"edge_attr": torch.tensor(0)}, ValueError, "expected 2 rows"),
        (EDGES, {"ptr": torch.tensor([0, 3])}, ValueError, "end at num_nodes = 4"),
        (EDGES, {"ptr": torch.tensor([1, 4])}, ValueError, "start at 0"),
        (EDGES, {"ptr": torch.tensor([0, 3, 2, 4])}, ValueError, "never fall"),
        (EDGES, {"ptr": torch.empty(0, dtype=torch.int64)}, ValueError, r"\[B \+ 1\]"),
        (EDGES, {"batch": torch.tensor([0, 0, 0])}, ValueError, "one graph per node"),
        (EDGES, {"batch": torch.tensor([0, 1, 0, 1])}, ValueError, "ascending"),
        (EDGES, {"batch": torch.zeros(4).long(), "ptr": torch.tensor([0, 4])}, ValueError, "not both"),
        (EDGES.float(), {}, ValueError, "int32 or int64"),
        (EDGES.t()[:1], {}, ValueError, r"\[2, E\]"),
    ],
)
def test_what_does_not_fit_is_refused(edge_index, arguments, error, says):
    with pytest.raises(error, match=says):
        GraphBatch.from_edge_index(edge_index, 4, **arguments)


def test_int32_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match="use int64"):
        GraphBatch.from_edge_index(torch.empty(2, 0, dtype=torch.int32), 2**31)


def test_moving_keeps_everything_and_takes_the_transpose_along(make_graph):
    graph = make_graph(3, sizes=[4, 0, 5])
    turned = graph.transpose
    moved = graph.to("meta")
    assert moved.device.type == "meta"
    assert moved.transpose.device.type == "meta"
    assert moved.transpose is not turned
    assert (moved.num_nodes, moved.num_edges, moved.num_edge_types) == (
        9,
        graph.num_edges,
        graph.num_edge_types,
    )
    back = graph.to("cpu")
    for name in ("ptr", "rowptr", "col", "perm", "edge_attr"):
        assert torch.equal(getattr(back, name), getattr(graph, name))
        assert torch.equal(getattr(back.transpose, name), getattr(turned, name))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")
def test_pinned_memory_is_pinned(make_graph):
    pinned = make_graph(3, sizes=[4, 5]).pin_memory()
    assert all(t.is_pinned() for t in (pinned.ptr, pinned.rowptr, pinned.col, pinned.perm, pinned.edge_attr))


def test_from_pyg_reads_ptr_or_batch_and_flattens_edge_types():
    data = SimpleNamespace(edge_index=torch.tensor([[0, 2], [1, 3]]), num_nodes=4, edge_attr=torch.tensor([[2], [1]]))
    whole = GraphBatch.from_pyg(data)
    assert whole.num_graphs == 1
    assert whole.edge_attr.tolist() == [2, 1]
    data.batch = torch.tensor([0, 0, 1, 1])
    assert GraphBatch.from_pyg(data).ptr.tolist() == [0, 2, 4]
    data.ptr = torch.tensor([0, 2, 2, 4])
    assert GraphBatch.from_pyg(data).ptr.tolist() == [0, 2, 2, 4]


def test_pyg_and_back(make_graph):
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    graph = make_graph(5, sizes=[4, 1, 5])
    x = torch.randn(10, 3)
    batch = graph.to_pyg(x)
    back = GraphBatch.from_pyg(batch)
    assert torch.equal(batch.x, x)
    for name in ("ptr", "rowptr", "col", "edge_attr"):
        assert torch.equal(getattr(back, name), getattr(graph, name))
