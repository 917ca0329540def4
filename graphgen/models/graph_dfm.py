"""Graph discrete flow matching: whole molecules, atoms and bonds together, with no skeleton and no repair.

Every atom's label and every pair's bond is a token on a path from noise to data, see
:mod:`graphgen.solvers.discrete_flow`; the field learns the posterior of what each is in the end, given all of them
(Campbell et al. 2024; Gat et al. 2024; on graphs: Qin et al. 2024, DeFoG). By Bayes' rule a token's own state x adds
log(1 + t / ((1 - t) noise(x))) to the logit of x, which the field need not learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.fields.pair import PairField, PairFunction
from graphgen.graph import GraphBatch
from graphgen.models.base import Model
from graphgen.molecules.complete import PAIR_TYPES, CompleteGraphs, pair_ends, pair_ptr
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.molecules.trajectory import Frame
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops.noise import Stream
from graphgen.solvers import discrete_flow

PATHS = ("marginal", "uniform", "absorbing")
BOND_WEIGHT = 5.0  # of the pairs in the loss (Vignac et al. 2023)
MOST_ATOMS = 255
_COUNTED_AT_ONCE = 4096


class GraphDFM(Model):
    """Whole molecules by discrete flow matching.

    Args:
        vocabulary: the atom types.
        path: the noise that labels come from: "marginal" (each as often as in the training data), "uniform", or
            "absorbing" (a mask state, from which a token jumps once).
        hidden, pair_hidden, layers, heads: size of the :class:`~graphgen.fields.PairField`.

    Attributes:
        atom_noise, pair_noise: the noise laws; the mask is the last state.
        size_counts: [256] int64, how many training molecules have so many atoms.

    Raises:
        GraphgenError: an unknown path, or heads that do not divide the width.
    """

    name = "graph-dfm"
    samples_bonds = True

    atom_noise: Tensor
    pair_noise: Tensor
    size_counts: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        path: str = "marginal",
        hidden: int = 96,
        pair_hidden: int = 48,
        layers: int = 5,
        heads: int = 4,
    ) -> None:
        super().__init__(vocabulary, path=path, hidden=hidden, pair_hidden=pair_hidden, layers=layers, heads=heads)
        if path not in PATHS:
            raise GraphgenError(f"path {path!r}: choose one of {', '.join(PATHS)}")
        if heads < 1 or hidden % heads:
            raise GraphgenError(f"heads ({heads}) must divide hidden ({hidden})")
        laws = [_noise_law(path, types) for types in (len(vocabulary), len(PAIR_TYPES))]
        self.field = PairField(len(vocabulary), len(laws[0]), len(laws[1]), hidden, pair_hidden, layers, heads)
        self.register_buffer("atom_noise", laws[0])
        self.register_buffer("pair_noise", laws[1])
        self.register_buffer("size_counts", torch.zeros(MOST_ATOMS + 1, dtype=torch.int64))

    def fit_prior(self, data: EncodedMolecules) -> None:
        """Take the sizes, and for the marginal path the shares of labels, from training data.

        A type that does not occur counts once, so that noise reaches every state.

        Raises:
            GraphgenError: other atom types than the model's, or more atoms than a complete graph is made for.
        """
        if data.vocabulary != self.vocabulary:
            raise GraphgenError(f"{data.name}: has other atom types than the model; make the model for its vocabulary")
        sizes = data.sizes
        if len(sizes) and int(sizes.max()) > MOST_ATOMS:
            raise GraphgenError(
                f"{data.name}: has a molecule of {int(sizes.max())} atoms, and {self.name}, which looks at all pairs, "
                f"takes at most {MOST_ATOMS}; leave larger ones out"
            )
        self.size_counts.copy_(torch.bincount(sizes, minlength=MOST_ATOMS + 1))
        if self.settings["path"] != "marginal":
            return
        atoms = torch.zeros(len(self.vocabulary), dtype=torch.int64)
        pairs = torch.zeros(len(PAIR_TYPES), dtype=torch.int64)
        for indices in torch.arange(len(data)).split(_COUNTED_AT_ONCE):
            batch = data.batch(indices)
            assert batch.graph.edge_attr is not None, "a batch of molecules has bond types"
            atoms += torch.bincount(batch.atoms, minlength=len(atoms))
            pairs[1:] += torch.bincount(batch.graph.edge_attr, minlength=len(pairs) - 1)
        pairs[0] = (sizes * (sizes - 1)).sum() - pairs.sum()
        pairs //= 2  # a batch has both directions
        for law, counts in ((self.atom_noise, atoms), (self.pair_noise, pairs)):
            law.copy_(counts.clamp(min=1) / counts.clamp(min=1).sum())

    # ---- the posterior ----------------------------------------------------------------------------------------------

    def bind_logits(self, ptr: Tensor) -> PairFunction:
        """``(t [B], atoms [N], pairs [P]) -> [N, c], [P, 4]``: log-probabilities (up to a constant) of the ends.

        Args:
            ptr: [B + 1], molecule g owns the atoms ``ptr[g]:ptr[g + 1]``.
        """
        field = self.field.bind(ptr)
        of_atom, of_pair = _owners(ptr.long()), _owners(pair_ptr(ptr))

        def logits(t: Tensor, atoms: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
            atom_logits, pair_logits = field(t, atoms, pairs)
            return (
                _with_evidence(atom_logits, atoms, t[of_atom], self.atom_noise),
                _with_evidence(pair_logits, pairs, t[of_pair], self.pair_noise),
            )

        return logits

    # ---- learning ---------------------------------------------------------------------------------------------------

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0) -> Tensor:
        """Cross-entropy of the ends at a random point of the path, nats: per atom, plus 5 times that per pair.

        Args:
            seed, step: of the noise; the same pair gives the same loss.
        """
        end = CompleteGraphs.of(batch)
        first, second = pair_ends(end.ptr)
        t = self.times(batch, seed, step)
        atoms, pairs = self.corrupt(end, t, batch.ids, seed, step)
        atom_logits, pair_logits = self.bind_logits(end.ptr)(t, atoms, pairs)
        once = first < second
        of_pairs = nn.functional.cross_entropy(pair_logits[once], end.pairs[once], reduction="sum")
        return nn.functional.cross_entropy(atom_logits, end.atoms) + BOND_WEIGHT * of_pairs / once.sum().clamp(min=1)

    def corrupt(self, end: CompleteGraphs, t: Tensor, ids: Tensor, seed: int, step: int = 0) -> tuple[Tensor, Tensor]:
        """States [N] of atoms and [P] of pairs at times t [B] of the paths to whole molecules."""
        begins = pair_ptr(end.ptr)
        atom_uniform = ops.uniform(end.ptr, 2, seed, Stream.PATH, step, ids)
        pair_uniform = ops.uniform(begins, 2, seed, Stream.PAIR_PATH, step, ids, symmetric=True)
        atoms = discrete_flow.corrupt(end.atoms, t[_owners(end.ptr)], self.atom_noise, atom_uniform)
        pairs = discrete_flow.corrupt(end.pairs, t[_owners(begins)], self.pair_noise, pair_uniform)
        return atoms, pairs * _apart(end.ptr)

    # ---- sampling ---------------------------------------------------------------------------------------------------

    def draw_sizes(self, ids: Tensor, seed: int) -> Tensor:
        """[B] int64 numbers of atoms, with the shares of the training data.

        Raises:
            GraphgenError: it has seen no data.
        """
        if not bool(self.size_counts.any()):
            raise GraphgenError(f"this {self.name} does not know how large molecules are; train it, or fit_prior(data)")
        one_each = torch.arange(len(ids) + 1, device=ids.device)
        uniform = ops.uniform(one_each, 1, seed, Stream.SIZE, 0, ids, torch.float64)
        return discrete_flow.draw(self.size_counts.double().expand(len(ids), -1), uniform.squeeze(1))

    def sample(
        self,
        ids: Tensor,
        seed: int,
        sizes: Tensor | None = None,
        steps: int = 100,
        eta: float = 0.0,
        temperature: float = 1.0,
        distortion: str = "polydec",
    ) -> CompleteGraphs:
        """Whole molecules: carry noise along the flow.

        Args:
            ids: [B] what identifies each molecule to the noise source.
            sizes: [B] int64 numbers of atoms; None draws them as the training data has them.
            steps: one field evaluation each.
            eta: rate of jumps in detailed balance, which change no law but let later tokens correct earlier ones.
            temperature: the ends are drawn from ``softmax(logits / temperature)``; above 0.
            distortion: how t grows over the steps, "polydec" (t = 2 u - u^2: ever shorter steps) or "identity".

        Returns:
            The same molecule of the same (seed, id) in any batch, but for labels drawn so close to the border of two
            that the field's rounding decides, see :class:`~graphgen.fields.PairField`.

        Raises:
            GraphgenError: an option out of range.
        """
        return self._carry(ids, seed, sizes, steps, eta, temperature, distortion, lambda *_: None)

    def trajectory(
        self, ids: Tensor, seed: int, times: Sequence[float], steps: int = 100
    ) -> tuple[GraphBatch, list[Frame]]:
        """What :meth:`sample` of the same arguments thinks of every atom and pair at some times of its way.

        Args:
            times: when to look, in order, from 0 to 1, as shares of the steps; taken to the nearest step.

        Returns:
            The complete graphs, and a frame for each time: the posterior then, and at 1 the molecule itself.
        """
        seen: dict[int, tuple[Tensor, Tensor]] = {}
        end = self._carry(ids, seed, None, steps, 0.0, 1.0, "polydec", lambda step, *law: seen.update({step: law}))
        ends = (end.atoms, len(self.vocabulary)), (end.pairs, len(PAIR_TYPES))
        atoms, pairs = (nn.functional.one_hot(labels, count).to(self.dtype) for labels, count in ends)
        seen[steps] = atoms, pairs
        first, second = pair_ends(end.ptr)
        apart = first != second
        graph = GraphBatch.from_edge_index(torch.stack((second[apart], first[apart])), len(end.atoms), ptr=end.ptr)
        looked = [seen[round(time * steps)] for time in times]
        return graph, [Frame(time, *(a, p[apart])) for time, (a, p) in zip(times, looked, strict=True)]

    @torch.no_grad()
    def _carry(
        self,
        ids: Tensor,
        seed: int,
        sizes: Tensor | None,
        steps: int,
        eta: float,
        temperature: float,
        distortion: str,
        watch: Callable[[int, Tensor, Tensor], object],
    ) -> CompleteGraphs:
        if distortion not in discrete_flow.CLOCKS:
            raise GraphgenError(f"distortion {distortion!r}: choose one of {', '.join(discrete_flow.CLOCKS)}")
        if steps < 1 or eta < 0 or temperature <= 0:
            raise GraphgenError(
                f"steps ({steps}) must be at least 1, eta ({eta}) 0 or more, and the temperature ({temperature}) of a "
                f"{self.name} above 0"
            )
        sizes = self.draw_sizes(ids, seed) if sizes is None else sizes
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        begins, apart = pair_ptr(ptr), _apart(ptr)

        def of_atoms(law: Tensor, stream: Stream, step: int = 0) -> Tensor:
            return discrete_flow.draw(law, ops.uniform(ptr, 1, seed, stream, step, ids).squeeze(1))

        def of_pairs(law: Tensor, stream: Stream, step: int = 0) -> Tensor:
            uniform = ops.uniform(begins, 1, seed, stream, step, ids, symmetric=True)
            return discrete_flow.draw(law, uniform.squeeze(1)) * apart

        logits, clock = self.bind_logits(ptr), discrete_flow.CLOCKS[distortion]
        atoms = of_atoms(self.atom_noise.expand(int(ptr[-1]), -1), Stream.PRIOR)
        pairs = of_pairs(self.pair_noise.expand(int(begins[-1]), -1), Stream.PAIR_PRIOR)
        for step in range(steps):
            t, end = clock(step / steps), clock((step + 1) / steps)
            found = logits(torch.full((len(ids),), t, dtype=self.dtype, device=ids.device), atoms, pairs)
            atom_law, pair_law = ((x / temperature).softmax(1) for x in found)
            watch(step, atom_law, pair_law)
            atoms = of_atoms(discrete_flow.transition(atoms, atom_law, t, end, self.atom_noise, eta), Stream.STEP, step)
            pairs = of_pairs(
                discrete_flow.transition(pairs, pair_law, t, end, self.pair_noise, eta), Stream.PAIR_STEP, step
            )
        return CompleteGraphs(ptr, atoms, pairs)


def _noise_law(path: str, types: int) -> Tensor:
    """[S] float32; that of the data is not known yet."""
    if path == "absorbing":
        return nn.functional.one_hot(torch.tensor(types), types + 1).float()
    return torch.full((types,), 1 / types)


def _owners(ptr: Tensor) -> Tensor:
    """[ptr[-1]] the graph of each row."""
    return torch.repeat_interleave(torch.arange(len(ptr) - 1, device=ptr.device), ptr.diff())


def _apart(ptr: Tensor) -> Tensor:
    """[P] bool: pairs of two atoms, which only can be bonded."""
    first, second = pair_ends(ptr)
    return first != second


def _with_evidence(logits: Tensor, state: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Logits of the ends with what their own states say of them; a mask says nothing."""
    own = nn.functional.one_hot(state, len(noise))[:, : logits.shape[1]]
    return logits + own * discrete_flow.evidence(state, t, noise).unsqueeze(1)
