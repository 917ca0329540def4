"""Generation: atoms for given bonds, or whole molecules."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.candidates import Candidates
from graphgen.errors import GraphgenError
from graphgen.generated import Generated
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary
from graphgen.ops.noise import Stream
from graphgen.progress import progress_bar

# A model that fails this often has learnt nothing, and a user who asked for n molecules must not wait for ever.
_ATTEMPTS_PER_MOLECULE = 100
# More change the bound by less than a hundredth of its standard error at a few draws.
_NLL_STEPS = 8
# What `sample` takes that is no option of the sampling.
_GIVEN = ("graph", "ids", "sizes", "seed")


def draw_structures(count: int, n: int, seed: int, start: int = 0) -> Tensor:
    """[n] which of `count` skeletons the attempts from `start` on use: all once in random order, then all again.

    Raises:
        GraphgenError: there are none.
    """
    if count < 1:
        raise GraphgenError("there are no molecules to take the bonds from; choose another split or data set")
    first, last = start // count, -(-(start + n) // count)
    rounds = [_order(count, seed, turn) for turn in range(first, last)]
    return torch.cat([torch.zeros(0, dtype=torch.int64), *rounds])[start - first * count :][:n]


@lru_cache(maxsize=1)
def _order(count: int, seed: int, turn: int) -> Tensor:
    keys = ops.uniform(torch.tensor([0, count]), 1, seed, Stream.ORDER, turn).squeeze(1)
    return keys.argsort(stable=True)


@torch.no_grad()
def generate(
    model: Any,
    structures: EncodedMolecules,
    n: int,
    seed: int = 0,
    batch_size: int = 512,
    device: str = "cpu",
    progress: bool = True,
    start: int = 0,
    until_molecules: bool = False,
    nll_draws: int = 0,
    candidates: Candidates | None = None,
    **sampling: Any,
) -> Generated:
    """Sample atoms on the bonds of real molecules; attempt k gets the same result for any batch size and threads.

    Args:
        model: has ``sample(graph, ids, seed, **sampling)`` and ``vocabulary``; for ``nll_draws`` and to choose by
            likelihood also ``log_prob``.
        structures: whose bonds to use; only their connectivity and bond orders are shown to the model.
        n: attempts.
        start: number of the first attempt, to go on where another call ended.
        until_molecules: go on until n attempts gave a molecule.
        nll_draws: also estimate minus the log-probability of every attempt's atoms from so many draws of the model's
            noise, at least 2 for a standard error; 4 take a bit longer than the sampling. Candidates are chosen by the
            same estimate (of one draw, if this is 0), so that of the chosen ones is too small by what luck adds.
        candidates: draw several for each attempt and keep one.
        sampling: what the model's ``sample`` takes, such as steps and temperature.

    Returns:
        One row per attempt, failures included.

    Raises:
        GraphgenError: no structures, an option that the model's ``sample`` does not have, a likelihood asked of a model
            that has none, or ``until_molecules`` and hardly any attempt succeeds.
    """
    model.to(device).eval()
    _check_sampling(model, sampling)
    choice = candidates or Candidates()
    if (nll_draws or choice.by_likelihood) and not hasattr(model, "log_prob"):
        raise GraphgenError(f"a {model.name} has no likelihood to choose or to report by; choose 'first'")
    found, clock = _Found(model.vocabulary), _Clock(device)

    def attempt(attempts: Tensor) -> list[str | None]:
        rows = draw_structures(len(structures), len(attempts), seed, int(attempts[0]))
        ids = choice.ids(attempts).to(device)
        batch = structures.batch(rows.repeat_interleave(choice.count), device)
        bound = None
        with clock.of_model():
            atoms = model.sample(batch.graph, ids, seed, **sampling)
            if nll_draws or choice.by_likelihood:
                drawn = MoleculeBatch(batch.graph, atoms, ids)
                bound = model.log_prob(drawn, seed, samples=max(nll_draws, 1), method="rk4", steps=_NLL_STEPS)
        return found.add(structures, rows, attempts, seed, atoms, bound, choice)

    _repeat(attempt, n, max(batch_size // choice.count, 1), start, until_molecules, progress)
    return found.finish(nll_draws > 0, choice.reject, clock.seconds)


@torch.no_grad()
def generate_whole(
    model: Any,
    n: int,
    seed: int = 0,
    batch_size: int = 512,
    device: str = "cpu",
    progress: bool = True,
    start: int = 0,
    until_molecules: bool = False,
    **sampling: Any,
) -> Generated:
    """Sample whole molecules, atoms and bonds, as they are drawn: nothing is repaired and no fragment left out.

    Args:
        model: has ``sample(ids, seed, **sampling)``, which gives a
            :class:`~graphgen.molecules.complete.CompleteGraphs`, and ``vocabulary``.
        n, start, until_molecules: as :func:`generate` has them.
        sampling: what the model's ``sample`` takes, such as steps and temperature; a ``scaffold`` may be a SMILES.

    Returns:
        One row per attempt, failures included; molecules of several fragments have a dot in their SMILES. Attempt k is
        the same for any batch size as far as the model's ``sample`` is.

    Raises:
        GraphgenError: an option that the model's ``sample`` does not have, a scaffold that is no SMILES, or
            ``until_molecules`` and hardly any attempt succeeds.
    """
    model.to(device).eval()
    _check_sampling(model, sampling)
    if isinstance(sampling.get("scaffold"), str):
        sampling["scaffold"] = _scaffold(sampling["scaffold"])
    smiles: list[str | None] = []
    reasons: list[str | None] = []
    labels, sizes = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(1, dtype=torch.int64)]
    clock = _Clock(device)

    def attempt(attempts: Tensor) -> list[str | None]:
        with clock.of_model():
            drawn = model.sample(attempts.to(device), seed, **sampling)
        read = [_read(molecule) for molecule in drawn.molecules(model.vocabulary)]
        smiles.extend(text for text, _ in read)
        reasons.extend(reason for _, reason in read)
        labels.append(drawn.atoms.cpu())
        sizes.append(drawn.ptr.diff().cpu())
        return reasons[-len(read) :]

    _repeat(attempt, n, batch_size, start, until_molecules, progress)
    return Generated(
        smiles,
        reasons,
        atoms=torch.cat(labels),
        node_ptr=torch.cat(sizes).cumsum(0),
        names=model.vocabulary.names,
        seconds=clock.seconds,
    )


class _Clock:
    """How long a model took, and all that is done with what it made."""

    def __init__(self, device: str) -> None:
        self._on_cuda = torch.device(device).type == "cuda"
        self._model, self._began = 0.0, time.perf_counter()

    @contextmanager
    def of_model(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if self._on_cuda:
            torch.cuda.synchronize()
        self._model += time.perf_counter() - began

    @property
    def seconds(self) -> tuple[float, float]:
        return self._model, time.perf_counter() - self._began - self._model


def _repeat(
    attempt: Callable[[Tensor], list[str | None]],
    n: int,
    at_once: int,
    start: int,
    until_molecules: bool,
    progress: bool,
) -> None:
    """Make attempts, which say why each gave no molecule (None if it did), until n are made or gave a molecule."""
    limit = n * _ATTEMPTS_PER_MOLECULE if until_molecules else n
    missing, made = n, 0
    reasons: list[str | None] = []
    with progress_bar("generating", n, progress) as advance:
        while missing and made < limit:
            first = start + made
            reasons = attempt(torch.arange(first, first + min(at_once, missing, limit - made)))
            made += len(reasons)
            settled = sum(reason is None for reason in reasons) if until_molecules else len(reasons)
            missing -= settled
            advance(settled)
    if missing:
        raise GraphgenError(
            f"only {n - missing} of {limit} attempts gave a molecule (the last failed with: {reasons[-1]}); "
            "train the model for longer"
        )


def _read(molecule: MoleculeGraph) -> tuple[str | None, str | None]:
    """The SMILES of labelled atoms and bonds, or why there is none."""
    from graphgen.molecules.codec import canonical_smiles, decode

    try:
        return canonical_smiles(decode(*molecule)), None
    except ValueError as error:
        return None, str(error)


def _scaffold(smiles: str) -> MoleculeGraph:
    from graphgen.molecules.codec import EncodeError, encode_scaffold

    try:
        return encode_scaffold(smiles)
    except EncodeError as error:
        raise GraphgenError(f"scaffold {smiles!r}: {error.reason}; give a SMILES, such as c1ccncc1") from None


def _check_sampling(model: Any, sampling: dict[str, Any]) -> None:
    known = [name for name in inspect.signature(model.sample).parameters if name not in _GIVEN]
    if unknown := sampling.keys() - set(known):
        raise GraphgenError(
            f"a {model.name} has no sampling option {', '.join(sorted(unknown))}; it has {', '.join(known)}"
        )


class _Found:
    """What the attempts gave so far."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.smiles: list[str | None] = []
        self.reasons: list[str | None] = []
        none = torch.zeros(0, dtype=torch.int64)
        self.rows, self.labels, self.sizes, self.accepted = [none], [none], [none], [none]
        self.values, self.errors = [none.double()], [none.double()]

    def __len__(self) -> int:
        return len(self.smiles)

    def add(
        self,
        structures: EncodedMolecules,
        rows: Tensor,
        attempts: Tensor,
        seed: int,
        atoms: Tensor,
        bound: Any,
        choice: Candidates,
    ) -> list[str | None]:
        """Choose among the candidates, read the chosen ones, and say why any is no molecule."""
        count = choice.count
        sizes = structures.sizes[rows]
        labels = atoms.cpu().split(sizes.repeat_interleave(count).tolist())
        good = None
        if choice.reject:
            read = [self._read(structures, int(rows[i // count]), own) for i, own in enumerate(labels)]
            good = torch.tensor([smiles is not None for smiles, _ in read])
            self.accepted.append(good.view(-1, count).sum(1))
        value = None if bound is None else bound.value.cpu()
        kept = choice.pick(attempts, seed, value, good) + torch.arange(len(rows)) * count
        if choice.reject:
            chosen = [read[i] for i in kept.tolist()]
        else:
            chosen = [
                self._read(structures, row, labels[i]) for row, i in zip(rows.tolist(), kept.tolist(), strict=True)
            ]
        self.smiles += [smiles for smiles, _ in chosen]
        self.reasons += [reason for _, reason in chosen]
        self.rows.append(rows)
        self.labels.append(torch.cat([labels[i] for i in kept.tolist()]))
        self.sizes.append(sizes)
        if bound is not None:
            self.values.append(-bound.value.double().cpu()[kept])
            self.errors.append(bound.stderr.double().cpu()[kept])
        return [reason for _, reason in chosen]

    def _read(self, structures: EncodedMolecules, row: int, labels: Tensor) -> tuple[str | None, str | None]:
        """The SMILES of labels on a skeleton, or why there is none."""
        types = self.vocabulary.atoms
        return _read(MoleculeGraph(tuple(types[a] for a in labels.tolist()), structures.graph(row).bonds))

    def finish(self, with_nll: bool, with_accepted: bool, seconds: tuple[float, float]) -> Generated:
        sizes = torch.cat(self.sizes)
        return Generated(
            smiles=self.smiles,
            reasons=self.reasons,
            structures=torch.cat(self.rows),
            atoms=torch.cat(self.labels),
            node_ptr=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
            names=self.vocabulary.names,
            nll=torch.cat(self.values) if with_nll else None,
            nll_stderr=torch.cat(self.errors) if with_nll else None,
            accepted=torch.cat(self.accepted) if with_accepted else None,
            seconds=seconds,
        )
