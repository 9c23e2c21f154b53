"""The random generator: known answers, and words that depend on nothing but what they are keyed by."""

import hashlib

import numpy as np
import pytest
import torch

from oracles_random import philox
from wildmerge.vectors import draws
from wildmerge.vectors.draws import WORDS, Draws

EXPERT, TENSOR = "org/expert@0123abc", "model.layers.0.mlp.up_proj.weight"
DRAWN = Draws(0, EXPERT, TENSOR)


def hexadecimal(words):
    return " ".join(f"{word:08x}" for word in words.tolist())


def by_torch(drawn, at):
    """As a GPU draws them."""
    first, last = at.start // 4, -(-at.stop // 4)
    found = draws._draw(drawn._key, torch.arange(first, last))
    return found[at.start - 4 * first :][: at.stop - at.start]


@pytest.fixture(params=[Draws.words, by_torch])
def words(request):
    """Both ways to draw."""
    return request.param


def test_the_published_known_answer(words):
    zero = Draws(0, "", "")
    zero._key = (0, 0, 0, 0)
    assert hexadecimal(words(zero, slice(0, 4))) == "6627e8d5 e169c58d bc57ac4c 9b00dbd8"
    assert philox((0, 0), (0, 0, 0, 0)) == words(zero, slice(0, 4)).tolist()


def test_the_words_of_a_tensor_are_written_down(words):
    assert hexadecimal(words(DRAWN, slice(0, 8))) == (
        "68895946 af3f1cc3 06e32054 0eefe337 9277a202 bedb4d1d 3ee2814a dbbd663c"
    )
    far = words(DRAWN, slice(2**34 - 2, 2**34 + 2))
    assert hexadecimal(far) == "ff7154df 4d396c1b 8d213c9d 694c488e"


def test_words_are_those_of_the_algorithm(words):
    digest = hashlib.sha256(f"wildmerge/1\n7\n{EXPERT}\n{TENSOR}".encode()).digest()
    k0, k1, c2, c3 = np.frombuffer(digest[:16], "<u4").tolist()
    expected = [word for block in range(9) for word in philox((k0, k1), (block, 0, c2, c3))]
    drawn = Draws(7, EXPERT, TENSOR)
    assert words(drawn, slice(3, 33)).tolist() == expected[3:33]


def test_what_is_kept_is_kept_in_any_chunks_and_both_ways():
    kept = torch.ones(3000)
    DRAWN.keep_(kept, slice(0, 3000), 0.5)
    assert "".join(f"{int(one)}" for one in kept[:16]) == "1011001010101100"
    assert torch.equal(kept.bool(), by_torch(DRAWN, slice(0, 3000)) < WORDS // 2)
    for size in (512, 1024, 7):
        parts = torch.ones(3000)
        for start in range(0, 3000, size):
            at = slice(start, min(start + size, 3000))
            DRAWN.keep_(parts[at], at, 0.5)
        assert torch.equal(parts, kept)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_that_is_kept_is_as_asked_for_and_seeds_are_unrelated(share):
    size = 1 << 18
    masks = []
    for seed in (0, 1):
        mask = torch.ones(size)
        Draws(seed, EXPERT, TENSOR).keep_(mask, slice(0, size), share)
        masks.append(mask.double() - share)
    deviation = (share * (1 - share) / size) ** 0.5
    assert all(abs(float(mask.mean())) < 4 * deviation for mask in masks)
    together = float((masks[0] * masks[1]).mean()) / (share * (1 - share))
    assert abs(together) < 4 / size**0.5


@pytest.mark.parametrize("other", [(1, EXPERT, TENSOR), (0, "x", TENSOR), (0, EXPERT, "x")])
def test_seed_expert_and_tensor_each_have_words_of_their_own(other):
    assert not (Draws(*other).words(slice(0, 64)) == DRAWN.words(slice(0, 64))).any()
