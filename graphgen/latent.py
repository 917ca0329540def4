"""The latent space of a flow: where molecules lie in it, and the ways between them.

That of a graph CNF is one of labels on given bonds; that of a graph NVP is one of whole molecules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.molecules.encoded import EncodedMolecules, Encoder, MoleculeBatch
from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary
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
        raise GraphgenError(
            f"a {model.name} has no latent space of labels on given bonds that molecules are carried back to; use a "
            "graph-cnf"
        )


def _is_whole(model: Any) -> bool:
    """Whether its latents are those of whole molecules.

    Raises:
        GraphgenError: it has no latents at all.
    """
    if hasattr(model, "transport") or hasattr(model, "to_noise"):
        return model.samples_bonds
    raise GraphgenError(
        f"a {model.name} has no latent space that molecules are carried back to; use a graph-cnf or a graph-nvp"
    )


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
        identical: of these, all labels (and bonds, if those are not given) as they were.
        largest_error: of any coordinate of the points that were carried there and back, in their own units; None
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
    """Encode and decode every molecule, on its own bonds if the model is given those.

    An invertible flow gives 100 % whatever it has learned: this measures the solver's error and that of rounding, not
    the model. A variational autoencoder decodes the likeliest labels at the mean latents.

    Args:
        seed: of the noise of a flow.
        steps: of the classical Runge-Kutta method, where there is an ODE.

    Raises:
        GraphgenError: no molecules, labels of another vocabulary than the model's, or a model of another kind.
    """
    if not len(molecules):
        raise GraphgenError("there are no molecules to reconstruct; choose another split or data set")
    autoencoder = hasattr(model, "comes_back")
    there_and_back = _whole_there_and_back if not autoencoder and _is_whole(model) else _labels_there_and_back
    check_vocabulary(model, molecules)
    model.to(device).eval()
    identical, largest = 0, 0.0
    with progress_bar("reconstructing", len(molecules), progress) as advance:
        for indices in torch.arange(len(molecules)).split(batch_size):
            batch = molecules.batch(indices, device)
            if autoencoder:
                came_back = model.comes_back(batch)
            else:
                came_back, error = there_and_back(model, batch, seed, steps)
                largest = max(largest, float(error))
            identical += int(came_back.sum())
            advance(len(indices))
    return Reconstruction(len(molecules), identical, None if autoencoder else largest)


def _labels_there_and_back(model: Any, batch: MoleculeBatch, seed: int, steps: int) -> tuple[Tensor, Tensor]:
    """[B] which molecules come back, and the largest error of a coordinate."""
    points, _ = model.dequantise(batch, seed)
    there = model.transport(points, batch.graph, 1.0, 0.0, method="rk4", steps=steps)
    back = model.transport(there, batch.graph, 0.0, 1.0, method="rk4", steps=steps)
    wrong = (back.argmax(1) != batch.atoms).to(points.dtype).unsqueeze(1)
    return ops.segment_reduce(wrong, batch.graph.ptr).squeeze(1) == 0, (back - points).abs().max()


def _whole_there_and_back(model: Any, batch: MoleculeBatch, seed: int, steps: int) -> tuple[Tensor, Tensor]:
    molecules = model.padded(batch)
    points = model.dequantise(molecules, batch.ids, seed)
    noise, _ = model.to_noise(points, molecules)
    back, found = model.to_points(noise, molecules.sizes)
    same_bonds = (found.bonds == molecules.bonds).flatten(1).all(1)
    return (found.atoms == molecules.atoms).all(1) & same_bonds, (back.flat() - points.flat()).abs().max()


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


def between(model: Any, start: str, end: str, points: int = 8, seed: int = 0, steps: int = 20) -> list[MoleculeGraph]:
    """The way between the latents of two molecules, given as SMILES, both ends included.

    A model that is given bonds needs two molecules of the same bonds, and keeps them; its molecules have the first
    one's order of atoms. One of whole molecules goes from any molecule to any other of the sizes that it knows: the
    number of atoms changes evenly, and where an end has no atom its latent is drawn as for a sample.

    Args:
        points: molecules on the way.
        steps: of the classical Runge-Kutta method, where there is an ODE.

    Raises:
        GraphgenError: a SMILES that is no molecule, an atom type or a size the model does not know, or different bonds
            for a model that is given them.
    """
    from graphgen.molecules import codec

    whole = _is_whole(model)
    try:
        ends = [codec.encode(codec.parse(smiles)) for smiles in (start, end)]
    except ValueError as error:
        raise GraphgenError(f"{start} to {end}: {error}") from None
    if unknown := {atom for graph in ends for atom in graph.atoms} - set(model.vocabulary.atoms):
        raise GraphgenError(f"the model does not know atoms {', '.join(Vocabulary(tuple(unknown)).names)}")
    if whole:
        return _between_whole(model, ends, points, seed)
    order = codec.align(*ends)
    if order is None:
        raise GraphgenError(
            f"{start} and {end} do not have the same bonds; give two molecules that differ in their atoms alone"
        )
    bonds = ends[0].bonds
    aligned = [MoleculeGraph(atoms, bonds) for atoms in (ends[0].atoms, tuple(ends[1].atoms[i] for i in order))]
    both = _batch(aligned, model.vocabulary)
    first, last = encode(model, both, seed, steps).chunk(2)
    skeleton = _batch(aligned[:1], model.vocabulary).graph
    labels = interpolate(model, first, last, skeleton, points, steps)
    return [MoleculeGraph(tuple(model.vocabulary.atoms[a] for a in row), bonds) for row in labels.tolist()]


@torch.no_grad()
def _between_whole(model: Any, ends: list[MoleculeGraph], points: int, seed: int) -> list[MoleculeGraph]:
    batch = _batch(ends, model.vocabulary)
    molecules = model.padded(batch)
    noise, _ = model.to_noise(model.dequantise(molecules, batch.ids, seed), molecules)
    real, drawn = model.present(molecules.sizes).flat(), model.prior(batch.ids, seed).flat()
    start, end = torch.where(real > 0, noise.flat(), drawn)
    way = great_circle(start.unsqueeze(0), end.unsqueeze(0), points).squeeze(1)
    first, last = molecules.sizes.tolist()
    sizes = torch.linspace(first, last, points).round().long()
    _, found = model.to_points(model.points(way), sizes)
    return found.complete().molecules(model.vocabulary)


def _batch(molecules: list[MoleculeGraph], vocabulary: Vocabulary) -> MoleculeBatch:
    encoder = Encoder()
    for number, molecule in enumerate(molecules):
        encoder.add(molecule, str(number))
    return encoder.finish("ends").relabelled(vocabulary).batch(range(len(molecules)))


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
