"""The whole table, from object and from file, and the page."""

import html
import json
import re
from html.parser import HTMLParser

import pytest
import torch

pytest.importorskip("rdkit")
from rdkit import Chem
from rich.console import Console

from graphgen.errors import GraphgenError
from graphgen.evaluate import evaluate
from graphgen.generated import Generated
from graphgen.molecules.codec import encode_with_smiles
from graphgen.molecules.encoded import EncodedMolecules, Encoder
from graphgen.report.curve import curve_svg
from graphgen.report.drawing import molecule_svg
from graphgen.report.evaluation import DEFINITIONS

CONTROLS = ["true labels", "all C", "iid marginal", "valence-capped", "look-up"]


def encoded(smiles: list[str]) -> EncodedMolecules:
    encoder = Encoder()
    for text in smiles:
        encoder.add(*encode_with_smiles(Chem.MolFromSmiles(text)))
    return encoder.finish("test")


@pytest.fixture
def train():
    return encoded(["CCO", "C#N", "C=O", "CCCF"])


@pytest.fixture
def skeletons():
    # Another vocabulary, in another order, with a type the training split lacks.
    return encoded(["OO", "CC#N", "C[NH3+]", "COO"])


@pytest.fixture
def generated():
    """Skeleton 1 true; 2 as CC; 3 true; 1 with an overvalent end; 1 as CC#C. Names in yet another order."""
    names = ("N", "C", "O")
    labels = [[1, 1, 0], [1, 1], [1, 2, 2], [1, 1, 2], [1, 1, 1]]
    return Generated(
        ["CC#N", "CC", "COO", None, "C#CC"],
        [None, None, None, "valence: O, 3", None],
        torch.tensor([1, 2, 3, 1, 1]),
        torch.tensor([a for row in labels for a in row]),
        torch.tensor([0, *map(len, labels)]).cumsum(0),
        names,
    )


def test_hand_count_with_controls(generated, train, skeletons):
    got = evaluate(generated, train, skeletons, nats=(0.5, 0.01), progress=False)
    assert [row.name for row in got.rows] == ["generated", *CONTROLS]
    own, true, carbon = got.rows[:3]
    assert own.summary["n"] == true.summary["n"] == 5
    assert own.summary["V_strict"] == own.summary["V_valence"] == 4 / 5
    assert own.summary["VU"] == own.summary["VUN"] == 4 / 5
    # 3 of 3, 1 of 2, 3 of 3, 2 of 3 and 2 of 3 labels are the skeletons' own.
    assert own.label_recovery == 11 / 14
    assert own.nats == (0.5, 0.01)
    # Skeleton 1 three times, 2 and 3 once.
    assert true.summary["V_strict"] == 1
    assert true.summary["VU"] == 3 / 5
    assert true.label_recovery == 1 and true.kl_atom_types == 0 and true.nats is None
    # CC#C three times, CC, CCC; carbon holds 2 + 2 + 2 + 1 + 1 of 14 places.
    assert carbon.summary["V_strict"] == 1 and carbon.summary["VU"] == 3 / 5
    assert carbon.label_recovery == 8 / 14
    assert carbon.nats is None and carbon.kl_atom_types > 0
    assert all(row.nats is not None and row.nats[0] > 0 for row in got.rows[3:])


def test_molecules_of_the_training_split_are_not_novel(train):
    structures = torch.arange(len(train))
    batch = train.batch(structures)
    smiles = [train.smiles(i) for i in range(len(train))]
    copied = Generated(smiles, [None] * 4, structures, batch.atoms, batch.graph.ptr, train.vocabulary.names)
    row = evaluate(copied, train, train, progress=False).rows[0]
    assert (row.summary["V_strict"], row.summary["VU"], row.summary["VUN"]) == (1, 1, 0)
    assert row.label_recovery == 1


def test_file_gives_the_same_table(tmp_path, generated, train, skeletons):
    generated.save(tmp_path / "out.csv")
    first = evaluate(generated, train, skeletons, progress=False)
    again = evaluate(tmp_path / "out.csv", train, skeletons, progress=False)
    assert again.to_json() == first.to_json()
    assert again.samples == first.samples


