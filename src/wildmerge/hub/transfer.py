"""Requests to the hub that outlast its bad moments, and files that arrive whole or not at all.

The connection and the token are huggingface_hub's. Added is what a fetch of hundreds of gigabytes needs:
waiting and asking again, going on where a cut download (also an earlier process's) ended, a digest
checked before a file gets its name, and one line for each way to fail. Such a line never quotes a
request or an exception, which could hold the token or a signed address.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

import httpx2  # the HTTP client of huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    WeakFileLock,
    build_hf_headers,
    get_session,
    get_token,
    hf_raise_for_status,
    logging,
    parse_ratelimit_headers,
)
from tqdm import tqdm

from wildmerge.errors import Refusal

Answer = TypeVar("Answer")
Advance = Callable[[int], None]

PAUSES: tuple[float, ...] = (1, 2, 4, 8, 16)
"""Seconds before each new try; the count starts anew whenever bytes have arrived."""
LONGEST_PAUSE = 600
"""Seconds; a hub that asks for a longer pause is not waited for."""
_PASSING = {408, 429, 500, 502, 503, 504}
_CHUNK = 1 << 20
_PAGES = "https://huggingface.co"

logging.set_verbosity_error()  # its warnings quote addresses, signed ones too


def token() -> str | bool:
    """Return the token of HF_TOKEN or of the hub's own login, False (for none) when there is none."""
    found = get_token()
    if found and not re.fullmatch(r"[!-~]+", found):
        raise Refusal("HF_TOKEN: holds characters that no token has; set it again")
    return found or False


def patiently(action: Callable[[], Answer], repo: str) -> Answer:
    """Return what `action` returns, after waiting and asking again where the hub fails for a moment.

    Raises:
        Refusal: it failed for good, or once too often; one line with the remedy.
    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except OfflineModeIsEnabled:
            raise Refusal(f"{repo}: HF_HUB_OFFLINE is set; unset it to look at the hub") from None
        except httpx2.HTTPError as error:
            wait = None if pause is None else _wait(error, pause)
            if wait is None:
                raise Refusal(_in_one_line(error, repo)) from None
        except ValueError:  # no JSON, or an impossible name
            raise Refusal(
                f"{repo}: {constants.ENDPOINT} does not answer as a hub does; check the name, "
                "HF_ENDPOINT and proxies"
            ) from None
        if wait >= PAUSES[-1]:
            note = f"{repo}: the hub is busy, next try in {wait:.0f} s"
            tqdm.write(note, file=sys.stderr)
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def download(
    address: str, file: Path, lock: Path, *, size: int, digest: str, repo: str, advance: Advance
) -> None:
    """Bring a file; it appears under its name with the right digest, or not at all.

    Args:
        address: where it is, redirects allowed.
        file: where it shall be; what an earlier try left in <file>.incomplete is gone on with.
        lock: file that keeps other processes from bringing the same.
        size: in bytes.
        digest: see `has_digest`.
        repo: named in messages.
        advance: called with the number of bytes that have arrived since the last call.

    Raises:
        Refusal: the hub fails for good, or sent other bytes, which are removed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.incomplete")
    with WeakFileLock(lock):
        if file.exists():  # another process was faster
            advance(size)
            return
        with open(partial, "ab") as stream:
            advance(stream.tell())
            while stream.tell() < size:
                patiently(lambda: _append(stream, address, advance), repo)
            os.fsync(stream.fileno())
        if not has_digest(partial, digest):
            partial.unlink()
            raise Refusal(
                f"{repo}: a file of it ({address.rpartition('/')[2]}) arrived with other bytes than "
                "locked and was removed; run the same command again"
            )
        os.replace(partial, file)


def has_digest(path: Path, digest: str) -> bool:
    """Tell whether a file has a digest: 64 hex digits of SHA-256, or 40 as git names its content."""
    found = hashlib.sha256()
    if len(digest) == 40:
        found = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest() == digest


def _append(stream: IO[bytes], address: str, advance: Advance) -> None:
    """Write what is missing of a file; a connection that is cut after some of it is no failure yet."""
    start = stream.tell()
    asked = build_hf_headers(token=token(), library_name="wildmerge")
    asked |= {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
    try:
        with get_session().stream(
            "GET", address, headers=asked, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            hf_raise_for_status(response)
            if start and response.status_code != 206:  # it sends the whole file again
                stream.truncate(0)
                advance(-start)
            for chunk in response.iter_bytes():  # as they arrive: what is here is kept on a cut
                stream.write(chunk)
                advance(len(chunk))
    except httpx2.TransportError:
        stream.flush()
        if stream.tell() <= start:
            raise


def _wait(error: httpx2.HTTPError, pause: float) -> float | None:
    """Return the seconds to wait before the next try, None when another try is of no use."""
    if not isinstance(error, HfHubHTTPError):
        useless = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.TooManyRedirects)
        return None if isinstance(error, useless) else pause
    if error.response.status_code not in _PASSING:
        return None
    limit = parse_ratelimit_headers(error.response.headers)
    asked = error.response.headers.get("Retry-After", "")
    seconds = int(asked) if asked.isdecimal() else limit.reset_in_seconds if limit else 0
    return max(pause, seconds) if seconds <= LONGEST_PAUSE else None


def _in_one_line(error: httpx2.HTTPError, repo: str) -> str:
    """Say what failed and what to do, in words of our own."""
    page = f"{_PAGES}/{repo.partition('@')[0]}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, GatedRepoError):
        account = "with the account of your token" if token() else "and set HF_TOKEN"
        return f"{repo}: gated; accept its licence on {page} {account}"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo}: no such revision; see {page}/commits/main"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{repo}: neither a folder here nor a repository that {page} would show you; check the "
            "name, and set HF_TOKEN if it is private"
        )
    if status == 401:
        return f"{repo}: the hub does not accept your token; make one on {_PAGES}/settings/tokens"
    if status == 403:
        return f"{repo}: your token may not read it; see {page} and {_PAGES}/settings/tokens"
    what = f"the hub answered {status}" if status else f"no connection ({type(error).__name__})"
    return f"{repo}: {what} at {constants.ENDPOINT}; run the same command again later"
