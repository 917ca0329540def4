import math

import pytest
import torch
from small_molecules import FOUR, TWO, alternating, chains, single_atoms

from graphgen import GraphBatch, GraphgenError, ops
from graphgen.models import GraphCNF, load
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.ops.noise import Stream


def untrained(vocabulary, seed=0, loud=1.0, **settings):
    torch.manual_seed(seed)
    model = GraphCNF(vocabulary, **{"hidden": 16, "layers": 2, "context_layers": 1, **settings})
    for parameter in model.parameters():
        parameter.data *= loud
    return model


@pytest.fixture(scope="module")
def toy():
    """The density of a one-atom, two-type flow on a grid, and the grid."""
    model = untrained(TWO, scale=3.0, loud=1.5)
    axis = torch.linspace(-6, 9, 101)
    grid = torch.cartesian_prod(axis, axis)
    batch = MoleculeBatch(single_atoms(len(grid)), torch.zeros(len(grid), dtype=torch.int64), torch.arange(len(grid)))
    with torch.no_grad():
        density = model.log_density(grid, batch, trace="exact", method="rk4", steps=10).double().exp()
    return model, grid, density, float(axis[1] - axis[0]) ** 2


def test_density_integrates_to_one(toy):
    _, _, density, cell = toy
    assert abs(float(density.sum()) * cell - 1) < 1e-3


def test_bound_is_below_the_probability_of_the_label_and_close_to_it(toy):
    model, grid, density, cell = toy
    total = 0.0
    for label in (0, 1):
        inside = grid.argmax(1) == label
        exact = float(density[inside].sum()) * cell
        total += exact
        many = MoleculeBatch(single_atoms(1500), torch.full((1500,), label), torch.arange(1500))
        with torch.no_grad():
            bound = model.log_prob(many, trace="exact", method="rk4", steps=10).value
        error = float(bound.std()) / 1500**0.5
        assert float(bound.mean()) < math.log(exact) + 4 * error + 0.01
        assert float(bound.mean()) > math.log(exact) - 0.5
    assert abs(total - 1) < 2e-2  # the diagonal of the grid is in both cells' favour


def test_samples_have_the_probabilities_of_the_density(toy):
    model, grid, density, cell = toy
    atoms = model.sample(single_atoms(4000), torch.arange(4000), seed=5)
    share = float((atoms == 0).double().mean())
    exact = float(density[grid[:, 0] > grid[:, 1]].sum() + density[grid[:, 0] == grid[:, 1]].sum() / 2) * cell
    assert abs(share - exact) < 4 * (exact * (1 - exact) / 4000) ** 0.5 + 2e-3


@pytest.mark.parametrize("dtype, tolerance, limit", [(torch.float32, 1e-6, 1e-4), (torch.float64, 1e-11, 1e-9)])
def test_flow_inverts(dtype, tolerance, limit):
    model = untrained(FOUR, scale=4.0).to(dtype)
    batch = chains([5, 1, 8])
    x = torch.randn(14, 4, dtype=dtype)
    with torch.no_grad():
        there = model.transport(x, batch.graph, 0, 1, rtol=tolerance, atol=tolerance)
        back = model.transport(there, batch.graph, 1, 0, rtol=tolerance, atol=tolerance)
    assert float((there - x).abs().max()) > 1
    assert float((back - x).abs().max()) < limit


