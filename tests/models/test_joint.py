import pytest
import torch

from graphgen import GraphgenError
from graphgen.models import GraphDDPM, GraphNCSN, GraphSDE, JointDDPM, JointNCSN, JointSDE, load, make
from graphgen.models.joint import score
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import Encoder
from graphgen.molecules.trajectory import trajectories
from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary
from graphgen.ops import Pairs
from graphgen.train import TrainSettings, train

TWO = Vocabulary((("C", 0), ("N", 0)))
SMALL = {"hidden": 16, "pair_hidden": 8, "layers": 2, "heads": 2}
MODELS = {"graph-sde": JointSDE, "graph-ncsn": JointNCSN, "graph-ddpm": JointDDPM}
FIXED = {"graph-sde": GraphSDE, "graph-ncsn": GraphNCSN, "graph-ddpm": GraphDDPM}
SHORT = {"graph-sde": {"steps": 20}, "graph-ncsn": {"steps": 2}, "graph-ddpm": {"steps": 12}}
every = pytest.mark.parametrize("name", MODELS)


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


def untrained(name, vocabulary=TWO, **settings):
    torch.manual_seed(0)
    return make(name, vocabulary, structure="joint", **{**SMALL, **settings})


def fitted(name, data, **settings):
    model = untrained(name, data.vocabulary, **settings)
    model.fit_prior(data)
    return model


def drawn(model, ids, **options):
    ids = torch.as_tensor(ids)
    return model.sample(ids, 3, **{**SHORT[model.name], **options}).molecules(model.vocabulary)


# ---- the law of samples ---------------------------------------------------------------------------------------------

OUTCOMES = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(4))
"""All sixteen molecules of two atoms of two types."""


def a_law():
    """One that makes atoms and bond depend on each other."""
    law = torch.rand(16, generator=torch.Generator().manual_seed(5)) ** 3 + 0.1
    return law / law.sum()


def exact_logits(law):
    """The posterior of all labels by Bayes' rule over all molecules; states in units of the noise."""
    points = [torch.nn.functional.one_hot(label).to(law.dtype) for label in OUTCOMES.T]

    def bind_logits(ptr):
        def logits(signal, atoms, pairs):
            states = *atoms.view(-1, 2, 2).unbind(1), pairs
            # -|y - s e|^2 / 2, of which only this differs between the molecules
            evidence = sum(state @ point.T for state, point in zip(states, points, strict=True))
            weight = (signal.unsqueeze(1) * evidence + law.log()).softmax(1)
            one, other, pair = (weight @ point for point in points)
            return torch.stack((one, other), 1).flatten(0, 1).log(), pair.log()

        return logits

    return bind_logits


WALKS = [
    ("graph-sde", {}, {}),
    ("graph-sde", {"sde": "ve"}, {"sampler": "ancestral"}),
    ("graph-sde", {"sde": "subvp"}, {"sampler": "euler"}),
    ("graph-sde", {}, {"steps": 50, "corrections": 1, "snr": 0.05}),
    ("graph-ncsn", {"levels": 8, "sigma_max": 4.0}, {"steps": 100, "epsilon": 0.05 * 0.16**2}),
    ("graph-ddpm", {"chain": 100}, {}),
    ("graph-ddpm", {"schedule": "cosine"}, {"steps": 60}),
    ("graph-ddpm", {}, {"steps": 60, "sampler": "ddim", "eta": 0.5}),
]


@pytest.mark.parametrize("name, settings, options", WALKS)
def test_with_the_exact_posterior_samples_have_the_law_of_the_data(name, settings, options):
    count, law = 2000, a_law()
    model = untrained(name, **settings)
    model.bind_logits = exact_logits(law)
    whole = model.sample(torch.arange(count), 0, torch.full((count,), 2), **options)
    found = whole.atoms.view(-1, 2) @ torch.tensor([8, 4]) + whole.pairs
    shares = torch.bincount(found, minlength=16) / count
    assert bool(((shares - law).abs() <= 4 * (law * (1 - law) / count).sqrt()).all())


