"""One round's messages, however they travel: what is sent to whom, and what of the answers can be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from graphgen.errors import GraphgenError
from graphgen.federated.protocol import Message, expected, objection, part, size
from graphgen.federated.server import Server, starting

ADAPT, INTRODUCE = "adapt", "introduce"

Ask = Callable[[str, Mapping[int, Message], int], Mapping[int, Message | str]]
"""Carries messages to clients by number, with what they are to do and the round; gives answers, or why there is none.

A client that is not in the result did not answer.
"""


@dataclass
class Exchange:
    """
    Attributes:
        uploads: the good ones, by client.
        refused: why there is none.
        nearest: of each client that joined, the client it started from.
        down, up: bytes sent to clients, and by them.
    """

    uploads: dict[int, Message] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    nearest: dict[int, int] = field(default_factory=dict)
    down: int = 0
    up: int = 0

    def take(self, sent: Mapping[int, Message], answers: Mapping[int, Message | str]) -> None:
        """Count messages in, and tell good uploads from bad."""
        for number, message in sent.items():
            answer = answers.get(number, "did not answer")
            self.down += size(message)
            if isinstance(answer, str):
                self.refused[number] = answer
                continue
            self.up += size(answer)
            if reason := objection(answer, expected(message)):
                self.refused[number] = reason
            else:
                self.uploads[number] = answer


def exchange(server: Server, broadcast: Message, members: Iterable[int], late: Iterable[int], ask: Ask) -> Exchange:
    """Let clients adapt to a broadcast.

    Args:
        members: clients that go on.
        late: clients that come in now. They start from what the others have just uploaded, from the same G.
    """
    found = Exchange()
    sent = {number: server.for_client(broadcast, number) for number in sorted(members)}
    found.take(sent, ask(ADAPT, sent, server.round))
    others, joining = dict(found.uploads), sorted(late)
    introductions = ask(INTRODUCE, dict.fromkeys(joining, broadcast), server.round) if joining else {}
    for number in joining:
        answer = introductions.get(number, "did not answer")
        try:
            if isinstance(answer, str):
                raise GraphgenError(answer)
            found.nearest[number] = server.nearest(broadcast, answer, others)
        except GraphgenError as error:
            found.refused[number] = str(error)
    sent = {number: starting(broadcast, part(others[nearest], "local")) for number, nearest in found.nearest.items()}
    if sent:
        found.take(sent, ask(ADAPT, sent, server.round))
    return found
