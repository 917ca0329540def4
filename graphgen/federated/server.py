"""The server: labelled source examples, G and F_g, and what clients have uploaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graphgen.errors import GraphgenError
from graphgen.federated.losses import density_weights, discrepancy
from graphgen.federated.mixture import Mixture, divergence
from graphgen.federated.networks import Examples, Networks
from graphgen.federated.protocol import INTRODUCTION, Message, expected, objection, pack, part
from graphgen.federated.settings import Settings
from graphgen.federated.steps import SERVER, adam, chosen, descend


class Labelled(NamedTuple):
    """Examples and their classes, int64 [N]."""

    examples: Examples
    labels: Tensor


@dataclass
class Losses:
    """Of a round's server optimisation, mean over its steps; NaN where there was none."""

    discrepancy: float = float("nan")
    cross_entropy: float = float("nan")


class Server:
    """The server's side of DualAdapt (Yao et al., WACV 2022, Algorithm 1, lines 1 to 4 and 13 to 18)."""

    def __init__(self, source: Labelled, networks: Networks, settings: Settings) -> None:
        self.source, self.networks, self.settings = source, networks, settings
        self.extractor, self.classifier = networks.fresh(settings.seed)
        self.round = 0
        self.uploads: dict[int, Message] = {}
        """The last good upload of each client."""

    def pretrain(self) -> None:
        """G and F_g by cross-entropy on the source."""
        optimizer = adam(self.settings.lr, self.extractor, self.classifier)
        for step in range(self.settings.pretrain_steps):
            self._fine_tune(optimizer, step)

    def broadcast(self) -> Message:
        """What every client gets at the start of a round, with F_g as start; :meth:`starting` gives it another."""
        statistics = self.extractor.statistics(self.source.examples)
        with torch.no_grad():
            z = self.extractor(self.source.examples.batch(torch.arange(len(self.source.labels))), statistics)
        mixture = Mixture.of_classes(z, self.source.labels, self.networks.classes)
        weights = self.classifier.state_dict()
        copied = pack(
            extractor=self.extractor.state_dict(),
            statistics=statistics,
            start=weights,
            mixture=mixture.tensors(),
            **{"global": weights},
        )
        # The server goes on learning while messages may still wait to be sent.
        return {name: tensor.clone() for name, tensor in copied.items()}

    def for_client(self, broadcast: Message, number: int) -> Message:
        """The broadcast as client `number` gets it: it goes on from its own classifier, if settings say so."""
        if self.settings.start == "own" and number in self.uploads:
            return starting(broadcast, part(self.uploads[number], "local"))
        return broadcast

    def nearest(self, broadcast: Message, introduction: Mapping[str, Tensor], uploads: Mapping[int, Message]) -> int:
        """Which of this round's uploads has the mixture nearest to that of a client which joins.

        Raises:
            GraphgenError: the introduction cannot be used, or there is no upload to start from.
        """
        if reason := objection(introduction, expected(broadcast, INTRODUCTION)):
            raise GraphgenError(reason)
        if not uploads:
            raise GraphgenError("no other client has uploaded anything to start from")
        new = Mixture.of(part(introduction, "mixture"))
        return min(uploads, key=lambda k: divergence(new, Mixture.of(part(uploads[k], "mixture"))))

    def learn(self, uploads: Mapping[int, Message]) -> Losses:
        """Optimise G, then G and F_g, with this round's good uploads; ends the round.

        G minimises, over mixed source examples that each client's mixture weighs, the discrepancy of F_g and that
        client's classifier, averaged over clients (equation 6). Without uploads all stays as it was.
        """
        settings, count = self.settings, len(self.source.labels)
        self.uploads.update(uploads)
        targets = [
            (self.networks.classifier(part(upload, "local")), Mixture.of(part(upload, "mixture")))
            for _, upload in sorted(uploads.items())
        ]
        align = adam(settings.server_lr, self.extractor)
        tune = adam(settings.server_lr, self.extractor, self.classifier)
        total = [0.0, 0.0]
        for step in range(settings.server_steps if targets else 0):
            at = settings.pretrain_steps + 3 * (self.round * settings.server_steps + step)
            one, other = (chosen(count, settings.batch_size, settings.seed, SERVER, at + k) for k in (0, 1))
            batch = self.source.examples.batch
            z = self.extractor.mixed(batch(one), batch(other))
            told = self.classifier(z).softmax(1)
            apart = [
                discrepancy(told, local(z).softmax(1), density_weights(mixture.log_density(z.detach()), z.shape[1]))
                for local, mixture in targets
            ]
            total[0] += descend(align, torch.stack(apart).mean())
            total[1] += self._fine_tune(tune, at + 2)
        self.round += 1
        steps = settings.server_steps
        return Losses(total[0] / steps, total[1] / steps) if targets else Losses()

    def state(self) -> dict[str, Tensor]:
        """Everything that later rounds depend on."""
        kept = {f"client{number}": upload for number, upload in self.uploads.items()}
        models = {"extractor": self.extractor.state_dict(), "global": self.classifier.state_dict()}
        return pack(**models, **kept) | {"round": torch.tensor(self.round)}

    def restore(self, tensors: Mapping[str, Tensor], where: object) -> None:
        """
        Raises:
            GraphgenError: not the state of a server with these networks.
        """
        try:
            self.extractor.load_state_dict(part(tensors, "extractor"))
            self.classifier.load_state_dict(part(tensors, "global"))
            self.round = int(tensors["round"])
        except (KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise GraphgenError(f"{where}: does not belong to these networks ({reason}); use a new folder") from None
        numbers = {int(name.split(".")[0].removeprefix("client")) for name in tensors if name.startswith("client")}
        self.uploads = {number: part(tensors, f"client{number}") for number in sorted(numbers)}

    def _fine_tune(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        settings = self.settings
        at = chosen(len(self.source.labels), settings.batch_size, settings.seed, SERVER, step)
        logits = self.classifier(self.extractor(self.source.examples.batch(at)))
        return descend(optimizer, cross_entropy(logits, self.source.labels[at]))


def starting(broadcast: Message, classifier: Mapping[str, Tensor]) -> Message:
    """The broadcast with another classifier to start from."""
    return broadcast | pack(start=classifier)
