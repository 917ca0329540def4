"""GraphNVP: an invertible flow on whole molecules, atoms and bonds (Madhawa et al. 2019).

Labels become points by uniform noise above one-hot vectors; couplings, one atom against the rest each, carry the
points to normal noise. Two flows: one of the pairs, and one of the atoms given the bonds without noise. Sampling
inverts the first and quantises, then inverts the second given those bonds, and quantises.

Three things are otherwise than in the paper's own code, and why:

- A pair has one set of numbers. There the flow is of the full matrix, both (i, j) and (j, i), and samples are
  symmetrised afterwards, so that what is sampled does not have the density that was trained.
- The log-determinant of an affine coupling counts the numbers that it scales once. There it is N times too large.
- The number of atoms is drawn first, as the data has it, and what is beyond has no numbers. There it is a type of
  atom, which the flow has to learn to have no bonds, and the bonds that it has anyway are dropped from the samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.fields.coupling import AtomCoupling, PairCoupling, Surroundings
from graphgen.fields.layers import Linear, MessageLayer
from graphgen.graph import GraphBatch
from graphgen.models.log_prob import LogProb
from graphgen.models.sized import SizedModel
from graphgen.molecules.complete import PAIR_TYPES, CompleteGraphs
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.molecules.orders import canonical_order, shuffled_atoms
from graphgen.molecules.padded import PaddedMolecules
from graphgen.molecules.vocabulary import BOND_TYPES, Vocabulary
from graphgen.ops.noise import Stream

COUPLINGS = ("affine", "additive")
ORDERS = ("data", "canonical", "bfs", "random")
_KINDS = len(PAIR_TYPES)
_MOST_BONDS = 4  # of one type that are told apart
_SMALL = 12  # atoms; up to here every atom's turn comes several times, as in the paper


class Points(NamedTuple):
    """Numbers of B molecules padded to n atoms, 0 where a molecule has none: the data side of the flows or the noise.

    Attributes:
        pairs: [B, n (n - 1) / 2 * 4], of the pairs (0, 1), (0, 2), ..., (1, 2), ...
        atoms: [B, n, c].
    """

    pairs: Tensor
    atoms: Tensor

    def flat(self) -> Tensor:
        """[B, D], pairs first."""
        return torch.cat((self.pairs, self.atoms.flatten(1)), 1)


class GraphNVP(SizedModel):
    """Whole molecules by an invertible flow.

    Args:
        vocabulary: the atom types.
        coupling: "affine" or "additive" (volume kept but for the variances of the noise, as in the paper's runs).
        order: of the atoms, whose places the couplings tell apart: "data" (as they come), "canonical" or "bfs" (a walk
            in depth or breadth, see :func:`~graphgen.molecules.orders.canonical_order`: with these the density hardly
            depends on the order that the atoms come in), or "random" (a new one in every training step).
        noise: width of the uniform noise, above 0 and below 1. The paper has 0.9. Narrow noise leaves a gap between
            labels: far better samples of QM9, and a looser bound on the likelihood, which counts nothing of the gap.
        hidden: width of the networks of atoms.
        pair_hidden: width of the networks of pairs.
        layers: rounds of messages about the bonds, before the atoms are looked at.
        rounds: how often it is every atom's turn; None for 4, or 1 if molecules can have more than 12 atoms.
        atoms: n, of the largest molecule; None takes it from the training data.

    Raises:
        GraphgenError: an unknown coupling or order, or a number out of range.
    """

    name = "graph-nvp"

    def __init__(
        self,
        vocabulary: Vocabulary,
        coupling: str = "affine",
        order: str = "data",
        noise: float = 0.2,
        hidden: int = 64,
        pair_hidden: int = 128,
        layers: int = 3,
        rounds: int | None = None,
        atoms: int | None = None,
    ) -> None:
        if coupling not in COUPLINGS:
            raise GraphgenError(f"coupling {coupling!r}: choose one of {', '.join(COUPLINGS)}")
        if order not in ORDERS:
            raise GraphgenError(f"order {order!r}: choose one of {', '.join(ORDERS)}")
        if not 0 < noise < 1:
            raise GraphgenError(f"noise ({noise}) must lie between 0 and 1, or labels could not be told from points")
        if layers < 1 or (rounds is not None and rounds < 1):
            raise GraphgenError(f"layers ({layers}) and rounds ({rounds}) must be at least 1")
        super().__init__(
            vocabulary,
            coupling=coupling,
            order=order,
            noise=noise,
            hidden=hidden,
            pair_hidden=pair_hidden,
            layers=layers,
            rounds=rounds,
            atoms=atoms,
        )
        self.log_variances = nn.Parameter(torch.zeros(2))  # of the noise of pairs and of atoms
        self.structure = Linear(len(BOND_TYPES) * (_MOST_BONDS + 1), hidden)
        self.context = nn.ModuleList(MessageLayer(hidden, len(BOND_TYPES)) for _ in range(layers))
        self.pair_flow, self.atom_flow = nn.ModuleList(), nn.ModuleList()
        if atoms is not None:
            self._build(atoms)

    def _build(self, most: int) -> None:
        """The couplings. The first atom is to be sampled first, so it comes last on the way to noise."""
        settings, types = self.settings, len(self.vocabulary)
        settings["atoms"] = most
        if settings["rounds"] is None:
            settings["rounds"] = 4 if most <= _SMALL else 1
        affine, hidden = settings["coupling"] == "affine", settings["hidden"]
        for atom in [*range(most - 1, -1, -1)] * settings["rounds"]:
            if most > 1:
                self.pair_flow.append(PairCoupling(atom, most, _KINDS, most, settings["pair_hidden"], affine))
            self.atom_flow.append(AtomCoupling(atom, most, types, len(BOND_TYPES), hidden + most, hidden, affine))
        self.to(self.log_variances)

    def fit_prior(self, data: EncodedMolecules) -> None:
        """Take sizes from training data, and make the couplings for the largest molecule.

        Raises:
            GraphgenError: as :meth:`SizedModel.fit_prior`, or a molecule is larger than the couplings were made for.
        """
        super().fit_prior(data)
        largest = int(data.sizes.max())
        if self.settings["atoms"] is None:
            self._build(largest)
        elif largest > self.settings["atoms"]:
            raise GraphgenError(
                f"{data.name}: has a molecule of {largest} atoms, and this {self.name} was made for at most "
                f"{self.settings['atoms']}; make a new one, or leave larger ones out"
            )

    # ---- labels and points ------------------------------------------------------------------------------------------

    def padded(self, batch: MoleculeBatch) -> PaddedMolecules:
        """The molecules of a batch in the model's order of atoms; a random one is that in which they come."""
        whole, order = CompleteGraphs.of(batch), self.settings["order"]
        if order in ("canonical", "bfs"):
            whole = whole.reordered(canonical_order(batch.graph, batch.atoms, breadth_first=order == "bfs"))
        return PaddedMolecules.of(whole, self._most)

    def dequantise(self, molecules: PaddedMolecules, ids: Tensor, seed: int, step: int = 0) -> Points:
        """One-hot labels plus uniform noise, a point of the cube that begins at each corner."""
        present = self.present(molecules.sizes)
        labels = Points(
            nn.functional.one_hot(molecules.bonds[:, *self._ends()], _KINDS).to(self.dtype).flatten(1),
            nn.functional.one_hot(molecules.atoms, len(self.vocabulary)).to(self.dtype),
        )
        one_each = torch.arange(len(ids) + 1, device=ids.device)
        noise = ops.uniform(one_each, self._numbers, seed, Stream.DEQUANTISE, step, ids, self.dtype)
        return self.points((labels.flat() + noise * self.settings["noise"]) * present.flat())

    def quantise_pairs(self, pairs: Tensor, sizes: Tensor) -> Tensor:
        """[B, n, n] the bonds whose number is the largest of a pair's four, none where there is no pair."""
        most, (i, j) = self._most, self._ends()
        kinds = pairs.view(len(pairs), -1, _KINDS).argmax(2)
        kinds = torch.where(torch.maximum(i, j) < sizes.unsqueeze(1), kinds, 0)
        bonds = torch.zeros(len(pairs), most, most, dtype=torch.int64, device=pairs.device)
        bonds[:, i, j] = kinds
        bonds[:, j, i] = kinds
        return bonds

    @property
    def _most(self) -> int:
        if self.settings["atoms"] is None:
            raise GraphgenError(f"this {self.name} does not know how large molecules are; train it, or fit_prior(data)")
        return self.settings["atoms"]

    @property
    def _numbers(self) -> int:
        """D, numbers of a padded molecule."""
        return self._most * (self._most - 1) // 2 * _KINDS + self._most * len(self.vocabulary)

    def _ends(self) -> Tensor:
        return torch.triu_indices(self._most, self._most, 1, device=self.log_variances.device)

    def points(self, flat: Tensor) -> Points:
        """What :meth:`Points.flat` made [B, D] of."""
        pairs, atoms = flat.tensor_split([self._numbers - self._most * len(self.vocabulary)], 1)
        return Points(pairs, atoms.unflatten(1, (self._most, len(self.vocabulary))))

    def present(self, sizes: Tensor) -> Points:
        """1 where molecules have a number, else 0."""
        real = torch.arange(self._most, device=sizes.device) < sizes.unsqueeze(1)
        pairs = self._ends()[1] < sizes.unsqueeze(1)
        return Points(
            pairs.to(self.dtype).repeat_interleave(_KINDS, 1),
            real.to(self.dtype).unsqueeze(2).expand(-1, -1, len(self.vocabulary)),
        )

    # ---- the flows --------------------------------------------------------------------------------------------------

    def to_noise(self, points: Points, molecules: PaddedMolecules) -> tuple[Points, Points]:
        """The noise of points, and the log-determinants of the way there, [B] each of pairs and of atoms.

        Args:
            molecules: of which sizes and bonds are looked at; the atoms' flow is given the bonds without noise.
        """
        present, given = self.present(molecules.sizes).pairs, self.given(molecules.sizes)
        around = self.surroundings(molecules)
        pairs, atoms = points.pairs, list(points.atoms.unbind(1))
        of_pairs = of_atoms = pairs.new_zeros(len(pairs))
        for coupling in self.pair_flow:
            pairs, log_det = coupling(pairs, given, present)
            of_pairs = of_pairs + log_det
        for coupling in self.atom_flow:
            atoms, log_det = coupling(atoms, around)
            of_atoms = of_atoms + log_det
        return Points(pairs, torch.stack(atoms, 1)), Points(of_pairs, of_atoms)

    def to_points(self, noise: Points, sizes: Tensor) -> tuple[Points, PaddedMolecules]:
        """The points of noise, and the molecules of the labels nearest to them: bonds first, and atoms given those."""
        present, given = self.present(sizes), self.given(sizes)
        pairs = noise.pairs * present.pairs
        for coupling in _backwards(self.pair_flow):
            pairs = coupling.inverse(pairs, given, present.pairs)
        bonds = self.quantise_pairs(pairs, sizes)
        molecules = PaddedMolecules(sizes, bonds.new_zeros(bonds.shape[:2]), bonds)
        around, parts = self.surroundings(molecules), list((noise.atoms * present.atoms).unbind(1))
        for coupling in _backwards(self.atom_flow):
            parts = coupling.inverse(parts, around)
        atoms = torch.stack(parts, 1)
        labels = torch.where(molecules.real, atoms.argmax(2), 0)
        return Points(pairs, atoms), molecules._replace(atoms=labels)

    def given(self, sizes: Tensor) -> Tensor:
        """[B, n] one-hot sizes, which every coupling knows."""
        return nn.functional.one_hot(sizes - 1, self._most).to(self.dtype)

    def surroundings(self, molecules: PaddedMolecules) -> Surroundings:
        """What the atoms' flow is told of the bonds: those of each atom, and what a graph network finds of it."""
        count, most = molecules.atoms.shape
        molecule, target, source = molecules.bonds.nonzero().unbind(1)
        graph = GraphBatch.from_edge_index(
            torch.stack((molecule * most + source, molecule * most + target)),
            count * most,
            ptr=torch.arange(count + 1, device=molecule.device) * most,
            edge_attr=molecules.bonds[molecule, target, source] - 1,
        )
        bonded = nn.functional.one_hot(molecules.bonds, _KINDS)[..., 1:]
        degrees = nn.functional.one_hot(bonded.sum(2).clamp(max=_MOST_BONDS), _MOST_BONDS + 1)
        h = self.structure(degrees.to(self.dtype).view(count * most, -1))
        for layer in self.context:
            h = layer(h, graph)
        size = self.given(molecules.sizes).unsqueeze(1).expand(-1, most, -1)
        others = [
            torch.cat((rows[:, :atom], rows[:, atom + 1 :]), 1)
            for atom, rows in enumerate(bonded.to(self.dtype).unbind(1))
        ]
        return Surroundings(
            others,
            torch.cat((h.view(count, most, -1), size), 2).unbind(1),
            molecules.real.to(self.dtype).unsqueeze(2).unbind(1),
        )

    # ---- learning ---------------------------------------------------------------------------------------------------

    def log_densities(self, points: Points, molecules: PaddedMolecules) -> Points:
        """Log-densities [B], nats, of the points of the pairs, and of those of the atoms given the bonds."""
        noise, log_dets = self.to_noise(points, molecules)
        found = []
        for z, log_det, own, log_variance in zip(
            noise, log_dets, self.present(molecules.sizes), self.log_variances, strict=True
        ):
            energy = z * z * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)
            found.append(log_det - (energy * own).flatten(1).sum(1) / 2)
        return Points(*found)

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0) -> Tensor:
        """Minus the log-density of pairs per number of a pair, plus the same of atoms: nats.

        Args:
            seed, step: of the noise; the same pair gives the same loss.
        """
        if self.settings["order"] == "random":
            batch = shuffled_atoms(batch, seed, step)
        molecules = self.padded(batch)
        found = self.log_densities(self.dequantise(molecules, batch.ids, seed, step), molecules)
        counts = (own.sum().clamp(min=1) for own in self.present(molecules.sizes))
        return sum((-value.sum() / count for value, count in zip(found, counts, strict=True)), torch.zeros(()))

    def log_prob(
        self, batch: MoleculeBatch, seed: int = 0, step: int = 0, samples: int = 1, **solver: object
    ) -> LogProb:
        """An unbiased estimate of a lower bound on log P(labels and bonds, in the model's order of atoms), in nats.

        The share of molecules of that size, and the mean log-density of the labels' points plus D log(noise) for D
        numbers: Jensen's inequality on the cube of the points, all of which quantise to the labels (Theis et al. 2016).
        The density is exact. Samples of temperature 1 have the bonds' and the atoms' labels from all points that
        quantise to them, of which the cube is a part.

        Args:
            seed, step: of the noise.
            samples: draws to average over.
            solver: ignored; there is no ODE to solve.

        Returns:
            Value and standard error over the draws (NaN for one) per graph; -inf where no training molecule has so many
            atoms. Differentiable.

        Raises:
            GraphgenError: it has seen no data.
        """
        sizes = batch.graph.ptr.diff()
        of_size = self.log_prob_of_sizes(sizes).to(self.dtype)
        molecules = self.padded(batch)
        numbers = self.present(molecules.sizes).flat().sum(1)
        volume = of_size + numbers * math.log(self.settings["noise"])
        values = []
        for sample in range(samples):
            points = self.dequantise(molecules, batch.ids, seed, step * samples + sample)
            values.append(volume + sum(self.log_densities(points, molecules)))
        return LogProb.of_draws(values, batch.graph, samples)

    # ---- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, ids: Tensor, seed: int, sizes: Tensor | None = None, temperature: float = 1.0) -> CompleteGraphs:
        """Whole molecules: carry noise back along the flows.

        Args:
            ids: [B] what identifies each molecule to the noise source.
            sizes: [B] int64 numbers of atoms; None draws them as the training data has them.
            temperature: the noise has its learned deviation times this; 1 is what was trained.

        Returns:
            The same molecule of the same (seed, id) in any batch.

        Raises:
            GraphgenError: a temperature below 0, or it has seen no data.
        """
        if not 0 <= temperature < math.inf:
            raise GraphgenError(f"the temperature ({temperature}) of a {self.name} must be 0 or more")
        sizes = self.draw_sizes(ids, seed) if sizes is None else sizes
        noise = self.points(self.prior(ids, seed).flat() * temperature)
        return self.to_points(noise, sizes)[1].complete()

    def prior(self, ids: Tensor, seed: int) -> Points:
        """The noise that samples of temperature 1 are made of, behind the last atom too."""
        one_each = torch.arange(len(ids) + 1, device=ids.device)
        pairs, atoms = self.points(ops.normal(one_each, self._numbers, seed, Stream.PRIOR, 0, ids, self.dtype))
        deviations = torch.exp(self.log_variances / 2)
        return Points(pairs * deviations[0], atoms * deviations[1])


def _backwards(couplings: nn.ModuleList) -> Iterator[Any]:
    return reversed(list(couplings))
