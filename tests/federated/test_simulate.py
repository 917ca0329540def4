"""DualAdapt in one process: adapts, resumes, bears with bad clients, and keeps examples where they are."""

import json
from dataclasses import replace

import pytest
import torch
from federations import SETTINGS, suite

from graphgen import GraphgenError
from graphgen.federated.baselines import federated_averaging, maximum_classifier_discrepancy, source_only, supervised
from graphgen.federated.client import Client
from graphgen.federated.protocol import BROADCAST, UPLOAD, NoAnswer, expected, objection, part
from graphgen.federated.server import Server
from graphgen.federated.simulate import LOG, STATE, simulate
from graphgen.federated.steps import accuracy
from graphgen.models.checkpoint import read_tensors


def clients(made, settings=SETTINGS, kinds=None):
    kinds = kinds or {}
    return [
        kinds.get(domain.name, Client)(k, domain.learning.examples, made.networks, settings)
        for k, domain in enumerate(made.clients)
    ]


def pretrained(made, settings=SETTINGS):
    server = Server(made.source, made.networks, settings)
    server.pretrain()
    return server


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def without_seconds(records):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def test_adaptation_betters_moved_clients(tmp_path):
    made = suite()
    before = source_only(pretrained(made), made, own_statistics=False)
    after = simulate(made, SETTINGS, tmp_path / "run", progress=False)[-1]["accuracy"]
    assert sum(after.values()) / 3 > sum(before.values()) / 3 + 10
    assert all(after[name] > before[name] - 1 for name in before)


def test_the_same_seed_gives_the_same_bits_and_a_killed_run_resumes_to_them(tmp_path):
    made = suite()
    records = simulate(made, SETTINGS, tmp_path / "whole", progress=False)

    class Killed(Client):
        def adapt(self, broadcast, round):
            if round == 1:
                raise KeyboardInterrupt
            return super().adapt(broadcast, round)

    with pytest.raises(KeyboardInterrupt):
        simulate(made, SETTINGS, tmp_path / "run", clients(made, kinds={"north": Killed}), progress=False)
    assert len(json.loads((tmp_path / "run" / LOG).read_text())["rounds"]) == 1
    with pytest.raises(GraphgenError, match="--resume"):
        simulate(made, SETTINGS, tmp_path / "run", progress=False)
    again = simulate(made, SETTINGS, tmp_path / "run", resume=True, progress=False)
    assert without_seconds(again) == without_seconds(records)
    assert same(read_tensors(tmp_path / "run" / STATE), read_tensors(tmp_path / "whole" / STATE))
    with pytest.raises(GraphgenError, match="other settings"):
        simulate(made, replace(SETTINGS, lr=1e-2), tmp_path / "run", resume=True, progress=False)


def test_a_run_of_fewer_rounds_goes_on_to_more(tmp_path):
    made = suite(("east",))
    simulate(made, replace(SETTINGS, rounds=1), tmp_path / "run", progress=False)
    simulate(made, SETTINGS, tmp_path / "run", resume=True, progress=False)
    simulate(made, SETTINGS, tmp_path / "whole", progress=False)
    assert same(read_tensors(tmp_path / "run" / STATE), read_tensors(tmp_path / "whole" / STATE))


class SendsNaN(Client):
    def adapt(self, broadcast, round):
        answer = super().adapt(broadcast, round)
        answer["local.first.bias"][0] = torch.nan
        return answer


class Leaves(Client):
    def adapt(self, broadcast, round):
        if round == 1:
            super().adapt(broadcast, round)
            raise NoAnswer("connection lost after 8 steps")
        return super().adapt(broadcast, round)


class SendsOtherShapes(Client):
    def adapt(self, broadcast, round):
        answer = super().adapt(broadcast, round)
        return answer | {"mixture.means": answer["mixture.means"].T.contiguous()}


class SendsExamples(Client):
    def adapt(self, broadcast, round):
        return super().adapt(broadcast, round) | {"examples": self.examples.at}


def test_bad_clients_are_named_and_nothing_is_lost(tmp_path):
    made = suite()
    bad = {"east": SendsNaN, "north": Leaves, "wide": SendsOtherShapes}
    records = simulate(made, SETTINGS, tmp_path / "run", clients(made, kinds=bad), progress=False)
    named = [list(record["refused"]) for record in records]
    assert named == [["east", "wide"], ["east", "north", "wide"], ["east", "wide"]]
    assert records[0]["refused"]["east"] == "local.first.bias holds numbers that are not finite"
    assert records[1]["refused"]["north"] == "connection lost after 8 steps"
    assert records[0]["refused"]["wide"] == "mixture.means is torch.float32 [6, 3], not torch.float32 [3, 6]"
    # Round 2 had no upload at all: the server's models stay, and so does the classifier that came in round 1.
    assert records[1]["losses"] == {"discrepancy": None, "cross_entropy": None}
    kept = read_tensors(tmp_path / "run" / STATE)
    assert all(bool(tensor.isfinite().all()) for tensor in kept.values())
    assert part(kept, "client1") and not part(kept, "client0") and not part(kept, "client2")
    # What the good client and the server have is what they have without the bad ones.
    alone = suite(("north",))
    one = [bad["north"](1, made.clients[1].learning.examples, made.networks, SETTINGS)]
    simulate(alone, SETTINGS, tmp_path / "alone", one, progress=False)
    assert same(part(read_tensors(tmp_path / "alone" / STATE), "extractor"), part(kept, "extractor"))


