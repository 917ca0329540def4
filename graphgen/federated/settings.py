"""How a federation learns."""

from __future__ import annotations

from dataclasses import dataclass

from graphgen.errors import GraphgenError

WEIGHTS = ("source", "moved")
STARTS = ("global", "own")


@dataclass(frozen=True)
class Settings:
    """Of DualAdapt and of the baselines beside it; server and clients share them.

    Attributes:
        rounds: of broadcast, local adaptation, upload and server optimisation.
        pretrain_steps: of G and F_g on labelled source data, before the first round.
        client_steps: R_c of Algorithm 1.
        server_steps: R_s of Algorithm 1.
        batch_size: examples per step.
        lr: of Adam, for pre-training and on the clients.
        server_lr: of Adam on the server after pre-training.
        discrepancy: weight of the discrepancy loss on the clients, beside pseudo-labels of weight 1.
        weights: what a pseudo-label weighs. "source": the tempered density of its example and class in the source
            mixture, as in Algorithm 1. "moved": the posterior of its class in that mixture after EM has moved it to
            the client's data.
        start: each round's local classifier starts as the "global" one, as in Algorithm 1, or goes on as its "own".
        own_statistics: the extractor standardises its layers by each client's own means and variances, which never
            leave the client; else by the source's, as Algorithm 1 has it.
        em_steps: of expectation-maximisation that move the source mixture to a client's data.
        clip: an upload's difference from what was broadcast is scaled down to this norm; 0 leaves it alone.
        noise: Gaussian noise on every number of an upload, in units of ``clip``.
        seed: of the networks' start, of every choice of examples, and of noise.
    """

    rounds: int = 10
    pretrain_steps: int = 200
    client_steps: int = 30
    server_steps: int = 20
    batch_size: int = 64
    lr: float = 1e-3
    server_lr: float = 1e-4
    discrepancy: float = 0.1
    weights: str = "moved"
    start: str = "own"
    own_statistics: bool = True
    em_steps: int = 5
    clip: float = 0.0
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "pretrain_steps", "client_steps", "server_steps", "batch_size", "lr", "server_lr"):
            if getattr(self, name) <= 0:
                raise GraphgenError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("discrepancy", "em_steps", "clip", "noise", "seed"):
            if getattr(self, name) < 0:
                raise GraphgenError(f"{name} must be at least 0, not {getattr(self, name)}")
        for name, known in (("weights", WEIGHTS), ("start", STARTS)):
            if getattr(self, name) not in known:
                raise GraphgenError(f"{name} {getattr(self, name)!r}: choose one of {', '.join(known)}")
        if self.noise and not self.clip:
            raise GraphgenError("noise is in units of clip, which is 0: set clip, or leave noise out")
