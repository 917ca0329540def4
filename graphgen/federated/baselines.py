"""What DualAdapt is compared with, on the same networks and as many steps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graphgen.federated.losses import discrepancy
from graphgen.federated.networks import Classifier, Examples, Extractor, Networks, Statistics
from graphgen.federated.server import Labelled, Server
from graphgen.federated.settings import Settings
from graphgen.federated.steps import accuracy, adam, chosen, descend, ensemble, untied
from graphgen.federated.suites import Domain, Suite

# Steps of the generator for each of the classifiers: Saito et al., CVPR 2018, section 4.
_GENERATOR_STEPS = 4
# Of the streams of chosen examples: apart from those of a server and of clients.
_LEARNER = 2**20


def source_only(server: Server, suite: Suite, own_statistics: bool) -> dict[str, float]:
    """Accuracy of the pre-trained G and F_g on each client's test examples, per cent.

    Args:
        own_statistics: standardise by each client's own means and variances, which is adaptive batch normalisation
            (Li et al. 2016); else nothing is adapted.
    """
    ours = server.extractor.statistics(server.source.examples)
    found = {}
    for domain in suite.clients:
        statistics = server.extractor.statistics(domain.learning.examples) if own_statistics else ours
        found[domain.name] = _measure(server.extractor, [server.classifier], domain.test, statistics)
    return found


def maximum_classifier_discrepancy(server: Server, domain: Domain, settings: Settings) -> float:
    """Accuracy of single-target MCD (Saito et al., CVPR 2018), which sees source and target in one place.

    It starts from the pre-trained network, with a second classifier of another start.
    """
    networks = server.networks
    extractor, first = untied(networks, server.extractor, server.classifier)
    _, other = networks.fresh(settings.seed + 1)
    second = networks.classifier(other.state_dict()).requires_grad_()
    steps = settings.rounds * settings.server_steps
    all_three = adam(settings.lr, extractor, first, second)
    heads = adam(settings.lr, first, second)
    body = adam(settings.lr, extractor)
    for step in range(steps):
        source, labels = _draw(server.source, settings, 2 * step)
        target, _ = _draw(domain.learning, settings, 2 * step + 1)

        def own(source=source, labels=labels) -> Tensor:
            z = extractor(source)
            return cross_entropy(first(z), labels) + cross_entropy(second(z), labels)

        def apart(target=target) -> Tensor:
            z = extractor(target)
            return discrepancy(first(z).softmax(1), second(z).softmax(1))

        descend(all_three, own())
        descend(heads, own() - apart())
        for _ in range(_GENERATOR_STEPS):
            descend(body, apart())
    statistics = extractor.statistics(domain.learning.examples)
    return _measure(extractor, [first, second], domain.test, statistics)


def federated_averaging(server: Server, suite: Suite, settings: Settings) -> dict[str, float]:
    """FedAvg (McMahan et al., AISTATS 2017) whose clients may use labels: an upper comparison.

    It starts from the pre-trained network, and clients standardise as DualAdapt's do.
    """
    networks = server.networks
    extractor, classifier = untied(networks, server.extractor, server.classifier)
    total = sum(len(domain.learning.labels) for domain in suite.clients)
    for round in range(settings.rounds):
        mean: dict[str, dict[str, Tensor]] = {}
        for k, domain in enumerate(suite.clients):
            own = untied(networks, extractor, classifier)
            _train(*own, domain.learning, settings, settings.client_steps, (k, round * settings.client_steps))
            share = len(domain.learning.labels) / total
            for name, module in zip(("extractor", "classifier"), own, strict=True):
                for key, value in module.state_dict().items():
                    kept = mean.setdefault(name, {})
                    kept[key] = kept.get(key, torch.zeros_like(value)) + share * value
        extractor.load_state_dict(mean["extractor"])
        classifier.load_state_dict(mean["classifier"])
    return {
        domain.name: _measure(extractor, [classifier], domain.test, extractor.statistics(domain.learning.examples))
        for domain in suite.clients
    }


def supervised(networks: Networks, domain: Domain, settings: Settings) -> float:
    """Accuracy of the same network trained on the client's own labelled examples alone: what labels would bring."""
    extractor, classifier = networks.fresh(settings.seed)
    steps = settings.pretrain_steps + settings.rounds * settings.client_steps
    _train(extractor, classifier, domain.learning, settings, steps, (0, 0))
    statistics = extractor.statistics(domain.learning.examples)
    return _measure(extractor, [classifier], domain.test, statistics)


def _train(
    extractor: Extractor, classifier: Classifier, data: Labelled, settings: Settings, steps: int, at: tuple[int, int]
) -> None:
    optimizer = adam(settings.lr, extractor, classifier)
    for step in range(steps):
        batch, labels = _draw(data, settings, at[1] + step, at[0])
        descend(optimizer, cross_entropy(classifier(extractor(batch)), labels))


def _draw(data: Labelled, settings: Settings, step: int, who: int = 0):
    at = chosen(len(data.labels), settings.batch_size, settings.seed, _LEARNER + who, step)
    return data.examples.batch(at), data.labels[at]


@torch.no_grad()
def _measure(extractor: Extractor, classifiers: list[Classifier], test: Labelled, statistics: Statistics) -> float:
    z = extractor(_all(test.examples), statistics)
    return accuracy(ensemble(classifiers, z), test.labels)


def _all(examples: Examples):
    return examples.batch(torch.arange(len(examples)))