def test_hutchinson_density_agrees_with_the_exact_one():
    model = untrained(FOUR, scale=3.0, loud=1.5)
    batch = chains([6, 3])
    z, _ = model.dequantise(batch, 0)
    with torch.no_grad():
        exact = model.log_density(z, batch, trace="exact", method="rk4", steps=4)
        draws = torch.stack([model.log_density(z, batch, seed, method="rk4", steps=4) for seed in range(60)])
    error = draws.std(0) / 60**0.5
    assert (error > 0).all() and ((draws.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_known_for_sure_are_reached_in_a_straight_line(smoothing):
    """With one certain label the velocity is the label's point itself: the flow only translates."""
    model = untrained(FOUR, label_smoothing=smoothing)
    model.field.out.bias.data = torch.tensor([0.0, 60.0, 0.0, 0.0])
    noise = torch.randn(3, 4)
    end = model.transport(noise, single_atoms(3), method="rk4", steps=3)
    point = 8 * ((1 - smoothing) * torch.tensor([0.0, 1.0, 0.0, 0.0]) + smoothing / 4)
    assert torch.allclose(end - noise, point.expand(3, 4), atol=1e-4)


def test_label_smoothing_is_checked():
    with pytest.raises(GraphgenError, match="label_smoothing"):
        untrained(FOUR, label_smoothing=1.0)


def test_points_lie_in_their_cells_and_log_q_is_their_density():
    model = untrained(FOUR, scale=1.25, label_smoothing=0.2)  # so close that many draws leave the cell
    batch = chains([400] * 10)
    z, log_q = model.dequantise(batch, 3)
    assert torch.equal(z.argmax(1), batch.atoms)
    raw = torch.randn(400_000, 4)
    raw[:, 0] += 1.0
    kept = float((raw.argmax(1) == 0).double().mean())
    assert abs(math.exp(model._log_cell()) - kept) < 4 * (kept * (1 - kept) / 400_000) ** 0.5
    centre = torch.nn.functional.one_hot(batch.atoms, 4).float()
    centre = centre + 0.2 * 1.25 / 4
    per_atom = torch.distributions.Normal(0.0, 1.0).log_prob(z - centre).sum(1) - model._log_cell()
    assert torch.allclose(log_q, per_atom.view(10, 400).sum(1), rtol=1e-5)


@pytest.mark.parametrize("objective", ["flow-matching", "likelihood"])
def test_both_objectives_learn(objective):
    model, batch = untrained(TWO, objective=objective), alternating()

    def nats():
        with torch.no_grad():
            found = model.log_prob(batch, 7, method="rk4", steps=8)
        return -float(found.value.sum() / found.atoms.sum())

    before = nats()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(150 if objective == "flow-matching" else 25):
        optimizer.zero_grad()
        model.loss(batch, 0, step).backward()
        optimizer.step()
    assert before > 0.65
    assert nats() < (0.35 if objective == "flow-matching" else 0.62)


def test_loss_and_bound_are_functions_of_seed_and_step():
    model, batch = untrained(FOUR), chains([4, 5])
    assert torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 2))
    assert not torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 3))
    assert not torch.equal(model.loss(batch, 1, 2), model.loss(batch, 2, 2))


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"objective": "guess"}, "objective 'guess'"),
        ({"field": "corn"}, "field 'corn'"),
        ({"kinetic": -1.0}, "kinetic must be 0 or more"),
        ({"kinetic": 1.0}, "likelihood"),
        ({"trained_end_time": True}, "likelihood"),
    ],
)
def test_settings_are_checked(settings, complaint):
    with pytest.raises(GraphgenError, match=complaint):
        untrained(FOUR, **settings)


def test_an_end_time_of_one_is_no_end_time_and_another_one_rescales_time():
    plain = untrained(FOUR, objective="likelihood")
    model = untrained(FOUR, objective="likelihood", trained_end_time=True)
    model.load_state_dict(plain.state_dict() | {"log_end_time": torch.zeros(())})
    batch = chains([4, 5])
    assert torch.equal(plain.loss(batch, 0), model.loss(batch, 0))
    x = torch.randn(9, 4)
    with torch.no_grad():
        halfway = plain.transport(x, batch.graph, 0, 0.5, method="rk4", steps=40)
        model.log_end_time.fill_(math.log(0.5))
        assert torch.allclose(model.transport(x, batch.graph, method="rk4", steps=40), halfway, atol=1e-5)
    loss = model.loss(batch, 0)
    loss.backward()
    up, down = model.log_end_time + 1e-2, model.log_end_time - 1e-2
    with torch.no_grad():
        ends = []
        for value in (up, down):
            model.log_end_time.copy_(value)
            ends.append(float(model.loss(batch, 0)))
    assert float(model.log_end_time.grad) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=5e-2)


def test_kinetic_energy_of_a_straight_path_is_half_its_length_squared():
    """With one certain label every atom moves by the label's point, 8 long, in time 1."""
    batch = MoleculeBatch(single_atoms(3), torch.full((3,), 1), torch.arange(3))
    losses = []
    for kinetic in (0.0, 0.01):
        model = untrained(FOUR, objective="likelihood", kinetic=kinetic)
        model.field.out.bias.data = torch.tensor([0.0, 60.0, 0.0, 0.0])
        with torch.no_grad():
            losses.append(float(model.loss(batch, 0)))
    assert losses[1] - losses[0] == pytest.approx(0.01 * 0.5 * 64, rel=1e-4)


