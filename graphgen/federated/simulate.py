"""A federation in one process: deterministic, resumable, and rid of what bad clients send."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from graphgen import __version__
from graphgen.errors import GraphgenError
from graphgen.federated.client import Client
from graphgen.federated.exchange import exchange
from graphgen.federated.protocol import Message, NoAnswer, part
from graphgen.federated.server import Server
from graphgen.federated.settings import Settings
from graphgen.federated.steps import accuracy
from graphgen.federated.suites import Suite
from graphgen.models import checkpoint
from graphgen.progress import progress_bar

LOG = "federation.json"
STATE = "federation.safetensors"


def simulate(
    suite: Suite,
    settings: Settings,
    out: str | os.PathLike[str],
    clients: Sequence[Client] | None = None,
    joins: Mapping[str, int] | None = None,
    resume: bool = False,
    progress: bool = True,
    described: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Run DualAdapt on a suite; after every round the folder holds all that the next one needs.

    A resumed run goes on to the same numbers. A client whose answer does not come, or cannot be used, is named in the
    round's record; the round goes on without it, and its last good classifier is kept.

    Args:
        out: the folder. It gets :data:`LOG`, and :data:`STATE` with G, F_g and the last good upload of each client.
        clients: one for each of the suite's; None for well-behaved ones.
        joins: by name, the round from 1 in which a client comes in; it then starts from the classifier of the client
            whose mixture is nearest to its own. Clients without one are there from the start.
        described: what else made the run, to be recorded and compared on resuming.

    Returns:
        One record per round: round, accuracy of each client (per cent, on its test examples, of the model that it
        holds after adapting), accuracy_global (of F_g alone), refused (client: reason), nearest (of clients that
        joined), losses, bytes down and up, seconds so far.

    Raises:
        GraphgenError: a folder in use, a run with other settings, or a client of ``joins`` that is not there.
    """
    folder, joins = Path(out), dict(joins or {})
    names = [domain.name for domain in suite.clients]
    if unknown := joins.keys() - set(names):
        raise GraphgenError(f"joins: no client {min(unknown)!r}; there are {', '.join(names)}")
    about: dict[str, Any] = {"settings": asdict(settings), "clients": names, "joins": joins, **(described or {})}
    # The number of rounds may grow: nothing of a round depends on how many follow.
    about["settings"].pop("rounds")
    if clients is None:
        clients = [
            Client(k, domain.learning.examples, suite.networks, settings) for k, domain in enumerate(suite.clients)
        ]
    server, records = Server(suite.source, suite.networks, settings), []
    if (folder / LOG).exists():
        if not resume:
            raise GraphgenError(f"{folder}: holds a federation; --resume goes on with it; or choose another folder")
        log = checkpoint.read_json(folder / LOG)
        if {key: log.get(key) for key in about} != about:
            raise GraphgenError(f"{folder}: its run has other settings or clients; repeat them or use another folder")
        server.restore(checkpoint.read_tensors(folder / STATE), folder / STATE)
        records = log["rounds"][: server.round]
    else:
        server.pretrain()
        checkpoint.save_tensors(folder / STATE, server.state())
    started = time.monotonic() - (records[-1]["seconds"] if records else 0.0)
    with progress_bar("federating", settings.rounds, progress) as advance:
        advance(len(records), note=_note(records))
        while server.round < settings.rounds:
            record = _round(server, clients, suite, joins)
            record["seconds"] = round(time.monotonic() - started, 2)
            records.append(record)
            environment = {"graphgen": __version__, "torch": torch.__version__}
            checkpoint.write_json(folder / LOG, {**about, "environment": environment, "rounds": records})
            # Last, so that a kill between the two repeats the round, to the same numbers.
            checkpoint.save_tensors(folder / STATE, server.state())
            advance(note=_note(records))
    return records


def _round(server: Server, clients: Sequence[Client], suite: Suite, joins: Mapping[str, int]) -> dict[str, Any]:
    names = [domain.name for domain in suite.clients]
    broadcast, at = server.broadcast(), server.round + 1
    late = [k for k, name in enumerate(names) if 1 < joins.get(name, 1) <= at and k not in server.uploads]
    members = [k for k, name in enumerate(names) if joins.get(name, 1) <= at and k not in late]
    found = exchange(server, broadcast, members, late, partial(_ask, clients))
    record: dict[str, Any] = {"round": at, "accuracy": {}, "accuracy_global": {}}
    for k, domain in enumerate(suite.clients):
        kept = found.uploads.get(k) or server.uploads.get(k)
        local = part(kept, "local") if kept else part(broadcast, "global")
        for key, weights in (("accuracy", local), ("accuracy_global", part(broadcast, "global"))):
            told = clients[k].probabilities(broadcast, weights, domain.test.examples)
            record[key][domain.name] = round(accuracy(told, domain.test.labels), 2)
    losses = server.learn(found.uploads)
    return record | {
        "refused": {names[k]: reason for k, reason in sorted(found.refused.items())},
        "nearest": {names[k]: names[like] for k, like in found.nearest.items()},
        "losses": {key: _number(x) for key, x in asdict(losses).items()},
        "bytes": {"down": found.down, "up": found.up},
    }


def _ask(clients: Sequence[Client], what: str, messages: Mapping[int, Message], round: int) -> dict[int, Message | str]:
    answers: dict[int, Message | str] = {}
    for number, message in messages.items():
        try:
            answers[number] = getattr(clients[number], what)(message, round)
        except (NoAnswer, OSError) as error:
            answers[number] = str(error) or "did not answer"
    return answers


def _number(x: float) -> float | None:
    # JSON has no NaN.
    return x if x == x else None


def _note(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return ""
    last = records[-1]
    mean = sum(last["accuracy"].values()) / len(last["accuracy"])
    refused = f", without {', '.join(last['refused'])}" if last["refused"] else ""
    return f"round {last['round']}: {mean:.1f} % on average{refused}"
