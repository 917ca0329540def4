import math

import pytest
import torch

from graphgen import GraphgenError
from graphgen.latent import between, reconstruct
from graphgen.likelihood import log_probabilities, over_orders
from graphgen.models import GraphNVP, load, make
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import Encoder
from graphgen.molecules.orders import canonical_order, shuffled_atoms
from graphgen.molecules.padded import PaddedMolecules
from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary
from graphgen.train import TrainSettings, train

TWO = Vocabulary((("C", 0), ("N", 0)))
COUPLINGS = ("affine", "additive")


@pytest.fixture(autouse=True)
def one_thread(threads):
    """These tensors are so small that a second thread only waits for the first."""
    with threads(1):
        yield


def ring(size, rest=0):
    """A ring of carbon with a nitrogen in it, and a tail that ends in a double bond to oxygen."""
    atoms = (*((("C", 0),) * (size - 1)), ("N", 0), *((("C", 0),) * (rest - 1)), *((("O", 0),) * (rest > 0)))
    bonds = [(i, i + 1, 0) for i in range(size - 1)] + [(0, size - 1, 0)]
    bonds += [(i - 1, i, int(i == size + rest - 1)) for i in range(size, size + rest)]
    return MoleculeGraph(atoms, tuple(sorted(bonds)))


@pytest.fixture(scope="module")
def data():
    encoder = Encoder()
    for k in range(60):
        encoder.add(ring(3 + k % 2, k % 4), f"ring {k}")
    return encoder.finish("rings")


def shaken(data, seed=0, **settings):
    """A model that moves things about: untrained, with networks that are no longer 0 at the end."""
    torch.manual_seed(seed)
    model = GraphNVP(data.vocabulary, **{"hidden": 16, "pair_hidden": 16, "layers": 2, "rounds": 2, **settings})
    model.fit_prior(data)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "last.weight" in name:
                parameter.normal_(0, 0.3)
        model.log_variances.copy_(torch.tensor([0.3, -0.4]))
    return model


def of_sizes(data, sizes):
    """One molecule of each size."""
    return data.batch([int((data.sizes == size).nonzero()[0]) for size in sizes])


# ---- orders of atoms ------------------------------------------------------------------------------------------------


