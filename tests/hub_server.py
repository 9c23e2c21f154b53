"""A model hub on the loopback interface: what huggingface_hub asks for, and every fault on request.

    with HubServer() as hub:
        commit = hub.add("org/name", folder)            # "org/name" of kind "datasets" likewise
        hub.fault("model.safetensors", cut_after=1000)  # the next answer for such a path goes wrong
        ... run the real client with HF_ENDPOINT=hub.url

Repositories keep all their commits, and `main` is the last one added. As on the real hub, large files
are known by SHA-256 and answered with a redirect to a second server of signed addresses, small ones by
their git hash; ranges, ETag, X-Repo-Commit and the error codes of gated, private and missing things are
served. `requests` lists what was asked, `secrets_at_cdn` every authorization that reached the second
server.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_aVerySecretTokenOfTheTests0123456789"
STRANGER = "hf_theTokenOfAnAccountWithoutAccess012"
XET_TOKEN = "aTokenOfTheXetStore"
LARGE = re.compile(r"\.(safetensors|bin|parquet|gguf|pth)$|\btokenizer\.json$")
_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(.*))?"
)
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """Files of every commit by name; `gated` needs a token, `moved_to` answers under another name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    xet: bool = False  # large files are of the Xet store, which knows none of them here
    moved_to: str = ""


@dataclass
class Fault:
    """What happens to the next `times` answers for a path that contains `part`."""

    part: str
    times: int = 1
    status: int = 0  # an error instead of an answer ...
    retry_after: int | None = None  # ... that asks to wait some seconds
    cut_after: int | None = None  # the connection ends after so many bytes ...
    reset: bool = False  # ... by an abort
    corrupt: bool = False  # the last byte of the file is another


class HubServer:
    """Two servers on loopback ports, the hub and its store of large files."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.secrets_at_cdn: list[str] = []
        self._guard = threading.Lock()
        self._hub, self._cdn = self._serve(_Hub), self._serve(_Cdn)

    def _serve(self, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.hub = self
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def __enter__(self) -> HubServer:
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT has to be."""
        return f"http://127.0.0.1:{self._hub.server_port}"

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Return the environment of a process that knows no hub but this one."""
        kept = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        return kept | {"HF_DATASETS_OFFLINE": "0"} | ({"HF_TOKEN": token} if token else {})

    def add(self, repo: str, files: Path | dict[str, bytes], *, kind: str = "models", **how) -> str:
        """Commit a folder's files, or a dictionary of them, to `main`; return the commit's hash."""
        if isinstance(files, Path):
            names = (p for p in sorted(files.rglob("*")) if p.is_file())
            files = {str(p.relative_to(files)): p.read_bytes() for p in names}
        content = "".join(f"{n} {git_hash(d)}\n" for n, d in sorted(files.items()))
        commit = hashlib.sha1((repo + content).encode()).hexdigest()
        found = self.repos.setdefault((kind, repo), Repo())
        found.commits[commit] = files
        found.refs["main"] = commit
        for key, value in how.items():
            setattr(found, key, value)
        return commit

    def fault(self, part: str, **what) -> None:
        """Let the next answers for paths that contain `part` go wrong; see `Fault`."""
        self.faults.append(Fault(part, **what))

    def take_fault(self, path: str) -> Fault | None:
        with self._guard:
            for fault in self.faults:
                mere_redirect = not fault.status and "/resolve/" in path and LARGE.search(path)
                if fault.part in path and fault.times > 0 and not mere_redirect:
                    fault.times -= 1
                    return fault
        return None

    def asked(self, part: str) -> int:
        """Return how many requests contained `part`."""
        return sum(part in request for request in self.requests)


def git_hash(data: bytes) -> str:
    """Return git's own name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        self.fault = hub.take_fault(path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.fault and self.fault.status:
                wait = self.fault.retry_after
                self.answer(self.fault.status, b"{}", {"Retry-After": wait} if wait else {})
            else:
                self.serve(hub, path)

    do_HEAD = do_GET

    def answer(self, status: int, data: bytes, headers: dict[str, object] | None = None) -> None:
        """Send an answer, or as much of it as the fault of this request lets through."""
        self.send_response(status)
        for key, value in ({"Content-Length": len(data)} | (headers or {})).items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.fault.cut_after if self.fault else None
        self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True
            self.wfile.flush()
            if self.fault.reset:  # an abort, not an orderly end
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    def answer_bytes(self, data: bytes, headers: dict[str, object]) -> None:
        """Send a file or the range of it that was asked for."""
        if self.fault and self.fault.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if not (wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            self.answer(200, data, headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        if first >= len(data):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}"} | headers
        self.answer(206, data[first : last + 1], headers)

    def refuse(self, status: int, code: str, message: str = "no") -> None:
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})


