"""Time merging against mergekit 0.1.5, a plain SVD version and the speed of the disk.

    python benchmarks/merge.py [--methods task_arithmetic,model_stock,ties] [--n 2,6,12] [--rounds 3]
        [--layers 28 | --embedding] [--threads 2] [--cold] [--without-mergekit]
        [--work results/benchmarks] [--json FILE] [--gpu]

Makes a synthetic base and twelve experts (Qwen3-0.6B shapes, 473 million weights in bfloat16) and an
environment with mergekit once, in the work folder. Each round runs every contender in turn, each in a
process of its own: a floor that only reads all inputs and writes an output of the right size, wildmerge,
and mergekit for the methods it has. The matrix methods run on one thread against the same engine with
plain `torch.linalg.svd` in float32 and in float64 in place of our linear algebra; TSV-M also from
stored spectra. Prints medians of wall and CPU seconds, start-up included, peak anonymous and resident
memory, and ratios. With `--cold` every run starts without the files in the page cache, as for models
that are larger than the memory. `--gpu` times the kernels of the matrix methods first, then whole merges
on the GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml
from synthetic import EMBEDDING, make_models, shapes

ELEMENTWISE = ("task_arithmetic", "model_stock", "ties")
PARAMETERS: dict[str, dict[str, Any]] = {"sce": {"weight_floor": 1e-6}}
"""Hyperparameters other than the defaults, where mergekit has no others."""
MATRIX = ("iso_c", "task_arithmetic_sb", "ties_sb", "tsv_m")


def main() -> None:
    """Run the contenders in turn and print a table."""
    options = parse_options()
    if options.child:
        return child(options)
    if options.gpu:
        import kernels

        kernels.main()
    names = EMBEDDING if options.embedding else shapes(options.layers)
    folder = "embedding" if options.embedding else f"models-{options.layers}"
    models = make_models(options.work / folder, names, max(options.n))
    mergekit = None if options.without_mergekit else make_environment(options.work / "mergekit")
    seconds: dict[tuple[str, int], dict[str, list[dict[str, float]]]] = {}
    for _ in range(options.rounds):
        for method in options.methods:
            for n in options.n:
                runs = contenders(method, n, models, mergekit, options)
                for name, command in runs.items():
                    shutil.rmtree(models / "out", ignore_errors=True)
                    if options.cold:
                        forget_files()
                    found = seconds.setdefault((method, n), {}).setdefault(name, [])
                    found.append(measure(command, models / f"{name}.log", options))
    print_table(seconds)
    if options.json:
        rows = [{"method": m, "n": n, "runs": runs} for (m, n), runs in seconds.items()]
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", type=lambda s: s.split(","), default=list(ELEMENTWISE))
    parser.add_argument("--n", type=lambda s: [int(n) for n in s.split(",")], default=[2, 6, 12])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--threads", type=int, default=2, help="of the elementwise methods")
    parser.add_argument("--embedding", action="store_true", help="one 128256 x 4096 tensor instead")
    parser.add_argument("--gpu", action="store_true", help="on a GPU; its kernels first")
    parser.add_argument("--cold", action="store_true", help="from the disk; needs root")
    parser.add_argument("--without-mergekit", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "RECIPE", "OUT"), help="internal")
    return parser.parse_args()


# --- what is run ----------------------------------------------------------------------------------


def contenders(
    method: str, n: int, models: Path, mergekit: Path | None, options: argparse.Namespace
) -> dict[str, list[str]]:
    """Return name -> command line of everything that is compared for one method and number."""
    experts = [str(models / f"expert{i}") for i in range(n)]
    recipe = models / f"{method}-{n}.json"
    content: dict[str, Any] = {"base": str(models / "base"), "experts": experts, "method": method}
    content["parameters"] = PARAMETERS.get(method, {})
    recipe.write_text(json.dumps(content))
    out = str(models / "out")
    itself = [sys.executable, str(Path(__file__))]
    runs = {"floor": [*itself, "--child", "floor", str(recipe), out]}
    if method in MATRIX and not options.gpu:
        for what in ("ours", "plain32", "plain64", *(["spectra"] if method == "tsv_m" else [])):
            runs[what] = [*itself, "--child", what, str(recipe), out]
        return runs
    command = [sys.executable, "-m", "wildmerge.cli", "merge", str(recipe), "--out", out]
    runs["ours"] = [*command, "--threads", str(options.threads)]
    runs["ours"] += ["--device", "cuda" if options.gpu else "cpu"]
    if mergekit and (said := mergekit_config(content)):
        theirs = models / f"mergekit-{method}-{n}.yaml"
        theirs.write_text(said)
        runs["mergekit"] = [str(mergekit / "bin/mergekit-yaml"), str(theirs), out]
        runs["mergekit"] += ["--no-copy-tokenizer", "--lazy-unpickle"]
        runs["mergekit"] += ["--cuda"] if options.gpu else []
    return runs


def mergekit_config(content: dict[str, Any]) -> str | None:
    """Return the same merge in mergekit's words, in the arithmetic of its users; None: it has none."""
    from wildmerge.merging.mergekit_config import from_recipe
    from wildmerge.methods import catalogue
    from wildmerge.study.recipe import Recipe

    complete = catalogue.get(content["method"]).complete(content["parameters"])
    said = from_recipe(Recipe(**content | {"parameters": complete}), "bfloat16")
    return json.dumps(yaml.safe_load(said) | {"dtype": "bfloat16"}) if said else None


