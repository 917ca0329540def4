"""Training: one loop for every model, interruptible and resumable."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphgen import __version__, ops
from graphgen.errors import GraphgenError
from graphgen.models import checkpoint
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.ops.noise import Stream
from graphgen.progress import progress_bar

STATE = "training.safetensors"
LOG = checkpoint.LOG

# The validation noise is its own and the same after every epoch, so that epochs compare.
_VALID_STEP = 2**27
_VALID_MOLECULES = 4096
_NATS_MOLECULES = 1024


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        epochs: passes over the training split.
        batch_size: molecules per step.
        lr: peak learning rate of Adam; it rises over the first 100 steps and falls to 0 along a cosine.
        seed: of the model's start and of all noise.
        ema: decay of the running mean of the weights, which is what is saved and used.
        clip: gradients are scaled down to this norm.
        patience: stop after so many epochs that held-out molecules did not get likelier in; 0 never stops early.
    """

    epochs: int = 20
    batch_size: int = 256
    lr: float = 3e-3
    seed: int = 0
    ema: float = 0.999
    clip: float = 1.0
    patience: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0 or self.patience < 0:
            raise GraphgenError(
                f"epochs ({self.epochs}) and batch size ({self.batch_size}) must be at least 1, lr ({self.lr}) above 0 "
                f"and patience ({self.patience}) at least 0"
            )