def test_marginals_are_the_shares_of_what_is_sampled():
    model = untrained(TWO)
    batch = chains([5] * 64, TWO)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(200):  # ends are C twice as often as N, whatever the bonds; the middle is N
        ends = ((torch.arange(320) % 5) % 4 == 0) & (ops.uniform(torch.tensor([0, 320]), 1, step)[:, 0] < 2 / 3)
        optimizer.zero_grad()
        model.loss(batch._replace(atoms=(~ends).long()), 0, step).backward()
        optimizer.step()
    share = model.marginals(batch.graph, batch.ids, 0)
    assert torch.allclose(share.sum(1), torch.ones(320), atol=1e-5)
    drawn = torch.stack([model.sample(batch.graph, batch.ids + 64 * k, 1, steps=8) for k in range(40)]).view(-1, 5)
    shares = (drawn == 0).double().mean(0)
    assert torch.allclose(share.view(64, 5, 2)[:, :, 0].mean(0).double(), shares, atol=0.05)
    assert 0.5 < float(shares[0]) < 0.8 and float(shares[2]) < 0.05
    with pytest.raises(GraphgenError, match="flow matching"):
        untrained(TWO, objective="likelihood").marginals(batch.graph, batch.ids, 0)


def test_log_prob_of_a_molecule_does_not_depend_on_its_batch_mates():
    model = untrained(FOUR)
    sizes = [4, 7, 1, 5]
    batch = chains(sizes)
    with torch.no_grad():
        together = model.log_prob(batch, 3, method="dopri5").value
    graph = batch.graph
    for g in range(4):
        first, last = int(graph.ptr[g]), int(graph.ptr[g + 1])
        mine = (graph.target >= first) & (graph.target < last)
        alone = GraphBatch.from_edge_index(
            graph.edge_index[:, mine] - first, last - first, edge_attr=graph.edge_attr[mine]
        )
        with torch.no_grad():
            value = model.log_prob(MoleculeBatch(alone, batch.atoms[first:last], batch.ids[g : g + 1]), 3).value
        assert torch.equal(value, together[g : g + 1])


def test_renaming_atoms_changes_the_density_by_nothing():
    model = untrained(FOUR)
    batch = chains([7])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    edges = order.argsort()[batch.graph.edge_index]
    renamed = GraphBatch.from_edge_index(edges, 7, edge_attr=batch.graph.edge_attr)
    z = torch.randn(7, 4)
    with torch.no_grad():
        a = model.log_density(z, batch, trace="exact", method="rk4", steps=5)
        b = model.log_density(z[order], batch._replace(graph=renamed), trace="exact", method="rk4", steps=5)
    assert torch.allclose(a, b, atol=1e-4)


def test_saved_model_is_the_same_model(tmp_path):
    model, batch = untrained(FOUR, scale=5.0), chains([4, 5])
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.vocabulary == model.vocabulary and again.settings == model.settings
    assert torch.equal(again.loss(batch, 0), model.loss(batch, 0))


def damage_nothing_there(folder):
    (folder / "model.json").unlink()


def damage_cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_json(folder):
    (folder / "model.json").write_text("{")


def damage_format(folder):
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"format": 1', '"format": 99'))


def damage_size(folder):
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"hidden": 16', '"hidden": 24'))


def damage_name(folder):
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace("graph-cnf", "graph-xyz"))


@pytest.mark.parametrize(
    "damage", [damage_nothing_there, damage_cut, damage_json, damage_format, damage_size, damage_name]
)
def test_damaged_checkpoints_are_refused_in_one_line(tmp_path, damage):
    untrained(FOUR).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(GraphgenError) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_labels_are_drawn_from_the_posterior_of_the_end():
    model = untrained(FOUR, scale=1.0)
    graph, ids = single_atoms(4000), torch.arange(4000)
    drawn = torch.stack([model.sample(graph, ids + 4000 * k, seed=5, steps=4, temperature=2.0) for k in range(3)])
    shares = torch.bincount(drawn.flatten(), minlength=4) / drawn.numel()
    expected = torch.zeros(4)
    for k in range(3):
        noise = model.noise(graph, ids + 4000 * k, 5, Stream.PRIOR)
        with torch.no_grad():
            end = model.transport(noise, graph, method="rk4", steps=4)
            expected += torch.softmax(model.bind_logits(graph)(torch.ones(4000), end) / 2, 1).mean(0) / 3
    assert torch.allclose(shares, expected, rtol=0, atol=4 * (0.25 / drawn.numel()) ** 0.5)
    alone = model.sample(single_atoms(1), torch.tensor([7]), seed=5, steps=4, temperature=2.0)
    assert int(alone) == int(drawn[0, 7])
    sharp = model.sample(graph, ids, seed=5, steps=4, temperature=1e-6)
    with torch.no_grad():
        end = model.transport(model.noise(graph, ids, 5, Stream.PRIOR), graph, method="rk4", steps=4)
        assert torch.equal(sharp, model.bind_logits(graph)(torch.ones(4000), end).argmax(1))
