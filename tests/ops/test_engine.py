"""The engine as a whole: instruction sets, its thread pool, how failures reach Python."""

import sys

import pytest
import torch

from graphgen import _C

# Every op against the reference in float64, at sizes with a rest for every vector width; prints a hash of the noise.
CHECK = """
import hashlib
import torch
from graphgen import GraphBatch, _C, ops
from graphgen.ops import reference

assert _C.instruction_set() == {isa!r}, _C.instruction_set()
torch.manual_seed(0)
edges = torch.randint(0, 50, (2, 130))
graph = GraphBatch.from_edge_index(edges, 50, edge_attr=torch.randint(0, 3, (130,)))
ptr = torch.tensor([0, 7, 7, 50])
tolerance = {{torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2**-6}}

def compare(what, ours, exact):
    room = tolerance[ours.dtype] * (1 + exact.abs()) * 8
    assert bool(((ours.double() - exact).abs() <= room).all()), (what, ours.dtype, features)

for features in (1, 3, 16, 37, 135):
    for dtype in tolerance:
        x, y = torch.randn(50, features).to(dtype), torch.randn(50, features).to(dtype)
        bias, weight = torch.randn(3, features).to(dtype), torch.randn(130).to(dtype)
        matrix = torch.randn(features, 21).to(dtype)
        X, Y, B, W, M = (t.double() for t in (x, y, bias, weight, matrix))
        for kind in ("silu", "tanh"):
            leaves = [t.clone().requires_grad_() for t in (x, y, bias)]
            exact = [t.clone().requires_grad_() for t in (X, Y, B)]
            ours, theirs = ops.message_sum(*leaves, graph, kind), reference.message_sum(*exact, graph, kind)
            compare("message_sum", ours, theirs)
            grads = torch.autograd.grad(ours.sum(), leaves), torch.autograd.grad(theirs.sum(), exact)
            for a, b in zip(*grads):
                compare("message_sum gradient", a, b)
            compare("activation", ops.activation(x, kind), reference.activation(X, kind))
        compare("neighbor_reduce", ops.neighbor_reduce(x, graph, weight), reference.neighbor_reduce(X, graph, W))
        compare("edge_dot", ops.edge_dot(x, y, graph), reference.edge_dot(X, Y, graph))
        segments = ops.segment_reduce(x, ptr)
        compare("segment_reduce", segments, reference.segment_reduce(X, ptr))
        compare("segment_broadcast", ops.segment_broadcast(x[:3], ptr, 50), reference.segment_broadcast(X[:3], ptr, 50))
        compare("linear", ops.linear(x, matrix, matrix[0]), reference.linear(X, M, M[0]))
        compare("softmax", ops.softmax(x), reference.softmax(X))

# A column's bits do not depend on the vector or the tile it stands in: vmap moves a graph's columns about.
turned = graph.transpose
edges = (graph.rowptr, graph.col, graph.edge_attr, turned.rowptr, turned.col, turned.edge_attr)
for dtype in tolerance:
    def columns(rows):
        return torch.randn(rows, 1).to(dtype).expand(rows, 135).contiguous()

    def same(what, out):
        assert torch.equal(out, out[:, :1].expand_as(out)), (what, dtype)

    for kind in ("silu", "tanh"):
        for order in range(4):
            parts = [columns(rows) for _ in range(order + 1) for rows in (50, 50, 3)]
            op = getattr(torch.ops.graphgen, f"message_sum_{{order}}")
            for out in op(*parts, *edges, 50, 135, 3, kind, list(range(3 * (order + 1)))):
                same(f"message_sum_{{order}} {{kind}}", out)
            op = getattr(torch.ops.graphgen, f"activation_{{order}}")
            outs = op(*(columns(50) for _ in range(order + 1)), kind, list(range(order + 1)))
            for out in outs if order else (outs,):
                same(f"activation {{order}} {{kind}}", out)
    same("neighbor_reduce", ops.neighbor_reduce(columns(50), graph, torch.randn(130).to(dtype), "mean"))
    same("segment_reduce", ops.segment_reduce(columns(50), ptr, "mean"))
    same("linear", ops.linear(torch.randn(50, 23).to(dtype), columns(23), columns(1)[0]))

digest = hashlib.sha256()
ids = torch.tensor([3, 2**40, 7])
for name in ("uniform", "normal", "rademacher"):
    for features in (1, 3, 135):
        ours = getattr(ops, name)(ptr, features, 1, 2, 3, ids)
        assert torch.equal(ours, getattr(reference, name)(ptr, features, 1, 2, 3, ids)), name
        digest.update(ours.numpy().tobytes())
print(digest.hexdigest())
"""


