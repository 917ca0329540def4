"""Answering to another library's name; each in a process of its own, for the name is the process's."""

import importlib.util

import pytest

from graphgen import compat

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("torch_scatter") is None, reason="torch_scatter is not installed"
)


def passes(run_python, program):
    done = run_python(program)
    assert done.returncode == 0, done.stderr
    return done


def test_install_answers_to_every_name(run_python):
    passes(
        run_python,
        """
import importlib.util, sys
from graphgen import compat
library = compat.install("torch_scatter")
import torch, torch_scatter, torch_scatter.utils
from torch_scatter import scatter, segment_csr
from torch_scatter.scatter import scatter_sum
from torch_scatter.segment_csr import gather_csr
from torch_scatter.segment_coo import gather_coo
from torch_scatter.composite import scatter_softmax
from torch_scatter.composite.std import scatter_std
from torch_scatter.testing import dtypes, grad_dtypes, reductions, devices, tensor
from torch_scatter.utils import broadcast
assert torch_scatter is library and library.__name__ == "graphgen.compat.torch_scatter"
assert torch_scatter.scatter is scatter and scatter.__module__ == "graphgen.compat.torch_scatter.scatter"
assert sys.modules["torch_scatter.scatter"].scatter is scatter
assert importlib.util.find_spec("torch_scatter") is not None
assert importlib.util.find_spec("torch_scatter.composite.std") is not None
assert compat.install("torch_scatter") is library
assert scatter(torch.ones(3), torch.tensor([0, 1, 1])).tolist() == [1, 2]
assert tensor(None, torch.float, devices[0]) is None and tensor([1], torch.half, devices[0]).dtype == torch.half
""",
    )


def test_uninstall_gives_the_name_back(run_python):
    passes(
        run_python,
        """
import importlib.util, sys
before = importlib.util.find_spec("torch_scatter")
from graphgen import compat
compat.uninstall("torch_scatter")
library = compat.install("torch_scatter")
compat.uninstall("torch_scatter")
compat.uninstall("torch_scatter")
assert not any(name.split(".")[0] == "torch_scatter" for name in sys.modules)
after = importlib.util.find_spec("torch_scatter")
assert (before and before.origin) == (after and after.origin)
assert compat.install("torch_scatter") is library
""",
    )


@needs_library
def test_install_refuses_beside_the_library_itself(run_python):
    done = passes(
        run_python,
        """
import torch_scatter
from graphgen import GraphgenError, compat
try:
    compat.install("torch_scatter")
except GraphgenError as error:
    print(error)
import torch_scatter as after
assert after is torch_scatter and "graphgen" not in after.__file__
compat.uninstall("torch_scatter")
import sys
assert sys.modules["torch_scatter"] is torch_scatter
""",
    )
    assert "already imported" in done.stdout and "before anything imports it" in done.stdout


def test_install_says_so_when_it_comes_too_late(run_python):
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    done = passes(
        run_python,
        """
import sys, warnings
sys.modules["torch_scatter"] = None  # as if it were not installed
import torch_geometric
del sys.modules["torch_scatter"]
from graphgen import compat
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    compat.install("torch_scatter")
print([str(w.message) for w in said])
""",
    )
    assert "torch_geometric is already imported" in done.stdout


def test_importing_graphgen_installs_nothing(run_python):
    passes(
        run_python,
        """
import sys
import graphgen, graphgen.compat
assert "torch_scatter" not in sys.modules and "graphgen.compat.torch_scatter" not in sys.modules
""",
    )


@pytest.mark.parametrize("function", [compat.install, compat.uninstall])
def test_an_unknown_name_is_told_the_known_ones(function):
    with pytest.raises(ValueError, match="no drop-in for 'torch_sparse'; there are torch_scatter"):
        function("torch_sparse")


def test_version_is_that_of_the_interface_and_ours():
    version = pytest.importorskip("packaging.version", reason="packaging is not installed")
    from graphgen.compat import torch_scatter

    parsed = version.Version(torch_scatter.__version__)
    assert parsed.public == "2.1.2" and parsed.local.startswith("graphgen")
