"""Published sets of digits, read from local files in the formats they are published in; nothing is unpickled.

mnist     train-images-idx3-ubyte, train-labels-idx1-ubyte (.gz too), or mnist.npz with x_train and y_train
mnist-m   mnist-m.npz with x_train and y_train
svhn      train_32x32.mat with X [32, 32, 3, N] and y, where 10 is the digit 0
usps      zip.train (.gz too), a line an image: the digit, then 256 numbers from -1 to 1
"""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from graphgen.errors import GraphgenError
from graphgen.extras import extra

Pixels = tuple[np.ndarray, np.ndarray]
"""[N, h, w] or [N, h, w, 3] and [N]."""

_GREY = (0.299, 0.587, 0.114)


def read_digits(name: str, side: int) -> tuple[Tensor, Tensor]:
    """Grey images [N, side, side], 0 to 1, and labels int64 [N], of the training files in ``$GRAPHGEN_DATA/name``.

    Args:
        name: one of :data:`FILES`.

    Raises:
        GraphgenError: the files are not there, or not what they should be.
    """
    folder = Path(os.environ.get("GRAPHGEN_DATA", ".")) / name
    for names, reader in FILES[name]:
        paths = [_found(folder, file) for file in names]
        if all(paths):
            try:
                return _prepared(*reader(*[path for path in paths if path]), side)
            except (OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile) as error:
                raise GraphgenError(
                    f"{folder}: {' and '.join(names)} cannot be read ({error}); copy it again"
                ) from None
    wanted = ", or ".join(" and ".join(names) for names, _ in FILES[name])
    raise GraphgenError(f"{name} is not here: $GRAPHGEN_DATA/{name} must hold {wanted}")


def _found(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _prepared(pixels: np.ndarray, labels: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
    images, classes = torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(labels.astype(np.int64)).flatten()
    if images.dim() == 4 and images.shape[3] == 3:
        images = images @ torch.tensor(_GREY)
    if images.dim() != 3 or len(images) != len(classes):
        raise ValueError(f"{list(pixels.shape)} pixels and {list(labels.shape)} labels do not make grey images")
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) <= 9:
        raise ValueError("labels are not digits")
    if images.shape[1:] != (side, side):
        images = functional.interpolate(images.unsqueeze(1), (side, side), mode="bilinear", antialias=True).squeeze(1)
    return images.clamp(0, 1), classes


def _idx(images: Path, labels: Path) -> Pixels:
    return _idx_array(images) / 255, _idx_array(labels)


def _idx_array(path: Path) -> np.ndarray:
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
        if zeros or kind != 8:
            raise ValueError(f"{path.name} is no IDX file of bytes")
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def _npz(path: Path) -> Pixels:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["x_train"] / 255, arrays["y_train"]


def _svhn(path: Path) -> Pixels:
    arrays = extra("scipy.io", "digits").loadmat(path)
    return arrays["X"].transpose(3, 0, 1, 2) / 255, arrays["y"] % 10


def _usps(path: Path) -> Pixels:
    table = np.loadtxt(path, ndmin=2)
    return (table[:, 1:].reshape(-1, 16, 16) + 1) / 2, table[:, 0]


FILES: dict[str, list[tuple[tuple[str, ...], Callable[..., Pixels]]]] = {
    "mnist": [(("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), _idx), (("mnist.npz",), _npz)],
    "mnist-m": [(("mnist-m.npz",), _npz)],
    "svhn": [(("train_32x32.mat",), _svhn)],
    "usps": [(("zip.train",), _usps)],
}
"""By name: which files, any of these sets, and what reads them."""