def test_padding_is_taken_off_again(data):
    whole = CompleteGraphs.of(data.batch(torch.arange(8)))
    molecules = PaddedMolecules.of(whole, 9)
    assert molecules.atoms.shape == (8, 9) and bool((molecules.bonds == molecules.bonds.mT).all())
    for ours, theirs in zip(molecules.complete(), whole, strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(GraphgenError, match="7 atoms does not fit into 5"):
        PaddedMolecules.of(whole, 5)


@pytest.mark.parametrize("breadth_first", [False, True])
def test_orders_do_not_depend_on_the_one_given(data, breadth_first):
    """Symmetric molecules (a ring alone) among them: which of equal atoms is taken must not show."""
    batch = data.batch(torch.arange(12))

    def found(batch):
        return CompleteGraphs.of(batch).reordered(canonical_order(batch.graph, batch.atoms, breadth_first))

    expected, moved = found(batch), 0
    for step in range(3):
        other = shuffled_atoms(batch, 1, step)
        moved += not torch.equal(other.atoms, batch.atoms)
        again = found(other)
        assert torch.equal(again.atoms, expected.atoms) and torch.equal(again.pairs, expected.pairs)
    assert moved == 3


def test_searches_go_from_neighbour_to_neighbour(data):
    encoder = Encoder()
    # A star of two arms of two atoms: breadth first both inner ones come first, depth first an arm is finished.
    encoder.add(MoleculeGraph((("N", 0), *(("C", 0),) * 4), ((0, 1, 0), (0, 3, 0), (1, 2, 0), (3, 4, 0))), "star")
    for batch in (encoder.finish("star").batch([0]), data.batch(torch.arange(20))):
        for breadth_first, nearest in ((True, min), (False, max)):
            order = canonical_order(batch.graph, batch.atoms, breadth_first)
            molecules = PaddedMolecules.of(CompleteGraphs.of(batch).reordered(order), 9)
            for bonds, size in zip(molecules.bonds, molecules.sizes.tolist(), strict=True):
                for atom in range(1, size):
                    # The parent is the first or the last placed atom that still has a neighbour to be placed.
                    waiting = [i for i in range(atom) if bool((bonds[i, atom:] > 0).any())]
                    assert int(bonds[nearest(waiting), atom]) > 0


# ---- the flows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_flows_are_inverted(data, coupling):
    model = shaken(data, coupling=coupling)
    batch = data.batch(torch.arange(32))
    molecules = model.padded(batch)
    points = model.dequantise(molecules, batch.ids, 0)
    with torch.no_grad():
        noise, _ = model.to_noise(points, molecules)
        back, found = model.to_points(noise, molecules.sizes)
    assert float((noise.flat() - points.flat()).abs().max()) > 0.1
    assert float((back.flat() - points.flat()).abs().max()) < 1e-5
    assert torch.equal(found.bonds, molecules.bonds) and torch.equal(found.atoms, molecules.atoms)
    absent = model.present(molecules.sizes).flat() == 0
    assert bool(absent.any()) and not bool(noise.flat()[absent].any())


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("size", [3, 4])
def test_log_determinants_are_those_of_the_dense_jacobian(coupling, size):
    """Of every single coupling, and of the flows that they make up, for molecules with and without padding."""
    encoder = Encoder()
    for graph in (ring(3), ring(4)):
        encoder.add(graph, str(graph))
    data = encoder.finish("two")
    model = shaken(data, coupling=coupling, rounds=1).double()
    batch = of_sizes(data, [size])
    molecules = model.padded(batch)
    points, own = model.dequantise(molecules, batch.ids, 0), model.present(molecules.sizes)
    given, around = model.given(molecules.sizes), model.surroundings(molecules)
    pair_maps = [lambda x, flow=flow: flow(x, given, own.pairs) for flow in model.pair_flow]
    atom_maps = [lambda x, flow=flow: flow(x.unbind(1), around) for flow in model.atom_flow]

    def all_pairs(x):
        noise, log_dets = model.to_noise(points._replace(pairs=x), molecules)
        return noise.pairs, log_dets.pairs

    def all_atoms(x):
        noise, log_dets = model.to_noise(points._replace(atoms=x), molecules)
        return noise.atoms, log_dets.atoms

    scaled = 0
    for maps, at, present in (
        ([*pair_maps, all_pairs], points.pairs, own.pairs),
        ([*atom_maps, all_atoms], points.atoms, own.atoms),
    ):
        there = present.flatten() > 0
        for carry in maps:

            def moved(x, carry=carry):
                y = carry(x)[0]
                return (torch.stack(y, 1) if isinstance(y, list) else y).flatten()

            jacobian = torch.autograd.functional.jacobian(moved, at).flatten(1)
            sign, expected = torch.linalg.slogdet(jacobian[there][:, there])
            assert float(sign) == 1 and abs(float(expected) - float(carry(at)[1].detach())) < 1e-8
            scaled += abs(float(expected)) > 1e-3
    assert scaled == 0 if coupling == "additive" else scaled >= 2 * size


def test_the_density_integrates_to_one():
    """Of the one pair of molecules of two atoms, four numbers, by points drawn from a wider normal law."""
    encoder = Encoder()
    for k in range(30):
        encoder.add(MoleculeGraph((("C", 0), ("C", 0)), ((0, 1, k % 3),)), f"pair {k}")
    data = encoder.finish("pairs")
    model = shaken(data, seed=3, rounds=3)
    count = 40_000
    molecules = PaddedMolecules.of(CompleteGraphs.of(data.batch(torch.zeros(count, dtype=torch.int64))), 2)
    torch.manual_seed(0)
    pairs = 3 * torch.randn(count, 4)
    drawn_from = torch.distributions.Normal(0.0, 3.0).log_prob(pairs).sum(1)
    atoms = 3 * torch.randn(count, 2, 1)
    of_atoms = torch.distributions.Normal(0.0, 3.0).log_prob(atoms).flatten(1).sum(1)
    with torch.no_grad():
        found = model.log_densities(model.points(torch.cat((pairs, atoms.flatten(1)), 1)), molecules)
    for density, law in ((found.pairs, drawn_from), (found.atoms, of_atoms)):
        weights = (density - law).exp()
        assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / math.sqrt(count) < 0.1


def test_the_density_is_that_of_the_samples():
    """Single atoms of two types: as many samples of temperature 1 lie in a label's cube as the density says."""
    encoder = Encoder()
    for k in range(20):
        encoder.add(MoleculeGraph((TWO.atoms[k % 2],), ()), f"atom {k}")
    data = encoder.finish("atoms")
    model, count = shaken(data, rounds=3, noise=0.9), 20_000
    with torch.no_grad():
        made, found = model.to_points(model.prior(torch.arange(count), 0), torch.ones(count, dtype=torch.int64))
        assert torch.equal(found.complete().atoms, model.sample(torch.arange(count), 0, temperature=1.0).atoms)
        for label in range(2):
            values = model.log_prob(data.batch([label] * 4000)._replace(ids=torch.arange(4000))).value
            corner = torch.nn.functional.one_hot(data.batch([label]).atoms, 2).float()
            inside = ((made.atoms[:, 0] >= corner) & (made.atoms[:, 0] < corner + 0.9)).all(1).float()
            share, expected = float(inside.mean()), float(values.exp().mean())
            error = math.sqrt(share / count) + float(values.exp().std()) / math.sqrt(4000)
            assert share > 0.005 and abs(share - expected) < 4 * error
            assert float(values.mean()) < math.log(expected) < 0


def test_a_permuted_molecule_has_the_same_likelihood_in_an_order_of_its_own(data):
    batch = data.batch(torch.arange(20))
    other = shuffled_atoms(batch, 2)
    changed = batch.atoms != other.atoms
    assert bool(changed.any())
    for order in ("data", "canonical", "bfs"):
        model = shaken(data, order=order)
        with torch.no_grad():
            one, two = (model.log_prob(b, samples=2).value for b in (batch, other))
        assert torch.allclose(one, two, atol=1e-4) == (order != "data")


def test_the_spread_over_orders_is_the_price_of_lost_invariance(data):
    some = data.take(torch.arange(10))
    values = over_orders(shaken(data), some, orders=4, progress=False)
    assert values.shape == (10, 4) and float(values.std(1).mean()) > 0.1
    assert torch.equal(values[:, :1], over_orders(shaken(data), some, orders=1, progress=False))
    same = over_orders(shaken(data, order="bfs"), some, orders=4, progress=False)
    assert float(same.std(1).max()) < 1e-4
    expected = log_probabilities(shaken(data, order="bfs"), some, progress=False).value
    assert torch.allclose(same[:, 0], expected, atol=1e-4)


# ---- samples and latents --------------------------------------------------------------------------------------------


def test_same_molecules_for_any_batch_size_and_order(data):
    model = shaken(data)

    def drawn(ids, seed=3):
        return model.sample(torch.as_tensor(ids), seed, temperature=1.0).molecules(model.vocabulary)

    together = drawn(range(40))
    assert len(set(together)) > 20
    assert [molecule for part in torch.arange(40).split(7) for molecule in drawn(part)] == together
    assert drawn(torch.arange(39, -1, -1)) == together[::-1]
    assert drawn(range(40), seed=4) != together


def test_samples_have_the_sizes_asked_for_and_noise_is_scaled_by_temperature(data):
    model = shaken(data)
    sizes = torch.tensor([3, 6, 4])
    assert torch.equal(model.sample(torch.arange(3), 0, sizes).ptr.diff(), sizes)
    cold = model.sample(torch.arange(50), 0, torch.full((50,), 5), temperature=0.0).molecules(model.vocabulary)
    assert len(set(cold)) == 1
    with pytest.raises(GraphgenError, match="temperature"):
        model.sample(torch.arange(2), 0, temperature=-1.0)


@pytest.mark.parametrize("order", ["data", "canonical"])
def test_all_molecules_come_back_from_their_latents(data, order):
    found = reconstruct(shaken(data, order=order), data, progress=False)
    assert (found.molecules, found.identical) == (60, 60) and found.largest_error < 1e-5


def test_the_way_between_molecules_begins_and_ends_with_them():
    pytest.importorskip("rdkit")
    from graphgen.molecules.codec import canonical_smiles, decode

    encoder = Encoder()
    for graph in (ring(3, 2), ring(4)):
        encoder.add(graph, str(graph))
    model = shaken(encoder.finish("two"), order="bfs")
    way = between(model, "C1CN1C=O", "C1CCN1", points=6)
    assert [len(molecule.atoms) for molecule in way] == [5, 5, 5, 4, 4, 4]
    ends = [canonical_smiles(decode(*way[k])) for k in (0, -1)]
    assert ends == ["O=CN1CC1", "C1CNC1"]
    with pytest.raises(GraphgenError, match="7 atoms does not fit into 5"):
        between(model, "CCCCCCC", "C1CCN1")


# ---- learning -------------------------------------------------------------------------------------------------------


def test_it_learns_what_its_data_looks_like(tmp_path):
    """A ring or a chain of three atoms, whose bonds and atoms are all different and go together."""
    encoder = Encoder()
    chain = MoleculeGraph((("C", 0), ("C", 0), ("O", 0)), ((0, 1, 0), (1, 2, 1)))
    for k in range(600):
        encoder.add((ring(3), chain)[k % 2], f"molecule {k}")
    data = encoder.finish("two")
    torch.manual_seed(0)
    model = make("graph-nvp", data.vocabulary, hidden=32, pair_hidden=32, layers=1, rounds=2)
    settings = TrainSettings(epochs=10, batch_size=32, lr=1e-2, ema=0.9)
    records = train(model, data, tmp_path, settings, progress=False)
    assert records[-1]["nats"] < records[0]["nats"] - 1
    made = model.sample(torch.arange(200), 0).molecules(data.vocabulary)
    shares = [made.count(molecule) / 200 for molecule in (ring(3), chain)]
    assert min(shares) > 0.2 and sum(shares) > 0.6
    again = load(tmp_path)
    assert isinstance(again, GraphNVP) and again.settings == model.settings and again.settings["atoms"] == 3
    assert again.sample(torch.arange(200), 0).molecules(data.vocabulary) == made


def test_a_resumed_run_goes_on_to_the_same_numbers(data, tmp_path):
    def run(folder, epochs, resume=False):
        torch.manual_seed(0)
        model = make("graph-nvp", data.vocabulary, hidden=8, pair_hidden=8, order="random")
        train(model, data, folder, TrainSettings(epochs=epochs, batch_size=32), resume=resume, progress=False)
        return model.state_dict()

    whole = run(tmp_path / "whole", 2)
    stopped = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        calls = []

        def loss(self, batch, seed, step=0, own=GraphNVP.loss):
            calls.append(step)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return own(self, batch, seed, step)

        patch.setattr(GraphNVP, "loss", loss)
        with pytest.raises(KeyboardInterrupt):
            run(stopped, 2)
    again = run(stopped, 2, resume=True)
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_what_it_cannot_be_made_of_is_refused(data):
    for settings, complaint in (
        ({"coupling": "spline"}, "affine, additive"),
        ({"order": "alphabetic"}, "data, canonical, bfs, random"),
        ({"noise": 1.0}, "noise"),
        ({"rounds": 0}, "rounds"),
    ):
        with pytest.raises(GraphgenError, match=complaint):
            GraphNVP(TWO, **settings)
    with pytest.raises(GraphgenError, match="how large molecules are"):
        GraphNVP(TWO).sample(torch.arange(2), 0, torch.tensor([2, 2]))
    with pytest.raises(GraphgenError, match="made for at most 4"):
        GraphNVP(data.vocabulary, atoms=4).fit_prior(data)
