"""A real federation on Flower over loopback: a SuperLink, two SuperNodes, and what one process makes of the same."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from federations import SETTINGS, suite

from graphgen.federated.simulate import LOG, STATE, simulate
from graphgen.models.checkpoint import read_tensors

pytest.importorskip("flwr", reason="needs the extra `federated`")

ROUNDS = 1
BIN = Path(sys.executable).parent

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "points"
version = "1.0.0"
license = "MIT"
dependencies = []
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "graphgen"
[tool.flwr.app.components]
serverapp = "apps:server"
clientapp = "apps:client"
"""

APPS = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {shared!r})
import torch
from federations import SETTINGS, suite
from graphgen.federated.client import Client
from graphgen.federated.flower import client_app, server_app
from graphgen.federated.server import Server
torch.set_num_threads(1)
settings = replace(SETTINGS, rounds={rounds})
made = suite(("east", "north"))
client = client_app(lambda k: Client(k, made.clients[k].learning.examples, made.networks, settings))
server = server_app(lambda: Server(made.source, made.networks, settings), 2, Path({out!r}))
"""


def free_port():
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def running(*command, log, environment):
    with open(log, "wb") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def wait(until, seconds, what):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


def answers(port):
    with closing(socket.socket()) as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(
    not (BIN / "flower-superlink").exists() and not shutil.which("flower-superlink"), reason="no Flower"
)
def test_a_federation_over_loopback_gets_the_bits_of_one_process(tmp_path):
    settings = replace(SETTINGS, rounds=ROUNDS)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        simulate(suite(("east", "north")), settings, tmp_path / "alone", progress=False)
    finally:
        torch.set_num_threads(before)
    app, home, out = tmp_path / "app", tmp_path / "home", tmp_path / "out"
    app.mkdir()
    home.mkdir()
    shared = str(Path(__file__).parents[1] / "shared")
    (app / "pyproject.toml").write_text(PROJECT)
    (app / "apps.py").write_text(APPS.format(shared=shared, rounds=ROUNDS, out=str(out)))
    port = free_port()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    environment = os.environ | {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "PATH": path}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    logs = [tmp_path / f"{name}.log" for name in ("link", "node0", "node1")]

    def told():
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs if log.exists())

    link = (
        "flower-superlink",
        "--insecure",
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--disable-runtime-dependency-installation",
    )
    nodes = [
        (
            "flower-supernode",
            "--insecure",
            "--superlink",
            f"127.0.0.1:{port}",
            "--host",
            "127.0.0.1",
            "--port",
            free_port(),
            "--node-config",
            f"partition-id={k}",
        )
        for k in (0, 1)
    ]
    with running(*link, log=logs[0], environment=environment):
        wait(lambda: answers(port), 120, told)
        with (
            running(*nodes[0], log=logs[1], environment=environment),
            running(*nodes[1], log=logs[2], environment=environment),
        ):
            done = subprocess.run(
                ["flwr", "run", app, "here"], env=environment, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stdout + done.stderr

            def finished():
                log = out / LOG
                return log.exists() and len(json.loads(log.read_text())["rounds"]) == ROUNDS and (out / STATE).exists()

            wait(finished, 400, told)
            wait(lambda: int(read_tensors(out / STATE)["round"]) == ROUNDS, 20, told)
    assert [one["refused"] for one in json.loads((out / LOG).read_text())["rounds"]] == [{}] * ROUNDS
    ours, theirs = read_tensors(tmp_path / "alone" / STATE), read_tensors(out / STATE)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
