import pytest
import torch
from exact_flow import exact_posteriors, path_law

from graphgen import GraphgenError
from graphgen.likelihood import held_out_nats
from graphgen.models import GraphDFM, load, make
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import Encoder
from graphgen.molecules.trajectory import trajectories
from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary
from graphgen.ops import Pairs
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


# All molecules of two atoms of two types, with a law that makes atoms and bond depend on each other.
OUTCOMES = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(4))
LAW = torch.rand(16, generator=torch.Generator().manual_seed(5)) ** 3 + 0.1
LAW = LAW / LAW.sum()
EXACT = {"steps": 60, "flaws": 0.0, "distortion": "polydec"}


def exactly(model, law):
    """``bind_logits`` of one who knows the law [16] of molecules of two atoms, or [M, 16] of each molecule."""

    def bind(ptr, asked=None, decided=None):
        def logits(t, atoms, pairs):
            state, known = torch.cat((atoms.view(-1, 2), pairs.unsqueeze(1)), 1), law
            if decided is not None:
                sure = torch.cat((decided[0].view(-1, 2), decided[1].unsqueeze(1)), 1)
                contradicted = sure.unsqueeze(1) & (state.unsqueeze(1) != OUTCOMES)
                known = law * ~contradicted.any(2)
            noises = [model.atom_noise, model.atom_noise, model.pair_noise]
            # A token that is decided from the start is no mask at t = 0.
            one, other, pair = exact_posteriors(OUTCOMES, known, state, t.clamp(min=1e-6), noises)
            return torch.stack((one, other), 1).flatten(0, 1).log(), pair.log()

        return logits

    return bind


def assert_shares(whole, law):
    """Molecules of two atoms have the law, within what so many draws can tell."""
    count = len(whole.pairs)
    shares = torch.bincount(whole.atoms.view(-1, 2) @ torch.tensor([8, 4]) + whole.pairs, minlength=16) / count
    assert bool(((shares - law).abs() <= 4 * (law * (1 - law) / count).sqrt()).all())


# An atom of the second type first; the law given that.
HALF = MoleculeGraph((TWO.atoms[1],), ())
GIVEN_HALF = torch.where(OUTCOMES[:, 0] == 1, LAW, 0.0)
GIVEN_HALF = GIVEN_HALF / GIVEN_HALF.sum()


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
@pytest.mark.parametrize("options", [{}, {"eta": 4.0}, {"distortion": "geometric", "steps": 250}])
def test_with_the_exact_posterior_samples_have_the_law_of_the_data(path, options):
    model = untrained(TWO, path=path)
    model.bind_logits = exactly(model, LAW)
    assert_shares(model.sample(torch.arange(3000), 0, torch.full((3000,), 2), **{**EXACT, **options}), LAW)


@pytest.mark.parametrize("path", PATHS)
def test_with_a_scaffold_samples_have_the_law_given_it(path):
    model = untrained(TWO, path=path)
    model.bind_logits = exactly(model, LAW)
    whole = model.sample(torch.arange(3000), 0, torch.full((3000,), 2), **EXACT, scaffold=HALF)
    assert bool((whole.atoms[::2] == 1).all())
    assert_shares(whole, GIVEN_HALF)


@pytest.mark.parametrize("path", PATHS)
def test_every_molecule_contains_the_scaffold(data, path):
    model = fitted(data, path=path)
    scaffold = MoleculeGraph((("O", 0), ("C", 0), ("C", 0), ("C", 0)), ((0, 1, 1), (1, 2, 0)))
    made = drawn(model, range(60), eta=1.0, scaffold=scaffold)
    assert {len(molecule.atoms) for molecule in made} == {4, 5, 6}
    for molecule in made:
        assert molecule.atoms[:4] == scaffold.atoms
        assert tuple(bond for bond in molecule.bonds if bond[1] < 4) == scaffold.bonds
    assert len(set(made)) > 20
    parts = [drawn(model, part, eta=1.0, scaffold=scaffold) for part in torch.arange(60).split(7)]
    assert [molecule for part in parts for molecule in part] == made
    # Given in the other direction, a bond is the same; given whole, nothing is left to draw.
    turned = scaffold._replace(bonds=((1, 0, 1), (1, 2, 0)))
    assert drawn(model, range(60), eta=1.0, scaffold=turned) == made
    full = MoleculeGraph((("C", 0),) * 6, tuple((i, i + 1, 0) for i in range(5)))
    assert set(drawn(model, range(5), scaffold=full)) == {full}


