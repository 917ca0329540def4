"""Files appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on a clean exit sync it to disk and rename it onto ``path``.

    If the body raises (an interrupt included), the temporary file is removed and ``path`` is left as it was.
    Missing parent folders are made. The file is there, empty; the body must have closed it.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays, for writers and readers that go by it.
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    temporary.touch()
    mode = temporary.stat().st_mode
    try:
        yield temporary
        # Some writers make their files private; a result is as readable as the user's umask says.
        temporary.chmod(mode)
        with open(temporary, "r+b") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # Without this a rename can be lost in a power cut; Windows has no such call and needs none.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
