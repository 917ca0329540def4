"""GraphVAE: whole molecules by a variational autoencoder whose decoder writes all labels at once.

The encoder passes messages along the bonds and sums gated states; the decoder is a plain network from z to the laws of
all places and all pairs of the largest molecule, of which one of n atoms is the first n places and the pairs of them.
The baseline that MPGVAE was made to better: no place sees another but through z.

Simonovsky and Komodakis, ICANN 2018. Not as there: one softmax says whether a pair is bonded and how (the product of
their two), and a molecule's size is drawn, not decoded.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.fields.layers import Linear, MessageLayer
from graphgen.models.matching import Laws
from graphgen.models.sized import MOST_ATOMS
from graphgen.models.vae import VariationalModel
from graphgen.molecules.complete import PAIR_TYPES
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.molecules.vocabulary import BOND_TYPES, Vocabulary
from graphgen.ops import Pairs


class GraphVAE(VariationalModel):
    """Whole molecules by a plain network from normal latents.

    Args:
        vocabulary: the atom types.
        latent: numbers that z has.
        hidden: width of the encoder; the decoder's three layers have 2, 4 and 8 times it.
        layers: rounds of messages of the encoder.
        max_atoms: places of the decoder; no molecule of the data may have more atoms.
        kl_weight, kl_anneal_steps, matching: see :class:`~graphgen.models.vae.VariationalModel`.

    Raises:
        GraphgenError: a setting out of range.
    """

    name = "graph-vae"

    def __init__(
        self,
        vocabulary: Vocabulary,
        latent: int = 32,
        hidden: int = 64,
        layers: int = 3,
        max_atoms: int = 9,
        kl_weight: float = 0.5,
        kl_anneal_steps: int = 1000,
        matching: str = "canonical",
    ) -> None:
        if not 1 <= max_atoms <= MOST_ATOMS:
            raise GraphgenError(f"max atoms ({max_atoms}) must be 1 to {MOST_ATOMS}")
        super().__init__(
            vocabulary,
            latent=latent,
            hidden=hidden,
            layers=layers,
            max_atoms=max_atoms,
            kl_weight=kl_weight,
            kl_anneal_steps=kl_anneal_steps,
            matching=matching,
        )
        self.max_atoms = max_atoms
        self.atom = nn.Embedding(len(vocabulary), hidden)
        self.place = nn.Embedding(max_atoms, hidden)
        self.messages = nn.ModuleList(MessageLayer(hidden, len(BOND_TYPES)) for _ in range(layers))
        self.gate_value = Linear(hidden, 2 * hidden)
        self.out = Linear(hidden, 2 * latent)
        widths = [2 * hidden, 4 * hidden, 8 * hidden]
        self.first = Linear(latent, widths[0])
        self.size = nn.Embedding(max_atoms + 1, widths[0])
        self.wider = nn.ModuleList(Linear(*ends) for ends in pairwise(widths))
        self.of_atoms = Linear(widths[-1], max_atoms * len(vocabulary))
        self.of_pairs = Linear(widths[-1], max_atoms * (max_atoms - 1) // 2 * len(PAIR_TYPES))

    def fit_prior(self, data: EncodedMolecules) -> None:
        most = int(data.sizes.max()) if len(data) else 0
        if most > self.max_atoms:
            raise GraphgenError(
                f"{data.name}: has a molecule of {most} atoms, and this graph-vae has places for {self.max_atoms}; "
                f"make it with max_atoms={most} (--max-atoms {most})"
            )
        super().fit_prior(data)

    def encode(self, batch: MoleculeBatch, place: Tensor) -> tuple[Tensor, Tensor]:
        h = self.atom.weight[batch.atoms] + self.place.weight[place]
        for layer in self.messages:
            h = layer(h, batch.graph)
        gate, value = self.gate_value(h).chunk(2, 1)
        whole = torch.tanh(ops.segment_reduce(torch.sigmoid(gate) * torch.tanh(value), batch.graph.ptr))
        mean, log_std = self.out(whole).chunk(2, 1)
        return mean, log_std

    def decode(self, z: Tensor, ptr: Tensor) -> Laws:
        tokens, n = Pairs(ptr), self.max_atoms
        h = ops.activation(self.first(z) + self.size.weight[tokens.ptr.diff()])
        for layer in self.wider:
            h = ops.activation(layer(h))
        begin = tokens.ptr[tokens.of_atom]
        place = torch.arange(len(begin), device=z.device) - begin
        i, j = place[tokens.first], place[tokens.second]
        atoms = self.of_atoms(h).view(len(h), n, -1)[tokens.of_atom, place]
        pairs = self.of_pairs(h).view(len(h), n * (n - 1) // 2, -1)[
            tokens.of_pair, i * (2 * n - i - 1) // 2 + j - i - 1
        ]
        return Laws(atoms + self.atom_shares.log(), pairs + self.pair_shares.log())
