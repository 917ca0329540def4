"""The filters' pattern files: in the data folder or among the downloads."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from graphgen.errors import GraphgenError
from graphgen.metrics import patterns
from graphgen.molecules import datasets

CONTENTS = {"mcf.csv": b"names,smarts\nx,[Cl]\n", "wehi_pains.csv": b"[N+],y\n"}


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A world in which the published files are these two, on a server of our own."""
    monkeypatch.delenv("GRAPHGEN_DATA", raising=False)
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "cache"))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            asked.append(name)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENTS[name])

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}"
    sources = [
        replace(source, sha256=digests[name], urls=(f"{root}/{name}",))
        for source, name in zip(datasets.FILES["moses-filters"], CONTENTS, strict=True)
    ]
    monkeypatch.setitem(datasets.FILES, "moses-filters", tuple(sources))
    monkeypatch.setattr(patterns, "FILES", {source.file: source.sha256 for source in sources})
    patterns.load.cache_clear()
    yield asked
    patterns.load.cache_clear()
    server.shutdown()
    server.server_close()


def test_downloaded_once_and_found(published):
    assert "graphgen data moses-filters --download" in patterns.missing()
    paths = datasets.download_files("moses-filters")
    assert [path.name for path in paths] == list(CONTENTS) and len(published) == 2
    assert datasets.download_files("moses-filters") == paths and len(published) == 2
    assert patterns.missing() is None and len(patterns.load().queries) == 2


def test_another_file_under_that_name_is_refused(published, monkeypatch):
    monkeypatch.setitem(CONTENTS, "mcf.csv", b"something else")
    with pytest.raises(GraphgenError, match="could not be downloaded"):
        datasets.download_files("moses-filters")
    with pytest.raises(GraphgenError, match="there are moses-filters"):
        datasets.download_files("others")


def test_the_pinned_digests_are_those_of_the_published_files():
    for source in datasets.FILES["moses-filters"]:
        path = datasets.find_file(source.file)
        if path is None:
            pytest.skip("set GRAPHGEN_DATA")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == source.sha256
