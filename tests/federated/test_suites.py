"""The suites: shifts, published files, molecules from named domains, and the file that describes a federation."""

import gzip
import struct

import numpy as np
import pytest
import torch
from rdkit import Chem

from graphgen import GraphgenError
from graphgen.federated.configuration import Configuration
from graphgen.federated.networks import GraphEncoder, ImageMLP
from graphgen.federated.suites.digits import digits
from graphgen.federated.suites.image_files import read_digits
from graphgen.federated.suites.molecules import LABELS, VOCABULARY, molecules
from graphgen.federated.suites.shifts import SHIFTS


def images(count=20, side=8):
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_keep_shape_and_range_and_follow_the_seed(name):
    once, again = SHIFTS[name](images(), 3), SHIFTS[name](images(), 3)
    assert once.shape == images().shape and torch.equal(once, again) and not torch.equal(once, images())
    assert float(once.min()) >= 0 and float(once.max()) <= 1 + 1e-6


def test_shifts_are_what_they_say():
    assert torch.equal(SHIFTS["inversion"](images(), 0), 1 - images())
    torch.testing.assert_close(SHIFTS["contrast"](images(), 0).std(), 0.3 * images().std())
    point = torch.zeros(1, 9, 9)
    point[0, 4, 4] = 1
    blurred = SHIFTS["blur"](point, 0)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-4) and torch.allclose(blurred, blurred.mT)
    assert float(SHIFTS["rotation"](point, 0)[0, 4, 4]) == pytest.approx(1)  # the centre stays


def test_an_image_and_its_negative_have_the_same_features_by_their_own_statistics():
    torch.manual_seed(0)
    extractor, batch = ImageMLP(8), images(50)
    torch.testing.assert_close(extractor(batch), extractor(1 - batch), atol=2e-3, rtol=1e-3)


