"""What a model with a likelihood says of molecules it has not seen."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.latent import check_vocabulary
from graphgen.metrics.labels import nats_per_atom, top_recovery
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.molecules.orders import shuffled_atoms
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.progress import progress_bar


class Likelihoods(NamedTuple):
    """Of M molecules: the log-probability in nats, its standard error over the draws (NaN for one), the atoms.

    A model of whole molecules never makes other numbers of atoms than its training data has; their value is -inf.
    ``evaluations`` [M] counts those of the field that each value took.
    """

    value: Tensor
    stderr: Tensor
    atoms: Tensor
    evaluations: Tensor


def in_vocabulary(molecules: EncodedMolecules, vocabulary: Vocabulary) -> tuple[EncodedMolecules, dict[int, str]]:
    """The molecules that have atom types of a vocabulary only, and of the others the first type it lacks.

    Returns:
        A view with labels that are indices into ``vocabulary``, and {index in ``molecules``: name of the type}.
    """
    if molecules.vocabulary == vocabulary:
        return molecules, {}
    lacking = {i for i, atom in enumerate(molecules.vocabulary.atoms) if atom not in vocabulary.atoms}
    names = molecules.vocabulary.names
    others: dict[int, str] = {}
    for chunk in torch.arange(len(molecules)).split(4096):
        batch = molecules.batch(chunk)
        owner = batch.graph.batch
        for lack in lacking:
            for graph in owner[batch.atoms == lack].unique().tolist():
                others.setdefault(int(chunk[graph]), names[lack])
    known = molecules.take([i for i in range(len(molecules)) if i not in others])
    return known.relabelled(vocabulary), others


@torch.no_grad()
def log_probabilities(
    model: Any,
    molecules: EncodedMolecules,
    seed: int = 0,
    draws: int = 1,
    batch_size: int = 512,
    steps: int = 20,
    device: str = "cpu",
    progress: bool = True,
    trace: str = "hutchinson",
) -> Likelihoods:
    """The model's log-probability of every molecule, as its ``log_prob`` defines it.

    Args:
        model: has ``log_prob(batch, seed, samples=, trace=, method=, steps=)`` and ``vocabulary``.
        molecules: all of whose atom types the model knows; see :func:`in_vocabulary`.
        draws: of the model's noise, averaged over.
        steps: of the classical Runge-Kutta method, or times that a draw of a discrete flow looks at.
        trace: "hutchinson" with one probe a draw, or "exact"; only where there is an ODE.

    Raises:
        GraphgenError: no molecules, or one with an atom type that the model does not know.
    """
    if not len(molecules):
        raise GraphgenError(f"{molecules.name}: there are no molecules to measure the likelihood on")
    labels = _labels(molecules.vocabulary, model.vocabulary)
    model.to(device).eval()
    values, errors, sizes, evaluations = [], [], [], []
    with progress_bar("likelihood", len(molecules), progress) as advance:
        for indices in torch.arange(len(molecules)).split(batch_size):
            batch = molecules.batch(indices)
            atoms = labels[batch.atoms]
            if bool((atoms < 0).any()):
                name = molecules.vocabulary.names[int(batch.atoms[atoms < 0][0])]
                raise GraphgenError(
                    f"{molecules.name}: has atoms {name}, which the model does not know; leave those molecules out"
                )
            batch = batch._replace(graph=batch.graph.to(device), atoms=atoms.to(device), ids=batch.ids.to(device))
            found = model.log_prob(batch, seed, samples=draws, trace=trace, method="rk4", steps=steps)
            values.append(found.value.double().cpu())
            errors.append(found.stderr.double().cpu())
            sizes.append(found.atoms.cpu())
            evaluations.append(torch.full((len(indices),), found.evaluations))
            advance(len(indices))
    return Likelihoods(torch.cat(values), torch.cat(errors), torch.cat(sizes), torch.cat(evaluations))


@torch.no_grad()
def over_orders(
    model: Any,
    molecules: EncodedMolecules,
    orders: int,
    seed: int = 0,
    draws: int = 1,
    batch_size: int = 512,
    steps: int = 20,
    device: str = "cpu",
    progress: bool = True,
) -> Tensor:
    """[M, orders] float64 log-probability of every molecule with its atoms in random orders, nats.

    A model that does not look at the order gives the same number in each, up to the error of its estimate; the
    spread of one that does is what it has lost of permutation invariance.

    Args:
        model: of whole molecules.
        molecules: with labels that are indices into its vocabulary; see :func:`in_vocabulary`.
        seed: of the orders too.
        draws, steps: of ``log_prob``, the same noise for each order.

    Raises:
        GraphgenError: labels of another vocabulary than the model's.
    """
    check_vocabulary(model, molecules)
    model.to(device).eval()
    found = []
    with progress_bar("orders", len(molecules), progress) as advance:
        for indices in torch.arange(len(molecules)).split(batch_size):
            batch = molecules.batch(indices, device)
            shuffled = (shuffled_atoms(batch, seed, number) for number in range(orders))
            values = [model.log_prob(one, seed, samples=draws, steps=steps).value for one in shuffled]
            found.append(torch.stack(values, 1).double().cpu())
            advance(len(indices))
    return torch.cat(found)


def _labels(theirs: Vocabulary, ours: Vocabulary) -> Tensor:
    """[len(theirs)] our label of each of their atom types, -1 where there is none."""
    return torch.tensor([ours.atoms.index(atom) if atom in ours.atoms else -1 for atom in theirs.atoms])


def held_out_nats(
    model: Any,
    molecules: EncodedMolecules,
    seed: int = 0,
    batch_size: int = 512,
    steps: int = 20,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[float, float]:
    """Mean of minus the bound on log P(molecule) per atom, and its standard error over molecules.

    The standard error holds the noise of the one draw of each molecule. Molecules that the model never makes are left
    out.

    Args: as :func:`log_probabilities`.

    Raises:
        GraphgenError: as :func:`log_probabilities`, or the model makes none of the molecules.
    """
    found = log_probabilities(model, molecules, seed, 1, batch_size, steps, device, progress)
    possible = ~found.value.isneginf()
    if not bool(possible.any()):
        raise GraphgenError(f"{molecules.name}: the model never makes molecules of these sizes; choose others")
    return nats_per_atom(found.value[possible], found.atoms[possible])


@torch.no_grad()
def held_out_top(
    model: Any, molecules: EncodedMolecules, seed: int = 0, batch_size: int = 512, device: str = "cpu"
) -> tuple[float, float]:
    """Share of atoms whose true label is the likeliest, or among the three likeliest, of its place given the bonds.

    Args:
        model: has ``marginals(graph, ids, seed)``, [N, c] probabilities given the bonds alone, and ``vocabulary``.
        molecules: an atom type that the model does not know is never among its likeliest.

    Raises:
        GraphgenError: no molecules, or the model's training did not teach it marginals.
    """
    if not len(molecules):
        raise GraphgenError(f"{molecules.name}: there are no molecules to recover labels of")
    labels = _labels(molecules.vocabulary, model.vocabulary)
    model.to(device).eval()
    probabilities, truth = [], []
    for indices in torch.arange(len(molecules)).split(batch_size):
        batch = molecules.batch(indices)
        probabilities.append(model.marginals(batch.graph.to(device), batch.ids.to(device), seed).cpu())
        truth.append(labels[batch.atoms])
    found, true = torch.cat(probabilities), torch.cat(truth)
    return top_recovery(found, true, 1), top_recovery(found, true, 3)
