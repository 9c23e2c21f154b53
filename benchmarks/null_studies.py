"""False alarms: simulated studies in which no merged model differs from its base, judged by two rules.

Each study has one base, six experts, eight variants and n = 2, 4. All models answer by one probit model
of the same level, so that every claim of a gain or a loss is false. `before` is the rule of a normal
interval (1.96 standard errors from items and spread, no correction for many), `now` that of the table
of comparisons. Printed are the shares of studies with at least one false claim, and of combinations
claimed, in per cent.

    python benchmarks/null_studies.py [--studies 400] [--items 160]
"""

import argparse
import math
from itertools import combinations

import numpy as np
import pandas as pd
from tabulate import tabulate

from wildmerge.statistics.answers import BaseAnswers
from wildmerge.statistics.of_sizes import SizeAnswers, with_base
from wildmerge.statistics.rows import GAIN, LOSS, to_table

EXPERTS, SIZES, VARIANTS = "abcdef", (2, 4), 8
COMMON = 0.89  # correlation of a model's answers with the difficulty of the item


def simulate(
    generator: np.random.Generator, benchmarks: int, items: int, tried: int
) -> BaseAnswers:
    """Draw a study in which all models are equally good; merges of one subset resemble each other."""
    rows = [("base", "", "", 0, ""), *(("expert", "", "", 1, e) for e in EXPERTS)]
    for n in SIZES:
        subsets = ["+".join(members) for members in combinations(EXPERTS, n)]
        chosen = generator.choice(subsets, tried, replace=False)
        rows += [("merge", f"v{v}", f"v{v}", n, s) for v in range(VARIANTS) for s in chosen]
    models = pd.DataFrame(rows, columns=["kind", "method", "variant", "n", "experts"])
    models = models.assign(base="base", subset=0, recipe_id=[f"{i:x}" for i in range(len(rows))])
    values = {}
    for k in range(benchmarks):
        difficulty = generator.standard_normal(items)
        of_expert = dict(
            zip(EXPERTS, generator.standard_normal((len(EXPERTS), items)), strict=True)
        )
        answers = []
        for row in models.itertuples():
            own = generator.standard_normal(items)
            if row.n:
                members = row.experts.split("+")
                shared = sum(of_expert[e] for e in members) / math.sqrt(len(members))
                own = math.sqrt(0.6) * shared + math.sqrt(0.4) * own
            level = -0.4 + 1.4 * k / max(benchmarks - 1, 1)
            own = COMMON * difficulty + math.sqrt(1 - COMMON**2) * own
            answers.append(level + own > 0)
        values[f"benchmark {k}"] = np.array(answers, np.int8)
    known = {label: np.ones(len(models), bool) for label in values}
    return BaseAnswers(models, values, known, dict.fromkeys(values), dict.fromkeys(values, 0.25))


def claims(answers: BaseAnswers) -> tuple[np.ndarray, np.ndarray]:
    """Return which combinations of variant and size are claimed to differ, before and now."""
    sizes = [SizeAnswers(answers, size) for size in answers.sizes() if size.n > 1]
    now = to_table([with_base(size, 0) for size in sizes])["verdict"].isin([GAIN, LOSS])
    before = []
    for size in sizes:
        items, means = size.against(0)
        count = len(items)
        variance = sum(d.var(ddof=1) / len(d) for d in items) / count**2
        spread = means.std(ddof=1) / math.sqrt(len(means)) if len(means) > 1 else 0.0
        before.append(abs(means.mean()) > 1.959964 * math.hypot(math.sqrt(variance), spread))  # noqa: PLR2004
    return np.array(before), now.to_numpy()


def main() -> None:
    """Simulate and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--items", type=int, default=160, help="of each benchmark")
    asked = parser.parse_args()
    rows = []
    for benchmarks in (2, 3, 15):
        for tried in (2, 3, 5, 15):
            generator = np.random.default_rng(benchmarks * 100 + tried)
            found = [
                claims(simulate(generator, benchmarks, asked.items, tried))
                for _ in range(asked.studies)
            ]
            before, now = (np.array([pair[i] for pair in found]) for i in (0, 1))
            rates = [
                100 * rate
                for claimed in (before, now)
                for rate in (claimed.any(axis=1).mean(), claimed.mean())
            ]
            rows.append([benchmarks, tried, *rates])
            print(f"{benchmarks} benchmarks, {tried} of 15 subsets: done", flush=True)
    heads = ["benchmarks", "subsets", "before: studies", "claims", "now: studies", "claims"]
    print(tabulate(rows, heads, "github", floatfmt=".1f"))


if __name__ == "__main__":
    main()
