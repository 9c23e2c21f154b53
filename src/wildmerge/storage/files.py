"""Files that are either whole or absent.

Everything durable is written to a temporary sibling, flushed to the disk and then renamed, so that a
kill at any moment leaves the old file, the new file or nothing under the final name.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) to `path` so that no reader ever sees a part of it.

    Raises:
        Refusal: there is something else than a file, which would be replaced: a device, a folder.
    """
    path = Path(path)
    require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(partial, 0o666 & ~current_umask())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return path


def require_replaceable(path: Path) -> None:
    """Raise Refusal where something stands that is no file; root could replace even /dev/null."""
    if path.exists() and not path.is_file():
        raise Refusal(
            f"{path}: there is something else than a file; choose another place to write to"
        )


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 1) -> Path:
    """Write `value` as JSON with sorted keys, atomically; NaN and Infinity raise ValueError."""
    text = json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return write_atomically(path, text + "\n")


def read_json(
    path: str | os.PathLike[str], *, missing: str, broken: str = "fetch it again"
) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Infinity and NaN, which JSON lacks and some files have, become `{"__float__": "Infinity"}`, as
    transformers writes them: what is read can be written again.

    Args:
        path: the file.
        missing: what to do when there is none.
        broken: what to do when it is not JSON.

    Raises:
        Refusal: there is no such file, or no object in it.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream, parse_constant=lambda constant: {"__float__": constant})
    except FileNotFoundError:
        raise Refusal(f"{path}: missing; {missing}") from None
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror}); {broken}") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path}: not valid JSON ({error}); {broken}") from None
    if not isinstance(content, dict):
        raise Refusal(f"{path}: no JSON object; {broken}")
    return content


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def current_umask() -> int:
    """Return the process's umask (reading it means setting it twice)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
