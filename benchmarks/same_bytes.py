"""Merge the same experts by all eight variants with two checkouts and compare the weights byte for byte.

    python benchmarks/same_bytes.py BEFORE AFTER [--work results/benchmarks/same-bytes]

BEFORE and AFTER are checkouts of this repository; each merges with its own source, by the command line.
The checkpoints are two tiny families of tests/tiny_models.py (tied in bfloat16, untied in float32) and
one layer of Qwen3-0.6B's shapes, whose tensors take several chunks. Exits with 1 where a file differs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from synthetic import make_models, shapes

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from tiny_models import make_family

VARIANTS = {
    "task_arithmetic": {},
    "task_arithmetic_sum": {"scale": "sum"},
    "ties": {},
    "model_stock": {},
    "tsv_m": {},
    "iso_c": {},
    "task_arithmetic_sb": {},
    "ties_sb": {},
}


def main() -> int:
    """Merge with both checkouts and print one line a variant and family."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--work", type=Path, default=Path("results/benchmarks/same-bytes"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    different = 0
    for family, (base, experts) in make_families(options.work.resolve()).items():
        for variant, parameters in VARIANTS.items():
            content = {
                "base": str(base),
                "experts": list(map(str, experts)),
                "method": variant.removesuffix("_sum"),
                "parameters": parameters,
            }
            recipe = options.work / f"{family}-{variant}.yaml"
            recipe.write_text(yaml.safe_dump(content))
            digests = [
                merge(checkout.resolve(), recipe, options.work / "out")
                for checkout in (options.before, options.after)
            ]
            same = digests[0] == digests[1]
            different += not same
            print(f"{family:<8} {variant:<20} {'same' if same else 'DIFFERENT'} {digests[0][:16]}")
    print(f"{different} differ")
    return int(different > 0)


def make_families(work: Path) -> dict[str, tuple[Path, list[Path]]]:
    """Write the checkpoints; return base and experts of each family."""
    tiny = {name: make_family(work / name, name) for name in ("llama", "qwen3")}
    found = {name: (family.base, family.experts) for name, family in tiny.items()}
    models = make_models(work / "layer", shapes(1), 3)
    experts = sorted(path for path in models.iterdir() if path.name.startswith("expert"))
    return found | {"layer": (models / "base", experts[:3])}


def merge(checkout: Path, recipe: Path, out: Path) -> str:
    """Merge by a checkout's command line; return the SHA-256 of the weights."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "wildmerge.cli", "merge", str(recipe), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    subprocess.run(
        [*command, "--device", "cpu"], env=environment, check=True, capture_output=True, text=True
    )
    digest = hashlib.sha256()
    for file in sorted(out.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
