"""Small steps that server, clients and baselines share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.federated.networks import Classifier, Extractor, Networks
from graphgen.ops.noise import Stream

SERVER = 0
"""The server's number among those who choose examples; client k has k + 1."""


def chosen(count: int, size: int, seed: int, who: int, step: int) -> Tensor:
    """[size] int64: which of `count` examples a step looks at, with repetition; a function of its arguments."""
    drawn = ops.uniform(torch.tensor([0, size]), 1, seed, Stream.EXAMPLE, step, torch.tensor([who])).squeeze(1)
    return (drawn * count).long().clamp(max=count - 1)


def adam(lr: float, *modules: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam((parameter for module in modules for parameter in module.parameters()), lr=lr, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def ensemble(classifiers: Iterable[Classifier], z: Tensor) -> Tensor:
    """[N, C] mean of the classifiers' probabilities: how DualAdapt classifies."""
    return torch.stack([classifier(z).softmax(1) for classifier in classifiers]).mean(0)


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Per cent."""
    return 100 * float((probabilities.argmax(1) == labels).double().mean())


def untied(networks: Networks, extractor: Extractor, classifier: Classifier) -> tuple[Extractor, Classifier]:
    """Copies that learn on their own."""
    copies = networks.extractor(extractor.state_dict()), networks.classifier(classifier.state_dict())
    return copies[0].requires_grad_(), copies[1].requires_grad_()