def test_training_tells_the_field_what_is_decided(data):
    """Of every fourth molecule atoms that hang together and all pairs of them, which then are what they will be."""
    model, batch, seen = fitted(data), data.batch(torch.arange(60)), []
    inner = model.bind_logits

    def watched(ptr, asked=None, decided=None):
        logits = inner(ptr, asked, decided)
        return lambda t, *states: seen.append((decided, states)) or logits(t, *states)

    model.bind_logits = watched
    for step in range(40):
        model.loss(batch, 0, step)
    end = CompleteGraphs.of(batch)
    tokens, parts = Pairs(end.ptr), 0
    for (of_atoms, of_pairs), (atoms, pairs) in seen:
        assert torch.equal(atoms[of_atoms], end.atoms[of_atoms]) and torch.equal(pairs[of_pairs], end.pairs[of_pairs])
        assert torch.equal(of_pairs, of_atoms[tokens.first] & of_atoms[tokens.second])
        parts += len(tokens.of_atom[of_atoms].unique())
    assert parts / 2400 == pytest.approx(0.25, abs=0.04)
    model.loss(batch, 0, 0).backward()
    assert bool(model.field.decided.grad.abs().min() > 0)
    states = torch.zeros(60), end.atoms, end.pairs
    with torch.no_grad():
        free, told = (inner(end.ptr, None, decided)(*states)[0] for decided in (None, seen[0][0]))
        assert torch.equal(free, told)  # until it has learnt what that means
        model.field.decided.fill_(1.0)
        changed = (inner(end.ptr, None, seen[0][0])(*states)[0] != free).any(1)
    owners = tokens.of_atom[seen[0][0][0]].unique()
    assert torch.equal(tokens.of_atom[changed].unique(), owners)  # and then it tells the rest of that molecule


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


def test_evidence_counts_as_far_as_it_is_trusted(data):
    model = fitted(data)
    end, late = CompleteGraphs.of(data.batch([3])), torch.tensor([0.999])
    own = torch.arange(len(end.atoms)), end.atoms

    def odds(trust):
        def bind(ptr, asked, decided):
            nothing = torch.zeros(len(end.atoms), 2), torch.zeros(len(end.pairs), 4)
            return lambda t, *states: tuple(torch.cat((x, torch.full((len(x), 1), trust)), 1) for x in nothing)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model.field, "bind", bind)
            atoms, _ = model.bind_logits(end.ptr)(late, end.atoms, end.pairs)
        return atoms[own] - atoms.amin(1)

    full = (1 + 999 / model.atom_noise[end.atoms]).log()
    assert torch.allclose(odds(30.0), full, rtol=1e-4)
    assert torch.allclose(odds(-2.0), full / 2, rtol=1e-4)  # trust starts at 2
    assert float(odds(-30.0).abs().max()) < 1e-6


def test_the_posterior_is_asked_as_if_some_bonds_were_noise(data):
    model, seen = fitted(data), []
    inner = model.bind_logits

    def watched(ptr, asked=None, decided=None):
        logits = inner(ptr, asked, decided)

        def function(t, *states):
            seen.append(t.tolist())
            return logits(t, *states)

        return function

    model.bind_logits = watched
    sizes = torch.tensor([1, 2, 5])
    model.sample(torch.arange(3), 0, sizes, steps=4, distortion="identity", flaws=1.0)
    assert torch.allclose(
        torch.tensor(seen), torch.tensor([[0, 0, 0], [0, 0.25, 0.25], [0, 0.5, 0.5], [0.75, 0.75, 0.75]])
    )
    seen.clear()
    model.sample(torch.arange(3), 0, sizes, steps=2, flaws=0.0, distortion="polydec")
    assert seen == [[0.0] * 3, [0.75] * 3]


