"""Ids follow from content alone, and subsets are drawn uniformly, once, for all methods."""

import collections
import itertools
import math
import subprocess
import sys

import pytest

from wildmerge.study.recipe import Recipe, draw_subsets, recipe_id

IDENTITIES = {"b": "sha256:0", "x": "sha256:1", "y": "sha256:2", "elsewhere/x": "sha256:1"}


def an_id(**changes):
    values = {"base": "b", "experts": ("x", "y"), "method": "ties", "parameters": {"density": 0.1}}
    return recipe_id(Recipe(**(values | changes)), IDENTITIES)


def test_ids_are_16_hex_digits_and_stable():
    # a fixed value: a change of this line recomputes everybody's results
    assert an_id() == "cc6d04cf1bca3bc0"


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": {"density": 0.2}},
        {"method": "other"},
        {"null_space": "drop"},
        {"dtype": "float32"},
        {"experts": ("x",)},
    ],
)
def test_every_part_of_the_content_counts(changes):
    assert an_id(**changes) != an_id()


def test_neither_order_nor_place_counts():
    assert an_id(experts=("y", "x")) == an_id()
    assert an_id(experts=("elsewhere/x", "y")) == an_id()


def test_order_counts_when_experts_have_weights():
    weighted = {"parameters": {"weights": [1.0, 2.0]}}
    assert an_id(experts=("y", "x"), **weighted) != an_id(**weighted)


def test_importing_recipe_imports_no_torch():
    modules = "sys, wildmerge.study.recipe, wildmerge.study.file"
    code = f"import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_subsets_are_distinct_ordered_and_complete_when_few():
    names = list("abcdef")
    drawn = draw_subsets(names, 3, 15, "0/base")
    assert len(set(drawn)) == 15
    assert all(list(subset) == sorted(subset) for subset in drawn)
    every = draw_subsets(names, 5, 15, "0/base")
    assert set(every) == set(itertools.combinations(names, 5))
    assert draw_subsets(names, 6, 15, "0/base") == [tuple(names)]


def test_more_subsets_keep_those_drawn_before():
    names = list("abcdefghijkl")
    assert draw_subsets(names, 4, 20, "7/b")[:15] == draw_subsets(names, 4, 15, "7/b")
    assert draw_subsets(names, 4, 15, "7/b") != draw_subsets(names, 4, 15, "8/b")


def test_subsets_are_uniform():
    names = list("abcde")
    counts = collections.Counter(draw_subsets(names, 2, 1, str(seed))[0] for seed in range(4000))
    expected = 4000 / math.comb(5, 2)
    chi_squared = sum((c - expected) ** 2 / expected for c in counts.values())
    assert len(counts) == 10
    assert chi_squared < 27.9  # 99.9 % quantile at 9 degrees of freedom


def test_order_counts_for_a_method_of_two_experts_in_their_order():
    recipes = [Recipe(base="b", experts=e, method="slerp") for e in (("x", "y"), ("y", "x"))]
    assert len({recipe_id(r, IDENTITIES) for r in recipes}) == 1
    assert len({recipe_id(r, IDENTITIES, ordered=True) for r in recipes}) == 2
