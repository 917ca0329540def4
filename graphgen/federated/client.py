"""A client: its unlabelled examples stay here, and what it answers is made of models and mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphgen.federated.losses import density_weights, discrepancy, posterior_weights, weighted_cross_entropy
from graphgen.federated.mixture import Mixture
from graphgen.federated.networks import Examples, Networks
from graphgen.federated.privacy import protected
from graphgen.federated.protocol import INTRODUCTION, Message, expected, pack, part
from graphgen.federated.settings import Settings
from graphgen.federated.steps import adam, chosen, descend, ensemble


class Client:
    """The client's side of DualAdapt (Yao et al., WACV 2022, Algorithm 1, lines 5 to 12).

    It remembers nothing between rounds but its examples: all else comes with the broadcast.

    Args:
        number: which client this is, from 0.
        examples: unlabelled.
    """

    def __init__(self, number: int, examples: Examples, networks: Networks, settings: Settings) -> None:
        self.number, self.examples, self.networks, self.settings = number, examples, networks, settings

    def adapt(self, broadcast: Mapping[str, Tensor], round: int) -> Message:
        """Learn a local classifier and mixture; returns the upload.

        The classifier minimises the cross-entropy of F_g's labels, weighted by the source mixture, minus the
        discrepancy to F_g (equation 5); G and F_g stay as they are.
        """
        settings = self.settings
        z = self._features(broadcast, self.examples)
        source = Mixture.of(part(broadcast, "mixture"))
        moved = source.moved(z, settings.em_steps)
        told = self.networks.classifier(part(broadcast, "global"))(z).softmax(1)
        labels = told.argmax(1)
        if settings.weights == "moved":
            weights = posterior_weights(moved.posterior(z), labels)
        else:
            joint = source.log_joint(z).gather(1, labels.unsqueeze(1)).squeeze(1)
            weights = density_weights(joint, z.shape[1])
        local = self.networks.classifier(part(broadcast, "start")).requires_grad_()
        optimizer = adam(settings.lr, local)
        for step in range(settings.client_steps):
            at = chosen(
                len(z), settings.batch_size, settings.seed, self.number + 1, round * settings.client_steps + step
            )
            logits = local(z[at])
            loss = weighted_cross_entropy(logits, labels[at], weights[at])
            loss = loss - settings.discrepancy * discrepancy(logits.softmax(1), told[at])
            descend(optimizer, loss)
        answer = pack(local=local.state_dict(), mixture=moved.tensors())
        return protected(answer, expected(broadcast), settings, self.number, round)

    def introduce(self, broadcast: Mapping[str, Tensor], round: int) -> Message:
        """The mixture alone, by which the server finds the client that is nearest."""
        z = self._features(broadcast, self.examples)
        moved = Mixture.of(part(broadcast, "mixture")).moved(z, self.settings.em_steps)
        like = expected(broadcast, INTRODUCTION)
        return protected(pack(mixture=moved.tensors()), like, self.settings, self.number, round)

    @torch.no_grad()
    def probabilities(self, broadcast: Mapping[str, Tensor], local: Mapping[str, Tensor], examples: Examples) -> Tensor:
        """[N, C] mean of what F_g and F_l say of examples of this client's domain.

        Args:
            local: F_l's weights, as in an upload.
        """
        names = part(broadcast, "global"), local
        return ensemble(map(self.networks.classifier, names), self._features(broadcast, examples))

    @torch.no_grad()
    def _features(self, broadcast: Mapping[str, Tensor], examples: Examples) -> Tensor:
        extractor = self.networks.extractor(part(broadcast, "extractor"))
        own = self.settings.own_statistics
        statistics: Any = extractor.statistics(self.examples) if own else part(broadcast, "statistics")
        return extractor(examples.batch(torch.arange(len(examples))), statistics)
