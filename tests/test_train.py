import json
import math

import pytest
import torch

from graphgen import GraphgenError
from graphgen.models import GraphCNF, load
from graphgen.models.log_prob import LogProb
from graphgen.molecules.encoded import Encoder
from graphgen.molecules.vocabulary import MoleculeGraph
from graphgen.train import LOG, TrainSettings, train


@pytest.fixture
def data():
    """Chains of carbon that end in oxygen: no RDKit needed to make or to learn them."""
    encoder = Encoder()
    for k in range(60):
        size = 2 + k % 7
        atoms = (("C", 0),) * (size - 1) + (("O", 0),)
        bonds = tuple((i, i + 1, 0) for i in range(size - 1))
        encoder.add(MoleculeGraph(atoms, bonds), "C" * (size - 1) + "O" + str(k))
    return encoder.finish("chains")


def network(data, **settings):
    torch.manual_seed(0)
    return GraphCNF(data.vocabulary, hidden=16, layers=1, context_layers=1, **settings)


SETTINGS = TrainSettings(epochs=4, batch_size=16, seed=3)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_loss_falls_and_the_saved_model_is_the_trained_one(data, tmp_path):
    model = network(data)
    settings = TrainSettings(epochs=30, batch_size=16, seed=3)
    records = train(model, data, tmp_path / "run", settings, progress=False)
    assert [record["epoch"] for record in records] == list(range(1, 31))
    assert records[-1]["train"] < 0.6 * records[0]["train"]
    assert all(math.isfinite(record["valid"]) for record in records)
    assert torch.equal(weights(load(tmp_path / "run")), weights(model))


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(data, tmp_path):
    whole = network(data)
    train(whole, data, tmp_path / "whole", SETTINGS, progress=False)

    broken = network(data)
    original, calls = broken.loss, 0

    def interrupted(*args):
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return original(*args)

    broken.loss = interrupted
    with pytest.raises(KeyboardInterrupt):
        train(broken, data, tmp_path / "broken", SETTINGS, progress=False)
    assert (tmp_path / "broken" / LOG).exists()

    again = network(data)
    records = train(again, data, tmp_path / "broken", SETTINGS, resume=True, progress=False)
    assert torch.equal(weights(again), weights(whole))
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert torch.equal(weights(load(tmp_path / "broken")), weights(load(tmp_path / "whole")))


def test_a_kill_between_weights_and_log_repeats_nothing(data, tmp_path):
    whole, model = network(data), network(data)
    train(whole, data, tmp_path / "whole", SETTINGS, progress=False)
    stopped, calls = model.loss, 0

    def interrupted(*args):
        nonlocal calls
        calls += 1
        if calls == 14:
            raise KeyboardInterrupt
        return stopped(*args)

    model.loss = interrupted
    with pytest.raises(KeyboardInterrupt):
        train(model, data, tmp_path / "run", SETTINGS, progress=False)
    log = json.loads((tmp_path / "run" / LOG).read_text())
    assert len(log["epochs"]) > 1
    log["epochs"].pop()
    (tmp_path / "run" / LOG).write_text(json.dumps(log))
    again = network(data)
    train(again, data, tmp_path / "run", SETTINGS, resume=True, progress=False)
    assert torch.equal(weights(again), weights(whole))


def test_training_by_likelihood_reports_the_likelihood(data, tmp_path):
    settings = TrainSettings(epochs=2, batch_size=64)
    records = train(network(data, objective="likelihood"), data, tmp_path, settings, progress=False)
    # Both are minus the bound, about log(2) for a model that knows nothing; a path's cross-entropy is far less.
    assert abs(records[1]["valid"] - records[1]["train"]) < 0.5 * records[1]["train"]


def with_nats(model, nats):
    """The model, telling these nats per atom of held-out molecules, one a time, and the weights it had then."""
    told, seen = iter(nats), []

    def log_prob(batch, seed, step, **_):
        seen.append(weights(model))
        value = -next(told) * batch.graph.ptr.diff().double()
        return LogProb(value, value, batch.graph.ptr.diff())

    model.log_prob = log_prob
    return model, seen


def test_the_best_epoch_is_kept_and_patience_ends_the_run(data, tmp_path):
    settings = TrainSettings(epochs=9, batch_size=64, seed=3, patience=3)
    model, seen = with_nats(network(data), [0.9, 0.5, 0.7, 0.6, 0.8, 0.1])
    records = train(model, data, tmp_path, settings, progress=False)
    assert [record["nats"] for record in records] == pytest.approx([0.9, 0.5, 0.7, 0.6, 0.8])
    assert torch.equal(weights(model), seen[1]) and torch.equal(weights(load(tmp_path)), seen[1])
    assert not torch.equal(seen[1], seen[4])


def test_what_is_best_is_known_after_a_resumption(data, tmp_path):
    settings = TrainSettings(epochs=4, batch_size=64, seed=3)
    model, seen = with_nats(network(data), [0.9, 0.5, 0.7, 0.6])
    original, calls = model.loss, 0

    def interrupted(*args):
        nonlocal calls
        calls += 1
        if calls == 5:  # one training and one held-out batch an epoch
            raise KeyboardInterrupt
        return original(*args)

    model.loss = interrupted
    with pytest.raises(KeyboardInterrupt):
        train(model, data, tmp_path, settings, progress=False)
    again, _ = with_nats(network(data), [0.7, 0.6])
    records = train(again, data, tmp_path, settings, resume=True, progress=False)
    assert len(records) == 4 and torch.equal(weights(again), seen[1])


def test_a_finished_run_resumes_to_itself(data, tmp_path):
    train(network(data), data, tmp_path, SETTINGS, progress=False)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = network(data)
    train(model, data, tmp_path, SETTINGS, resume=True, progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert torch.equal(weights(model), weights(load(tmp_path)))


def test_a_folder_in_use_is_not_overwritten(data, tmp_path):
    train(network(data), data, tmp_path, SETTINGS, progress=False)
    with pytest.raises(GraphgenError, match="--resume"):
        train(network(data), data, tmp_path, SETTINGS, progress=False)
    with pytest.raises(GraphgenError, match="other settings"):
        train(network(data), data, tmp_path, TrainSettings(epochs=5, batch_size=16), resume=True, progress=False)


def test_a_damaged_state_is_named(data, tmp_path):
    train(network(data), data, tmp_path, SETTINGS, progress=False)
    state = tmp_path / "training.safetensors"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(GraphgenError, match=r"training\.safetensors"):
        train(network(data), data, tmp_path, SETTINGS, resume=True, progress=False)


def test_numbers_that_are_not_finite_stop_the_run_by_name(data, tmp_path):
    model = network(data)
    with torch.no_grad():
        model.field.out.bias[0] = torch.nan
    with pytest.raises(GraphgenError, match="training step 0"):
        train(model, data, tmp_path, SETTINGS, progress=False)


def test_settings_are_checked():
    with pytest.raises(GraphgenError, match="epochs"):
        TrainSettings(epochs=0)
    with pytest.raises(GraphgenError, match="patience"):
        TrainSettings(patience=-1)