@every
def test_score_is_the_gradient_of_the_noised_law(name):
    """Of what the atoms and the one pair are; in both orders it is one number."""
    a, b, law = 0.7, 0.9, a_law().double()
    model = untrained(name).double()
    model.bind_logits = exact_logits(law)
    points = [a * model.scale * torch.nn.functional.one_hot(label).double() for label in OUTCOMES.T]
    x = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (2, 2, 4)]
    square = sum((state - point).square().sum(1) for state, point in zip(x, points, strict=True))
    wanted = torch.autograd.grad(torch.logsumexp(law.log() - 0.5 * square / b**2, 0), x)
    x = [part.detach() for part in x]
    own = torch.randn(2, 4, dtype=torch.float64)  # the pair of each atom with itself
    found = score(
        model.bind_posterior(torch.tensor([0, 2])),
        torch.tensor([model.scale * a / b], dtype=torch.float64),
        torch.tensor([b], dtype=torch.float64),
        (torch.stack(x[:2]), torch.stack((own[0], x[2], x[2], own[1]))),
    )
    assert torch.allclose(found[0], torch.stack(wanted[:2]), atol=1e-9)
    assert torch.allclose(found[1][1], wanted[2], atol=1e-9) and torch.equal(found[1][1], found[1][2])
    assert torch.allclose(found[1][[0, 3]], -own / b**2)


# ---- the posterior --------------------------------------------------------------------------------------------------


def states(data, rows, model, signal=1.0):
    end = CompleteGraphs.of(data.batch(rows))
    signals = torch.full((len(rows),), signal, dtype=model.dtype)
    return end, signals, model.noised(end, signals, torch.arange(len(rows)), 1)


@every
def test_atoms_renamed_the_posterior_is_renamed(name, data):
    model = fitted(name, data).double()
    end, signal, (atoms, pairs) = states(data, [4, 2], model)
    order = torch.cat((torch.tensor([3, 0, 5, 1, 4, 2]), 6 + torch.tensor([2, 3, 0, 1])))
    tokens = Pairs(end.ptr)
    number = torch.zeros(10, 10, dtype=torch.int64)
    number[tokens.first, tokens.second] = number[tokens.second, tokens.first] = torch.arange(len(pairs))
    moved = number[order[tokens.first], order[tokens.second]]
    with torch.no_grad():
        logits = model.bind_logits(end.ptr)
        of_atoms, of_pairs = logits(signal, atoms, pairs)
        renamed = logits(signal, atoms[order], pairs[moved])
    assert torch.allclose(renamed[0], of_atoms[order], atol=1e-9)
    assert torch.allclose(renamed[1], of_pairs[moved], atol=1e-9)
    assert not torch.allclose(renamed[1], of_pairs, atol=1e-3)


@every
def test_both_orders_of_a_pair_stay_one_state(name, data):
    model, seen = fitted(name, data), []
    original = model.bind_posterior

    def watched(ptr, watch):
        posterior = original(ptr, watch)

        def look(signal, state):
            seen.append(state[1].clone())
            return posterior(signal, state)

        return look

    model.bind_posterior = watched
    model.sample(torch.arange(2), 3, torch.tensor([4, 3]), **SHORT[name])
    squares = Pairs(torch.tensor([0, 4, 7])).squares
    assert squares.ptr.tolist() == [0, 16, 25] and squares.upper[-3:].tolist() == [17, 18, 21]
    assert squares.lower[-3:].tolist() == [19, 22, 23]
    assert len(seen) > 5
    for pairs in seen:
        assert torch.equal(pairs[squares.upper], pairs[squares.lower]) and bool(pairs.isfinite().all())
    assert not torch.equal(seen[0], seen[-1])