def test_file_without_labels_still_has_controls(tmp_path, train, skeletons):
    (tmp_path / "out.csv").write_text("structure,smiles\n1,CC#N\n2,\n")
    got = evaluate(tmp_path / "out.csv", train, skeletons, progress=False)
    assert [row.name for row in got.rows] == ["generated", *CONTROLS]
    assert got.rows[0].summary["V_strict"] == 1 / 2
    assert got.rows[0].label_recovery is None and got.rows[1].label_recovery == 1


def test_list_of_smiles(tmp_path, train):
    got = evaluate(["OCC", "CCN", "CCN", "", "C.C"], train, progress=False)
    (row,) = got.rows
    assert row.summary["n"] == 5 and row.summary["V_strict"] == 3 / 5
    assert row.summary["VU"] == 2 / 5 and row.summary["VUN"] == 1 / 5
    assert row.label_recovery is None and row.kl_atom_types is None and row.nats is None
    assert 0 < got.floors["ideal_uniqueness"] < 1
    (tmp_path / "out.smi").write_text("OCC 0\nCCN 1\n")
    got = evaluate(tmp_path / "out.smi", train, progress=False)
    assert got.rows[0].summary["n"] == 2
    assert any("no failed attempts" in note for note in got.notes)


def test_training_smiles_in_any_form():
    got = evaluate(["CCO", "CC(N)=O"], ["OCC\n", "broken", "C[C@H](N)O"], progress=False)
    assert got.rows[0].summary["VUN"] == 1 / 2
    assert any("cannot be read" in note for note in got.notes)


def test_training_smiles_leave_only_the_ceiling(generated, skeletons):
    got = evaluate(generated, ["CC"], skeletons, progress=False)
    assert [row.name for row in got.rows] == ["generated", "true labels"]
    assert got.rows[0].summary["VUN"] == 3 / 5


def test_an_attempt_given_up_is_not_valid(train, skeletons):
    given_up = Generated(
        [None], ["diverged: step 3"], torch.tensor([0]), torch.tensor([0, 0]), torch.tensor([0, 2]), ("C",)
    )
    got = evaluate(given_up, train, skeletons, progress=False)
    assert got.rows[0].summary["V_strict"] == 0
    assert got.rows[0].summary["failures"] == {"diverged": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structures": torch.tensor([1, 2, 3, 1, 4])}, "1 to 4, but there are 4"),
        (
            {"structures": torch.tensor([1, 2, 3, 1, 0])},
            "row 4 names skeleton 0 but has another number of atoms",
        ),
        ({"structures": torch.tensor([3, 2, 3, 1, 1])}, "row 0 names skeleton 3 but reads CC#N"),
        ({"names": ("Xe", "C", "O")}, "labels Xe occur neither"),
    ],
)
def test_wrong_skeletons(generated, train, skeletons, change, message):
    with pytest.raises(GraphgenError, match=message) as error:
        evaluate(Generated(**{**vars(generated), **change}), train, skeletons, progress=False)
    assert "\n" not in str(error.value)


def test_nothing_generated(train):
    with pytest.raises(GraphgenError, match="nothing to evaluate"):
        evaluate([], train)


def test_seed_of_the_controls(generated, train, skeletons):
    many = Generated(["CC#N"] * 50, [None] * 50, torch.ones(50, dtype=torch.int64))
    rows = [evaluate(many, train, skeletons, seed=seed, progress=False).to_json()["rows"] for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def test_a_skeleton_used_often_does_not_sharpen_the_controls(train, skeletons):
    def nats(structures: list[int]) -> list[object]:
        given = Generated(["C"] * len(structures), [None] * len(structures), torch.tensor(structures))
        return [row.nats for row in evaluate(given, train, skeletons, progress=False).rows]

    assert nats([1, 2]) == nats([1, 1, 1, 2]) != nats([1, 3])


def test_json_and_table_hold_every_definition(generated, train, skeletons):
    got = evaluate(generated, train, skeletons, title="A title", settings={"path": pytest, "seed": 3}, progress=False)
    data = json.loads(json.dumps(got.to_json(), allow_nan=False))
    assert set(DEFINITIONS) | set(CONTROLS) == set(data["definitions"])
    assert data["settings"]["seed"] == 3
    assert data["rows"][0]["V_strict"] == 0.8
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(got)
    text = console.export_text()
    for term in data["definitions"]:
        assert term in text
    line = next(line for line in text.splitlines() if line.startswith("valence-capped"))
    assert line.split()[1] == "5" and "…" not in line
    assert re.search(r"\d\.\d{3}±\d\.\d{3}$", line.rstrip())


@pytest.fixture
def compared(train, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "cache"))
    return evaluate(["CCO", "CCCO", "CCCO", "", "C.C"], train, reference=["OCC", "CCN", "bad"], progress=False)


