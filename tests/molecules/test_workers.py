import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphgen.errors import GraphgenError
from graphgen.molecules import codec, workers
from graphgen.molecules.records import Record

SMILES = ["CCO", "c1ccccc1", "bad", "[O]", "N", "C#N", ""] * 40
RECORDS = [Record(f"a:{i}", smiles) for i, smiles in enumerate(SMILES)]

SABOTAGE = """
import os, time
from graphgen.molecules import workers
honest = workers._answer
def answer(text, form):
    if text == "CRASH":
        os.kill(os.getpid(), 9)
    if text == "HANG":
        time.sleep(1000)
    print("noise")
    return honest(text, form)
workers._answer = answer
"""


@pytest.fixture
def in_processes(monkeypatch):
    monkeypatch.setattr(workers, "_FEW", 100)


@pytest.fixture
def sabotaged(in_processes, monkeypatch, tmp_path):
    """Workers that crash on CRASH, hang on HANG and print what they should not."""
    (tmp_path / "sabotage.py").write_text(SABOTAGE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(workers, "_SERVE", f"import sabotage; {workers._SERVE}")


def children():
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def test_processes_answer_as_one_process_does(in_processes, monkeypatch):
    parallel = list(workers.encode_records(RECORDS, len(RECORDS)))
    monkeypatch.setattr(workers, "_FEW", 10_000)
    assert parallel == list(workers.encode_records(RECORDS, len(RECORDS)))
    assert len(parallel) == len(SMILES)
    assert parallel[0] == codec.encode_with_smiles(codec.parse("CCO"))
    assert parallel[3] == "radical"


def test_a_crash_and_a_hang_cost_one_record_each(sabotaged):
    texts = list(SMILES)
    texts[5], texts[100], texts[-1] = "CRASH", "HANG", "CRASH"
    outcomes = list(workers.encode_records([Record("a:1", text) for text in texts], len(texts), timeout=4.0))
    assert len(outcomes) == len(texts)
    assert outcomes[5] == outcomes[-1] == "crashed RDKit"
    assert outcomes[100] == "took over 4 s"
    expected = {text: workers._outcome(workers._answer(text, "smiles")) for text in set(SMILES)}
    for i, text in enumerate(SMILES):
        assert i in (5, 100, len(texts) - 1) or outcomes[i] == expected[text]


def test_records_are_read_as_they_are_needed_and_a_slow_caller_costs_none(in_processes):
    taken = []

    def records():
        for i in range(20_000):
            taken.append(i)
            yield Record(f"a:{i}", "C" * (i % 5 + 1))

    outcomes = workers.encode_records(records(), 20_000, timeout=1.0)
    first = next(outcomes)
    time.sleep(3)  # longer than the workers may be silent about a record
    assert len(taken) < 10_000
    assert [smiles for _, smiles in [first, *outcomes]] == ["C" * (i % 5 + 1) for i in range(20_000)]


@pytest.mark.parametrize("at", [0, 50, 3_000])
def test_an_error_of_the_reader_comes_through(in_processes, at):
    def records():
        yield from RECORDS[:1] * at
        raise GraphgenError("damaged")

    with pytest.raises(GraphgenError, match="damaged"):
        list(workers.encode_records(records(), 5_000))


def test_the_processes_load_no_torch(run_python):
    found = run_python("import sys, graphgen.molecules.workers; print('torch' in sys.modules)")
    assert found.stdout == "False\n", found.stderr


def test_workers_that_cannot_start_are_one_error(in_processes, monkeypatch):
    monkeypatch.setattr(workers, "_SERVE", "raise SystemExit(3)")
    with pytest.raises(GraphgenError, match="could not be started"):
        list(workers.encode_records(RECORDS, len(RECORDS)))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_no_process_outlives_a_closed_generator(in_processes):
    before = children()  # torch's own compiler may keep some
    # More than are read ahead, or the processes might be done by now.
    outcomes = workers.encode_records(40 * RECORDS, 40 * len(RECORDS))
    next(outcomes)
    assert children() - before
    outcomes.close()
    assert not children() - before


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupt_leaves_no_file_and_no_process(tmp_path):
    (tmp_path / "sabotage.py").write_text(SABOTAGE + "print(os.getpid(), file=open('pid', 'w'))")
    (tmp_path / "a.smi").write_text("C\n" * 9_000 + "HANG\n")
    (tmp_path / "run.py").write_text(
        "from graphgen.molecules import datasets, workers\n"
        "workers._SERVE = 'import sabotage; ' + workers._SERVE\n"
        "datasets.load('a.smi', progress=False)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
