import os

import pytest

from graphgen.files import atomic_write


def test_the_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "a.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent and temporary.suffix == ".csv"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["a.csv"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, failure):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(failure), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.skipif(os.name != "posix", reason="modes are a POSIX matter")
def test_the_result_is_as_readable_as_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    with atomic_write(tmp_path / "a") as temporary:
        temporary.chmod(0o600)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode
