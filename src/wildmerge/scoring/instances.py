"""A benchmark's requests as lm-eval builds them: once for all models, and as text on disk for others.

Building renders templates for every document: for a full HellaSwag as long as a fast GPU takes to score
it. Few-shot draws are seeded, so all models are asked the same, and what was built once is handed to
lm-eval again. Gzipped JSON, never pickle, which is what lm-eval's own cache of requests is.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from wildmerge.storage.files import write_atomically

COMPRESSION = 3  # prompts repeat themselves, so the fastest levels shrink them well


def prepare(task: Any, limit: int | None, chat: dict[str, Any], path: Path | None) -> int:
    """Give a task its requests and keep lm-eval from building them again.

    Args:
        task: lm-eval's task, seeded.
        limit: first documents only.
        chat: lm-eval's arguments about chat templates.
        path: where requests are stored between processes; None stores nothing.

    Returns:
        The number of requests.
    """
    vars(task).pop("build_all_requests", None)  # an earlier call's, see below
    docs = dict(task.doc_iterator(limit=limit))
    stored = path and _read(path, task, docs)
    if stored:
        task._instances = stored
    else:
        task.build_all_requests(limit=limit, **chat)
        if path and all(map(_is_plain, task.instances)):
            write_atomically(path, _encode(task.instances, docs))
    task.build_all_requests = lambda **_: None  # evaluate() would build them anew for every model
    return len(task.instances)


def forget_answers(task: Any) -> None:
    """Make a task's requests ready for the next model."""
    for instance in task.instances:
        instance.resps, instance.filtered_resps = [], {}


def _is_plain(instance: Instance) -> bool:
    """Say whether a request is one log-likelihood of two texts, all that is stored."""
    return instance.request_type == "loglikelihood" and len(instance.args) == 2


def _encode(instances: list[Instance], docs: dict[int, Any]) -> bytes:
    """Return requests as gzipped JSON; each distinct text stands there once."""
    place: dict[str, int] = {}
    rows = [
        [i.doc_id, i.idx, i.repeats, *(place.setdefault(text, len(place)) for text in i.args)]
        for i in instances
    ]
    content = {"docs": _digest(docs), "texts": list(place), "requests": rows}
    return gzip.compress(json.dumps(content).encode(), COMPRESSION, mtime=0)


def _read(path: Path, task: Any, docs: dict[int, Any]) -> list[Instance] | None:
    """Read stored requests; None if there are none, or damaged, or of other documents."""
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
    except (FileNotFoundError, EOFError, gzip.BadGzipFile, ValueError, gzip.zlib.error):
        return None
    if content["docs"] != _digest(docs):
        return None
    texts, name = content["texts"], task.config.task
    return [
        Instance(
            request_type="loglikelihood",
            doc=docs[doc],
            arguments=(texts[context], texts[continuation]),
            idx=index,
            metadata=(name, doc, repeats),
        )
        for doc, index, repeats, context, continuation in content["requests"]
    ]


def _digest(docs: dict[int, Any]) -> str:
    digest = hashlib.sha256()
    for doc in docs.values():
        digest.update(json.dumps(doc, default=str).encode())
    return digest.hexdigest()