def test_temperature_sharpens_and_no_mask_is_left(data):
    model = fitted(data, path="absorbing")
    end = model.sample(torch.arange(200), 0, steps=3, eta=2.0)
    assert int(end.atoms.max()) < len(data.vocabulary) and int(end.pairs.max()) < 4
    model.field.atom_out.weight.data.zero_()
    model.field.atom_out.bias.data = torch.tensor([0.0, 1.0, 0.0])
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

    def alone(ptr, asked, decided):
        """What a token's own state says, and how common labels are."""
        laws = [torch.cat((noise.log(), torch.tensor([50.0]))) for noise in (model.atom_noise, model.pair_noise)]
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
    assert records[-1]["valid"] < records[0]["valid"] and records[-1]["nats"] < records[0]["nats"]
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


# ---- likelihood -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sixteen():
    """Each of OUTCOMES once."""
    encoder = Encoder()
    for one, other, kind in OUTCOMES.tolist():
        atoms = (TWO.atoms[one], TWO.atoms[other])
        encoder.add(MoleculeGraph(atoms, ((0, 1, kind - 1),) if kind else ()), f"{one}{other}{kind}")
    return encoder.finish("sixteen").relabelled(TWO)


def bound(model, molecules, seed=0, **options):
    """Of each of them, by many draws."""
    with torch.no_grad():
        return model.log_prob(molecules.batch(torch.arange(len(molecules))), seed, **options)


@pytest.mark.parametrize("path", PATHS)
def test_the_bound_of_the_exact_posterior_is_the_log_probability_of_masks_and_below_of_others(sixteen, path):
    model = untrained(TWO, path=path)
    model.size_counts[2], model.size_counts[5] = 3, 1
    model.bind_logits = exactly(model, LAW)
    found, exact = bound(model, sixteen, samples=40), LAW.log() + torch.tensor(0.75).log()
    assert found.evaluations == 800 and torch.equal(found.atoms, torch.full((16,), 2))
    if path == "absorbing":
        assert bool(((found.value - exact).abs() < 4 * found.stderr + 1e-4).all())
        assert float(LAW @ (found.value - exact)) == pytest.approx(0, abs=0.03)
    else:
        assert bool((found.value < exact + 4 * found.stderr).all())
        assert -0.8 < float(LAW @ (found.value - exact)) < -0.1  # what jumps say beyond states


@pytest.mark.parametrize("path", PATHS)
def test_the_bound_is_below_the_share_that_the_model_makes(sixteen, path):
    """Of a network that has learnt nothing, whose samples are counted; small steps, for the bound is of none."""
    model = untrained(TWO, path=path)
    model.size_counts[2] = 1
    model.field.pair_out.bias.data = torch.tensor([1.5, 0.0, -0.5, -1.0, 0.0])
    count = 4000
    made = model.sample(torch.arange(count), 5, **EXACT)
    shares = torch.bincount(made.atoms.view(-1, 2) @ torch.tensor([8, 4]) + made.pairs, minlength=16) / count
    found = bound(model, sixteen, samples=20)
    assert bool((found.value - 4 * found.stderr < (shares + 4 * (shares / count).sqrt()).log()).all())
    assert (0.9 if path == "absorbing" else 0.3) < float(found.value.exp().sum()) < 1.05  # and not far below


def test_other_seeds_give_the_same_but_for_their_error(sixteen):
    model = untrained(TWO)
    model.size_counts[2] = 1
    many = bound(model, sixteen, samples=40)
    few = torch.stack([bound(model, sixteen, seed, steps=2).value for seed in range(1, 101)])
    assert bool(((few.mean(0) - many.value).abs() < 4 * (few.std(0) / 10 + many.stderr)).all())
    assert bool(few.std(0).gt(0).all())
    batch = sixteen.batch([3, 9])
    once = bound(model, sixteen, 4).value
    with torch.no_grad():
        assert torch.allclose(model.log_prob(batch, 4).value, once[[3, 9]], atol=1e-4)


def test_the_bound_has_a_gradient_and_knows_sizes(data):
    for path in PATHS:
        model = fitted(data, path=path)
        value = model.log_prob(data.batch([0, 1, 2, 3]), 1).value
        value.sum().backward()
        assert all(bool(x.grad.isfinite().all()) for x in model.parameters() if x is not model.field.decided)
        assert bool(model.field.atom_out.weight.grad.any())
    extreme = fitted(data, path="uniform")
    extreme.times = lambda batch, *_: torch.full((batch.graph.num_graphs,), 1 - 2.0**-24)  # v of 2^-24: the very end
    assert bool(bound(extreme, data.take([0, 1]), steps=1).value.isfinite().all())
    encoder = Encoder()
    encoder.add(MoleculeGraph((("C", 0),), ()), "C")
    encoder.add(MoleculeGraph((("O", 0),), ()), "O")
    lone = encoder.finish("lone").relabelled(data.vocabulary)
    assert bool(bound(model, lone).value.isneginf().all())
    with pytest.raises(GraphgenError, match="never makes molecules of these sizes"):
        held_out_nats(model, lone, progress=False)
    with pytest.raises(GraphgenError, match="does not know how large"):
        bound(untrained(data.vocabulary), data)


