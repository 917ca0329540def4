import pytest
import torch
from exact_flow import exact_posteriors, path_law

from graphgen import GraphgenError
from graphgen.models import GraphDFM, load, make
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import Encoder
from graphgen.molecules.trajectory import trajectories
from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary
from graphgen.train import TrainSettings, train

TWO = Vocabulary((("C", 0), ("N", 0)))
PATHS = ("marginal", "uniform", "absorbing")


@pytest.fixture(autouse=True)
def one_thread(threads):
    """These tensors are so small that a second thread only waits for the first."""
    with threads(1):
        yield


@pytest.fixture(scope="module")
def data():
    """Chains of carbon that end in a double bond to oxygen."""
    encoder = Encoder()
    for k in range(60):
        size = 2 + k % 5
        atoms = (("C", 0),) * (size - 1) + (("O", 0),)
        bonds = tuple((i, i + 1, int(i == size - 2)) for i in range(size - 1))
        encoder.add(MoleculeGraph(atoms, bonds), "C" * (size - 1) + "O" + str(k))
    return encoder.finish("chains")


def untrained(vocabulary, seed=0, **settings):
    torch.manual_seed(seed)
    return GraphDFM(vocabulary, **{"hidden": 16, "pair_hidden": 8, "layers": 2, "heads": 2, **settings})


def fitted(data, **settings):
    model = untrained(data.vocabulary, **settings)
    model.fit_prior(data)
    return model


def drawn(model, ids, **options):
    return model.sample(torch.as_tensor(ids), 3, steps=6, **options).molecules(model.vocabulary)


# ---- whole molecules as complete graphs -----------------------------------------------------------------------------


def test_complete_graphs_hold_the_molecules(data):
    batch = data.batch([4, 0, 7])
    whole = CompleteGraphs.of(batch)
    assert whole.ptr.tolist() == [0, 6, 8, 12] and len(whole.pairs) == 15 + 1 + 6
    assert whole.molecules(data.vocabulary) == [data.graph(i) for i in (4, 0, 7)]
    assert whole.pairs[:15].tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 2]


def test_the_prior_is_counted_and_goes_to_disk(data, tmp_path):
    model = fitted(data)
    sizes = data.sizes
    assert torch.equal(model.size_counts, torch.bincount(sizes, minlength=256))
    share = 60 / float(sizes.sum())  # one oxygen in each molecule
    assert torch.allclose(model.atom_noise, torch.tensor([1 - share, share]))
    pairs, single = float((sizes * (sizes - 1)).sum()) / 2, float((sizes - 2).sum())
    expected = torch.tensor([pairs - single - 60, single, 60, 1.0])  # a triple bond, which does not occur, counts once
    assert torch.allclose(model.pair_noise, expected / expected.sum())
    model.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, GraphDFM) and again.settings == model.settings
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert drawn(again, range(5)) == drawn(model, range(5))


# ---- the process ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_corrupted_molecules_have_the_marginals_of_the_path(data, path):
    model = fitted(data, path=path)
    end = CompleteGraphs.of(data.batch(torch.full((3000,), 3)))  # C-C-C-C=O
    t = torch.full((3000,), 0.4)
    atoms, pairs = model.corrupt(end, t, torch.arange(3000), seed=1)
    pairs = pairs.view(3000, 10)
    for state, expected in (
        (atoms.view(3000, 5)[:, 4], path_law(torch.tensor(1), 0.4, model.atom_noise)),
        (pairs[:, 9], path_law(torch.tensor(2), 0.4, model.pair_noise)),
        (pairs[:, 1], path_law(torch.tensor(0), 0.4, model.pair_noise)),
    ):
        shares = torch.bincount(state, minlength=len(expected)) / 3000
        assert bool(((shares - expected).abs() <= 4 * (expected * (1 - expected) / 3000).sqrt() + 1e-6).all())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("options", [{}, {"eta": 4.0, "distortion": "identity"}], ids=["plain", "eta"])
