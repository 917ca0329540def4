"""Generation: atoms for given bonds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.generated import Generated
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.ops.noise import Stream
from graphgen.progress import progress_bar


def draw_structures(count: int, n: int, seed: int) -> Tensor:
    """[n] which of `count` skeletons each attempt uses: all of them once in random order, then all again.

    Raises:
        GraphgenError: there are none.
    """
    if count < 1:
        raise GraphgenError("there are no molecules to take the bonds from; choose another split or data set")
    rounds = []
    for turn in range(-(-n // count)):
        keys = ops.uniform(torch.tensor([0, count]), 1, seed, Stream.ORDER, turn).squeeze(1)
        rounds.append(keys.argsort(stable=True))
    return torch.cat(rounds)[:n] if rounds else torch.zeros(0, dtype=torch.int64)


def generate(
    model: Any,
    structures: EncodedMolecules,
    n: int,
    seed: int = 0,
    batch_size: int = 512,
    steps: int = 20,
    device: str = "cpu",
    progress: bool = True,
) -> Generated:
    """Sample atoms on the bonds of real molecules; attempt k gets the same result for any batch size and threads.

    Args:
        model: has ``sample(graph, ids, seed, steps)`` and ``vocabulary``.
        structures: whose bonds to use; only their connectivity and bond orders are shown to the model.
        n: attempts.
        steps: of the solver.

    Returns:
        One row per attempt, failures included.

    Raises:
        GraphgenError: no structures.
    """
    from graphgen.molecules.codec import canonical_smiles, decode

    model.to(device).eval()
    chosen = draw_structures(len(structures), n, seed)
    names, types = model.vocabulary.names, model.vocabulary.atoms
    smiles: list[str | None] = []
    reasons: list[str | None] = []
    labels: list[Tensor] = []
    sizes: list[Tensor] = []
    with progress_bar("generating", n, progress) as advance:
        for attempts in torch.arange(n).split(batch_size):
            rows = chosen[attempts]
            batch = structures.batch(rows, device)
            atoms = model.sample(batch.graph, attempts.to(device), seed, steps).cpu()
            labels.append(atoms)
            sizes.append(batch.graph.ptr.diff().cpu())
            start = 0
            for row, size in zip(rows.tolist(), sizes[-1].tolist(), strict=True):
                own = atoms[start : start + size].tolist()
                start += size
                try:
                    smiles.append(canonical_smiles(decode([types[a] for a in own], structures.graph(row).bonds)))
                    reasons.append(None)
                except ValueError as error:
                    smiles.append(None)
                    reasons.append(str(error))
            advance(len(attempts))
    empty = torch.zeros(0, dtype=torch.int64)
    return Generated(
        smiles=smiles,
        reasons=reasons,
        structures=chosen,
        atoms=torch.cat([empty, *labels]),
        node_ptr=torch.cat([torch.zeros(1, dtype=torch.int64), torch.cat([empty, *sizes]).cumsum(0)]),
        names=names,
    )
