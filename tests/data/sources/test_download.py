"""Downloads from a local server: continued, verified, and one at a time."""

import hashlib
import http.server
import re
import threading

import pytest

from hamjepa_jax.data.sources import download

CONTENT = bytes(range(256)) * 2000
HASH = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server:
    """Serves CONTENT at any path; notes the Range of each request, and can break off or ignore ranges."""

    def __init__(self):
        self.requests = []
        self.break_after = []  # per request to come: bytes to send before hanging up, None for all
        self.ranges = True
        self.content = CONTENT
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/files/data.tar.gz"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request):
        asked = request.headers.get("Range")
        self.requests.append(asked)
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and self.ranges else 0
        total = len(self.content)
        if start >= total:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{total}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        limit = self.break_after.pop(0) if self.break_after else None
        request.wfile.write(body[:limit])


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def files(folder):
    return sorted(f.name for f in folder.iterdir() if not f.name.endswith(".lock"))


def test_a_file_is_fetched_once(server, tmp_path):
    target = tmp_path / "new" / "data.tar.gz"
    for _ in range(2):
        download.fetch(server.url, target, known_hash=HASH)
        assert target.read_bytes() == CONTENT
    assert server.requests == [None]
    assert files(target.parent) == ["data.tar.gz"]


def test_an_interrupted_download_continues_with_the_rest_only(server, tmp_path):
    target = tmp_path / "data.tar.gz"
    server.break_after = [100_000]  # one whole chunk of 65536 bytes and a part of the next
    download.fetch(server.url, target, known_hash=HASH)
    assert target.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=65536-"]


def test_a_later_process_continues_what_an_earlier_one_left(server, tmp_path):
    target = tmp_path / "data.tar.gz"
    server.break_after = [70_000, 66_000, 140_000]  # every attempt of the first process
    with pytest.raises(download.DownloadError, match=r"127\.0\.0\.1.* broke off"):
        download.fetch(server.url, target, known_hash=HASH)
    assert files(tmp_path) == ["data.tar.gz.part"]
    assert (tmp_path / "data.tar.gz.part").read_bytes() == CONTENT[: 4 * 65536]
    download.fetch(server.url, target, known_hash=HASH)
    assert server.requests == [None, "bytes=65536-", "bytes=131072-", "bytes=262144-"]
    assert target.read_bytes() == CONTENT and files(tmp_path) == ["data.tar.gz"]


def test_a_part_that_is_already_the_whole_file_is_taken(server, tmp_path):
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT)
    download.fetch(server.url, tmp_path / "data.tar.gz", known_hash=HASH)
    assert server.requests == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "data.tar.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"x" * 5000, b"x" * (len(CONTENT) + 7)])
def test_a_part_of_something_else_is_given_up_for_a_fresh_start(server, tmp_path, part):
    (tmp_path / "data.tar.gz.part").write_bytes(part)
    download.fetch(server.url, tmp_path / "data.tar.gz", known_hash=HASH)
    assert server.requests == [f"bytes={len(part)}-", None]
    assert (tmp_path / "data.tar.gz").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT[:5000])
    download.fetch(server.url, tmp_path / "data.tar.gz", known_hash=HASH)
    assert (tmp_path / "data.tar.gz").read_bytes() == CONTENT and len(server.requests) == 1


def test_a_wrong_checksum_leaves_no_file(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(download.DownloadError, match=rf"checksum is not {HASH}"):
        download.fetch(server.url, tmp_path / "data.tar.gz", known_hash=HASH)
    assert files(tmp_path) == []
    assert len(server.requests) == 1  # the same content would come again


def test_a_server_that_refuses_or_is_not_there(server, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "answer", lambda request: request.send_error(404))
    with pytest.raises(download.DownloadError, match="answered 404 Not Found"):
        download.fetch(server.url, tmp_path / "data.tar.gz", known_hash=HASH)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(download.DownloadError, match="cannot be reached"):
        download.fetch(server.url, tmp_path / "data.tar.gz", known_hash=HASH)


def test_a_folder_that_cannot_be_made_is_said(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(download.DownloadError, match="cannot be written"):
        download.fetch(server.url, tmp_path / "file" / "data.tar.gz", known_hash=HASH)


def test_of_many_at_once_one_downloads(server, tmp_path):
    errors = []

    def fetch():
        try:
            download.fetch(server.url, tmp_path / "data.tar.gz", known_hash=HASH)
        except Exception as error:  # a thread's exception would be lost
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and server.requests == [None]
    assert (tmp_path / "data.tar.gz").read_bytes() == CONTENT