def sets_of_this_machine():
    names = ["x86_64_v2", "x86_64_v3", "x86_64_v4", "baseline"]
    best = _C.instruction_set()
    return names[: names.index(best) + 1] if best != "baseline" else [best]


def test_every_instruction_set_agrees_with_the_reference(run_python):
    digests = set()
    for isa in sets_of_this_machine():
        done = run_python(CHECK.format(isa=isa), GRAPHGEN_ISA=isa)
        assert done.returncode == 0, f"{isa}: {done.stderr}"
        digests.add(done.stdout)
    assert len(digests) == 1


def test_an_unknown_instruction_set_is_refused_by_name(run_python):
    done = run_python(
        "import torch; from graphgen import ops; ops.linear(torch.ones(1, 1), torch.ones(1, 1))",
        GRAPHGEN_ISA="nonsense",
    )
    assert done.returncode != 0
    assert "ValueError: GRAPHGEN_ISA=nonsense" in done.stderr
    assert "use one of" in done.stderr


FORK = """
import os, sys, threading, time
import torch
from graphgen import ops

torch.set_num_threads(2)
x, weight = torch.randn(20_000, 64), torch.randn(64, 64)
expected = ops.linear(x, weight).numpy().tobytes()

def work(times):
    return all(ops.linear(x, weight).numpy().tobytes() == expected for _ in range(times))

stop = False
def keep_the_pool_busy():
    while not stop:
        ops.linear(x, weight)

busy = threading.Thread(target=keep_the_pool_busy)
busy.start()
for _ in range(5):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        os._exit(0 if work(3) else 1)
    for _ in range(3000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        stop = True
        sys.exit("the child hangs")
    assert status == 0, status
stop = True
busy.join()
assert work(3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_the_thread_pool_survives_a_fork_in_the_middle_of_its_work(run_python):
    done = run_python(FORK)
    assert done.returncode == 0, done.stderr


def test_two_python_threads_at_once_get_their_own_results(threads):
    from concurrent.futures import ThreadPoolExecutor

    from graphgen import ops

    weight = torch.randn(64, 64)
    inputs = [torch.randn(5000, 64) for _ in range(4)]
    with threads(2):
        expected = [ops.linear(x, weight) for x in inputs]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(10):
                found = list(pool.map(lambda x: ops.linear(x, weight), inputs))
                assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_failure_inside_the_engine_is_the_python_error_it_is():
    one = torch.ones(1)
    parts = [one.data_ptr(), 0, 0, 0, one.data_ptr(), 0, 0, 0]
    status = _C.activate(parts, 1, 0, 0, 9, 0, 1, 0)
    assert status == 1
    assert "dtype 9" in _C.message()
    assert _C.activate(parts, 1, 0, 0, 0, 5, 1, 0) == 1
    assert "device 5" in _C.message()


@pytest.mark.skipif(_C.built_with_cuda(), reason="this engine has CUDA kernels")
def test_a_build_without_cuda_says_so():
    one = torch.ones(1)
    assert _C.activate([one.data_ptr(), 0, 0, 0, one.data_ptr(), 0, 0, 0], 1, 0, 0, 0, 1, 0, 0) == 3
    assert "without CUDA" in _C.message()
