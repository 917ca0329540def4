"""What a model with a likelihood says of molecules it has not seen."""

from __future__ import annotations

from typing import Any

import torch

from graphgen.errors import GraphgenError
from graphgen.metrics.labels import nats_per_atom
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.progress import progress_bar


@torch.no_grad()
def held_out_nats(
    model: Any,
    molecules: EncodedMolecules,
    seed: int = 0,
    batch_size: int = 512,
    steps: int = 20,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[float, float]:
    """Mean of minus the bound on log P(true label) per atom, and its standard error over molecules.

    The standard error holds the noise of the one dequantisation draw and the one Hutchinson probe of each molecule.

    Args:
        model: has ``log_prob(batch, seed, method=, steps=)``.
        molecules: held-out molecules.
        steps: of the classical Runge-Kutta method.

    Raises:
        GraphgenError: no molecules.
    """
    if not len(molecules):
        raise GraphgenError("there are no held-out molecules to measure the likelihood on")
    model.to(device).eval()
    values, sizes = [], []
    with progress_bar("likelihood", len(molecules), progress) as advance:
        for indices in torch.arange(len(molecules)).split(batch_size):
            found = model.log_prob(molecules.batch(indices, device), seed, method="rk4", steps=steps)
            values.append(found.value.cpu())
            sizes.append(found.atoms.cpu())
            advance(len(indices))
    return nats_per_atom(torch.cat(values), torch.cat(sizes))