def test_distribution_beside_held_out_molecules(compared):
    got = {measure.name: measure for measure in compared.measures}
    # Three V_strict molecules, two held-out ones that can be read, and as many training
    # molecules as attempts for the floor, or all there are.
    assert (got["SNN"].n, got["SNN"].n_reference) == (3, 2)
    assert got["SNN"].value > got["SNN"].floor > 0
    assert got["W1 size"].value == pytest.approx(2 / 3)
    assert got["MOSES valid"].value == 4 / 5 and got["GDSS valid"].value == 4 / 5
    assert got["MOSES unique@1000"].value is None
    assert "FCD" not in got
    *properties, histogram = compared.histograms
    assert histogram.n_reference == 4 and len(properties) == 8
    assert any("3 V_strict molecules, duplicates kept, beside 2 held-out" in note for note in compared.notes)


def test_every_measure_is_shown_with_definition_and_n(compared, tmp_path):
    data = json.loads(json.dumps(compared.to_json(), allow_nan=False))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(compared)
    text = " ".join(console.export_text().split())
    compared.html(tmp_path / "report.html")
    page = html.unescape((tmp_path / "report.html").read_text())
    Page().feed(page)
    for measure, cells in zip(data["measures"], compared.measure_cells(), strict=True):
        assert measure["n"] >= 0 and measure["definition"] in page
        assert measure["definition"] in text
        assert " ".join(cells) in text
        assert ("missing" in measure) == (measure["value"] is None)
    for histogram in compared.histograms:
        assert f"<h3>{histogram.name}" in page
        assert histogram.definition[1:] in page
    assert "url(" not in page and "http" not in page


def test_repair_is_a_column_of_its_own(tmp_path):
    got = evaluate(["CCO", "CC(C)(C)(C)C", "CCC.O", "CCC.O", "c1cccc1", ""], ["CCC"], progress=False)
    assert got.rows[0].summary["V_strict"] == 1 / 6
    assert got.after_repair["V_strict"] == 4 / 6 and got.after_repair["VU"] == 3 / 6
    assert got.after_repair["VUN"] == 2 / 6 and got.after_repair["changed"] == 3 / 6
    data = got.to_json()
    assert data["after_repair"] == got.after_repair and "MoFlow" in data["definitions"]["after repair"]
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(got)
    text = console.export_text()
    got.html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert got.repair_cells()[0] == ["V_strict %", "16.67", "66.67"]
    for cells in got.repair_cells():
        assert " ".join(cells) in " ".join(text.split())
        assert all(cell in page for cell in cells)


def test_given_bonds_are_not_repaired(generated, train, skeletons):
    got = evaluate(generated, train, skeletons, progress=False)
    assert got.after_repair is None and got.repair_cells() == [] and "after repair" not in got.definitions
    assert any("Repair would lower bonds that were given" in note for note in got.notes)


def test_processed_beside_raw(train, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "cache"))
    plain = ["CC1CCC2CCCCC2C1", "CCO", "CC"]
    raw = ["C[C@H]1CC[C@@H]2CCCC[C@H]2C1", "OCC", "CC"]
    for _ in range(2):  # the second time from the cache
        got = evaluate(["CC", "CCC"], train, reference=plain, raw=raw, progress=False)
        measures = {measure.name: measure for measure in got.measures}
        assert measures["W1 size"].processed == 0 and measures["Scaf"].processed < 1
        assert measures["IntDiv1"].processed is None and measures["MOSES valid"].processed is None
    assert any("processed" in term for term in got.measure_definitions())
    bare = evaluate(["CC", "CCC"], train, reference=plain, progress=False)
    assert all(measure.processed is None for measure in bare.measures)
    with pytest.raises(ValueError, match="2 SMILES for 3"):
        evaluate(["CC"], train, reference=plain, raw=raw[:2], progress=False)