class _Cdn(_Handler):
    """The store of large files: addresses are signed, authorizations do not belong here."""

    def serve(self, hub: HubServer, path: str) -> None:
        if "Authorization" in self.headers:
            hub.secrets_at_cdn.append(self.headers["Authorization"])
        kind, org, name, commit, file = path.removeprefix("/").split("/", 4)
        data = hub.repos[kind, f"{org}/{name}"].commits[commit][file]
        self.answer_bytes(data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})


class _Hub(_Handler):
    """The hub's programming interface and its files."""

    def serve(self, hub: HubServer, path: str) -> None:
        if api := _API.fullmatch(path):
            kind, name, what, revision, below = api.groups()
        elif file := _FILE.fullmatch(path):
            kind = "datasets" if file[1] else "models"
            name, revision, what, below = file[2], file[3], "file", file[4]
        elif path == "/xet":
            access = {"Cas-Url": hub.url, "Access-Token": XET_TOKEN, "Token-Expiration": 1 << 32}
            self.answer(200, b"{}", {f"X-Xet-{key}": value for key, value in access.items()})
            return
        else:
            self.refuse(404, "NotFound")
            return
        repo = hub.repos.get((kind, name))
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if shown not in {"", TOKEN, STRANGER}:
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is not None and repo.moved_to:
            self.answer(307, b"", {"Location": self.path.replace(name, repo.moved_to, 1)})
        elif repo is None or (repo.private and shown != TOKEN):
            self.refuse(404 if shown else 401, "RepoNotFound")
        elif what == "file" and repo.gated and shown != TOKEN:
            self.refuse(403 if shown else 401, "GatedRepo")
        elif (commit := repo.refs.get(revision or "main", revision)) not in repo.commits:
            self.refuse(404, "RevisionNotFound")
        elif what == "file":
            self.serve_file(f"{kind}/{name}/{commit}/{below}", repo)
        else:
            self.serve_listing(what, name, commit, repo, below)

    def serve_file(self, place: str, repo: Repo) -> None:
        commit, name = place.split("/", 4)[3:]
        if (data := repo.commits[commit].get(name)) is None:
            self.refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not LARGE.search(place):
            self.answer_bytes(data, headers | {"ETag": f'"{git_hash(data)}"'})
            return
        digest = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": len(data)}
        if repo.xet:
            headers |= {"X-Xet-Hash": digest, "X-Xet-Refresh-Route": f"{self.server.hub.url}/xet"}
        address = f"http://127.0.0.1:{self.server.hub._cdn.server_port}/{place}?Signature=signed-for-a-while"
        self.answer(302, b"", headers | {"Location": address})

    def serve_listing(self, what: str, name: str, commit: str, repo: Repo, below: str) -> None:
        files = repo.commits[commit]
        if what == "tree":
            content = _tree(files, below.strip("/"), "recursive=true" in self.path.lower())
        elif what == "paths-info":
            content = [_entry(n, files[n]) for n in self.asked_paths() if n in files]
        else:
            content = {"_id": name, "id": name, "sha": commit, "private": repo.private}
            content |= {"gated": "manual" if repo.gated else False, "tags": [], "downloads": 0}
            content["siblings"] = [_sibling(n, d) for n, d in files.items()]
        headers = {"Content-Type": "application/json", "X-Repo-Commit": commit}
        self.answer(200, json.dumps(content).encode(), headers)

    def asked_paths(self) -> list[str]:
        if "json" in self.headers.get("Content-Type", ""):
            return list(json.loads(self.body)["paths"])
        return parse_qs(self.body.decode()).get("paths", [])


def _sibling(name: str, data: bytes) -> dict[str, object]:
    entry = _entry(name, data)
    large = {"lfs": entry["lfs"] | {"sha256": entry["lfs"]["oid"]}} if "lfs" in entry else {}
    return {"rfilename": name, "size": len(data), "blobId": entry["oid"]} | large


def _tree(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict[str, object]]:
    """List a folder: its files, and its folders or, recursively, what is in them."""
    inside = f"{folder}/" if folder else ""
    below = {name: name.removeprefix(inside) for name in files if name.startswith(inside)}
    near = [name for name, rest in below.items() if recursive or "/" not in rest]
    folders = {inside + rest.split("/")[0] for rest in below.values() if "/" in rest}
    found = [_entry(name, files[name]) for name in near]
    return found + [
        {"type": "directory", "path": path, "oid": git_hash(path.encode()), "size": 0}
        for path in sorted(folders)
    ]


def _entry(name: str, data: bytes) -> dict[str, object]:
    entry = {"type": "file", "path": name, "size": len(data), "oid": git_hash(data)}
    if LARGE.search(name):
        pointer = git_hash(hashlib.sha256(data).digest())  # of the small file that git itself keeps
        lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        entry |= {"oid": pointer, "lfs": lfs}
    return entry
