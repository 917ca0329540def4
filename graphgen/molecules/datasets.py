"""Named data sets and files of molecules, encoded once and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import pooch
from rdkit import RDConfig, rdBase

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write
from graphgen.molecules.encoded import SPLITS, EncodedMolecules, Encoder
from graphgen.molecules.records import READER_VERSION, UNREADABLE, Record, Reject, damaged, open_plain, read_records
from graphgen.molecules.vocabulary import CODEC_VERSION, MoleculeGraph
from graphgen.molecules.workers import encode_records
from graphgen.progress import progress_bar


@dataclass(frozen=True)
class Selection:
    """Which molecules of a source belong to a data set."""

    elements: frozenset[str]
    max_atoms: int

    def objection(self, graph: MoleculeGraph) -> str | None:
        """Why ``graph`` does not belong, or None."""
        if others := {element for element, _ in graph.atoms} - self.elements:
            return f"not selected: has {', '.join(sorted(others))}"
        if len(graph.atoms) > self.max_atoms:
            return f"not selected: {len(graph.atoms)} heavy atoms, at most {self.max_atoms}"
        return None


@dataclass(frozen=True)
class Source:
    """Where a named data set comes from.

    ``file`` is relative to ``$GRAPHGEN_DATA``, ``sha256`` is of the file unpacked, ``urls`` are its mirrors.
    """

    file: str
    sha256: str
    urls: tuple[str, ...] = ()
    selection: Selection | None = None


_SELFIES = "f345587e9a85c1ec81e4b657b25c8c843adbf12b/tests/test_sets/130K_QM9.txt"
_MOL_OPT = "fd6893626427a5ee22cab86b9ba1f6d382c63253/data/zinc.txt.gz"

SOURCES = {
    "nci": Source(
        file="NCI/first_5K.smi",
        sha256="91e71c015f14939837f2943dcc904f7c87e5a3a0124d82b05c28ad2f23004def",
        selection=Selection(frozenset(("C", "N", "O", "F", "P", "S", "Cl", "Br", "I")), max_atoms=38),
    ),
    "qm9": Source(
        file="qm9/qm9_gdb_order.csv",
        sha256="80c060e299a44112b89be3fc6d95145dfeda97aa3eab1e2662aafdfbb00f7929",
        urls=(
            f"https://raw.githubusercontent.com/aspuru-guzik-group/selfies/{_SELFIES}",
            f"https://cdn.jsdelivr.net/gh/aspuru-guzik-group/selfies@{_SELFIES}",
        ),
    ),
    "zinc250k": Source(
        file="zinc250k/zinc250k_csv_order.smi.gz",
        sha256="df0aa677c770f15c9943684d6600cba8e7076c67be6a090c12f24da3aaa55b70",
        urls=(
            f"https://raw.githubusercontent.com/wenhao-gao/mol_opt/{_MOL_OPT}",
            f"https://cdn.jsdelivr.net/gh/wenhao-gao/mol_opt@{_MOL_OPT}",
        ),
    ),
}
"""The named data sets. ``nci`` comes with RDKit: a few thousand real molecules that need no download."""

_MOSES = "00185d439a358f529cbefcb5f5e3d15ec8e5d1e8/moses/metrics"


def _of_moses(file: str, sha256: str) -> Source:
    urls = (
        f"https://raw.githubusercontent.com/molecularsets/moses/{_MOSES}/{file}",
        f"https://cdn.jsdelivr.net/gh/molecularsets/moses@{_MOSES}/{file}",
    )
    return Source(f"moses/{file}", sha256, urls)


FILES = {
    "moses-filters": (
        _of_moses("mcf.csv", "f4a2bfacb4cb8877295eb2a4b4e61ec9770a26388f1331e5dc9c193d22dd5f89"),
        _of_moses("wehi_pains.csv", "d762e5420ec70f06d7e41d336cae6f67e2feb0eddf05c6171192a332726d296f"),
    ),
}
"""Files that a metric needs and that hold no molecules."""


def load(name_or_path: str | os.PathLike[str], column: str | None = None, progress: bool = True) -> EncodedMolecules:
    """A data set by name (:data:`SOURCES`) or from a file (:func:`~graphgen.molecules.records.read_records`).

    The first use encodes the molecules, in parallel and with a progress bar on standard error; later ones map
    the result from ``$GRAPHGEN_CACHE``, or else from the user's cache folder. Nothing is downloaded. Records
    that cannot be encoded are in ``.rejects`` of the result. Duplicates are kept.

    Raises:
        GraphgenError: no such name or file, a named file that is not the published one, or nothing to encode.
    """
    source = SOURCES.get(str(name_or_path))
    if source is not None:
        name, digest = str(name_or_path), source.sha256
    else:
        path = Path(name_or_path)
        # Path.exists raises for names that no file can have.
        if not os.path.exists(path):
            known = ", ".join(SOURCES)
            raise GraphgenError(f"{path}: no such file, and no data set of that name; there are {known}")
        name, digest = path.name.split(".")[0], _sha256(path)
    selection = source.selection if source else None
    form = source.file if source else "".join(path.suffixes)
    cached = cache_folder() / f"{name}-{_key(digest, form, column, selection)}.safetensors"
    if cached.exists():
        try:
            return EncodedMolecules.open(cached)
        except GraphgenError:
            cached.unlink()
    if source is not None:
        path = _find(name, source)
    encoded = _encode(name, digest, path, column, selection, progress)
    try:
        encoded.save(cached)
    except OSError as error:
        raise GraphgenError(
            f"{cached.parent}: the cache cannot be written ({error.strerror}); set GRAPHGEN_CACHE"
        ) from None
    return EncodedMolecules.open(cached)


def split_name(name: str | os.PathLike[str]) -> tuple[str, str | None]:
    """``data:split`` in two: ``qm9:test``; without a split that is None."""
    whole, colon, split = str(name).rpartition(":")
    return (whole, split) if colon and split in SPLITS else (str(name), None)


def part(data: EncodedMolecules, split: str | None) -> EncodedMolecules:
    """A split of a data set, or all of it.

    Raises:
        GraphgenError: no such split, or it is empty.
    """
    if split is None:
        return data
    if split not in SPLITS:
        raise GraphgenError(f"split {split!r}: there are {', '.join(SPLITS)}")
    found = data.split(split)
    if not len(found):
        raise GraphgenError(
            f"{data.name}: its {split} split is empty ({len(data)} molecules in all); take another split"
        )
    return found


def encoded_before(name: str, digest: str) -> list[EncodedMolecules]:
    """What the cache holds of the file ``name`` with this SHA-256: one data set for each column it was read by."""
    found = []
    for path in sorted(cache_folder().glob(f"{escape(name)}-*.safetensors")):
        with suppress(GraphgenError):
            found.append(EncodedMolecules.open(path))
    return [data for data in found if (data.name, data.source_sha256) == (name, digest)]


def download(name: str) -> Path:
    """Fetch the file of a named data set into the cache folder, unless it is there; returns its path.

    Raises:
        GraphgenError: no such data set, or no mirror has the published file.
    """
    source = SOURCES.get(name)
    if source is None:
        raise GraphgenError(f"no data set {name!r}; there are {', '.join(SOURCES)}")
    return _fetch(name, source)


def download_files(name: str) -> list[Path]:
    """As :func:`download`, for the files of one of :data:`FILES`.

    Raises:
        GraphgenError: no such files, or no mirror has the published ones.
    """
    if name not in FILES:
        raise GraphgenError(f"no files {name!r}; there are {', '.join(FILES)}")
    return [_fetch(name, source) for source in FILES[name]]


def find_file(file: str) -> Path | None:
    """A file by its place under ``$GRAPHGEN_DATA``: there, or among the downloads, or nowhere."""
    root = os.environ.get("GRAPHGEN_DATA")
    places = [Path(root) / file] if root else []
    return next((path for path in [*places, _download_path(file)] if path.is_file()), None)


def _fetch(name: str, source: Source) -> Path:
    target, failures = _downloaded(source), []
    if not source.urls or target.exists():
        return _find(name, source)
    pooch.get_logger().setLevel("WARNING")
    for url in source.urls:
        try:
            with atomic_write(target) as temporary:
                temporary.unlink()  # what is there already, pooch does not fetch
                # The published digest is of the unpacked file, which pooch cannot check.
                pooch.retrieve(url, known_hash=None, path=temporary.parent, fname=temporary.name)
                _check(temporary, name, source)
            return target
        except (GraphgenError, OSError, ValueError) as error:
            failures.append(f"{url} ({error})")
    raise GraphgenError(f"{name} could not be downloaded: {'; '.join(failures)}")


def source_file(name_or_path: str | os.PathLike[str]) -> Path:
    """The file that :func:`load` reads.

    Raises:
        GraphgenError: a named data set that is not here.
    """
    source = SOURCES.get(str(name_or_path))
    return Path(name_or_path) if source is None else _find(str(name_or_path), source)


def cache_folder() -> Path:
    """``$GRAPHGEN_CACHE``, or graphgen's folder in the user's cache."""
    return Path(os.environ.get("GRAPHGEN_CACHE") or pooch.os_cache("graphgen"))


def _downloaded(source: Source) -> Path:
    return _download_path(source.file)


def _download_path(file: str) -> Path:
    return cache_folder() / "downloads" / Path(file).name


def _find(name: str, source: Source) -> Path:
    roots = [Path(root) for root in [os.environ.get("GRAPHGEN_DATA")] if root]
    if not source.urls:
        roots.append(Path(RDConfig.RDDataDir))
    for path in [*(root / source.file for root in roots), _downloaded(source)]:
        if path.exists():
            _check(path, name, source)
            return path
    raise GraphgenError(
        f"{name} is not here: neither {source.file} under $GRAPHGEN_DATA nor a download; "
        f"run `graphgen data {name} --download`"
    )


def _check(path: Path, name: str, source: Source) -> None:
    if _sha256(path) != source.sha256:
        raise GraphgenError(f"{path}: not the published file of {name} (its SHA-256 differs); replace it")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_plain(path) as file:
        try:
            while block := file.read(1 << 20):
                digest.update(block)
        except UNREADABLE as error:
            raise damaged(path, error) from None
    return digest.hexdigest()


def _key(digest: str, form: str, column: str | None, selection: Selection | None) -> str:
    chosen = [sorted(selection.elements), selection.max_atoms] if selection else None
    # Canonical SMILES, and with them the split, may change with RDKit.
    parts = [digest, form.lower(), column, chosen, CODEC_VERSION, READER_VERSION, rdBase.rdkitVersion]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _encode(
    name: str, digest: str, path: Path, column: str | None, selection: Selection | None, progress: bool
) -> EncodedMolecules:
    encoder, rejects = Encoder(), []
    unsettled: deque[Record | Reject] = deque()

    def records() -> Iterator[Record]:
        for item in read_records(path, column):
            unsettled.append(item)
            if isinstance(item, Record):
                yield item

    # Read twice, so that the records of a large file are never held together.
    total = sum(1 for _ in read_records(path, column))
    with (
        closing(encode_records(records(), total)) as outcomes,
        progress_bar(f"encoding {name}", total, progress) as advance,
    ):
        for outcome in outcomes:
            while isinstance(item := unsettled.popleft(), Reject):
                rejects.append(item)
                advance()
            if not isinstance(outcome, str) and selection is not None:
                outcome = selection.objection(outcome[0]) or outcome
            if isinstance(outcome, str):
                rejects.append(Reject.of(item.where, outcome, item.text))
            else:
                encoder.add(*outcome)
            advance()
        rejects.extend(item for item in unsettled if isinstance(item, Reject))
        advance(len(unsettled))
    if len(rejects) == total:
        where, reason, _ = rejects[0]
        raise GraphgenError(f"{name}: none of {total} records is a usable molecule; {where}: {reason}")
    return encoder.finish(name, digest, rejects)
