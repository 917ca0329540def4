"""MPGVAE: whole molecules by a variational autoencoder that passes messages on both sides.

The encoder sees a molecule's bonds: in each round atoms receive the messages of all bonds and what attention picks of
their neighbours, and a gated recurrent unit takes both in; a set-to-set readout gives the latents, whatever the order
of atoms. The decoder sees a complete graph: a recurrent network unrolls z into the first state of every place, a pair's
first state comes from its two ends, and rounds of messages between all places with a state for every pair settle who
they are. A softmax for every place and for every pair is all that is left: given z, they are independent.

Flam-Shepherd, Wu and Aspuru-Guzik, Machine Learning: Science and Technology 2, 045010, 2021. Not as there: the order
that reconstruction is measured in is said (``matching``), the decoder's rounds are those of our pair field, and a
molecule's size is drawn, not decoded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.fields.layers import Linear
from graphgen.fields.pair import NormLinear, PairLayer
from graphgen.fields.recurrent import GRUCell, SetToSet
from graphgen.graph import GraphBatch
from graphgen.models.matching import Laws
from graphgen.models.sized import MOST_ATOMS
from graphgen.models.vae import VariationalModel
from graphgen.molecules.complete import PAIR_TYPES
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.vocabulary import BOND_TYPES, Vocabulary
from graphgen.ops import Pairs


class MPGVAE(VariationalModel):
    """Whole molecules by message passing from normal latents.

    Args:
        vocabulary: the atom types.
        latent: numbers that z has.
        hidden, pair_hidden: widths of the decoder's places and of their pairs.
        encoder_hidden: width of the encoder.
        layers: rounds of messages of the decoder.
        encoder_layers: of the encoder.
        heads: of the attention; they divide ``hidden`` and ``encoder_hidden``.
        kl_weight, kl_anneal_steps, matching: see :class:`~graphgen.models.vae.VariationalModel`.

    Raises:
        GraphgenError: heads that do not divide the width, or a setting out of range.
    """

    name = "mpgvae"

    def __init__(
        self,
        vocabulary: Vocabulary,
        latent: int = 32,
        hidden: int = 64,
        pair_hidden: int = 32,
        encoder_hidden: int = 48,
        layers: int = 3,
        encoder_layers: int = 3,
        heads: int = 4,
        kl_weight: float = 0.5,
        kl_anneal_steps: int = 1000,
        matching: str = "canonical",
    ) -> None:
        if heads < 1 or hidden % heads or encoder_hidden % heads:
            raise GraphgenError(f"heads ({heads}) must divide hidden ({hidden}) and encoder hidden ({encoder_hidden})")
        super().__init__(
            vocabulary,
            latent=latent,
            hidden=hidden,
            pair_hidden=pair_hidden,
            encoder_hidden=encoder_hidden,
            layers=layers,
            encoder_layers=encoder_layers,
            heads=heads,
            kl_weight=kl_weight,
            kl_anneal_steps=kl_anneal_steps,
            matching=matching,
        )
        self.encoder = Encoder(len(vocabulary), latent, encoder_hidden, encoder_layers, heads)
        self.decoder = Decoder(len(vocabulary), latent, hidden, pair_hidden, layers, heads)

    def encode(self, batch: MoleculeBatch, place: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.encoder(batch.graph, batch.atoms, place).chunk(2, 1)
        return mean, log_std

    def decode(self, z: Tensor, ptr: Tensor) -> Laws:
        atoms, pairs = self.decoder(z, ptr)
        return Laws(atoms + self.atom_shares.log(), pairs + self.pair_shares.log())


class Encoder(nn.Module):
    """From molecules to the means and logarithms of the deviations of their latents."""

    def __init__(self, atom_types: int, latent: int, hidden: int, layers: int, heads: int) -> None:
        super().__init__()
        self.atom = nn.Embedding(atom_types, hidden)
        self.place = nn.Embedding(MOST_ATOMS + 1, hidden)
        self.layers = nn.ModuleList(EncoderLayer(hidden, heads) for _ in range(layers))
        self.readout = SetToSet(hidden)
        self.out = Linear(2 * hidden, 2 * latent)

    def forward(self, graph: GraphBatch, atoms: Tensor, place: Tensor) -> Tensor:
        """[B, 2 latent], for atoms [N] and their places in the canonical order."""
        h = self.atom.weight[atoms] + self.place.weight[place]
        for layer in self.layers:
            h = layer(h, graph)
        return self.out(self.readout(h, graph.ptr))


class EncoderLayer(nn.Module):
    """One round: the sum of all bonds' messages and the neighbours that attention picks enter a recurrent unit."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.as_target = Linear(hidden, hidden)
        self.as_source = Linear(hidden, hidden, bias=False)
        self.bond = nn.Parameter(torch.randn(len(BOND_TYPES), hidden) * 0.5)
        self.query_key_value = Linear(hidden, 3 * hidden)
        self.bond_bias = nn.Parameter(torch.zeros(len(BOND_TYPES), heads))
        self.cell = GRUCell(hidden, hidden)

    def forward(self, h: Tensor, graph: GraphBatch) -> Tensor:
        """
        Args:
            h: [N, hidden].
            graph: the bonds, with their types.
        """
        assert graph.edge_attr is not None, "a molecule has bond types"
        messages = ops.message_sum(self.as_target(h), self.as_source(h), self.bond, graph)
        query, key, value = self.query_key_value(h).unflatten(1, (3, self.heads, -1)).unbind(1)
        picked = ops.neighbor_attention(query, key, value, graph, self.bond_bias[graph.edge_attr.long()])
        return self.cell(messages + picked.flatten(1), h)


class Decoder(nn.Module):
    """From latents and sizes to logits of the labels of all places and pairs."""

    def __init__(self, atom_types: int, latent: int, hidden: int, pair_hidden: int, layers: int, heads: int) -> None:
        super().__init__()
        self.expand = Linear(latent, hidden)
        self.size = nn.Embedding(MOST_ATOMS + 1, hidden)
        self.place = nn.Embedding(MOST_ATOMS + 1, hidden)
        self.unroll = GRUCell(hidden, hidden)
        self.first = Linear(hidden, pair_hidden)
        self.second = Linear(hidden, pair_hidden, bias=False)
        self.layers = nn.ModuleList(PairLayer(hidden, pair_hidden, heads) for _ in range(layers))
        self.atom_out = NormLinear(hidden, atom_types)
        self.pair_last = NormLinear(pair_hidden, pair_hidden)
        self.pair_out = Linear(pair_hidden, len(PAIR_TYPES))

    def forward(self, z: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
        """[N, types] and [T, 4] for z [B, latent]."""
        tokens = Pairs(ptr)
        sizes = tokens.ptr.diff()
        known = self.expand(z) + self.size.weight[sizes]
        states, state = [], torch.tanh(known)
        for place in range(int(sizes.max()) if len(sizes) else 0):
            state = self.unroll(known + self.place.weight[place], state)
            states.append(state)
        numbers = torch.arange(len(tokens.of_atom), device=z.device) - tokens.ptr[tokens.of_atom]
        h = torch.stack(states)[numbers, tokens.of_atom] if states else known[:0]
        e = self.first(h)[tokens.first] + self.second(h)[tokens.second]
        for layer in self.layers:
            h, e = layer(h, e, tokens)
        return self.atom_out(h), self.pair_out(ops.activation(self.pair_last(e)))