@every
def test_signal_alone_decides_where_labels_are_certain_and_the_data_where_they_are_lost(name, data):
    model = fitted(name, data)
    model.field.atom_out.weight.data.zero_()
    model.field.atom_out.bias.data.zero_()
    end, signal, clear = states(data, [3, 4], model, 8.0)
    with torch.no_grad():
        found = model.bind_logits(end.ptr)(signal, *clear)
        assert torch.equal(found[0].argmax(1), end.atoms)
        lost, _ = model.bind_logits(end.ptr)(torch.full_like(signal, 1e-6), *clear)
    assert torch.allclose(lost.softmax(1), model.atom_shares.expand(len(lost), -1), atol=1e-4)
    signals = model.signal(torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-24]))
    assert float(signals.max()) > 6 and 0.9 < float(signals.min()) / model.first_signal < 1.1
    assert 0.2 < float(signals[2]) < 4  # labels are decided in the middle


# ---- learning -------------------------------------------------------------------------------------------------------


@every
def test_loss_is_a_function_of_seed_and_step_and_ignores_order(name, data):
    model, batch = fitted(name, data), data.batch([1, 2, 3])
    assert torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 2))
    assert not torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 3))
    assert torch.allclose(model.loss(data.batch([3, 1, 2]), 1, 2), model.loss(batch, 1, 2), atol=1e-5)