def test_given_bonds_are_said_to_fix_sizes(generated, train, skeletons, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "cache"))
    got = evaluate(generated, train, skeletons, progress=False, reference=skeletons)
    assert any("those of the skeletons" in note for note in got.notes)
    # The fourth attempt has O with a triple bond, which GDSS charges.
    assert {m.name: m.value for m in got.measures}["GDSS valid"] == 1 > got.rows[0].summary["V_strict"]
    again = evaluate(generated, train, skeletons, progress=False, reference=skeletons)
    assert again.to_json() == got.to_json()
    assert len(list((tmp_path / "cache").glob("described-*"))) == 2


def test_fcd_that_is_not_installed_says_so(train, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("graphgen.metrics.fcd.find_spec", lambda name: None)
    got = evaluate(["CC", "CO"], train, reference=train, with_fcd=True, progress=False)
    fcd, score = got.measures[:2]
    assert (fcd.name, score.name) == ("FCD", "GuacaMol FCD score")
    assert fcd.value is None and "pip install" in fcd.missing and fcd.definition != score.definition


def test_a_reference_that_cannot_be_read(train):
    with pytest.raises(GraphgenError, match="no reference molecule"):
        evaluate(["CC"], train, reference=["bad"], progress=False)


def test_progress_stays_off_stdout(capfd, train):
    evaluate(["CC"] * 1_100, train)
    out, _ = capfd.readouterr()
    assert out == ""


class Page(HTMLParser):
    """Counts tags and refuses a page that does not close what it opens, or that asks for anything."""

    VOID = frozenset({"meta", "br", "path", "circle", "ellipse", "polyline", "polygon", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag, attrs):
        assert not {"src", "href", "xlink:href"} & {name for name, _ in attrs}, (tag, attrs)
        assert tag not in ("script", "link", "img", "iframe")
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_page(tmp_path, generated, train, skeletons):
    got = evaluate(generated, train, skeletons, (0.5, 0.01), "<b>A & B</b>", {"data": "x<y"}, progress=False)
    got.html(tmp_path / "report.html", {"train": [(0, 2.0), (10, 1.0)]}, ("step", "loss, nats per atom"))
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.count["figure"] == 5 and page.count["svg"] == 6
    assert "<b>A" not in text and "&lt;b&gt;A &amp; B" in text and "x&lt;y" in text
    for row in got.rows:
        for cell in row.cells():
            assert cell in text
    assert "1 of 3 labels changed" in text and "not valid" in text and "in training split" not in text
    assert "url(" not in text and "@import" not in text and "http" not in text


def test_page_of_one_row(tmp_path, train):
    evaluate(["CCO", "", "CN(=O)=O"], train, progress=False).html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "in training split" in text and "nothing to draw" in text and "<polyline" not in text


def test_drawing_takes_its_colours_from_the_page():
    svg = molecule_svg("CC(=O)N", valid=True)
    assert "var(--atom-8,currentColor)" in svg and "var(--atom-7,currentColor)" in svg
    assert not re.search(r"#[0-9A-F]{6}", svg) and "<rect" not in svg
    assert molecule_svg("nonsense", valid=False) is None


def test_what_is_not_valid_is_drawn_as_it_came():
    charge = re.compile(r"atom-2")
    drawn, repaired = (molecule_svg("CN(=O)=O", valid=valid) for valid in (False, True))
    assert drawn != repaired and charge.search(drawn)
    assert molecule_svg("c1cccc1", valid=False) is not None


def test_curve():
    svg = curve_svg({"train": [(i, float(i)) for i in range(1_000)] + [(1_000, float("nan"))]}, "step", "a < b")
    assert svg.count("<polyline") == 1 and "a &lt; b" in svg
    points = re.search(r'points="([^"]*)"', svg)[1].split()
    assert 300 < len(points) <= 400
    xs, ys = zip(*(map(float, point.split(",")) for point in points), strict=True)
    assert list(xs) == sorted(xs) and list(ys) == sorted(ys, reverse=True)
    assert curve_svg({}, "step", "loss") is None
    assert curve_svg({"train": [(0, float("inf")), (1, 2.0)]}, "step", "loss") is None
    assert "<polyline" in curve_svg({"flat": [(0, 1.0), (5, 1.0)]}, "step", "loss")
