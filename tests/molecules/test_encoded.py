import subprocess
import sys

import pytest
import torch

from graphgen.errors import GraphgenError
from graphgen.molecules.codec import encode_with_smiles, parse
from graphgen.molecules.encoded import SPLITS, EncodedMolecules, Encoder, split_of
from graphgen.molecules.records import Reject

SMILES = ["C", "CC(=O)[O-]", "c1ccccc1", "C#N", "CC[N+](C)(C)C", "O", *("C" * i + "O" for i in range(1, 60))]


@pytest.fixture
def molecules():
    encoder = Encoder()
    for smiles in SMILES:
        encoder.add(*encode_with_smiles(parse(smiles)))
    rejects = [Reject("a:1", "not a SMILES: x", "x"), Reject("a:2", "radical", "[O]")]
    return encoder.finish("few", "0" * 64, rejects)


def test_what_went_in_comes_out(molecules, tmp_path):
    molecules.save(tmp_path / "few.safetensors")
    mapped = EncodedMolecules.open(tmp_path / "few.safetensors")
    for found in (molecules, mapped):
        assert len(found) == len(SMILES) and found.name == "few" and found.source_sha256 == "0" * 64
        for i, smiles in enumerate(SMILES):
            assert (found.graph(i), found.smiles(i)) == encode_with_smiles(parse(smiles))
        assert found.sizes.tolist()[:4] == [1, 4, 6, 2]
        assert found.vocabulary.names[:2] == ["C", "O"]
        assert found.rejects[1] == Reject("a:2", "radical", "[O]")
        rejected = {"not a SMILES": 1, "radical": 1}
        assert found.report == {"rows": len(SMILES) + 2, "encoded": len(SMILES), "rejected": rejected}


def test_a_batch_has_both_directions_of_each_bond(molecules):
    batch = molecules.batch([1, 0, 3])
    assert batch.ids.tolist() == [1, 0, 3]
    assert batch.graph.ptr.tolist() == [0, 4, 5, 7]
    assert [molecules.vocabulary.names[i] for i in batch.atoms] == ["C", "C", "O", "O-", "C", "C", "N"]
    source, target = batch.graph.edge_index
    edges = set(zip(source.tolist(), target.tolist(), batch.graph.edge_attr.tolist(), strict=True))
    one_way = {(0, 1, 0), (1, 2, 1), (1, 3, 0), (5, 6, 2)}
    assert edges == one_way | {(v, u, kind) for u, v, kind in one_way}
    assert batch.atoms.dtype == batch.graph.edge_attr.dtype == batch.ids.dtype == torch.int64


def test_a_batch_may_be_empty_or_repeat_but_not_reach_out(molecules):
    assert molecules.batch([]).graph.num_graphs == 0
    assert molecules.batch(torch.tensor([2, 2])).graph.num_nodes == 12
    assert molecules.batch([0, 5]).graph.num_edges == 0
    with pytest.raises(IndexError):
        molecules.batch([len(SMILES)])


def test_splits_are_views_that_share_out_the_rows(molecules):
    parts = [molecules.split(name) for name in SPLITS]
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(len(SMILES)))
    for number, part in enumerate(parts):
        assert len(part) > 0
        for i, row in enumerate(part.rows.tolist()):
            assert part.smiles(i) == molecules.smiles(row) and split_of(part.smiles(i)) == number
        assert part.batch(range(len(part))).ids.tolist() == part.rows.tolist()
        assert part.sizes.tolist() == molecules.sizes[part.rows].tolist()
        assert part.vocabulary == molecules.vocabulary
    with pytest.raises(ValueError, match="view"):
        parts[0].save("x")
    with pytest.raises(ValueError):
        molecules.split("dev")


def test_the_split_is_part_of_the_format():
    # From hashlib alone: changing these changes what every published number was measured on.
    assert [split_of(s) for s in ("C", "CCC", "CCCC", "CCF", "c1ccccc1", "CCO")] == [0, 1, 1, 2, 0, 0]


def test_molecules_beyond_256_atoms():
    encoder = Encoder()
    encoder.add(*encode_with_smiles(parse("C" * 300)))
    graph = encoder.finish("long").batch([0]).graph
    assert graph.num_edges == 598 and int(graph.col.max()) == 299


def test_an_empty_set_can_be_saved(tmp_path):
    Encoder().finish("none").save(tmp_path / "none.safetensors")
    assert len(EncodedMolecules.open(tmp_path / "none.safetensors")) == 0


def test_other_files_are_refused(molecules, tmp_path):
    path = tmp_path / "x.safetensors"
    molecules.save(path)
    whole = path.read_bytes()
    for data in (b"", b"junk" * 100, whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(GraphgenError, match="not a readable file"):
            EncodedMolecules.open(path)
    path.write_bytes(whole.replace(b'\\"codec\\": 1', b'\\"codec\\": 0'))
    with pytest.raises(GraphgenError, match="not encoded by this version"):
        EncodedMolecules.open(path)
    with pytest.raises(GraphgenError, match="not a readable file"):
        EncodedMolecules.open(tmp_path / "none")


def test_rdkit_is_not_needed(tmp_path):
    code = "import sys; sys.modules['rdkit'] = None; import graphgen.molecules.encoded"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
