import pytest
import torch

from graphgen import GraphgenError
from graphgen.candidates import Candidates
from graphgen.generate import draw_structures, generate
from graphgen.likelihood import held_out_nats
from graphgen.models import GraphCNF
from graphgen.molecules import datasets


@pytest.fixture(scope="module")
def nci(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return datasets.load("nci", progress=False)


@pytest.fixture(scope="module")
def model(nci):
    torch.manual_seed(0)
    network = GraphCNF(nci.vocabulary)
    for parameter in network.parameters():
        parameter.data *= 1.5  # far from the trivial flow, so that neighbours matter
    return network


def written(model, molecules, path, **settings):
    generate(model, molecules, 600, seed=11, steps=4, progress=False, **settings).save(path)
    return path.read_bytes()


def test_same_seed_same_bytes_for_any_batch_size_and_threads(model, nci, tmp_path):
    molecules = nci.split("test")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = written(model, molecules, tmp_path / "a.csv", batch_size=512)
        for batch_size in (1, 7, 64):
            assert written(model, molecules, tmp_path / "b.csv", batch_size=batch_size) == one
        torch.set_num_threads(2)
        for batch_size in (64, 512):
            assert written(model, molecules, tmp_path / "c.csv", batch_size=batch_size) == one
    finally:
        torch.set_num_threads(before)
    assert one.count(b"\n") == 601


def test_the_first_attempts_do_not_depend_on_how_many_there_are(model, nci):
    molecules = nci.split("test")
    few = generate(model, molecules, 20, seed=2, steps=3, progress=False)
    many = generate(model, molecules, 50, seed=2, steps=3, progress=False)
    assert many.smiles[:20] == few.smiles and torch.equal(many.structures[:20], few.structures)
    other = generate(model, molecules, 20, seed=3, steps=3, progress=False)
    assert other.smiles != few.smiles


def test_every_structure_is_used_before_one_is_used_again():
    drawn = draw_structures(10, 25, seed=0)
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:20].tolist()) == list(range(10))
    assert drawn[:10].tolist() != list(range(10))
    with pytest.raises(GraphgenError, match="no molecules"):
        draw_structures(0, 5, seed=0)


def test_failures_keep_their_row_and_reason(model, nci):
    result = generate(model, nci.split("test"), 100, seed=1, steps=3, progress=False)
    assert len(result.smiles) == len(result.reasons) == 100
    failed = [reason for smiles, reason in zip(result.smiles, result.reasons, strict=True) if smiles is None]
    assert failed and all(failed)  # an untrained model does fail
    assert result.atoms.numel() == int(nci.split("test").sizes[result.structures].sum())


def test_likelihood_is_a_mean_over_atoms_with_an_error(model, nci):
    molecules = nci.split("test")
    mean, error = held_out_nats(model, molecules, batch_size=100, steps=4, progress=False)
    again, _ = held_out_nats(model, molecules, batch_size=512, steps=4, progress=False)
    assert mean == pytest.approx(again, rel=1e-6) and mean > 1 and 0 < error < mean


def test_candidates_are_attempts_and_the_first_is_the_plain_one(model, nci):
    molecules = nci.split("test")
    asked = {"seed": 1, "steps": 3, "progress": False}
    plain = generate(model, molecules, 30, **asked)
    first = generate(model, molecules, 30, candidates=Candidates(3, "first"), **asked)
    assert first.smiles == plain.smiles and first.accepted is None
    for batch_size in (512, 7, 2):  # 2 is less than the candidates of one attempt
        chosen = generate(model, molecules, 30, candidates=Candidates(3), nll_draws=1, batch_size=batch_size, **asked)
        assert len(chosen) == 30 and torch.equal(chosen.structures, plain.structures)
        if batch_size == 512:
            kept = chosen
        assert chosen.smiles == kept.smiles and torch.equal(chosen.nll, kept.nll)
    alone = generate(model, molecules, 30, nll_draws=1, **asked)
    assert bool((kept.nll <= alone.nll).all()) and bool((kept.nll < alone.nll).any())


def test_rejection_turns_failures_into_molecules_and_counts_what_it_took(model, nci):
    molecules = nci.split("test")
    asked = {"seed": 1, "steps": 3, "progress": False}
    plain = generate(model, molecules, 60, **asked)
    found = generate(model, molecules, 60, candidates=Candidates(4, "first", reject=True), **asked)
    for before, after, accepted in zip(plain.smiles, found.smiles, found.accepted.tolist(), strict=True):
        assert 0 <= accepted <= 4 and (after is not None) == (accepted > 0)
        assert before is None or after == before
    assert sum(smiles is None for smiles in found.smiles) < sum(smiles is None for smiles in plain.smiles)
    assert "accepted" in found.columns and "accepted" not in plain.columns


def test_options_that_a_model_does_not_have_are_named(model, nci):
    with pytest.raises(GraphgenError, match="no sampling option snr; it has steps, temperature"):
        generate(model, nci.split("test"), 3, snr=0.1, progress=False)