@every
def test_it_learns_what_the_molecules_have_in_common(name, data):
    model, batch = fitted(name, data), data.batch(range(30))

    def loss():
        with torch.no_grad():
            return sum(float(model.loss(batch, 1, step)) for step in range(16)) / 16

    def alone(ptr):
        """What a token's own state says, and how common labels are."""
        return lambda t, atoms, pairs: (torch.zeros_like(atoms), torch.zeros_like(pairs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.field, "bind", alone)
        apart = loss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(160):
        optimizer.zero_grad()
        model.loss(batch, 0, step).backward()
        optimizer.step()
    assert loss() < 0.9 * apart
    made = model.sample(torch.arange(40), 3, **{"graph-ncsn": {"steps": 4}}.get(name, {"steps": 40}))
    one_oxygen = sum(molecule.atoms.count(("O", 0)) == 1 for molecule in made.molecules(model.vocabulary))
    assert one_oxygen > 24  # by the data's shares alone, 16


@every
def test_a_trained_folder_holds_the_model(name, data, tmp_path):
    model = untrained(name, data.vocabulary)
    records = train(model, data, tmp_path, TrainSettings(epochs=2, batch_size=32, lr=1e-2), progress=False)
    assert len(records) == 2 and "nats" not in records[-1]
    again = load(tmp_path)
    assert type(again) is MODELS[name] and again.settings == model.settings and again.samples_bonds
    assert again.settings["structure"] == "joint"
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert drawn(again, range(5)) == drawn(model, range(5))


# ---- sampling -------------------------------------------------------------------------------------------------------


@every
def test_same_molecules_for_any_batch_size_and_order(name, data):
    model = fitted(name, data)
    options = {"corrections": 1} if name == "graph-sde" else {}
    together = drawn(model, range(30), **options)
    assert len(set(together)) > 15
    parts = [molecule for part in torch.arange(30).split(7) for molecule in drawn(model, part, **options)]
    assert parts == together
    assert drawn(model, torch.arange(29, -1, -1), **options) == together[::-1]
    assert model.sample(torch.arange(30), 4, **SHORT[name]).molecules(model.vocabulary) != together


@every
def test_single_atoms_and_sizes(name, data):
    model = fitted(name, data)
    whole = model.sample(torch.arange(4), 3, torch.tensor([1, 5, 1, 2]), **SHORT[name])
    assert whole.ptr.tolist() == [0, 1, 6, 7, 9] and len(whole.pairs) == 11
    sizes = model.sample(torch.arange(20), 3, **SHORT[name]).ptr.diff()
    assert torch.equal(sizes, model.draw_sizes(torch.arange(20), 3))


@every
def test_a_trajectory_ends_in_the_sample(name, data):
    model = fitted(name, data)
    graph, frames = model.trajectory(torch.arange(6), 3, (0.0, 0.5, 1.0), **SHORT[name])
    end = model.sample(torch.arange(6), 3, **SHORT[name])
    assert [frame.time for frame in frames] == [0.0, 0.5, 1.0]
    assert torch.equal(frames[-1].atoms.argmax(1), end.atoms) and torch.equal(graph.ptr, end.ptr)
    once = graph.target < graph.col
    order = (graph.target * 1000 + graph.col)[once].argsort()
    assert torch.equal(frames[-1].bonds.argmax(1)[once][order], end.pairs)
    for frame in frames:
        assert torch.allclose(frame.bonds.sum(1), torch.ones(graph.num_edges), atol=1e-5)
    assert len(trajectories(frames, graph, data.vocabulary.names)) == 6


# ---- names and refusals ---------------------------------------------------------------------------------------------


@every
def test_a_name_and_a_structure_are_a_model(name, tmp_path):
    assert type(untrained(name)) is MODELS[name]
    for settings in ({}, {"structure": "given"}):
        given = make(name, TWO, hidden=8, **settings)
        assert type(given) is FIXED[name] and "structure" not in given.settings
    given.save(tmp_path)
    assert type(load(tmp_path)) is FIXED[name]
    with pytest.raises(GraphgenError, match="structure 'bent': choose given or joint"):
        make(name, TWO, structure="bent")
    with pytest.raises(GraphgenError, match=f"a {name} has no setting path; it has hidden, pair_hidden"):
        untrained(name, path="uniform")
    with pytest.raises(GraphgenError, match=f"a {name} has no setting heads; it has field"):
        make(name, TWO, heads=2)
    with pytest.raises(GraphgenError, match="a graph-dfm has no setting structure"):
        make("graph-dfm", TWO, structure="joint")


@every
def test_settings_are_checked(name):
    with pytest.raises(GraphgenError, match=r"scale \(0\) must be above 0"):
        untrained(name, scale=0)
    with pytest.raises(GraphgenError, match=r"heads \(3\) must divide hidden \(16\)"):
        untrained(name, heads=3)
    with pytest.raises(GraphgenError, match="does not know how large"):
        untrained(name).sample(torch.arange(2), 0)


@pytest.mark.parametrize(
    "name, settings, complaint",
    [
        ("graph-sde", {"sde": "brown"}, "sde 'brown': choose one of vp, subvp, ve"),
        ("graph-sde", {"scale": 40.0}, "the labels still show"),
        ("graph-ncsn", {"levels": 1}, "levels"),
        ("graph-ncsn", {"sigma_min": 20.0}, "sigma_min"),
        ("graph-ddpm", {"schedule": "steep"}, "schedule 'steep'"),
        ("graph-ddpm", {"chain": 1}, "chain"),
    ],
)
def test_settings_of_each_are_checked(name, settings, complaint):
    with pytest.raises(GraphgenError, match=complaint):
        untrained(name, **settings)


@pytest.mark.parametrize(
    "name, settings, options, complaint",
    [
        ("graph-sde", {}, {"sampler": "ode"}, "sampler 'ode': choose one of euler, reverse-diffusion, ancestral"),
        ("graph-sde", {}, {"steps": 5}, "5 steps are too few for vp"),
        ("graph-sde", {}, {"corrections": -1}, "corrections"),
        ("graph-sde", {"sde": "subvp"}, {"sampler": "ancestral"}, "no ancestral sampler; choose one of euler, rev"),
        ("graph-ncsn", {}, {"epsilon": 0.0}, "epsilon"),
        ("graph-ncsn", {}, {"steps": 0}, "steps"),
        ("graph-ddpm", {}, {"steps": 1001}, "this chain has 1000"),
        ("graph-ddpm", {}, {"eta": 0.5}, "belongs to the sampler ddim"),
        ("graph-ddpm", {}, {"sampler": "euler"}, "sampler 'euler'"),
    ],
)
def test_sampling_options_are_checked(name, settings, options, complaint):
    with pytest.raises(GraphgenError, match=complaint):
        untrained(name, **settings).sample(torch.arange(2), 0, torch.tensor([2, 3]), **options)