class _Learner:
    """Everything that changes while training, and how it goes to disk and back."""

    def __init__(self, model: nn.Module, settings: TrainSettings, total_steps: int) -> None:
        self.model, self.settings, self.total_steps = model, settings, total_steps
        self.parameters = dict(model.named_parameters())
        self.mean = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=settings.lr, fused=True)
        self.step = 0
        self.best, self.best_step = math.inf, 0  # the least held-out number so far, and the step it was found at

    def learn(self, batch: MoleculeBatch) -> float:
        settings = self.settings
        rise = min(1.0, (self.step + 1) / 100)
        fall = 0.5 * (1 + math.cos(math.pi * self.step / self.total_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * rise * fall
        loss = self.model.loss(batch, settings.seed, self.step)  # type: ignore[operator]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), settings.clip)
        if not math.isfinite(float(norm)):
            raise GraphgenError(
                f"training step {self.step}: the gradient is not finite (loss {float(loss.detach()):.4g}, molecules "
                f"{batch.ids[:3].tolist()}, ...); use a lower --lr, and --resume from the last epoch"
            )
        self.optimizer.step()
        self.step += 1
        with torch.no_grad():
            weight = 1 - min(settings.ema, self.step / (self.step + 9))
            torch._foreach_lerp_(list(self.mean.values()), list(self.parameters.values()), weight)
        return float(loss.detach())

    def state(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {f"weight.{name}": parameter for name, parameter in self.parameters.items()}
        tensors |= {f"mean.{name}": value for name, value in self.mean.items()}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            tensors |= {f"adam.{key}.{name}": torch.as_tensor(value) for key, value in moments.items()}
        best = torch.tensor([self.best, self.best_step], dtype=torch.float64)
        return tensors | {"step": torch.tensor(self.step), "best": best}

    def restore(self, tensors: Mapping[str, Tensor], where: Path) -> None:
        try:
            for name, parameter in self.parameters.items():
                parameter.data.copy_(tensors[f"weight.{name}"])
                self.mean[name].copy_(tensors[f"mean.{name}"])
                self.optimizer.state[parameter] = {
                    key: tensors[f"adam.{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
                }
            self.step = int(tensors["step"])
            self.best, self.best_step = tensors["best"].tolist()
        except (KeyError, RuntimeError) as error:
            raise GraphgenError(f"{where}: does not belong to this model ({error}); train into a new folder") from None


def train(
    model: Any,
    data: EncodedMolecules,
    out: str | os.PathLike[str],
    settings: TrainSettings | None = None,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train a model on the training split of `data` and write it to a folder after every epoch that bettered it.

    The measure is what the model says of held-out molecules: nats per atom by its ``log_prob``, or else its loss. The
    order of molecules and all noise are functions of the seed, so a resumed run goes on exactly where it was.

    Args:
        model: has ``loss(batch, seed, step)`` and ``save(folder)``; and if it takes anything from the data before it
            learns, such as sizes, ``fit_prior(data)``.
        out: the folder. It gets the model (running mean of the weights), and what resuming needs.
        resume: go on with the run that is in the folder.

    Returns:
        One record per epoch: epoch, step, train and valid loss (the model's own), held-out nats per atom (of the first
        1,024 molecules; where the model has a likelihood), seconds so far. The model ends up with its best epoch's
        weights.

    Raises:
        GraphgenError: no molecules, a folder in use, a run with other settings, or numbers that are not finite.
    """
    settings = settings or TrainSettings()
    folder = Path(out)
    learning, held_out = data.split("train"), data.split("valid")
    if not len(learning):
        raise GraphgenError(f"{data.name}: its training split is empty; give more molecules")
    if hasattr(model, "fit_prior"):
        model.fit_prior(learning)
    described = {
        "settings": asdict(settings),
        "model": {"name": model.name, **model.settings},
        "data": {
            "name": data.name,
            "sha256": data.source_sha256,
            "train": len(learning),
            "valid": len(held_out),
            "atoms": [int(learning.sizes.min()), int(learning.sizes.max())],
        },
    }
    steps_per_epoch = -(-len(learning) // settings.batch_size)
    model.to(device).train()
    learner = _Learner(model, settings, settings.epochs * steps_per_epoch)
    records: list[dict[str, float]] = []
    if (folder / LOG).exists():
        if not resume:
            raise GraphgenError(
                f"{folder}: holds a training run; add --resume to go on with it, or choose another folder"
            )
        log = checkpoint.read_json(folder / LOG)
        if {key: log.get(key) for key in described} != described:
            raise GraphgenError(
                f"{folder}: its run has other settings, model or data; repeat them or choose another folder"
            )
        learner.restore(checkpoint.read_tensors(folder / STATE), folder / STATE)
        records = log["epochs"][: learner.step // steps_per_epoch]
    seconds = records[-1]["seconds"] if records else 0.0
    started = time.monotonic() - seconds
    with progress_bar("training", settings.epochs * steps_per_epoch, progress) as advance:
        advance(learner.step)
        note = _note(records)
        # By the weights, not the log: a kill between writing the two may leave the log one record short.
        for epoch in range(learner.step // steps_per_epoch, settings.epochs):
            if settings.patience and learner.step - learner.best_step >= settings.patience * steps_per_epoch:
                break
            total, atoms = 0.0, 0
            for indices in _shuffled(learning, settings.seed, epoch).split(settings.batch_size):
                batch = learning.batch(indices, device)
                total += learner.learn(batch) * batch.atoms.numel()
                atoms += batch.atoms.numel()
                advance(note=note)
            with _using(learner.parameters, learner.mean):
                found = _validate(model, held_out, settings, device)
                # Without held-out molecules there is nothing to choose by, and the last epoch is the one to keep.
                score = found.get("nats", found["valid"])
                if not score >= learner.best:
                    learner.best, learner.best_step = score, learner.step
                    model.save(folder)
                records.append(
                    {
                        "epoch": epoch + 1,
                        "step": learner.step,
                        "train": total / max(atoms, 1),
                        **found,
                        "seconds": round(time.monotonic() - started, 2),
                    }
                )
            checkpoint.save_tensors(folder / STATE, learner.state())
            environment = {"graphgen": __version__, "torch": torch.__version__, "device": device}
            checkpoint.write_json(
                folder / LOG,
                {
                    **described,
                    "environment": environment,
                    "threads": torch.get_num_threads(),
                    "epochs": records,
                },
            )
            note = _note(records)
    model.load_state_dict(checkpoint.read_tensors(folder / checkpoint.WEIGHTS))
    model.eval()
    return records


def _note(records: list[dict[str, float]]) -> str:
    if not records:
        return ""
    last = records[-1]
    nats = f" nats {last['nats']:.4f}" if "nats" in last else ""
    return f"epoch {last['epoch']}: train {last['train']:.4f} valid {last['valid']:.4f}{nats}"


def _shuffled(data: EncodedMolecules, seed: int, epoch: int) -> Tensor:
    keys = ops.uniform(torch.tensor([0, len(data)]), 1, seed, Stream.ORDER, epoch).squeeze(1)
    return keys.argsort(stable=True)


class _using:
    """Weights for a while replaced by others."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], others: Mapping[str, Tensor]) -> None:
        self.parameters, self.others = parameters, others

    def __enter__(self) -> None:
        self.kept = {name: parameter.data for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.data = self.others[name]

    def __exit__(self, *_: object) -> None:
        for name, parameter in self.parameters.items():
            parameter.data = self.kept[name]


@torch.no_grad()
def _validate(model: Any, held_out: EncodedMolecules, settings: TrainSettings, device: str) -> dict[str, float]:
    """Loss on (the first 4,096 of) the validation split, NaN if it is empty, and nats per atom of the first 1,024.

    Of those, molecules that the model never makes are left out, for one of them would hide all others.
    """
    if not len(held_out):
        return {"valid": math.nan}
    loss, atoms, nats, counted = 0.0, 0, 0.0, 0
    for indices in torch.arange(min(len(held_out), _VALID_MOLECULES)).split(settings.batch_size):
        batch = held_out.batch(indices, device)
        loss += float(model.loss(batch, settings.seed, _VALID_STEP)) * batch.atoms.numel()
        atoms += batch.atoms.numel()
        if hasattr(model, "log_prob") and int(indices[0]) < _NATS_MOLECULES:
            bound = model.log_prob(batch, settings.seed, _VALID_STEP, method="rk4", steps=8)
            possible = ~bound.value.isneginf()
            nats -= float(bound.value[possible].sum())
            counted += int(bound.atoms[possible].sum())
    found = {"valid": loss / atoms}
    return found | {"nats": nats / counted} if counted else found
