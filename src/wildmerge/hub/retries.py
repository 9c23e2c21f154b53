"""Requests to the hub that outlast its bad moments, and one line for each way to fail.

The connection and the token are huggingface_hub's. A line never quotes a request or an exception, which
could hold the token or a signed address.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import httpx2  # the HTTP client of huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_token, logging, parse_ratelimit_headers
from tqdm import tqdm

from wildmerge.errors import Refusal

Answer = TypeVar("Answer")

PAUSES: tuple[float, ...] = (1, 2, 4, 8, 16)
"""Seconds before each new try."""
LONGEST_PAUSE = 600
"""Seconds; a hub that asks for a longer pause is not waited for."""
_PASSING = {408, 429, 500, 502, 503, 504}
_PAGES = "https://huggingface.co"

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its warnings quote addresses, signed ones too


def token() -> str | bool:
    """Return the token of HF_TOKEN or of the hub's own login, False (for none) when there is none."""
    found = get_token()
    if found and not re.fullmatch(r"[!-~]+", found):
        raise Refusal("HF_TOKEN: holds characters that no token has; set it again")
    return found or False


def with_retries(action: Callable[[], Answer], repo: str, *, hint: str = "") -> Answer:
    """Return what `action` returns, after waiting and asking again where the hub fails for a moment.

    Args:
        action: asks the hub.
        repo: what it asks for; messages begin with it.
        hint: what a message ends with where no hub answers.

    Raises:
        Refusal: it failed for good, or once too often; one line with the remedy.
    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except LocalEntryNotFoundError as error:  # huggingface_hub itself has tried several times
            raise Refusal(_in_one_line(error.__cause__ or error, repo, hint)) from None
        except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of this machine's disk
            wait = None if pause is None else _wait(error, pause)
            if wait is None:
                raise Refusal(_in_one_line(error, repo, hint)) from None
        if wait >= PAUSES[-1]:
            note = f"{repo}: the hub is busy, next try in {wait:.0f} s"
            tqdm.write(note, file=sys.stderr)
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _wait(error: Exception, pause: float) -> float | None:
    """Return the seconds to wait before the next try, None when another try is of no use."""
    if not isinstance(error, HfHubHTTPError):
        useless = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.TooManyRedirects)
        return None if isinstance(error, (*useless, OfflineModeIsEnabled, ValueError)) else pause
    if error.response.status_code not in _PASSING:
        return None
    limit = parse_ratelimit_headers(error.response.headers)
    asked = error.response.headers.get("Retry-After", "")
    seconds = int(asked) if asked.isdecimal() else limit.reset_in_seconds if limit else 0
    return max(pause, seconds) if seconds <= LONGEST_PAUSE else None


def _in_one_line(error: BaseException, repo: str, hint: str) -> str:
    """Say what failed and what to do, in words of our own."""
    page = f"{_PAGES}/{repo.partition('@')[0]}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo}: HF_HUB_OFFLINE is set; unset it to look at the hub{hint}"
    if isinstance(error, HfHubHTTPError):
        return _of_answer(error, repo, page)
    if isinstance(error, (ValueError, FileMetadataError)):  # no JSON, no ETag, an impossible name
        return (
            f"{repo}: {constants.ENDPOINT} does not answer as a hub does; check the name, "
            "HF_ENDPOINT and proxies"
        )
    what = f"no connection ({type(error).__name__})"
    return f"{repo}: {what} at {constants.ENDPOINT}; run the same command again later{hint}"


def _of_answer(error: HfHubHTTPError, repo: str, page: str) -> str:
    """Say what an answer of the hub means."""
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
    status = error.response.status_code
    if status == 401:
        return f"{repo}: the hub does not accept your token; make one on {_PAGES}/settings/tokens"
    if status == 403:
        return f"{repo}: your token may not read it; see {page} and {_PAGES}/settings/tokens"
    what = f"the hub answered {status} at {constants.ENDPOINT}"
    return f"{repo}: {what}; run the same command again later"
