"""Properties that molecules are asked to have: what a field is told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.ops.noise import Stream

_HIDDEN, _ALL_HIDDEN = 0.5, 0.2


class Conditions(nn.Module):
    """p properties by name, brought to mean 0 and deviation 1 over the training data.

    Attributes:
        mean, deviation: [p] float64, of the training data; 0 and 1 before it has seen any.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        if len(set(self.names)) < len(self.names):
            raise GraphgenError(f"conditions {', '.join(self.names)}: name each property once")
        self.register_buffer("mean", torch.zeros(len(self.names), dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(len(self.names), dtype=torch.float64))

    def fit(self, data: EncodedMolecules) -> None:
        """Take means and deviations from training data.

        Raises:
            GraphgenError: it has other properties, or one of them for none of its molecules.
        """
        if list(data.properties) != self.names:
            raise GraphgenError(
                f"{data.name}: its molecules have the properties {list(data.properties)} and the model needs "
                f"{self.names}; give them by graphgen.metrics.properties.with_properties"
            )
        for i, column in enumerate(data.property_values().T):
            known = column[column.isfinite()]
            if not len(known):
                raise GraphgenError(f"{data.name}: no molecule has the property {self.names[i]}; leave it out")
            self.mean[i] = known.mean()
            deviation = known.std(correction=0)
            self.deviation[i] = deviation if float(deviation) > 0 else 1.0

    def of_batch(self, batch: MoleculeBatch, seed: int, step: int, dtype: torch.dtype) -> Tensor:
        """[B, 2 p] what a training step shows of a batch's properties: each with probability 1/2, or none with 1/5.

        Raises:
            GraphgenError: the batch has none.
        """
        if batch.properties is None:
            raise GraphgenError(
                f"the molecules have no properties, and the model learns from {', '.join(self.names)}; give them by "
                "graphgen.metrics.properties.with_properties"
            )
        one_each = torch.arange(len(batch.ids) + 1, device=batch.ids.device)
        uniform = ops.uniform(one_each, len(self.names) + 1, seed, Stream.CONDITION, step, batch.ids)
        shown = (uniform[:, :-1] >= _HIDDEN) & (uniform[:, -1:] >= _ALL_HIDDEN) & batch.properties.isfinite()
        return self._told(batch.properties, shown, dtype)

    def asked(self, values: Mapping[str, float], molecules: int, dtype: torch.dtype) -> Tensor:
        """[B, 2 p] the same for molecules that are all asked for these values.

        Raises:
            GraphgenError: a property that it does not know, or a value that is no number.
        """
        for name, value in values.items():
            if name not in self.names:
                known = f"it knows {', '.join(self.names)}" if self.names else "train one with --conditions"
                raise GraphgenError(f"condition {name}: the model was not trained to be asked for it; {known}")
            if not math.isfinite(value):
                raise GraphgenError(f"condition {name}={value}: give a number")
        row = torch.tensor([values.get(name, math.nan) for name in self.names], dtype=torch.float64)
        row = row.to(self.mean.device).expand(molecules, -1)
        return self._told(row, row.isfinite(), dtype)

    def _told(self, values: Tensor, shown: Tensor, dtype: torch.dtype) -> Tensor:
        standard = (values - self.mean) / self.deviation
        return torch.cat((torch.where(shown, standard, 0.0), shown.to(standard.dtype)), 1).to(dtype)
