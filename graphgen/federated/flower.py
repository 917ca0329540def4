"""DualAdapt on Flower: a ServerApp and a ClientApp around the same server and clients (extra ``federated``).

Every SuperNode tells which client it is by ``--node-config "partition-id=K"``, K from 0.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from graphgen.errors import GraphgenError
from graphgen.extras import extra
from graphgen.federated.client import Client
from graphgen.federated.exchange import ADAPT, INTRODUCE, exchange
from graphgen.federated.protocol import Message
from graphgen.federated.server import Server
from graphgen.models import checkpoint

STATE, LOG = "federation.safetensors", "federation.json"
_EXTRA = "federated"
# While SuperNodes connect.
_POLL = 0.5


def client_app(make_client: Callable[[int], Client]) -> Any:
    """A ``flwr.clientapp.ClientApp``.

    Args:
        make_client: the client of a number, with its examples; called where the examples are.
    """
    flwr = extra("flwr.app", _EXTRA)
    app = extra("flwr.clientapp", _EXTRA).ClientApp()

    def answer(message: Any, context: Any) -> Any:
        client = make_client(int(context.node_config["partition-id"]))
        about = message.content["about"]
        act = {ADAPT: client.adapt, INTRODUCE: client.introduce}[str(about["what"])]
        made = act(message.content["message"].to_torch_state_dict(), int(about["round"]))
        return flwr.Message(_record(flwr, made), reply_to=message)

    def number(message: Any, context: Any) -> Any:
        about = flwr.ConfigRecord({"number": int(context.node_config["partition-id"])})
        return flwr.Message(flwr.RecordDict({"about": about}), reply_to=message)

    app.train()(answer)
    app.query()(number)
    return app


def server_app(make_server: Callable[[], Server], clients: int, out: Path, timeout: float = 600.0) -> Any:
    """A ``flwr.serverapp.ServerApp``.

    Args:
        make_server: called where the source data is.
        clients: so many are waited for before the first round; more may come later, and start from their nearest.
        out: folder for the models and the last good uploads, and a log of who was refused in which round, and why.
        timeout: seconds that clients have to answer; those that take longer sit the round out.
    """
    flwr = extra("flwr.app", _EXTRA)
    app = extra("flwr.serverapp", _EXTRA).ServerApp()

    def main(grid: Any, context: Any) -> None:
        server = make_server()
        server.pretrain()
        nodes: dict[int, int] = {}
        until = time.monotonic() + timeout
        while len(nodes) < clients:
            if time.monotonic() > until:
                raise GraphgenError(f"only {len(nodes)} of {clients} clients came within {timeout:.0f} s")
            nodes |= _newcomers(flwr, grid, timeout, nodes)
            time.sleep(_POLL)
        records = []
        while server.round < server.settings.rounds:
            nodes |= _newcomers(flwr, grid, timeout, nodes)
            late = [k for k in nodes if server.round and k not in server.uploads]
            ask = partial(_ask, flwr, grid, timeout, nodes)
            found = exchange(server, server.broadcast(), set(nodes) - set(late), late, ask)
            server.learn(found.uploads)
            refused = {str(k): reason for k, reason in found.refused.items()}
            records.append({"round": server.round, "refused": refused, "bytes": {"down": found.down, "up": found.up}})
            checkpoint.write_json(out / LOG, {"rounds": records})
            checkpoint.save_tensors(out / STATE, server.state())

    app.main()(main)
    return app


def _record(flwr: Any, message: Message, **about: int | str) -> Any:
    arrays = flwr.ArrayRecord(OrderedDict(message))
    return flwr.RecordDict({"message": arrays, "about": flwr.ConfigRecord(about)})


def _newcomers(flwr: Any, grid: Any, timeout: float, nodes: Mapping[int, int]) -> dict[int, int]:
    """By client number, the nodes that were not there before."""
    questions = [
        flwr.Message(flwr.RecordDict(), message_type=flwr.MessageType.QUERY, dst_node_id=node)
        for node in grid.get_node_ids()
        if node not in nodes.values()
    ]
    if not questions:
        return {}
    answers = grid.send_and_receive(questions, timeout=timeout)
    return {int(one.content["about"]["number"]): one.metadata.src_node_id for one in answers if not one.has_error()}


def _ask(
    flwr: Any,
    grid: Any,
    timeout: float,
    nodes: Mapping[int, int],
    what: str,
    messages: Mapping[int, Message],
    round: int,
) -> dict[int, Message | str]:
    numbers = {node: number for number, node in nodes.items()}
    sent = [
        flwr.Message(
            _record(flwr, message, what=what, round=round),
            message_type=flwr.MessageType.TRAIN,
            dst_node_id=nodes[number],
        )
        for number, message in messages.items()
    ]
    found: dict[int, Message | str] = {}
    for answer in grid.send_and_receive(sent, timeout=timeout):
        number = numbers[answer.metadata.src_node_id]
        if answer.has_error():
            found[number] = f"failed: {answer.error.reason}"
        else:
            found[number] = dict(answer.content["message"].to_torch_state_dict())
    return found
