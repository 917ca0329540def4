"""Digits: images of one set as the source, shifted copies of it or other sets as clients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.extras import extra
from graphgen.federated.networks import ImageConv, ImageMLP, Networks
from graphgen.federated.server import Labelled
from graphgen.federated.suites import Domain, Images, Suite, first_so_many, shuffled
from graphgen.federated.suites.image_files import FILES, read_digits
from graphgen.federated.suites.shifts import SHIFTS

BUNDLED = "digits"
EXTRACTORS = {"conv": ImageConv, "mlp": ImageMLP}


def digits(
    clients: Sequence[str] = tuple(SHIFTS),
    source: str = BUNDLED,
    source_examples: int = 600,
    client_examples: int = 700,
    test_examples: int = 497,
    extractor: str = "conv",
    side: int | None = None,
    seed: int = 0,
) -> Suite:
    """A federation on digits. Source, learning and test images are disjoint.

    Args:
        clients: names of shifts, each of which makes a client of the source's set, or of other sets.
        source: "digits", the 1,797 images of 8 x 8 pixels that come with scikit-learn (extra ``digits``), or a set of
            :mod:`graphgen.federated.suites.image_files`.
        source_examples, client_examples, test_examples: so many images of the source, of each client to adapt to, and
            of each client to be measured on; where a set has less, in these proportions.
        extractor: "conv" or "mlp".
        side: pixels; None for 8 with the bundled images, else 28.

    Raises:
        GraphgenError: an unknown name, or files that are not here.
    """
    if extractor not in EXTRACTORS:
        raise GraphgenError(f"extractor {extractor!r}: choose one of {', '.join(EXTRACTORS)}")
    side = side or (8 if source == BUNDLED else 28)
    counts = source_examples, client_examples, test_examples
    images, labels = _read(source, side)
    # One order for the source and its shifted copies: what a client sees, the source does not.
    own, learning, test = first_so_many(shuffled(len(labels), seed), *counts)
    domains = []
    for k, name in enumerate(clients):
        if name in SHIFTS:
            shifted = SHIFTS[name](images, seed)
            domains.append(Domain(name, _labelled(shifted, labels, learning), _labelled(shifted, labels, test)))
        elif name in (BUNDLED, *FILES):
            others, classes = _read(name, side)
            _, adapt, measure = first_so_many(shuffled(len(classes), seed, k + 1), *counts)
            domains.append(Domain(name, _labelled(others, classes, adapt), _labelled(others, classes, measure)))
        else:
            known = ", ".join((*SHIFTS, BUNDLED, *FILES))
            raise GraphgenError(f"client {name!r}: neither a shift nor a set of digits; there are {known}")
    networks = Networks(partial(EXTRACTORS[extractor], side), 10)
    return Suite(_labelled(images, labels, own), tuple(domains), networks, tuple("0123456789"))


def _labelled(images: Tensor, labels: Tensor, at: Tensor) -> Labelled:
    return Labelled(Images(images[at]), labels[at])


def _read(name: str, side: int) -> tuple[Tensor, Tensor]:
    if name in FILES:
        return read_digits(name, side)
    if name != BUNDLED:
        raise GraphgenError(f"source {name!r}: there are {', '.join((BUNDLED, *FILES))}")
    found = extra("sklearn.datasets", "digits").load_digits()
    images = torch.from_numpy(found.images).float() / 16
    if side != images.shape[1]:
        images = torch.nn.functional.interpolate(images.unsqueeze(1), (side, side), mode="bilinear").squeeze(1)
    return images, torch.from_numpy(found.target).long()