def test_features_of_molecules_do_not_depend_on_the_order_of_atoms():
    from graphgen.molecules.codec import encode_with_smiles
    from graphgen.molecules.encoded import Encoder

    orders = ["CC(=O)Oc1ccccc1C(=O)O", "O=C(C)Oc1c(C(O)=O)cccc1"]
    encoder = Encoder()
    for text in [*orders, "CCN"]:
        encoder.add(*encode_with_smiles(Chem.MolFromSmiles(text)))
    batch = encoder.finish("three").relabelled(VOCABULARY).batch([0, 1, 2])
    torch.manual_seed(0)
    z = GraphEncoder(len(VOCABULARY.atoms))(batch)
    torch.testing.assert_close(z[0], z[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(z[0], z[2], atol=1e-2)


def write_idx(path, array):
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_published_files_are_read(tmp_path, monkeypatch):
    io = pytest.importorskip("scipy.io")
    monkeypatch.setenv("GRAPHGEN_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    grey, labels = rng.integers(0, 256, (12, 28, 28), np.uint8), np.arange(12, dtype=np.uint8) % 10
    colour = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
    for name in ("mnist", "mnist-m", "svhn", "usps"):
        (tmp_path / name).mkdir()
    write_idx(tmp_path / "mnist" / "train-images-idx3-ubyte.gz", grey)
    write_idx(tmp_path / "mnist" / "train-labels-idx1-ubyte.gz", labels)
    np.savez(tmp_path / "mnist-m" / "mnist-m.npz", x_train=colour, y_train=labels)
    svhn = {"X": colour.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None]}
    io.savemat(tmp_path / "svhn" / "train_32x32.mat", svhn)
    flat = 2 * (grey[:, :16, :16].reshape(12, -1) / 255) - 1
    np.savetxt(tmp_path / "usps" / "zip.train", np.column_stack((labels, flat)))
    found, classes = read_digits("mnist", 28)
    torch.testing.assert_close(found, torch.from_numpy(grey / 255).float())
    assert classes.tolist() == labels.tolist()
    for name in ("mnist-m", "svhn", "usps"):
        found, classes = read_digits(name, 16)
        assert found.shape == (12, 16, 16) and classes.tolist() == labels.tolist()
    torch.testing.assert_close(found, torch.from_numpy(grey[:, :16, :16] / 255).float())
    suite = digits(["svhn", "usps", "noise"], "mnist", 5, 4, 3, side=16)
    assert [len(domain.test.labels) for domain in suite.clients] == [3, 3, 3] and len(suite.source.labels) == 5


def test_bad_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHGEN_DATA", str(tmp_path))
    with pytest.raises(GraphgenError, match="must hold train-images-idx3-ubyte"):
        read_digits("mnist", 28)
    (tmp_path / "mnist-m").mkdir()
    hostile = np.array([{"x": 1}], dtype=object)
    np.savez(tmp_path / "mnist-m" / "mnist-m.npz", x_train=hostile, y_train=hostile)
    with pytest.raises(GraphgenError, match="mnist-m.npz cannot be read"):
        read_digits("mnist-m", 28)


def test_bundled_digits_split_without_overlap():
    pytest.importorskip("sklearn")
    suite = digits(seed=1)
    assert [domain.name for domain in suite.clients] == list(SHIFTS)
    upright = 1 - next(domain for domain in suite.clients if domain.name == "inversion").test.examples.pixels
    own = {tuple(image.flatten().tolist()) for image in suite.source.examples.pixels}
    assert not own & {tuple(image.flatten().tolist()) for image in upright}
    assert len(own) == 600 and len(upright) == 497


def test_molecules_come_from_their_domains(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "cache"))
    rings = ["c1ccccc1" + "C" * k + end for k in range(8) for end in ("O", "N", "F")]
    chains = ["C" * k + end for k in range(1, 13) for end in ("O", "N")]
    (tmp_path / "some.smi").write_text("\n".join(rings + chains) + "\n")
    data = str(tmp_path / "some.smi")
    suite = molecules(
        [{"name": "rings", "data": data, "contains": "c1ccccc1"}, {"name": "large", "data": data, "atoms": [10, 99]}],
        {"data": data, "lacks": "c1ccccc1"},
        label="logp",
        source_examples=20,
        client_examples=10,
        test_examples=10,
    )
    assert suite.source.labels.bincount().tolist() == [10, 10]
    whole = [domain.learning.examples.encoded for domain in suite.clients]
    assert all("c1" in whole[0].smiles(k) for k in range(10)) and int(whole[1].sizes.min()) >= 10
    assert not any("c1" in suite.source.examples.encoded.smiles(k) for k in range(20))
    assert LABELS["rings"](Chem.MolFromSmiles("C1CC1")) == pytest.approx(1, abs=0.4)
    with pytest.raises(GraphgenError, match="no key 'atom'"):
        molecules([], {"data": data, "atom": [1, 2]})


def test_a_configuration_is_checked(tmp_path):
    path = tmp_path / "config.toml"

    def read(text):
        path.write_text(text)
        return Configuration.read(path)

    found = read('suite = "digits"\nclients = ["noise"]\n[settings]\nlr = 1\n[joins]\nnoise = 3\n')
    assert found.arguments == {"clients": ["noise"]} and found.settings.lr == 1 and found.joins == {"noise": 3}
    for text, message in (
        ('suite = "digit"', "suite 'digit': choose one of digits, molecules"),
        ('suite = "digits"\nsauce = 1', "there is no 'sauce'; did you mean 'source'"),
        ('suite = "digits"\n[settings]\nround = 3', "did you mean 'rounds'"),
        ('suite = "digits"\n[settings]\nrounds = "3"', "rounds must be of type int"),
        ('suite = "digits"\n[settings]\nnoise = 1.0', "noise is in units of clip"),
        ('suite = "digits"\n[joins]\nnoise = 0', "must be a round, 1 or later"),
        ("suite = ", "not TOML"),
    ):
        with pytest.raises(GraphgenError, match=message):
            read(text)
    with pytest.raises(GraphgenError, match=r"config.toml: cannot be read|nowhere.toml: cannot be read"):
        Configuration.read(tmp_path / "nowhere.toml")