def test_no_example_crosses_the_boundary(tmp_path):
    """Every tensor sent has a name and shape of the protocol, none of which depends on how many examples there are."""
    made, sent, received = suite(), [], []

    class Tapped(Client):
        def adapt(self, broadcast, round):
            received.append(broadcast)
            sent.append(super().adapt(broadcast, round))
            return sent[-1]

    tapped = clients(made, kinds=dict.fromkeys(["east", "north", "wide"], Tapped))
    simulate(made, SETTINGS, tmp_path / "run", tapped, progress=False)
    assert len(sent) == 9
    classes = 3
    _, classifier = made.networks.fresh(0)
    shapes = {f"local.{name}": tensor.shape for name, tensor in classifier.state_dict().items()}
    shapes |= {"mixture.log_weights": (classes,), "mixture.means": (classes, 6), "mixture.log_variances": (classes, 6)}
    values = torch.cat([domain.learning.examples.at.flatten() for domain in made.clients])
    own = made.source.examples.at.flatten()
    for answer, broadcast in zip(sent, received, strict=True):
        assert {name: tensor.shape for name, tensor in answer.items()} == shapes
        assert {name.split(".")[0] for name in answer} == set(UPLOAD)
        assert {name.split(".")[0] for name in broadcast} == set(BROADCAST)
        for examples, message in ((values, answer), (own, broadcast)):
            assert not torch.isin(torch.cat([tensor.flatten() for tensor in message.values()]), examples).any()
        # Views would carry what they are views of.
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in answer.values())
    greedy = simulate(made, SETTINGS, tmp_path / "greedy", clients(made, kinds={"east": SendsExamples}), progress=False)
    assert all(one["refused"] == {"east": "holds examples, which is not in the protocol"} for one in greedy)


def test_clipping_and_noise_on_uploads():
    made = suite(("east",))
    server = pretrained(made)
    broadcast = server.broadcast()
    like = expected(broadcast)

    def change(**settings):
        answer = clients(made, replace(SETTINGS, **settings))[0].adapt(broadcast, 0)
        assert objection(answer, like) is None
        return torch.cat([(answer[name] - like[name]).flatten() for name in like])

    free, clipped = change(), change(clip=0.5)
    assert float(free.norm()) > 0.5
    torch.testing.assert_close(clipped, free * (0.5 / free.norm()), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(change(clip=1e6), free, atol=1e-5, rtol=1e-5)
    noise = change(clip=0.5, noise=2.0) - clipped
    assert float(noise.std()) == pytest.approx(1.0, rel=0.15) and abs(float(noise.mean())) < 0.2
    assert torch.equal(change(clip=0.5, noise=2.0), change(clip=0.5, noise=2.0))
    assert not torch.equal(change(clip=0.5, noise=2.0), change(clip=0.5, noise=2.0, seed=1))


def test_a_late_client_starts_from_its_nearest(tmp_path):
    made = suite()
    # A fourth client of nearly the north's data.
    twin = replace(made.clients[1], name="twin", test=made.clients[1].test)
    made = replace(made, clients=(*made.clients, twin))
    settings = replace(SETTINGS, own_statistics=False)  # so that features tell where a client lies
    starts = {}

    class Watched(Client):
        def adapt(self, broadcast, round):
            starts[round] = part(broadcast, "start")
            return super().adapt(broadcast, round)

    members = clients(made, settings, {"twin": Watched})
    records = simulate(made, settings, tmp_path / "run", members, {"twin": 2}, progress=False)
    assert [record["nearest"] for record in records] == [{}, {"twin": "north"}, {}]
    assert list(starts) == [1, 2]
    simulate(made, replace(settings, rounds=2), tmp_path / "two", clients(made, settings), {"twin": 2}, progress=False)
    north = part(read_tensors(tmp_path / "two" / STATE), "client1")
    assert same(starts[1], part(north, "local"))
    with pytest.raises(GraphgenError, match="no client 'south'"):
        simulate(made, settings, tmp_path / "no", joins={"south": 2}, progress=False)


def test_inference_is_the_mean_of_both_classifiers():
    made = suite(("east",))
    broadcast = pretrained(made).broadcast()
    client, test = clients(made)[0], made.clients[0].test.examples
    local = part(client.adapt(broadcast, 0), "local")
    extractor = made.networks.extractor(part(broadcast, "extractor"))
    z = extractor(test.at, extractor.statistics(client.examples))
    one, other = (made.networks.classifier(weights)(z).softmax(1) for weights in (local, part(broadcast, "global")))
    torch.testing.assert_close(client.probabilities(broadcast, local, test), (one + other) / 2)


def test_baselines_that_see_more_reach_more():
    made = suite()
    server = pretrained(made)
    nothing = source_only(server, made, own_statistics=False)
    kept = server.state()
    averaged = federated_averaging(server, made, SETTINGS)
    mcd = {domain.name: maximum_classifier_discrepancy(server, domain, SETTINGS) for domain in made.clients}
    labels = {domain.name: supervised(made.networks, domain, SETTINGS) for domain in made.clients}
    for found in (averaged, mcd, labels):
        assert sum(found.values()) > sum(nothing.values()) + 40
    assert same(server.state(), kept)


def test_accuracy_is_a_percentage():
    assert accuracy(torch.eye(4)[[0, 1, 2, 2]], torch.arange(4)) == 75
