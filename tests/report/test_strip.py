"""A molecule on its way: what the sampler hands over, and how it is drawn."""

import re

import pytest
import torch

pytest.importorskip("rdkit")
from rdkit import Chem

from graphgen.follow import TIMES, follow
from graphgen.generate import generate
from graphgen.models import GraphCNF
from graphgen.molecules.codec import encode_with_smiles
from graphgen.molecules.encoded import Encoder
from graphgen.molecules.trajectory import Frame, Trajectory, trajectories
from graphgen.report.strip import strip_svgs


@pytest.fixture(scope="module")
def molecules():
    encoder = Encoder()
    for smiles in ("CCO", "C", "CC#N", "O=C[O-]", "C1CC1N"):
        encoder.add(*encode_with_smiles(Chem.MolFromSmiles(smiles)))
    return encoder.finish("test")


@pytest.fixture(scope="module")
def model(molecules):
    torch.manual_seed(0)
    return GraphCNF(molecules.vocabulary, hidden=8, layers=1, context_layers=1)


def test_the_end_is_what_was_generated(model, molecules):
    generated = generate(model, molecules, 5, seed=3, progress=False)
    paths = follow(model, molecules, count=5, seed=3)
    for i, path in enumerate(paths):
        first, last = generated.node_ptr[i : i + 2].tolist()
        assert path.atoms[-1].argmax(1).tolist() == generated.atoms[first:last].tolist()
        assert path.times == list(TIMES) and path.atoms.shape[0] == len(TIMES)
        row = int(generated.structures[i])
        expected = {(u, v): kind for u, v, kind in molecules.graph(row).bonds}
        kinds = path.bonds[0].argmax(1).tolist() if path.pairs else []
        assert dict(zip(path.pairs, [kind - 1 for kind in kinds], strict=True)) == expected


def test_frames_are_probabilities_of_sample_s_own_states(model, molecules):
    batch = molecules.batch([0, 2, 4])
    ids = torch.tensor([7, 8, 9])
    frames = model.trajectory(batch.graph, ids, 1, (0.0, 0.5, 1.0), steps=20)
    for frame in frames:
        assert frame.atoms.shape == (batch.atoms.numel(), len(molecules.vocabulary))
        torch.testing.assert_close(frame.atoms.sum(1), torch.ones(batch.atoms.numel()))
    assert torch.equal(frames[-1].atoms.argmax(1), model.sample(batch.graph, ids, 1))
    later = model.trajectory(batch.graph, ids, 1, (0.5,), steps=20)
    assert torch.equal(later[0].atoms, frames[1].atoms)


def test_sampled_bonds_are_handed_over_too(molecules):
    graph = molecules.batch([0]).graph
    bonds = torch.softmax(torch.arange(float(4 * graph.num_edges)).view(-1, 4), 1)
    (path,) = trajectories([Frame(0.0, torch.eye(3), bonds)], graph, ["C", "N", "O"])
    assert path.pairs == [(0, 1), (1, 2)] and path.bonds.shape == (1, 2, 4)
    for pair, bond in zip(path.pairs, path.bonds[0], strict=True):
        target = torch.repeat_interleave(torch.arange(3), graph.rowptr.diff().long())
        (at,) = ((graph.col == pair[0]) & (target == pair[1])).nonzero().flatten().tolist()
        assert torch.equal(bond, bonds[at])


def path_of_two(first: list[float], bond: list[float]) -> Trajectory:
    atoms = torch.tensor([[first, [0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    bonds = torch.tensor([[bond], [[0.0, 0.0, 1.0, 0.0]]])
    return Trajectory([0.0, 1.0], atoms, ["C", "O", "N+"], [(0, 1)], bonds)


def test_atoms_are_as_opaque_as_they_are_likely():
    start, end = strip_svgs(path_of_two([0.6, 0.3, 0.1], [0.8, 0.2, 0.0, 0.0]))
    assert "opacity:0.60" in start and "<title>C: 60 %</title>" in start
    assert ">C</text>" in start and 'class="bond"' not in start  # no bond is likelier than a bond
    assert end.count('class="bond"') == 2 and "opacity:1.00" in end  # a double bond
    assert ">N<tspan" in end and "var(--atom-7,currentColor)" in end and "var(--atom-8,currentColor)" in end
    assert re.findall('cx="([^"]*)"', start) == re.findall('cx="([^"]*)"', end)


def test_unlikely_atoms_can_still_be_seen():
    start, _ = strip_svgs(path_of_two([0.04, 0.03, 0.02], [0.0, 1.0, 0.0, 0.0]))
    assert "opacity:0.12" in start


@pytest.mark.parametrize("atoms", [0, 1])
def test_hardly_a_molecule(atoms):
    (svg,) = strip_svgs(Trajectory([1.0], torch.ones(1, atoms, 1), ["C"], [], torch.zeros(1, 0, 4)))
    assert svg.count("<text") == atoms


def test_shapes_are_asked():
    with pytest.raises(ValueError, match="bonds"):
        Trajectory([0.0], torch.ones(1, 2, 1), ["C"], [(0, 1)], torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match="atoms"):
        Trajectory([0.0], torch.ones(1, 2, 2), ["C"], [], torch.zeros(1, 0, 4))