def child(options: argparse.Namespace) -> None:
    """Run one contender of this file in this process."""
    what, recipe_file, out = options.child
    content = json.loads(Path(recipe_file).read_text())
    if what == "floor":
        return read_and_write([content["base"], *content["experts"]], Path(out))
    import torch

    from wildmerge.merging import engine, spectra
    from wildmerge.merging.merge import merge
    from wildmerge.study.recipe import Recipe
    from wildmerge.vectors import elementwise, linalg  # importing is not timed

    if what.startswith("plain"):
        linalg.spectrum = lambda matrix: PlainSpectrum(matrix, what == "plain64")  # type: ignore[assignment]
    stored = None
    if what == "spectra":
        folder = Path(content["base"]).parent / "spectra"
        stored = {e: folder / f"{Path(e).name}.safetensors" for e in content["experts"]}
        for expert, file in stored.items():
            if not file.exists():
                spectra.compute(content["base"], expert, file)
    assert engine
    elementwise.elect(torch.zeros(1, 1), [1.0])  # nor is loading the compiled loops
    started = (time.monotonic(), time.process_time())
    merge(Recipe(**content), Path(out), spectra=stored, threads=1, progress=False)
    spent = {"wall": time.monotonic() - started[0], "cpu": time.process_time() - started[1]}
    print(json.dumps(spent))  # without start-up, and without making the spectra


class PlainSpectrum:
    """The interface of `linalg.Spectrum` by one `torch.linalg.svd`, as formulas are usually typed in."""

    def __init__(self, matrix: Any, double: bool) -> None:
        import torch

        matrix = matrix.double() if double else matrix.float()
        self.u, self.sigma, self.vh = torch.linalg.svd(matrix, full_matrices=False)

    def with_values(self, values: Any) -> Any:
        """Return U diag(values) V^T."""
        return ((self.u * values.to(self.u.dtype)) @ self.vh).double()

    def leading(self, count: int) -> Any:
        """Return the first singular triplets."""
        return self.u[:, :count].mT, self.sigma[:count], self.vh[:count]


def read_and_write(folders: list[str], out: Path) -> None:
    """Read all inputs once and write as many bytes as one of them has: no merge can be faster."""
    piece = bytearray(1 << 20)
    out.mkdir()
    with open(out / "model.safetensors", "wb", buffering=0) as target:
        for index, folder in enumerate(folders):
            with open(Path(folder) / "model.safetensors", "rb", buffering=0) as source:
                while count := source.readinto(piece):
                    if index == 0:
                        target.write(memoryview(piece)[:count])
        os.fsync(target.fileno())


# --- how it is measured ---------------------------------------------------------------------------


def measure(command: list[str], log: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run a command; return wall and CPU seconds and peak memory in MB."""
    threads = str(options.threads if "--child" not in command else 1)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    started = time.monotonic()
    with open(log, "w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        peaks = {"RssAnon": 0.0, "VmRSS": 0.0}
        watcher = threading.Thread(target=watch, args=(process.pid, peaks))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        watcher.join()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-3000:]}")
    found = {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime}
    last = (log.read_text().splitlines() or [""])[-1]
    if last.startswith('{"wall"'):
        found |= json.loads(last)
    return found | {"anonymous": peaks["RssAnon"], "resident": peaks["VmRSS"]}


def forget_files() -> None:
    """Drop the page cache, so that the next run reads from the disk."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as error:
        raise SystemExit(f"--cold: {error.strerror}; run it as root on Linux") from None


def watch(pid: int, peaks: dict[str, float]) -> None:
    """Follow a process's memory until it ends."""
    while True:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        if "RssAnon" not in status:  # it has ended
            return
        for key, peak in peaks.items():
            peaks[key] = max(peak, int(status.split(f"{key}:")[1].split()[0]) / 1e3)
        time.sleep(0.01)


def print_table(seconds: dict[tuple[str, int], dict[str, list[dict[str, float]]]]) -> None:
    """Print medians over rounds; the ratio is how many times slower than ours, by medians."""
    print(
        f"BLAS kernels: {', '.join(kernels_of_blas())} (OPENBLAS_CORETYPE overrules the CPU's own)"
    )
    print(f"{'method':<20}{'n':>3} {'':<10}{'wall s':>8}{'(min)':>8}{'cpu s':>8}", end="")
    print(f"{'anon MB':>9}{'res MB':>9}{'wall/ours':>11}{'cpu/ours':>10}")
    for (method, n), runs in seconds.items():
        ours = {key: middle(runs["ours"], key) for key in ("wall", "cpu")}
        for name, found in runs.items():
            wall, cpu = middle(found, "wall"), middle(found, "cpu")
            least = min(run["wall"] for run in found)
            print(f"{method:<20}{n:>3} {name:<10}{wall:>8.2f}{least:>8.2f}{cpu:>8.2f}", end="")
            for key in ("anonymous", "resident"):
                print(f"{max(run[key] for run in found):>9.0f}", end="")
            print(f"{wall / ours['wall']:>11.2f}{cpu / ours['cpu']:>10.2f}")


def kernels_of_blas() -> list[str]:
    """Return the kind of CPU that NumPy's and SciPy's linear algebra was written for."""
    import numpy  # noqa: F401 - what is loaded is listed
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return [f"{library['internal_api']} {library.get('architecture', '')}" for library in found]


def middle(runs: list[dict[str, float]], key: str) -> float:
    """Return the median of one number over rounds."""
    return statistics.median(run[key] for run in runs)


def make_environment(folder: Path) -> Path:
    """Make an environment with mergekit 0.1.5 and the torch that wildmerge uses, once."""
    if (folder / "complete").exists():
        return folder
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    subprocess.run([*pip, "mergekit==0.1.5"], check=True)
    (folder / "complete").touch()
    return folder


if __name__ == "__main__":
    main()