def test_with_the_exact_posterior_samples_have_the_law_of_the_data(path, options):
    """All sixteen molecules of two atoms, with a law that makes atoms and bond depend on each other."""
    count = 3000
    model = untrained(TWO, path=path)
    outcomes = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(4))
    law = torch.rand(16, generator=torch.Generator().manual_seed(5)) ** 3 + 0.1
    law = law / law.sum()

    def exact(ptr):
        def logits(t, atoms, pairs):
            state = torch.cat((atoms.view(-1, 2), pairs.unsqueeze(1)), 1)
            noises = [model.atom_noise, model.atom_noise, model.pair_noise]
            one, other, pair = exact_posteriors(outcomes, law, state, float(t[0]), noises)
            return torch.stack((one, other), 1).flatten(0, 1).log(), pair.log()

        return logits

    model.bind_logits = exact
    whole = model.sample(torch.arange(count), 0, torch.full((count,), 2), steps=60, **options)
    found = whole.atoms.view(-1, 2) @ torch.tensor([8, 4]) + whole.pairs
    shares = torch.bincount(found, minlength=16) / count
    assert bool(((shares - law).abs() <= 4 * (law * (1 - law) / count).sqrt()).all())


def test_what_noise_cannot_be_is_sure_to_stay(data):
    """By Bayes' rule alone a path with a mask keeps what it has drawn, whatever the untrained network says."""
    model = fitted(data, path="absorbing")
    end = CompleteGraphs.of(data.batch([3, 4]))
    with torch.no_grad():
        of_atoms, of_pairs = model.bind_logits(end.ptr)(torch.tensor([0.5, 0.5]), end.atoms, end.pairs)
    assert torch.equal(of_atoms.argmax(1), end.atoms) and float(of_atoms.softmax(1).amax(1).min()) == 1.0
    assert torch.equal(of_pairs.argmax(1), end.pairs)


def test_sizes_are_those_of_the_data(data):
    model = fitted(data)
    sizes = model.draw_sizes(torch.arange(5000), 1)
    shares = torch.bincount(sizes, minlength=7) / 5000
    assert shares[:2].sum() == 0 and bool(((shares[2:] - 0.2).abs() < 4 * (0.16 / 5000) ** 0.5).all())
    assert torch.equal(model.draw_sizes(torch.tensor([7]), 1), sizes[7:8])


@pytest.mark.parametrize("path", PATHS)
def test_same_molecules_for_any_batch_size_and_order(data, path):
    model = fitted(data, path=path)
    together = drawn(model, range(40), eta=1.0)
    assert len(set(together)) > 20
    parts = [molecule for part in torch.arange(40).split(7) for molecule in drawn(model, part, eta=1.0)]
    assert parts == together
    assert drawn(model, torch.arange(39, -1, -1), eta=1.0) == together[::-1]
    assert model.sample(torch.arange(40), 4, steps=6).molecules(model.vocabulary) != together


def test_temperature_sharpens_and_no_mask_is_left(data):
    model = fitted(data, path="absorbing")
    end = model.sample(torch.arange(200), 0, steps=3, eta=2.0)
    assert int(end.atoms.max()) < len(data.vocabulary) and int(end.pairs.max()) < 4
    model.field.atom_out.bias.data = torch.tensor([0.0, 1.0])
    shares = [
        float((model.sample(torch.arange(200), 0, steps=3, temperature=t).atoms == 1).float().mean())
        for t in (0.05, 1.0, 100.0)
    ]
    assert shares[0] > shares[1] + 0.05 > shares[2] + 0.1


def test_a_trajectory_ends_in_the_sample(data):
    model = fitted(data)
    graph, frames = model.trajectory(torch.arange(6), 3, (0.0, 0.5, 1.0), steps=6)
    end = model.sample(torch.arange(6), 3, steps=6)
    assert [frame.time for frame in frames] == [0.0, 0.5, 1.0]
    assert torch.equal(frames[-1].atoms.argmax(1), end.atoms) and torch.equal(graph.ptr, end.ptr)
    n = end.ptr.diff()
    once = graph.target < graph.col
    order = (graph.target * 1000 + graph.col)[once].argsort()
    assert torch.equal(frames[-1].bonds.argmax(1)[once][order], end.pairs)
    for frame in frames:
        assert torch.allclose(frame.bonds.sum(1), torch.ones(graph.num_edges), atol=1e-5)
    paths = trajectories(frames, graph, data.vocabulary.names)
    assert len(paths) == 6 and len(paths[0].pairs) == int(n[0] * (n[0] - 1)) // 2