# ---- conditions -----------------------------------------------------------------------------------------------------


def asked_for(model, law, other):
    """``bind_logits`` of one who knows that molecules have ``law`` where nothing is asked, and ``other`` if it is."""
    free, told = exactly(model, law), exactly(model, other)
    return lambda ptr, asked=None, decided=None: (
        free(ptr) if asked is None or not bool(asked[:, 1].any()) else told(ptr)
    )


@pytest.mark.parametrize("path", PATHS)
def test_with_exact_posteriors_what_is_asked_is_made(path):
    model = untrained(TWO, path=path, conditions=["kind"])
    other = LAW.flip(0)
    model.bind_logits = asked_for(model, LAW, other)
    ids, sizes = torch.arange(3000), torch.full((3000,), 2)
    assert_shares(model.sample(ids, 0, sizes, **EXACT, condition={"kind": 1.0}), other)
    assert_shares(
        model.sample(ids, 0, sizes, **EXACT, condition={"kind": 1.0}, guidance=0.0),
        LAW,
    )
    assert_shares(model.sample(ids, 0, sizes, **EXACT), LAW)


def test_guidance_is_the_product_of_powers():
    """Of one step from noise, which draws every token alone: asked^w free^(1 - w)."""
    model = untrained(TWO, path="absorbing", conditions=["kind"])
    free, told = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])

    def bind(ptr, asked=None, decided=None):
        law = free if asked is None else told
        return lambda t, atoms, pairs: (law.log().expand(len(atoms), -1), torch.zeros(len(pairs), 4))

    model.bind_logits = bind
    sizes = torch.full((4000,), 2)
    for weight in (0.5, 1.0, 3.0):
        made = model.sample(torch.arange(4000), 0, sizes, steps=1, condition={"kind": 1.0}, guidance=weight)
        expected = told**weight * free ** (1 - weight)
        expected = expected / expected.sum()
        found = float((made.atoms == 1).float().mean())
        assert found == pytest.approx(float(expected[1]), abs=4 * (0.25 / 8000) ** 0.5)


def oxygens(data):
    """Chains, and what is asked: their length; the last has none."""
    values = torch.stack((data.sizes.double(), torch.arange(len(data)).double()), 1)
    values[-1, 0] = torch.nan
    return data.with_properties(["length", "row"], values)


def test_what_is_absent_changes_nothing(data):
    plain = fitted(data)
    model = untrained(data.vocabulary, conditions=["length", "row"])
    weights = plain.state_dict()
    widened = torch.cat((weights["field.time_in.weight"], torch.ones(16, 4)), 1)
    taken = {name: weights.get(name, value) for name, value in model.state_dict().items()}
    model.load_state_dict(taken | {"field.time_in.weight": widened})
    assert drawn(model, range(20)) == drawn(plain, range(20))
    model.fit_prior(oxygens(data))
    assert drawn(model, range(20)) == drawn(plain, range(20))
    assert drawn(model, range(20), condition={"length": 9.0}) != drawn(plain, range(20))
    batch = oxygens(data).batch(range(10))
    assert torch.equal(model.log_prob(batch, 1).value, plain.log_prob(data.batch(range(10)), 1).value)


