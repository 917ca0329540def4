"""Generation: atoms for given bonds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.generated import Generated
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.ops.noise import Stream
from graphgen.progress import progress_bar

# A model that fails this often has learnt nothing, and a user who asked for n molecules must not wait for ever.
_ATTEMPTS_PER_MOLECULE = 100
# More change the bound by less than a hundredth of its standard error at a few draws.
_NLL_STEPS = 8


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
    steps: int = 20,
    device: str = "cpu",
    progress: bool = True,
    start: int = 0,
    until_molecules: bool = False,
    nll_draws: int = 0,
    temperature: float = 0.0,
) -> Generated:
    """Sample atoms on the bonds of real molecules; attempt k gets the same result for any batch size and threads.

    Args:
        model: has ``sample(graph, ids, seed, steps, temperature)`` and ``vocabulary``; for ``nll_draws`` also
            ``log_prob``.
        structures: whose bonds to use; only their connectivity and bond orders are shown to the model.
        n: attempts.
        steps: of the solver.
        start: number of the first attempt, to go on where another call ended.
        until_molecules: go on until n attempts gave a molecule.
        nll_draws: also estimate minus the log-probability of every attempt's atoms from so many draws of the model's
            noise, at least 2 for a standard error; 4 take a bit longer than the sampling.
        temperature: of the model's draw of labels; 0 takes the likeliest.

    Returns:
        One row per attempt, failures included.

    Raises:
        GraphgenError: no structures, or ``until_molecules`` and hardly any attempt succeeds.
    """
    from graphgen.molecules.codec import canonical_smiles, decode

    model.to(device).eval()
    names, types = model.vocabulary.names, model.vocabulary.atoms
    limit = n * _ATTEMPTS_PER_MOLECULE if until_molecules else n
    none = torch.zeros(0, dtype=torch.int64)
    smiles: list[str | None] = []
    reasons: list[str | None] = []
    chosen, labels, sizes, values, errors = [none], [none], [none], [none.double()], [none.double()]
    missing = n
    with progress_bar("generating", n, progress) as advance:
        while missing and len(smiles) < limit:
            first = start + len(smiles)
            attempts = torch.arange(first, first + min(batch_size, missing, limit - len(smiles)))
            rows = draw_structures(len(structures), len(attempts), seed, first)
            batch = structures.batch(rows, device)
            ids = attempts.to(device)
            atoms = model.sample(batch.graph, ids, seed, steps, temperature)
            if nll_draws:
                drawn = MoleculeBatch(batch.graph, atoms, ids)
                bound = model.log_prob(drawn, seed, samples=nll_draws, method="rk4", steps=_NLL_STEPS)
                values.append(-bound.value.double().cpu())
                errors.append(bound.stderr.double().cpu())
            chosen.append(rows)
            labels.append(atoms.cpu())
            sizes.append(batch.graph.ptr.diff().cpu())
            failed = 0
            for row, own in zip(rows.tolist(), labels[-1].split(sizes[-1].tolist()), strict=True):
                try:
                    mol = decode([types[a] for a in own.tolist()], structures.graph(row).bonds)
                    smiles.append(canonical_smiles(mol))
                    reasons.append(None)
                except ValueError as error:
                    smiles.append(None)
                    reasons.append(str(error))
                    failed += 1
            settled = len(rows) - (failed if until_molecules else 0)
            missing -= settled
            advance(settled)
    if missing:
        raise GraphgenError(
            f"only {n - missing} of {limit} attempts gave a molecule (the last failed with: {reasons[-1]}); "
            "train the model for longer"
        )
    return Generated(
        smiles=smiles,
        reasons=reasons,
        structures=torch.cat(chosen),
        atoms=torch.cat(labels),
        node_ptr=torch.cat([none.new_zeros(1), torch.cat(sizes).cumsum(0)]),
        names=names,
        nll=torch.cat(values) if nll_draws else None,
        nll_stderr=torch.cat(errors) if nll_draws else None,
    )
