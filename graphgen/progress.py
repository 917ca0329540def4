"""The one progress bar: on standard error, with rate and time left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[..., None]
_T = TypeVar("_T")

# Shorter work is over before a bar could be read.
_WORTH_WATCHING = 1_000


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.percentage")


@contextmanager
def progress_bar(what: str, total: int, visible: bool = True) -> Iterator[Advance]:
    """Yield ``advance(count=1, note="")``; the note stands behind the bar."""
    columns = (
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task(what, total=total, note="")
        waiting, last_note = 0, ""

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal waiting, last_note
            waiting += count
            # One update of the bar costs as much as a molecule.
            if waiting >= total / 200 or note != last_note:
                bar.update(task, advance=waiting, note=note)
                waiting, last_note = 0, note

        yield advance
        bar.update(task, advance=waiting)


def watched(items: Iterable[_T], total: int, what: str, visible: bool = True) -> Iterator[_T]:
    """The items, with a bar if there are many of them."""
    with progress_bar(what, total, visible and total > _WORTH_WATCHING) as advance:
        for item in items:
            yield item
            advance()
