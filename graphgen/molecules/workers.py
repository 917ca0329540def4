"""Work on molecules in several processes, so that one that crashes or hangs RDKit costs that molecule only.

Each worker is a plain child process that talks JSON lines. It answers record by record, so the record at
fault is the first one without an answer; ``multiprocessing`` would lose the whole pool, and needs a guard in
the caller's script.
"""

from __future__ import annotations

import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from importlib import import_module
from itertools import islice
from typing import Any

from graphgen.errors import GraphgenError
from graphgen.molecules.codec import EncodeError, encode_with_smiles, parse
from graphgen.molecules.records import Record
from graphgen.molecules.vocabulary import MoleculeGraph

Outcome = tuple[MoleculeGraph, str] | str
"""The graph and the stereo-free canonical SMILES of a record, or why it has none."""

_SERVE = "from graphgen.molecules.workers import serve; serve()"
_ENCODE = "graphgen.molecules.workers:_answer"
_CHUNK = 256
_FEW = 5_000
"""So many records are encoded sooner than a process starts."""


def encode_records(records: Iterable[Record], total: int, timeout: float = 60.0) -> Generator[Outcome]:
    """Encode about ``total`` records, in order; few of them are held at a time.

    A record that crashes its process, or takes longer than ``timeout`` seconds, has an outcome like others.
    Closing the generator, or an exception in it such as KeyboardInterrupt, ends the processes.

    Raises:
        GraphgenError: a process cannot be started.
    """
    with closing(answers(_ENCODE, ((r.text, r.form) for r in records), total, _FEW, timeout)) as found:
        yield from map(_outcome, found)


def answers(task: str, items: Iterable[Sequence[Any]], total: int, few: int, timeout: float = 60.0) -> Generator[Any]:
    """``function(*item)`` for every item, in order, in as many processes as are worth their start.

    An item that crashes its process, or takes longer than ``timeout`` seconds, is answered by a string that
    says so. Closing the generator, or an exception in it, ends the processes. The items are taken, in some other
    thread, not long before their answers are.

    Args:
        task: ``module:function``. The function takes and returns what JSON can carry, and raises nothing.
        total: about how many items there are.
        few: so many items take as long as a process takes to start.

    Raises:
        GraphgenError: a process cannot be started.
    """
    if total <= few:
        function = _function(task)
        yield from (function(*item) for item in items)
    else:
        workers = min(os.cpu_count() or 1, 1 + total // few)
        yield from _in_processes(task, items, workers, timeout)


def _function(task: str) -> Callable[..., Any]:
    module, name = task.split(":")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]


def _answer(text: str, form: str) -> Any:
    try:
        (atoms, bonds), smiles = encode_with_smiles(parse(text, form))
    except EncodeError as error:
        return error.reason
    except Exception as error:
        # RDKit raises many kinds of exception on strange input; one record must not end a run.
        return f"RDKit failed: {type(error).__name__}"
    return [smiles, atoms, bonds]


def _outcome(answer: Any) -> Outcome:
    if isinstance(answer, str):
        return answer
    smiles, atoms, bonds = answer
    return MoleculeGraph(tuple(map(tuple, atoms)), tuple(map(tuple, bonds))), smiles


