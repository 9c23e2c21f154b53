"""Task Arithmetic: the base plus a multiple of the mean (or the sum) of the task vectors.

Source: Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089.
update = lambda * mean_i D_i  or  lambda * sum_i D_i, per element.
"""

from __future__ import annotations

from typing import Literal

from wildmerge.methods.declaration import Weights, about
from wildmerge.vectors.combining import mix
from wildmerge.vectors.task_vectors import Rule, Sum, TaskVectors


@about(
    label="Task Arithmetic",
    family="weight-space",
    source="Ilharco et al., ICLR 2023, arXiv 2212.04089",
    presets={"text": {"scale": "sum"}},
    versioned=True,
)
def task_arithmetic(
    vectors: TaskVectors,
    *,
    scale: Literal["mean", "sum"] = "mean",
    lambda_: float = 1.0,
    weights: Weights | None = None,
) -> Sum | Rule:
    """Mean or sum of the task vectors, times lambda.

    Args:
        vectors: the task vectors of one tensor.
        scale: "mean" (as the published numbers imply) or "sum" (as Eq. 2 of the study is printed).
        lambda_: the factor of the whole update.
        weights: one weight an expert, shape (n,); under "mean" they are divided by their sum.

    Returns:
        A multiple of the sum, or an elementwise rule where the weights differ.
    """
    w = weights or [1.0] * len(vectors)
    total = sum(w) if scale == "mean" else 1.0
    if len(set(w)) == 1:
        return Sum(lambda_ * w[0] / total)
    return lambda deltas, at: mix(deltas, weights, scale, lambda_)