# ---- learning -------------------------------------------------------------------------------------------------------


def test_loss_is_a_function_of_seed_and_step_and_ignores_order(data):
    model, batch = fitted(data), data.batch([1, 2, 3])
    assert torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 2))
    assert not torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 3))
    assert torch.allclose(model.loss(data.batch([3, 1, 2]), 1, 2), model.loss(batch, 1, 2), atol=1e-5)
    encoder = Encoder()
    encoder.add(MoleculeGraph((("C", 0),), ()), "C")
    encoder.add(MoleculeGraph((("O", 0),), ()), "O")
    lone = encoder.finish("lone").relabelled(data.vocabulary).batch([0])
    assert bool(model.loss(lone, 0).isfinite())  # no pairs at all


def test_it_learns_what_the_molecules_have_in_common(data):
    model, batch = fitted(data), data.batch(range(30))

    def loss():
        with torch.no_grad():
            return sum(float(model.loss(batch, 1, step)) for step in range(8)) / 8

    def alone(ptr):
        """What a token's own state says, and how common labels are."""
        laws = model.atom_noise.log(), model.pair_noise.log()
        return lambda t, *states: tuple(law.expand(len(x), -1) for law, x in zip(laws, states, strict=True))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.field, "bind", alone)
        apart = loss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(120):
        optimizer.zero_grad()
        model.loss(batch, 0, step).backward()
        optimizer.step()
    assert loss() < 0.85 * apart
    made = model.sample(torch.arange(40), 3, steps=30).molecules(model.vocabulary)
    assert sum(molecule.atoms.count(("O", 0)) == 1 for molecule in made) > 24  # by the data's shares alone, 16


def test_training_resumes_and_the_folder_holds_the_model(data, tmp_path):
    settings = TrainSettings(epochs=4, batch_size=16, lr=1e-2, seed=3)
    model = untrained(data.vocabulary)
    records = train(model, data, tmp_path / "run", settings, progress=False)
    assert records[-1]["valid"] < records[0]["valid"] and "nats" not in records[-1]
    again = load(tmp_path / "run")
    learning = data.split("train")
    assert torch.equal(again.size_counts, torch.bincount(learning.sizes, minlength=256))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    broken, calls = untrained(data.vocabulary), 0
    original = broken.loss

    def interrupted(*args):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return original(*args)

    broken.loss = interrupted
    with pytest.raises(KeyboardInterrupt):
        train(broken, data, tmp_path / "broken", settings, progress=False)
    resumed = untrained(data.vocabulary, seed=9)
    train(resumed, data, tmp_path / "broken", settings, resume=True, progress=False)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in model.state_dict().items())


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_settings_and_options_are_checked(data):
    with pytest.raises(GraphgenError, match="path 'straight'"):
        untrained(TWO, path="straight")
    with pytest.raises(GraphgenError, match=r"heads \(3\) must divide hidden \(16\)"):
        untrained(TWO, heads=3)
    with pytest.raises(GraphgenError, match="a graph-dfm has no setting scale; it has path, hidden"):
        make("graph-dfm", TWO, scale=3.0)
    with pytest.raises(GraphgenError, match="does not know how large"):
        untrained(TWO).sample(torch.arange(2), 0)
    with pytest.raises(GraphgenError, match="other atom types"):
        untrained(TWO).fit_prior(data)
    model = fitted(data)
    for options in ({"steps": 0}, {"eta": -1.0}, {"temperature": 0.0}, {"distortion": "bent"}):
        with pytest.raises(GraphgenError, match=next(iter(options))):
            model.sample(torch.arange(2), 0, **options)
    encoder = Encoder()
    encoder.add(MoleculeGraph((("C", 0),) * 300, tuple((i, i + 1, 0) for i in range(299))), "C" * 300)
    with pytest.raises(GraphgenError, match="a molecule of 300 atoms.* at most 255"):
        large = encoder.finish("large")
        untrained(large.vocabulary).fit_prior(large)
