import pytest
import torch

from graphgen import GraphgenError
from graphgen.latent import between, decode, encode, great_circle, interpolate, reconstruct
from graphgen.likelihood import in_vocabulary
from graphgen.models import GraphCNF
from graphgen.molecules.encoded import Encoder
from graphgen.molecules.vocabulary import MoleculeGraph
from graphgen.optimize import fit, optimize, places


@pytest.fixture(scope="module")
def data():
    """Chains with oxygen, nitrogen or carbon at every place."""
    encoder = Encoder()
    generator = torch.Generator().manual_seed(0)
    for k in range(150):
        size = 3 + k % 5
        kinds = torch.randint(0, 3, (size,), generator=generator).tolist()
        atoms = tuple((("C", 0), ("N", 0), ("O", 0))[kind] for kind in kinds)
        smiles = "".join(element for element, _ in atoms)
        encoder.add(MoleculeGraph(atoms, tuple((i, i + 1, 0) for i in range(size - 1))), smiles)
    return encoder.finish("chains")


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    return GraphCNF(data.vocabulary, hidden=16, layers=1, context_layers=1)


def test_molecules_come_back_from_their_latents(model, data):
    found = reconstruct(model, data, progress=False)
    assert (found.molecules, found.identical) == (len(data), len(data))
    assert found.largest_error < 1e-2
    batch = data.batch(torch.arange(20))
    z = encode(model, batch)
    assert float((z - model.dequantise(batch, 0)[0]).abs().max()) > 1
    assert torch.equal(decode(model, z, batch.graph), batch.atoms)


def test_too_few_steps_are_seen_as_an_error(model, data):
    assert reconstruct(model, data, steps=1, progress=False).largest_error > 0.1


def test_a_great_circle_keeps_the_length_and_joins_its_ends():
    start, end = torch.randn(5, 4), 1.3 * torch.randn(5, 4)
    way = great_circle(start, end, 9)
    assert torch.allclose(way[0], start, atol=1e-6) and torch.allclose(way[-1], end, atol=1e-6)
    lengths = way.flatten(1).norm(dim=1)
    assert torch.allclose(lengths, torch.linspace(float(start.norm()), float(end.norm()), 9), rtol=1e-5)
    assert torch.allclose(great_circle(start, start, 3), start.expand(3, 5, 4))
    with pytest.raises(ValueError, match="great_circle"):
        great_circle(start, end, 1)


def test_interpolation_starts_and_ends_at_its_molecules(model, data):
    rows = torch.tensor([k for k in range(len(data)) if int(data.sizes[k]) == 5][:2])
    first, second = (data.batch(row.view(1)) for row in rows)
    labels = interpolate(model, encode(model, first), encode(model, second), first.graph, points=5)
    assert torch.equal(labels[0], first.atoms) and torch.equal(labels[-1], second.atoms)
    with pytest.raises(ValueError, match="one graph"):
        interpolate(model, encode(model, first), encode(model, second), data.batch(torch.arange(2)).graph)


def oxygens(smiles):
    return float(smiles.count("O"))


def test_the_map_points_to_more_of_what_is_asked_for(model, data):
    latent_map = fit(model, data, [oxygens(data.smiles(k)) for k in range(len(data))])
    assert latent_map.r2 > 0.5
    batch = data.batch(torch.arange(4))
    assert places(batch).shape == batch.atoms.shape
    direction = latent_map.direction(batch)
    for part in direction.split(batch.graph.ptr.diff().tolist()):
        assert abs(float(part.norm()) - 1) < 1e-5
    noise = fit(model, data, torch.randn(len(data), generator=torch.Generator().manual_seed(3)).tolist())
    assert noise.r2 < 0.2


def test_steps_up_the_map_beat_steps_by_chance(model, data):
    pytest.importorskip("rdkit")
    latent_map = fit(model, data, [oxygens(data.smiles(k)) for k in range(len(data))])
    found = optimize(model, data, latent_map, oxygens, progress=False)
    assert [one.before for one in found] == [data.smiles(k) for k in range(len(data))]
    assert all(one.value_after >= one.value_before and one.value_after == oxygens(one.after) for one in found)
    gain = sum(one.value_after - one.value_before for one in found)
    by_chance = sum(one.by_chance - one.value_before for one in found)
    assert gain > 1.3 * by_chance > 0
    again = optimize(model, data, latent_map, oxygens, batch_size=7, progress=False)
    assert again == found


def test_the_way_between_two_molecules_is_on_their_common_bonds(model):
    way = between(model, "CCO", "NCC", points=5)
    assert len(way) == 5 and {molecule.bonds for molecule in way} == {((0, 1, 0), (1, 2, 0))}
    names = [[element for element, _ in molecule.atoms] for molecule in way]
    assert names[0] == ["C", "C", "O"] and sorted(names[-1]) == ["C", "C", "N"] and names[-1][1] == "C"
    for end, complaint in (
        ("CC=O", "same bonds"),
        ("CCCC", "same bonds"),
        ("CCF", "atoms F"),
        ("nonsense", "nonsense"),
    ):
        with pytest.raises(GraphgenError, match=complaint):
            between(model, "CCO", end)


def test_labels_of_another_vocabulary_are_refused(model):
    encoder = Encoder()
    for _ in range(30):
        encoder.add(MoleculeGraph((("N", 0), ("N", 0), ("C", 0)), ((0, 1, 0), (1, 2, 0))), "NNC")
    theirs = encoder.finish("theirs")
    for call in (lambda: reconstruct(model, theirs, progress=False), lambda: fit(model, theirs, [0.0] * 30)):
        with pytest.raises(GraphgenError, match="in_vocabulary"):
            call()
    known, others = in_vocabulary(theirs, model.vocabulary)
    assert not others and reconstruct(model, known, progress=False).identical == 30
    assert known.graph(0) == theirs.graph(0)
