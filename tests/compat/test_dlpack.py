"""Arrays of other libraries in, arrays of other libraries out."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from graphgen import GraphBatch, ops
from graphgen.compat import dlpack

LIBRARIES = ["numpy", "jax", "cupy"]


@pytest.fixture(params=LIBRARIES)
def library(request):
    """How to make arrays of the library, and their type."""
    if request.param == "numpy":
        return SimpleNamespace(array=np.asarray, kind=np.ndarray)
    if request.param == "jax":
        jax = pytest.importorskip("jax", reason="jax is not installed (pip install graphgen[jax])")
        return SimpleNamespace(array=jax.numpy.asarray, kind=jax.Array)
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    return SimpleNamespace(array=cupy.asarray, kind=cupy.ndarray)


def plain(array):
    """The values, as a tensor on the CPU."""
    return torch.from_numpy(np.asarray(array.get() if hasattr(array, "get") else array).copy())


EDGES = np.array([[0, 3, 2, 1, 1, 3], [1, 0, 1, 3, 3, 3]], dtype=np.int32)


def test_values_and_types(library):
    generator = np.random.default_rng(0)
    src = generator.standard_normal((6, 3), dtype=np.float32)
    index, ptr = np.array([0, 2, 2, 0, 1, 2], dtype=np.int32), np.array([0, 2, 2, 6], dtype=np.int32)
    given, where, bounds = (library.array(a) for a in (src, index, ptr))
    tensor, t_index, t_ptr = (torch.from_numpy(a) for a in (src, index, ptr))
    for found, expected in (
        (dlpack.segment_reduce(given, bounds, "max"), ops.segment_reduce(tensor, t_ptr, "max")),
        (dlpack.segment_reduce(src=given, ptr=bounds), ops.segment_reduce(tensor, t_ptr)),
        (dlpack.scatter(given, where, dim=0, dim_size=4), ops.scatter(tensor, t_index, 0, 4)),
        (dlpack.gather(given, where), ops.gather(tensor, t_index)),
        (dlpack.softmax(given), ops.softmax(tensor)),
    ):
        assert isinstance(found, library.kind)
        assert torch.equal(plain(found), expected)
    for found, expected in zip(dlpack.scatter_max(given, where, 0), ops.scatter_max(tensor, t_index, 0), strict=True):
        assert isinstance(found, library.kind)
        assert torch.equal(plain(found).to(expected.dtype), expected)  # JAX has int32 for int64 unless told otherwise


def test_graphs(library):
    generator = np.random.default_rng(1)
    x = generator.standard_normal((4, 5), dtype=np.float32)
    weight = generator.standard_normal(6, dtype=np.float32)
    graph = dlpack.from_edge_index(library.array(EDGES), 4)
    twin = GraphBatch.from_edge_index(torch.from_numpy(EDGES), 4)
    assert isinstance(graph, GraphBatch) and torch.equal(graph.edge_index.cpu(), twin.edge_index)
    found = dlpack.neighbor_reduce(library.array(x), graph, library.array(weight), reduce="mean")
    assert isinstance(found, library.kind)
    assert torch.equal(plain(found), ops.neighbor_reduce(torch.from_numpy(x), twin, torch.from_numpy(weight), "mean"))

    rowptr, col = (library.array(t.numpy()) for t in (twin.rowptr, twin.col))
    again = dlpack.from_csr(rowptr, col)
    for a, b in ((again.rowptr, twin.rowptr), (again.col, twin.col), (again.perm, torch.arange(6))):
        assert torch.equal(a.cpu().long(), b.long())


def test_every_op_is_here_with_its_own_signature():
    for name in set(ops.__all__) - {"divergence", "reference"}:
        assert name in dlpack.__all__
        assert inspect.signature(getattr(dlpack, name)) == inspect.signature(getattr(ops, name))
        assert getattr(dlpack, name).__doc__ == getattr(ops, name).__doc__


def test_nothing_is_copied():
    seen = []

    @dlpack.for_arrays
    def look(x, keep=None):
        seen.extend([x, keep])
        return x

    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    kept = np.zeros(2)
    out = look(array, keep=kept)
    assert [tensor.data_ptr() for tensor in seen] == [array.ctypes.data, kept.ctypes.data]
    assert out.ctypes.data == array.ctypes.data


def test_awkward_arrays():
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    ptr = np.array([0, 3, 4])
    ptr.flags.writeable = False
    for view in (array[::-1], array[:, ::-1], array.T[:, ::2].T, np.asfortranarray(array), array[:0]):
        bounds = ptr if len(view) == 4 else np.array([0, len(view)])
        found = dlpack.segment_reduce(view, bounds)
        expected = np.add.reduceat(view, bounds[:-1], axis=0) if len(view) else np.zeros((1, 3))
        np.testing.assert_array_equal(found, expected)
        assert found.flags.writeable
    with pytest.raises(BufferError, match="byte order"):
        dlpack.segment_reduce(array.astype(">f4"), ptr)


def test_arrays_that_cannot_say_they_are_read_only_are_copied():
    class Old:
        """NumPy before 2.1."""

        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **_):
            if not self.array.flags.writeable:
                raise BufferError("Cannot export readonly array since signalling readonly is unsupported by DLPack.")
            return self.array.__dlpack__()

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

        def __array_namespace__(self):
            return np

        def copy(self):
            return Old(self.array.copy())

    array = np.ones((4, 2))
    array.flags.writeable = False
    np.testing.assert_array_equal(dlpack.segment_reduce(Old(array), np.array([0, 1, 4])), [[1, 1], [3, 3]])


def test_tensors_stay_tensors():
    x, ptr = torch.ones(4, 2, requires_grad=True), torch.tensor([0, 4])
    out = dlpack.segment_reduce(x, ptr)
    assert isinstance(out, torch.Tensor) and out.requires_grad
    assert isinstance(dlpack.segment_reduce(np.ones((4, 2)), ptr), np.ndarray)


def test_errors_are_those_of_the_ops():
    with pytest.raises(IndexError):
        dlpack.scatter(np.ones(3), np.array([0, 1, 5]), dim_size=3)
    with pytest.raises(ValueError, match="reduce must be"):
        dlpack.scatter(np.ones(3), np.array([0, 1, 5]), reduce="median")
    with pytest.raises(IndexError, match="edge 0"):
        dlpack.from_csr(np.array([0, 1]), np.array([4]))
    for rowptr, col in (([1, 1], [0]), ([0, 2], [0]), ([0, 1, 0, 1], [0])):
        with pytest.raises(ValueError, match="rowptr must"):
            dlpack.from_csr(np.array(rowptr), np.array(col))
    with pytest.raises(ValueError, match="rowptr \\[N \\+ 1\\]"):
        dlpack.from_csr(np.zeros((1, 1), dtype=np.int64), np.array([0]))
