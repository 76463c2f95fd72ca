"""Fetches a file once, whole and verified; goes on where an earlier attempt broke off."""

import os
import pathlib
import re

import pooch
import requests

from hamjepa_jax.files import locked

TIMEOUT = (10, 60)  # seconds to connect, and between two packets
CHUNK = 1 << 16  # Bytes; a chunk that is not whole when the connection breaks is lost.
ATTEMPTS = 3


class DownloadError(Exception):
    """The file could not be fetched; the message says why."""


def fetch(url: str, path: str | os.PathLike, *, known_hash: str) -> None:
    """Makes `path` exist with the given hash, downloading it if it does not exist.

    The bytes that have arrived are kept in PATH.part; a later call (or the next of three attempts) asks the server
    for the rest only. The file gets its name after its hash is verified, so a process that finds it can use it.
    Processes that share the folder wait for each other (they lock PATH.lock, and the system releases the lock if
    its holder dies): one of them downloads, the others find the file.

    Args:
      url: http or https address.
      path: the file to make; its folder is created.
      known_hash: "md5:…" or "sha256:…".

    Raises:
      DownloadError: if the server cannot be reached, breaks off every time or sends other content.
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(path.name + ".lock")):
            if not path.exists():
                _attempt(url, path, known_hash)
    except OSError as error:  # a full disk, a folder that may not be written
        raise DownloadError(f"{path} cannot be written: {error}") from error


def _attempt(url: str, path: pathlib.Path, known_hash: str) -> None:
    part = path.with_name(path.name + ".part")
    for attempt in range(ATTEMPTS):
        continued = part.exists()
        last = attempt == ATTEMPTS - 1
        try:
            pooch.retrieve(
                url,
                known_hash=known_hash,
                fname=path.name,
                path=path.parent,
                downloader=lambda url, output_file, _: _download(url, part, output_file),
            )
            return
        except requests.RequestException as error:
            if last or isinstance(error, requests.HTTPError):  # the server answered: asking again is no use
                raise DownloadError(_reason(url, error)) from error
        except ValueError as error:  # pooch: the hash is another one; it has removed the file
            # A part left over from long ago may belong to another version of the file: once more from the start.
            if last or not continued:
                raise DownloadError(f"{url} sent a file whose checksum is not {known_hash}") from error


def _reason(url: str, error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError):
        return f"{url} answered {error.response.status_code} {error.response.reason}"
    # The messages of these name connection pools and retries; their type says what a user can act on.
    return f"{url} cannot be reached or broke off ({type(error).__name__})"


def _download(url: str, part: pathlib.Path, output_file: str) -> None:
    """Completes `part` from the server and moves it to `output_file`."""
    have = part.stat().st_size if part.exists() else 0
    # Compressed transfer would make positions in the stream differ from positions in the file.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            # The server has no more bytes: the part is complete or of another file, as the checksum will tell.
            os.replace(part, output_file)
            return
        response.raise_for_status()
        if not _continues_at(response, have):  # the server ignores Range and sends the whole file
            have = 0
        expected = response.headers.get("Content-Length")
        with open(part, "ab" if have else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
    size = part.stat().st_size
    if expected is not None and size != have + int(expected):
        raise requests.ConnectionError(f"the connection broke off after {size} bytes")
    os.replace(part, output_file)


def _continues_at(response: requests.Response, position: int) -> bool:
    answer = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status_code == requests.codes.partial_content and bool(answer) and int(answer[1]) == position
