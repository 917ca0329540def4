"""The latent space of a graph CNF: where the molecules of given bonds lie in it, and the ways between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.progress import progress_bar


@torch.no_grad()
def encode(model: Any, batch: MoleculeBatch, seed: int = 0, steps: int = 20) -> Tensor:
    """[N, c] the noise that the flow carries to these molecules: a point of each label's cell, carried back.

    Args:
        model: a :class:`~graphgen.models.GraphCNF`.
        seed: of the points in the cells.
        steps: of the classical Runge-Kutta method.

    Raises:
        GraphgenError: the model is no flow that can be followed back.
    """
    _check_flow(model)
    points, _ = model.dequantise(batch, seed)
    return model.transport(points, batch.graph, 1.0, 0.0, method="rk4", steps=steps)


@torch.no_grad()
def decode(model: Any, z: Tensor, graph: GraphBatch, steps: int = 20) -> Tensor:
    """[N] int64 labels of the end to which the flow carries noise z [N, c]."""
    return model.transport(z, graph, method="rk4", steps=steps).argmax(1)


def _check_flow(model: Any) -> None:
    if not hasattr(model, "transport"):
        raise GraphgenError(f"a {model.name} has no latent space that molecules are carried back to; use a graph-cnf")


def check_vocabulary(model: Any, molecules: EncodedMolecules) -> None:
    """
    Raises:
        GraphgenError: the labels of the molecules are not indices into the model's vocabulary.
    """
    if molecules.vocabulary != model.vocabulary:
        raise GraphgenError(
            f"{molecules.name}: has other atom types than the model; take graphgen.likelihood.in_vocabulary of it"
        )


@dataclass(frozen=True)
class Reconstruction:
    """How many molecules come back from their latents.

    Attributes:
        molecules: encoded and decoded.
        identical: of these, all labels as they were.
        largest_error: of any coordinate of the points that were carried there and back, in units of the noise; None
            where nothing is carried.
    """

    molecules: int
    identical: int
    largest_error: float | None


@torch.no_grad()
def reconstruct(
    model: Any,
    molecules: EncodedMolecules,
    seed: int = 0,
    steps: int = 20,
    batch_size: int = 512,
    device: str = "cpu",
    progress: bool = True,
) -> Reconstruction:
    """Encode and decode every molecule: by a flow of atoms on its own bonds, by a variational autoencoder as a whole.

    An invertible flow gives 100 % whatever it has learned: this measures the solver's error, not the model. A
    variational autoencoder decodes the likeliest labels at the mean latents.

    Args:
        seed, steps: of a flow.

    Raises:
        GraphgenError: no molecules, labels of another vocabulary than the model's, or a model of another kind.
    """
    if not len(molecules):
        raise GraphgenError("there are no molecules to reconstruct; choose another split or data set")
    as_wholes = hasattr(model, "comes_back")
    if not as_wholes:
        _check_flow(model)
    check_vocabulary(model, molecules)
    model.to(device).eval()
    identical, largest = 0, 0.0
    with progress_bar("reconstructing", len(molecules), progress) as advance:
        for indices in torch.arange(len(molecules)).split(batch_size):
            batch = molecules.batch(indices, device)
            if as_wholes:
                identical += int(model.comes_back(batch).sum())
                advance(len(indices))
                continue
            points, _ = model.dequantise(batch, seed)
            there = model.transport(points, batch.graph, 1.0, 0.0, method="rk4", steps=steps)
            back = model.transport(there, batch.graph, 0.0, 1.0, method="rk4", steps=steps)
            largest = max(largest, float((back - points).abs().max()))
            wrong = (back.argmax(1) != batch.atoms).to(points.dtype).unsqueeze(1)
            identical += int((ops.segment_reduce(wrong, batch.graph.ptr) == 0).sum())
            advance(len(indices))
    return Reconstruction(len(molecules), identical, None if as_wholes else largest)


def great_circle(start: Tensor, end: Tensor, points: int) -> Tensor:
    """[points, N, c] from one latent to another by the great circle, with lengths changing evenly.

    Normal noise of many numbers lies near a sphere; a straight line would cut through where no noise ever is.

    Args:
        start, end: [N, c].
        points: at least 2, both ends included.
    """
    if points < 2 or start.shape != end.shape:
        raise ValueError(
            f"great_circle: needs at least 2 points and ends of one shape, got {points}, {list(start.shape)} and "
            f"{list(end.shape)}"
        )
    lengths = start.norm(), end.norm()
    cosine = ((start * end).sum() / (lengths[0] * lengths[1]).clamp(min=1e-12)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    share = torch.linspace(0, 1, points, dtype=start.dtype, device=start.device).view(-1, 1, 1)
    if float(angle.sin()) < 1e-6:  # the same direction, or opposite ones, between which there is no one circle
        return torch.lerp(start.unsqueeze(0), end.unsqueeze(0), share)
    along = (torch.sin((1 - share) * angle) * start / lengths[0] + torch.sin(share * angle) * end / lengths[1]) / (
        angle.sin()
    )
    return along * torch.lerp(lengths[0], lengths[1], share)


@dataclass(frozen=True)
class Way:
    """From one molecule to another of the same bonds.

    Attributes:
        labels: [points, N] int64 indices into the model's vocabulary, in the first molecule's order of atoms.
        bonds: of all of them, (u, v, type).
    """

    labels: Tensor
    bonds: tuple[tuple[int, int, int], ...]


def between(model: Any, start: str, end: str, points: int = 8, seed: int = 0, steps: int = 20) -> Way:
    """The way between the latents of two molecules, given as SMILES, that have the same bonds.

    Raises:
        GraphgenError: a SMILES that is no molecule, an atom type the model does not know, or different bonds.
    """
    from graphgen.molecules import codec

    try:
        graphs = [codec.encode(codec.parse(smiles)) for smiles in (start, end)]
    except ValueError as error:
        raise GraphgenError(f"{start} to {end}: {error}") from None
    order = codec.align(*graphs)
    if order is None:
        raise GraphgenError(
            f"{start} and {end} do not have the same bonds; give two molecules that differ in their atoms alone"
        )
    first, second = graphs
    ends = [first.atoms, tuple(second.atoms[i] for i in order)]
    if unknown := {atom for atoms in ends for atom in atoms} - set(model.vocabulary.atoms):
        raise GraphgenError(f"the model does not know atoms {', '.join(Vocabulary(tuple(unknown)).names)}")
    pairs = torch.tensor([bond[:2] for bond in first.bonds], dtype=torch.int64).view(-1, 2).T
    kinds = torch.tensor([bond[2] for bond in first.bonds], dtype=torch.int64)
    graph = GraphBatch.from_edge_index(
        torch.cat((pairs, pairs.flip(0)), 1), len(first.atoms), edge_attr=torch.cat((kinds, kinds))
    )
    latents = [
        encode(
            model,
            MoleculeBatch(graph, torch.tensor([model.vocabulary.index(*a) for a in atoms]), torch.tensor([k])),
            seed,
            steps,
        )
        for k, atoms in enumerate(ends)
    ]
    return Way(interpolate(model, latents[0], latents[1], graph, points, steps), first.bonds)


@torch.no_grad()
def interpolate(model: Any, start: Tensor, end: Tensor, graph: GraphBatch, points: int = 8, steps: int = 20) -> Tensor:
    """[points, N] int64 labels on the way between two latents [N, c] of one skeleton.

    Args:
        graph: the skeleton, one graph.

    Raises:
        ValueError: more than one graph, or latents that are not of it.
    """
    if graph.num_graphs != 1 or start.shape[0] != graph.num_nodes:
        raise ValueError(
            f"interpolate: expected one graph and latents of its {graph.num_nodes} nodes, got {graph.num_graphs} "
            f"graphs and {start.shape[0]} rows"
        )
    way = great_circle(start, end, points)
    return torch.stack([decode(model, z, graph, steps) for z in way])
