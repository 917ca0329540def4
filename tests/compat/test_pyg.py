"""Layers of PyTorch Geometric whose aggregation is ours, against its own."""

import json

import pytest
import torch

pytest.importorskip("torch_geometric", reason="torch_geometric is not installed (pip install graphgen[pyg])")

REDUCES = ["sum", "mean", "max", "min"]
# Two steps of training on a ragged batch, and the parameters after them, for every aggregation. PyTorch Geometric hands
# sorted edges and a readout by `ptr` to torch_scatter wherever it finds one.
TRAINING = """
import json, sys
import torch
INSTALL
import torch_geometric.typing
from torch_geometric import EdgeIndex
from torch_geometric.nn import MessagePassing, aggr

torch.use_deterministic_algorithms(True)
generator = torch.Generator().manual_seed(0)
pairs = torch.randperm(900, generator=generator)[:90]  # each once: of equal maxima, torch's gradient counts every one
edges = torch.stack([pairs // 30, pairs % 30])
edge_index = EdgeIndex(edges[:, edges[1].argsort(stable=True)], sparse_size=(30, 30), sort_order="col")
x, y = torch.randn(30, 5, generator=generator), torch.randn(4, 7, generator=generator)
ptr = torch.tensor([0, 4, 4, 17, 30])

class Layer(MessagePassing):
    def __init__(self, size_in, size_out, how):
        super().__init__(aggr=how)
        self.linear = torch.nn.Linear(2 * size_in, size_out)
    def forward(self, x):
        return self.propagate(edge_index, x=x)
    def message(self, x_i, x_j):
        return torch.tanh(self.linear(torch.cat([x_i, x_j], -1)))

def train(how):
    torch.manual_seed(1)
    layers = torch.nn.ModuleList([Layer(5, 7, how), Layer(7, 7, how)])
    readout = aggr.SumAggregation()
    steps = torch.optim.SGD(layers.parameters(), lr=0.1)
    results = []
    for _ in range(2):
        steps.zero_grad()
        h = x
        for layer in layers:
            h = layer(h)
        loss = (readout(h, ptr=ptr) - y).square().mean()
        loss.backward()
        steps.step()
        results.append([loss.item()])
    return results + [p.detach().flatten().tolist() for p in layers.parameters()]

calls = []
WATCH
print(json.dumps({
    "results": {how: train(how) for how in REDUCES},
    "found": torch_geometric.typing.WITH_TORCH_SCATTER,
    "calls": calls,
}))
"""
INSTALL = """
from graphgen import compat
library = compat.install("torch_scatter")
"""
WATCH = """
assert torch_geometric.typing.torch_scatter is library
segment_csr = library.segment_csr
def counted(*args, **kwargs):
    calls.append(kwargs["reduce"])
    return segment_csr(*args, **kwargs)
library.segment_csr = counted
"""
ABSENT = 'sys.modules["torch_scatter"] = None'


def test_geometric_trains_the_same_on_the_drop_in(run_python):
    def run(install, watch):
        program = TRAINING.replace("INSTALL", install).replace("WATCH", watch).replace("REDUCES", repr(REDUCES))
        done = run_python(program)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    ours, own = run(INSTALL, WATCH), run(ABSENT, "")
    assert ours["found"] and not own["found"]
    for reduce in REDUCES:
        assert ours["calls"].count(reduce) >= 4  # two layers, two steps
        for a, b in zip(ours["results"][reduce], own["results"][reduce], strict=True):
            torch.testing.assert_close(torch.tensor(a), torch.tensor(b))


def layers(aggregation):
    from torch_geometric.nn import MessagePassing

    class Layer(MessagePassing):
        def __init__(self, size_in, size_out):
            super().__init__(aggr=aggregation())
            self.linear = torch.nn.Linear(2 * size_in, size_out)

        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x)

        def message(self, x_i, x_j):
            return torch.tanh(self.linear(torch.cat([x_i, x_j], -1)))

    torch.manual_seed(0)
    return torch.nn.ModuleList([Layer(5, 7), Layer(7, 3)])


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "mul"])
def test_a_layer_trains_the_same_on_our_aggregation(reduce):
    from graphgen.compat.pyg import Aggregation

    generator = torch.Generator().manual_seed(1)
    edge_index = torch.randint(0, 20, (2, 60), generator=generator)
    x, y = torch.randn(20, 5, generator=generator), torch.randn(20, 3, generator=generator)

    def two_steps(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for _ in range(2):
            optimizer.zero_grad()
            h = x
            for layer in model:
                h = layer(h, edge_index)
            loss = (h - y).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return [*losses, *(parameter.detach() for parameter in model.parameters())]

    for ours, theirs in zip(
        two_steps(layers(lambda: Aggregation(reduce))), two_steps(layers(lambda: reduce)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_aggregation_by_ptr_along_any_dimension():
    from graphgen.compat.pyg import Aggregation

    x, ptr, index = torch.randn(2, 6, 3), torch.tensor([0, 2, 2, 6]), torch.tensor([0, 0, 2, 2, 2, 2])
    for reduce in ("sum", "mean", "max", "min", "mul"):
        module = Aggregation(reduce)
        expected = torch.stack([module(part, index, dim_size=3, dim=0) for part in x])
        torch.testing.assert_close(module(x, ptr=ptr, dim=1), expected)
        torch.testing.assert_close(module(x, index, dim_size=3), expected)
    assert module(x).shape == (2, 1, 3)
    assert repr(module) == "Aggregation('mul')"
    with pytest.raises(ValueError, match="one of sum, mean, max, min, mul, got 'median'"):
        Aggregation("median")
