"""The page as a browser shows it: light, dark, on a phone; without a complaint, without the network."""

import io

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")
from PIL import Image
from rdkit import Chem

from graphgen.evaluate import evaluate
from graphgen.follow import follow
from graphgen.generate import generate
from graphgen.models import GraphCNF
from graphgen.molecules.codec import encode_with_smiles
from graphgen.molecules.encoded import Encoder

SMILES = ["CCO", "CC(=O)Nc1ccc(O)cc1", "O=C[O-]", "C1CC1N", "CC#N", "FC(F)(F)c1ccccc1Cl", "CC(C)CC(=O)OCCCCCCCCCCCCBr"]


@pytest.fixture(scope="module")
def browser():
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    spec = spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    program = module.find()
    if program is None:
        pytest.skip("there is no Chromium or Chrome on the PATH")
    opened = module.Browser(program)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two reports: atoms on given bonds with controls and a model, and whole molecules with repair."""
    folder = tmp_path_factory.mktemp("report")
    encoder = Encoder()
    for smiles in SMILES:
        encoder.add(*encode_with_smiles(Chem.MolFromSmiles(smiles)))
    data = encoder.finish("test")
    torch.manual_seed(0)
    model = GraphCNF(data.vocabulary, hidden=8, layers=1, context_layers=1)
    curve = {"train": [(i, 1 / i) for i in range(1, 9)], "valid": [(i, 1.1 / i) for i in range(1, 9)]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHGEN_CACHE", str(folder / "cache"))
        made = generate(model, data, 7, progress=False)
        given = evaluate(made, data, data, (0.5, 0.01), reference=data, raw=SMILES, progress=False)
        given.html(folder / "given.html", curve, ("epoch", "nats per atom"), follow(model, data))
        texts = [*SMILES, "CC(C)(C)(C)C", "CC.O", "", "c1cccc1", "N" * 60]
        settings = {"a path without a blank": "/a/very/long/path" * 12}
        whole = evaluate(texts, data, reference=data, settings=settings, progress=False)
        whole.html(folder / "whole.html")
    return [folder / "given.html", folder / "whole.html"]


def pixels(browser):
    return np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"), np.float64)


def overflow(browser):
    """Elements that stick out of the page and out of every panel that scrolls on its own."""
    return browser.evaluate(
        """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg')
        && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
        .map(e => e.tagName + '.' + e.className).join(' ')"""
    )


def test_light_and_dark(browser, pages):
    for page in pages:
        shades = {}
        for scheme in ("light", "dark"):
            browser.open(page, 1280, 900, scheme)
            assert browser.complaints() == []
            # Nothing but the file itself is asked for.
            assert browser.requests() == [page.as_uri()]
            seen = pixels(browser)
            assert seen.shape == (900, 1280, 3)
            assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 50
            shades[scheme] = seen.mean()
        assert shades["light"] > 200 and shades["dark"] < 60


def test_text_can_be_read_in_both(browser, pages):
    for scheme in ("light", "dark"):
        browser.open(pages[0], 1280, 900, scheme)
        for what in ("body", ".card .value", "figcaption", "dd", "td"):
            style = f"getComputedStyle(document.querySelector('{what}')).color"
            page = "getComputedStyle(document.querySelector('.panel')).backgroundColor"
            assert contrast(browser.evaluate(style), browser.evaluate(page)) > 4.5, (scheme, what)


@pytest.mark.parametrize("width", [320, 390, 800])
def test_no_sideways_scrolling(browser, pages, width):
    for page in pages:
        browser.open(page, width, 844, "light")
        assert browser.complaints() == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert overflow(browser) == ""
        assert len(np.unique(pixels(browser).reshape(-1, 3), axis=0)) > 50


def test_drawings_take_their_room(browser, pages):
    browser.open(pages[0], 390, 844, "light")
    for what, count in (("svg.chart", 9), ("svg.frame", 24), ("svg.curve", 1), (".grid svg", 7)):
        box = "(e => e.getBoundingClientRect()).map(r => [r.width, r.height])"
        boxes = browser.evaluate(f"[...document.querySelectorAll('{what}')].map{box}")
        assert len(boxes) == count
        assert all(width > 60 and 5 < height < 400 for width, height in boxes)
    # A page that grew beyond all measure has a column that collapsed.
    browser.open(pages[1], 1280, 900, "light")
    assert browser.evaluate("document.documentElement.scrollHeight") < 12_000


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two colours, each ``rgb(r, g, b)``."""
    levels = []
    for colour in (first, second):
        parts = np.array([float(x) for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        levels.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(levels) + 0.05) / (min(levels) + 0.05)
