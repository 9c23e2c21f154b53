"""What the workflow itself costs on the paper's study: a model takes 10 ms instead of an hour.

    python benchmarks/scheduling.py            # minutes; half an hour on busy cores

The real Snakefile, rules, lock, inspection, jobs and tables run on tiny random checkpoints; fetching
and, inside the jobs, merging and scoring are replaced by a module that Python loads at its start.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

ROOT = Path(__file__).parent.parent
STAND_IN = 0.01  # seconds

REPLACEMENT = f"""
import sys

if "fetch" in sys.orig_argv:
    import os, pathlib

    pathlib.Path(sys.orig_argv[-1]).write_text("fetched")
    os._exit(0)

if "run" in sys.orig_argv:
    import time, types

    class Session:
        def __init__(self, *arguments, **options): pass

        def check(self, benchmarks): pass

        def share(self, evaluations, results):
            from wildmerge.scoring.items import share_items
            from wildmerge.tasks.questions import Asked, Item
            for evaluation in evaluations:
                task = evaluation.benchmark.task
                items = [Item(task, str(i), str(i), (0,), 4, 1) for i in range(20)]
                share_items(evaluation.items(results), Asked(task, tuple(items)))

        def score(self, folder, name, evaluations, results, **callbacks):
            from wildmerge.scoring.items import write_answers
            from wildmerge.storage.files import write_json
            time.sleep({STAND_IN} / 2)
            for evaluation in evaluations:
                task, metric = evaluation.benchmark.task, evaluation.benchmark.metric
                seed = hash((name, task)) % 7
                values = [int(i % 7 <= seed) for i in range(20)]
                file = evaluation.answers(results, name)
                write_answers(file, {{metric: values}}, [-1.0] * 20, [-2.0] * 20)
                score = {{"score": sum(values) / 20, "stderr": 0.1}}
                write_json(evaluation.path(results, name), {{
                    "schema": 3, "model": name, "evaluation_id": evaluation.id, "task": task, "n": 20,
                    "chance": 0.25, "metrics": {{metric: score}}, "documents": task, "remarks": [],
                    "settings": {{}},
                    "versions": {{}}, "tokens": {{}}, "scored_by": {{"backend": "hf", "fallback": None}},
                }})

    def merge(recipe, out, **options):
        time.sleep({STAND_IN} / 2)
        out.mkdir(parents=True)
        return {{
            "schema": 1, "recipe": recipe.model_dump(mode="json"), "update_norm": 1.0,
            "tensors": {{}}, "warnings": [], "versions": {{}}, "seconds": {STAND_IN},
        }}

    def replace(name, **contents):
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(contents)

    cuda = types.SimpleNamespace(is_available=lambda: False)
    replace("torch", cuda=cuda, set_num_threads=lambda count: None)
    replace("wildmerge.merging.merge", merge=merge)
    replace("wildmerge.scoring.session", Session=Session)
"""


def main() -> None:
    """Run the study twice and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=ROOT / "config/paper.yaml")
    parser.add_argument("--models-per-job", type=int, default=None, help="default: the study's")
    parser.add_argument("--folder", type=Path, help="keep everything here; default: nothing")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="wildmerge-scheduling-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        prepare(folder, arguments.study, arguments.models_per_job)
        seconds, memory = snakemake(folder)
        models = sum(1 for _ in open(folder / "results/paper/recipes.csv")) - 1
        jobs = len(list((folder / "results/paper/jobs").iterdir()))
        own = seconds - models * STAND_IN / (os.cpu_count() or 1)
        size = sum(f.stat().st_size for f in (folder / ".snakemake").rglob("*") if f.is_file())
        print(f"{models} models in {jobs} jobs: {seconds:.0f} s")
        print(f"overhead: {1000 * own / models:.0f} ms a model")
        print(f"snakemake: {memory / 1024:.0f} MiB at most; .snakemake: {size / 1e6:.1f} MB")
        print(f"again, with nothing to do: {snakemake(folder)[0]:.1f} s")
        started = time.monotonic()
        subprocess.run(["wildmerge", "status", "study.yaml"], cwd=folder, check=True)
        print(f"status: {time.monotonic() - started:.1f} s")
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)


def prepare(folder: Path, study_file: Path, models_per_job: int | None) -> None:
    """Write the study on tiny checkpoints, and the stand-ins."""
    study = yaml.safe_load(study_file.read_text())
    for name, base in study["bases"].items():
        count = len(base["experts"])
        study["bases"][name] = {
            "checkpoint": checkpoint(folder, name),
            "experts": {f"expert{i}": checkpoint(folder, name, i) for i in range(count)},
        }
    study |= {"name": "paper"}
    study.pop("published", None)
    if models_per_job:
        study["models_per_job"] = models_per_job
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    (folder / "stand-ins").mkdir(exist_ok=True)
    (folder / "stand-ins/sitecustomize.py").write_text(REPLACEMENT)


def checkpoint(folder: Path, base: str, expert: int | None = None) -> str:
    """Make a checkpoint of one small vector, of its own bytes, and return its path."""
    name = base if expert is None else f"{base}-{expert}"
    place = folder / "checkpoints" / name
    place.mkdir(parents=True, exist_ok=True)
    weights = np.random.default_rng(list(base.encode())).standard_normal(64, dtype=np.float32)
    if expert is not None:
        step = np.random.default_rng(list(name.encode())).standard_normal(64, dtype=np.float32)
        weights += 0.1 * step
    save_file({"model.norm.weight": weights}, place / "model.safetensors", {"format": "pt"})
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
    (place / "config.json").write_text(json.dumps(config))
    return f"checkpoints/{name}"


def snakemake(folder: Path) -> tuple[float, int]:
    """Run the workflow up to the tables; return seconds and the peak memory of its process in KiB."""
    command = ["snakemake", "tables", "--snakefile", ROOT / "Snakefile", "--nolock"]
    paths = [str(folder / "stand-ins"), os.environ.get("PYTHONPATH", "")]
    started = time.monotonic()
    with open(folder / "snakemake.log", "a") as log:
        process = subprocess.Popen(
            [*command, "--config", "study=study.yaml"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=log,
            stderr=log,
        )
        memory = 0
        while process.poll() is None:
            memory = max(memory, _peak(process.pid))
            time.sleep(0.1)
    if process.returncode:
        sys.exit((folder / "snakemake.log").read_text()[-2000:])
    return time.monotonic() - started, memory


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) if "VmHWM:" in status else 0


if __name__ == "__main__":
    main()