def test_properties_are_standardised_and_dropped(data, tmp_path):
    with_values = oxygens(data)
    model = untrained(data.vocabulary, conditions=["length", "row"])
    model.fit_prior(with_values)
    length = data.sizes[:-1].double()
    assert torch.allclose(model.conditions.mean, torch.stack((length.mean(), torch.tensor(29.5).double())))
    assert float(model.conditions.deviation[0]) == pytest.approx(float(length.std(correction=0)))
    told = model.conditions.asked({"row": 29.5}, 3, torch.float32)
    assert torch.equal(told, torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(3, -1))
    batch = with_values.batch(torch.arange(59))
    shown = torch.stack([model.conditions.of_batch(batch, 1, step, torch.float32)[:, 2:] for step in range(200)])
    assert float(shown.mean()) == pytest.approx(0.4, abs=0.02)
    both = float((shown.sum(2) == 0).float().mean())
    assert both == pytest.approx(0.2 + 0.8 * 0.25, abs=0.02)
    assert float(model.conditions.of_batch(with_values.batch([59]), 1, 0, torch.float32)[0, [0, 2]].abs().sum()) == 0
    model.save(tmp_path)
    again = load(tmp_path)
    assert drawn(again, range(9), condition={"row": 3.0}) == drawn(model, range(9), condition={"row": 3.0})


def test_training_makes_the_condition_matter():
    """Molecules of one atom, whose type is what is asked."""
    encoder = Encoder()
    for k in range(40):
        encoder.add(MoleculeGraph(((("C", "O")[k % 2], 0),), ()), "CO"[k % 2] + str(k))
    data = encoder.finish("atoms")
    data = data.with_properties(["oxygens"], torch.arange(40).remainder(2).double().unsqueeze(1))
    model = fitted(data, conditions=["oxygens"])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(60):
        optimizer.zero_grad()
        model.loss(data.batch(range(40)), 0, step).backward()
        optimizer.step()

    def share(**options):
        return float((model.sample(torch.arange(300), 1, steps=8, **options).atoms == 1).float().mean())

    assert data.vocabulary.names[1] == "O"
    assert share(condition={"oxygens": 1.0}) > 0.9 and share(condition={"oxygens": 0.0}) < 0.1
    assert 0.35 < share() < 0.65
    assert share(condition={"oxygens": 1.0}, guidance=2.0) >= share(condition={"oxygens": 1.0})


def test_conditions_are_checked(data):
    model = untrained(data.vocabulary, conditions=["length", "row"])
    with pytest.raises(GraphgenError, match=r"have the properties \[\] and the model needs \['length', 'row'\]"):
        model.fit_prior(data)
    model.fit_prior(oxygens(data))
    with pytest.raises(GraphgenError, match="the molecules have no properties"):
        model.loss(data.batch([0]), 0)
    for options, message in (
        ({"condition": {"qed": 1.0}}, "condition qed: .* it knows length, row"),
        ({"condition": {"row": float("nan")}}, "condition row=nan"),
        ({"guidance": 2.0}, "without a condition"),
        ({"condition": {"row": 1.0}, "guidance": -1.0}, "guidance"),
    ):
        with pytest.raises(GraphgenError, match=message):
            model.sample(torch.arange(2), 0, **options)
    with pytest.raises(GraphgenError, match="was trained without conditions"):
        fitted(data).sample(torch.arange(2), 0, condition={"qed": 0.5})
    with pytest.raises(GraphgenError, match="once"):
        untrained(TWO, conditions=["qed", "qed"])


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
    for options in ({"steps": 0}, {"eta": -1.0}, {"temperature": 0.0}, {"distortion": "bent"}, {"flaws": -1.0}):
        with pytest.raises(GraphgenError, match=next(iter(options))):
            model.sample(torch.arange(2), 0, **options)
    for atoms, message in (
        ((("N", 1),), r"atoms N\+, which the model does not know; it knows C, O"),
        ((("C", 0),) * 7, r"a scaffold of 7 atoms is larger than any training molecule \(6 atoms"),
    ):
        with pytest.raises(GraphgenError, match=message):
            model.sample(torch.arange(2), 0, scaffold=MoleculeGraph(atoms, ()))
    with pytest.raises(GraphgenError, match="a scaffold of 2 atoms has no room in molecules of 1"):
        model.sample(torch.arange(1), 0, torch.tensor([1]), scaffold=MoleculeGraph((("C", 0),) * 2, ()))
    encoder = Encoder()
    encoder.add(MoleculeGraph((("C", 0),) * 300, tuple((i, i + 1, 0) for i in range(299))), "C" * 300)
    with pytest.raises(GraphgenError, match="a molecule of 300 atoms.* at most 255"):
        large = encoder.finish("large")
        untrained(large.vocabulary).fit_prior(large)