class _Worker:
    """One child process. ``heard`` is when it last gave a sign of life, infinite while nothing is asked of it."""

    def __init__(self, task: str) -> None:
        self.heard = time.monotonic()
        self.overdue = False
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
            # Ctrl-C is for the parent to act on; the child ends when its input does.
            start_new_session=True,
        )

    def ready(self) -> bool:
        return self._process.stdout.readline() == _READY  # type: ignore[union-attr]

    def answers(self, items: Sequence[Sequence[Any]]) -> Iterator[Any]:
        """Answers to ``items``, in order; fewer if the process dies."""
        request = json.dumps(items)
        self.heard = time.monotonic()
        try:
            self._process.stdin.write(request.encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except OSError:
            return
        for _ in items:
            line = self._process.stdout.readline()  # type: ignore[union-attr]
            if not line.endswith(b"\n"):
                return
            self.heard = time.monotonic()
            yield json.loads(line)
        self.heard = math.inf

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Close the pipes; for the thread that reads them, after :meth:`end`."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


_READY = b"ready\n"


class _Pool:
    """``results`` gets (number, answers) of every chunk, any exception, and None from every thread that ends."""

    def __init__(self, task: str, items: Iterable[Sequence[Any]], workers: int, timeout: float) -> None:
        self.task = task
        self.timeout = timeout
        self.chunks = enumerate(_chunks(iter(items)))
        # What is read but not yet answered to the caller is limited, however slow the caller is.
        self.room = threading.Semaphore(max(16, 2 * workers))
        self.results: queue.SimpleQueue[tuple[int, list[Any]] | Exception | None] = queue.SimpleQueue()
        self.alive: set[_Worker] = set()
        self.lock, self.reading = threading.Lock(), threading.Lock()
        self.closed = False

    def run(self) -> None:
        """One thread, one worker at a time: answer chunks until there are none."""
        worker = None
        try:
            while (numbered := self.next_chunk()) is not None:
                number, chunk = numbered
                answers: list[Any] = []
                while len(answers) < len(chunk):
                    worker = worker or self.hire()
                    answers.extend(worker.answers(chunk[len(answers) :]))
                    if len(answers) < len(chunk):
                        answers.append(f"took over {self.timeout:g} s" if worker.overdue else "crashed RDKit")
                        self.dismiss(worker)
                        worker = None
                self.results.put((number, answers))
        except Exception as error:
            self.results.put(error)
        finally:
            if worker:
                self.dismiss(worker)
            self.results.put(None)

    def next_chunk(self) -> tuple[int, list[Sequence[Any]]] | None:
        self.room.acquire()
        with self.reading:
            return None if self.closed else next(self.chunks, None)

    def hire(self) -> _Worker:
        with self.lock:
            if self.closed:
                raise GraphgenError("the work was stopped")
            worker = _Worker(self.task)
            self.alive.add(worker)
        if not worker.ready():
            raise GraphgenError("a process for molecules could not be started; its own message is above")
        return worker

    def dismiss(self, worker: _Worker) -> None:
        with self.lock:
            self.alive.discard(worker)
        worker.end()
        worker.release()

    def end_overdue(self) -> None:
        with self.lock:
            for worker in self.alive:
                if time.monotonic() - worker.heard > self.timeout:
                    worker.overdue = True
                    worker.end()

    def close(self) -> None:
        with self.lock:
            self.closed = True
            for worker in self.alive:
                worker.end()


def _chunks(items: Iterator[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    while chunk := list(islice(items, _CHUNK)):
        yield chunk


def _in_processes(task: str, items: Iterable[Sequence[Any]], workers: int, timeout: float) -> Iterator[Any]:
    pool = _Pool(task, items, workers, timeout)
    threads = [threading.Thread(target=pool.run, daemon=True) for _ in range(workers)]
    early: dict[int, list[Any]] = {}
    running, number = workers, 0
    try:
        for thread in threads:
            thread.start()
        while running:
            with suppress(queue.Empty):
                result = pool.results.get(timeout=1.0)
                if isinstance(result, Exception):
                    raise result
                if result is None:
                    running -= 1
                    pool.room.release()
                else:
                    early[result[0]] = result[1]
            pool.end_overdue()
            while found := early.pop(number, None):
                yield from found
                number += 1
                pool.room.release()
    finally:
        pool.close()
        pool.room.release(workers)
        for thread in threads:
            thread.join()


def serve() -> None:
    """The child's side: read chunks of items from standard input, answer each on standard output."""
    function = _function(sys.argv[1])
    # Whatever a library prints must not reach the pipe that carries the answers.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pipe.write(_READY)
    pipe.flush()
    for request in sys.stdin.buffer:
        for item in json.loads(request):
            pipe.write(json.dumps(function(*item)).encode() + b"\n")
            pipe.flush()
