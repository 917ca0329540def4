"""What variational autoencoders of whole molecules share: the bound, the latents' noise, sampling and reconstruction.

A molecule of n atoms is decoded from latents z, normal of mean 0 and deviation 1 whatever n is, and n is drawn as often
as the training data has it: nothing has to learn where a molecule ends, and the sizes of samples are right by
construction. (GraphVAE lets the decoder say which of its places are empty; that is one more thing to get wrong.) Given
z and n, the labels of atoms and pairs are independent of each other: all that makes a molecule hold together must be
in z, or be found out by the decoder from it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.models.log_prob import LogProb
from graphgen.models.matching import MATCHINGS, Laws, missed
from graphgen.models.whole import WholeMoleculeModel
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.orders import canonical_order
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops import Pairs
from graphgen.ops.noise import Stream
from graphgen.solvers.discrete_flow import draw


class VariationalModel(WholeMoleculeModel, ABC):
    """Whole molecules from normal latents.

    Args:
        vocabulary: the atom types.
        settings: ``latent``, how many numbers z has; ``kl_weight``, what a nat of divergence from the prior counts
            beside a nat of reconstruction (below 1 molecules come back better, and the latents of the data fill the
            prior less evenly, so that samples of it are decoded where nothing was learnt; at 1 the loss is the bound);
            ``kl_anneal_steps``, over how many training steps that weight rises from 0; ``matching``, one of
            :data:`~graphgen.models.matching.MATCHINGS`; and those of the networks.

    Raises:
        GraphgenError: a setting out of range.
    """

    def __init__(self, vocabulary: Vocabulary, **settings: Any) -> None:
        if settings["matching"] not in MATCHINGS:
            raise GraphgenError(f"matching {settings['matching']!r}: choose one of {', '.join(MATCHINGS)}")
        if settings["latent"] < 1 or settings["kl_weight"] < 0 or settings["kl_anneal_steps"] < 0:
            raise GraphgenError(
                f"latent ({settings['latent']}) must be at least 1, kl weight ({settings['kl_weight']}) and kl anneal "
                f"steps ({settings['kl_anneal_steps']}) 0 or more"
            )
        super().__init__(vocabulary, **settings)
        self.latent: int = settings["latent"]

    # ---- the networks -----------------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, batch: MoleculeBatch, place: Tensor) -> tuple[Tensor, Tensor]:
        """[B, latent] means and logarithms of the deviations of the latents, see :meth:`posterior`.

        Args:
            place: [N] int64 the place of each atom in its molecule's canonical order.
        """

    @abstractmethod
    def decode(self, z: Tensor, ptr: Tensor) -> Laws:
        """Logits of molecules of the sizes of ``ptr`` [B + 1], decoded from z [B, latent]."""

    def posterior(self, batch: MoleculeBatch, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, latent] means and logarithms of the deviations of the latents of molecules, in any order of atoms.

        The networks are told each atom's place in the canonical order. That depends on the molecule alone, so they
        stay blind to the order given, and have not to learn which place the decoder will look for an atom at.

        Args:
            order: as :func:`~graphgen.molecules.orders.canonical_order` has it; None looks for it.
        """
        order = canonical_order(batch.graph, batch.atoms) if order is None else order
        place = order.argsort()
        return self.encode(batch, place - batch.graph.ptr.long()[batch.graph.batch.long()])

    # ---- learning ---------------------------------------------------------------------------------------------------

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0) -> Tensor:
        """Reconstruction plus weighted divergence from the prior, nats per atom; at weight 1 minus the bound's mean.

        The weight is ``kl_weight`` times the share of ``kl_anneal_steps`` that is done by ``step``: latents that cost
        from the start are given up before the decoder has learnt to read them (Bowman et al., CoNLL 2016).

        Args:
            seed, step: of the latents' noise; the same pair gives the same loss.
        """
        order = canonical_order(batch.graph, batch.atoms)
        mean, log_std = self.posterior(batch, order)
        z = mean + log_std.exp() * self._noise(batch.ids, seed, Stream.PATH, step)
        divergence = (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).sum()
        risen = min(1.0, (step + 1) / max(self.settings["kl_anneal_steps"], 1))
        weight = self.settings["kl_weight"] * risen
        return (self._missed(batch, z, order).sum() + weight * divergence) / max(len(batch.atoms), 1)

    def log_prob(self, batch: MoleculeBatch, seed: int = 0, step: int = 0, samples: int = 1, **solver: Any) -> LogProb:
        """A lower bound on log P(molecule), in nats: the evidence bound, or with more samples the tighter one.

        Of weights w = P(n) P(molecule | z, n) p(z) / q(z | molecule) of latents drawn from q: the logarithm of their
        mean, whose expectation is a bound for any number of them, at one that of the ELBO. The molecule is read in the
        order of atoms that its matching gives, and any order makes the same molecule, so this bounds the probability
        of the molecule in all its orders; it is not less for atoms renamed.

        Args:
            seed, step: of the noise.
            samples: K, draws of z.
            solver: ignored; there is nothing to solve.

        Returns:
            Value and standard error (by the delta method; NaN for one sample) per molecule; -inf where no training
            molecule has so many atoms. Differentiable.

        Raises:
            GraphgenError: it has seen no data.

        Source: Burda, Grosse and Salakhutdinov, ICLR 2016 (importance weighted autoencoders), equation 8.
        """
        order = canonical_order(batch.graph, batch.atoms)
        mean, log_std = self.posterior(batch, order)
        of_size = self.log_prob_of_sizes(batch.graph.ptr.diff()).to(self.dtype)
        values = []
        for sample in range(samples):
            noise = self._noise(batch.ids, seed, Stream.PATH, step * samples + sample)
            z = mean + log_std.exp() * noise
            ratio = (0.5 * (noise.square() - z.square()) + log_std).sum(1)
            values.append(of_size + ratio - self._missed(batch, z, order))
        draws = torch.stack(values)
        value = draws.logsumexp(0) - math.log(samples)
        spread = (draws - value).exp().std(0) / samples**0.5 if samples > 1 else torch.full_like(value, torch.nan)
        return LogProb(value, spread.detach(), batch.graph.ptr.diff(), samples)

    def _missed(self, batch: MoleculeBatch, z: Tensor, order: Tensor) -> Tensor:
        """[B] minus the log-probability of the molecules given z, matched, nats."""
        end = CompleteGraphs.of(batch)
        laws = self.decode(z, end.ptr)
        search = MATCHINGS[self.settings["matching"]]
        return missed(end.reordered(order if search is None else search(batch, end, laws)), laws)

    def _noise(self, ids: Tensor, seed: int, stream: Stream, step: int = 0) -> Tensor:
        one_each = torch.arange(len(ids) + 1, device=ids.device)
        return ops.normal(one_each, self.latent, seed, stream, step, ids, self.dtype)

    # ---- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, ids: Tensor, seed: int, sizes: Tensor | None = None, temperature: float = 0.0) -> CompleteGraphs:
        """Whole molecules: latents from the prior, decoded at once.

        Args:
            ids: [B] what identifies each molecule to the noise source.
            sizes: [B] int64 numbers of atoms; None draws them as the training data has them.
            temperature: 0 takes the likeliest label of every atom and pair; above, labels are drawn from
                ``softmax(logits / temperature)``, at 1 by the model's own law.

        Returns:
            The same molecule of the same (seed, id) in any batch, but for labels so close to the border of two that
            rounding decides.

        Raises:
            GraphgenError: a temperature below 0, or it has seen no data.
        """
        if not 0 <= temperature < math.inf:
            raise GraphgenError(f"temperature ({temperature}) must be 0 or more")
        sizes = self.draw_sizes(ids, seed) if sizes is None else sizes
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        laws = self.decode(self._noise(ids, seed, Stream.PRIOR), ptr)
        if temperature == 0:
            return CompleteGraphs(ptr, *(logits.argmax(1) for logits in laws))
        bounds = ptr, Pairs(ptr).pair_ptr
        drawn = (
            draw((logits / temperature).softmax(1), ops.uniform(bound, 1, seed, Stream.LABEL, k, ids).squeeze(1))
            for k, (logits, bound) in enumerate(zip(laws, bounds, strict=True))
        )
        return CompleteGraphs(ptr, *drawn)

    @torch.no_grad()
    def comes_back(self, batch: MoleculeBatch) -> Tensor:
        """[B] bool, whether the likeliest labels at the mean latents are the same molecule, in whatever order."""
        mean, _ = self.posterior(batch)
        ptr = batch.graph.ptr.long()
        laws = self.decode(mean, ptr)
        found, given = (
            _in_canonical_order(whole)
            for whole in (CompleteGraphs(ptr, *(logits.argmax(1) for logits in laws)), CompleteGraphs.of(batch))
        )
        tokens = Pairs(ptr)
        wrong = torch.zeros(tokens.molecules, dtype=torch.int64, device=ptr.device)
        wrong = wrong.index_add(0, tokens.of_atom, (found.atoms != given.atoms).long())
        return wrong.index_add(0, tokens.of_pair, (found.pairs != given.pairs).long()) == 0


def _in_canonical_order(whole: CompleteGraphs) -> CompleteGraphs:
    tokens, bonded = Pairs(whole.ptr), whole.pairs > 0
    ends = tokens.first[bonded], tokens.second[bonded]
    edges = torch.stack((torch.cat(ends), torch.cat(ends[::-1])))
    kinds = (whole.pairs[bonded] - 1).repeat(2)
    graph = GraphBatch.from_edge_index(edges, len(whole.atoms), ptr=whole.ptr, edge_attr=kinds)
    return whole.reordered(canonical_order(graph, whole.atoms))
