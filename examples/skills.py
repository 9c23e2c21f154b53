"""Seven small text skills: lines to train on and held-out multiple-choice items to test with.

A skill is a function that draws one `Item`: a prompt, its answer and three wrong answers. A
training line is `prompt answer`, e.g. `sort up d b a = a b d`. Two rules keep the test honest:

- A prompt is held out if a hash of its symbols, in any order, says so. Training never sees a
  held-out prompt nor a rearrangement of one.
- The right answer cannot be known without reading the prompt. The four choices differ by two edits
  (neither, one, the other, both), so they are alike in form and equally central.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import ascii_lowercase as LETTERS
from string import digits as DIGITS

HELD_OUT_SHARE = 5  # one prompt in five is kept for testing


@dataclass(frozen=True)
class Item:
    """One question of a skill; symbols of `prompt` and answers are separated by single spaces."""

    prompt: str
    answer: str
    distractors: tuple[str, ...]

    def line(self) -> str:
        """Return the training text of this item."""
        return f"{self.prompt} {self.answer}"


def sort(rng: random.Random) -> Item:
    """Put letters in alphabetical order, up or down; wrong: other direction, a foreign letter."""
    letters = sorted(rng.sample(LETTERS, 5))
    shuffled = rng.sample(letters, 5)
    foreign = rng.choice(_order_preserving_replacements(letters))
    answers = [letters, foreign, letters[::-1], foreign[::-1]]
    direction = rng.choice(("up", "down"))
    if direction == "down":
        answers = [answer[::-1] for answer in answers]
    return _item(f"sort {direction} {' '.join(shuffled)} =", answers)


def reverse(rng: random.Random) -> Item:
    """Write letters backwards; wrong: one or two pairs of neighbours exchanged."""
    letters = rng.sample(LETTERS, 5)
    first, second = _separate_pairs(rng, 5)
    answers = _square(letters[::-1], lambda a: _swap(a, first), lambda a: _swap(a, second))
    return _item(f"reverse {' '.join(letters)} =", answers)


def shift(rng: random.Random) -> Item:
    """Move each letter on in the alphabet by 1 to 3; wrong: one or two letters off by one."""
    letters = rng.choices(LETTERS, k=4)  # repeats allowed, or one in a choice would betray it
    amount = rng.randint(1, 3)
    answer = [_advance(letter, amount) for letter in letters]
    first, second = rng.sample(range(4), 2)
    one, two = rng.choice((-1, 1)), rng.choice((-1, 1))
    answers = _square(
        answer,
        lambda a: _replace(a, first, _advance(a[first], one)),
        lambda a: _replace(a, second, _advance(a[second], two)),
    )
    return _item(f"shift {amount} {' '.join(letters)} =", answers)


def weave(rng: random.Random) -> Item:
    """Take letters from two rows in turn; wrong: one or two pairs of neighbours exchanged."""
    letters = rng.sample(LETTERS, 6)
    left, right = letters[:3], letters[3:]
    answer = [letter for pair in zip(left, right, strict=True) for letter in pair]
    first, second = _separate_pairs(rng, 6)
    answers = _square(answer, lambda a: _swap(a, first), lambda a: _swap(a, second))
    return _item(f"weave {' '.join(left)} and {' '.join(right)} =", answers)


def add(rng: random.Random) -> Item:
    """Add an amount to each digit, without carrying; wrong: one or two digits off by one."""
    amount, digits = rng.randint(1, 3), rng.choices(DIGITS, k=4)
    answer = [_raise(digit, amount) for digit in digits]
    first, second = rng.sample(range(4), 2)
    one, two = rng.choice((-1, 1)), rng.choice((-1, 1))
    answers = _square(
        answer,
        lambda a: _replace(a, first, _raise(a[first], one)),
        lambda a: _replace(a, second, _raise(a[second], two)),
    )
    return _item(f"add {amount} to {' '.join(digits)} =", answers)


def compare(rng: random.Random) -> Item:
    """Say where a row of digits is less or more than another; wrong: one or two words turned."""
    pairs = [rng.sample(DIGITS, 2) for _ in range(3)]
    left, right = zip(*pairs, strict=True)
    answer = ["less" if a < b else "more" for a, b in pairs]
    turned = {"less": "more", "more": "less"}
    first, second = rng.sample(range(3), 2)
    answers = _square(
        answer,
        lambda a: _replace(a, first, turned[a[first]]),
        lambda a: _replace(a, second, turned[a[second]]),
    )
    return _item(f"compare {' '.join(left)} and {' '.join(right)} =", answers)


def without(rng: random.Random) -> Item:
    """Leave a letter out of a row; wrong: another one left out, a pair exchanged."""
    letters = rng.sample(LETTERS, 6)
    out, other = rng.sample(range(6), 2)
    swapped = rng.randrange(4)
    answer, wrong = _drop(letters, out), _drop(letters, other)
    answers = [answer, wrong, _swap(answer, swapped), _swap(wrong, swapped)]
    return _item(f"without {letters[out]} in {' '.join(letters)} =", answers)


SKILLS: dict[str, Callable[[random.Random], Item]] = {
    skill.__name__: skill for skill in (sort, reverse, shift, weave, add, compare, without)
}
WORDS = [*SKILLS, "up", "down", "and", "less", "more", "to", "in", "="]
SYMBOLS = [*WORDS, *LETTERS, *DIGITS]  # all that ever occurs in a line


def is_held_out(prompt: str) -> bool:
    """Return whether `prompt` is kept for testing; the same for every order of its symbols."""
    symbols = " ".join(sorted(prompt.split()))
    return hashlib.sha256(symbols.encode()).digest()[0] % HELD_OUT_SHARE == 0


def training_items(skill: str, seed: int) -> Iterator[Item]:
    """Yield items of `skill` without end, none of them held out."""
    rng = random.Random(f"train {skill} {seed}")
    while True:
        item = SKILLS[skill](rng)
        if not is_held_out(item.prompt):
            yield item


def held_out_items(skill: str, number: int, seed: int) -> list[dict[str, object]]:
    """Return `number` different held-out items of `skill`, with the choices in random order.

    Returns:
        One dictionary an item: `prompt`, `choices` and `label`, the index of the right choice.
    """
    rng = random.Random(f"test {skill} {seed}")
    items: dict[str, dict[str, object]] = {}
    while len(items) < number:
        item = SKILLS[skill](rng)
        if is_held_out(item.prompt) and item.prompt not in items:
            choices = sorted((item.answer, *item.distractors))
            rng.shuffle(choices)
            label = choices.index(item.answer)
            items[item.prompt] = {"prompt": item.prompt, "choices": choices, "label": label}
    return list(items.values())


def _item(prompt: str, answers: list[list[str]]) -> Item:
    answer, *distractors = (" ".join(symbols) for symbols in answers)
    return Item(prompt, answer, tuple(distractors))


Edit = Callable[[list[str]], list[str]]


def _square(answer: list[str], first: Edit, second: Edit) -> list[list[str]]:
    """Return the answer and what one edit, the other edit and both make of it."""
    return [answer, first(answer), second(answer), second(first(answer))]


def _drop(symbols: list[str], position: int) -> list[str]:
    return [*symbols[:position], *symbols[position + 1 :]]


def _replace(symbols: list[str], position: int, symbol: str) -> list[str]:
    return [*symbols[:position], symbol, *symbols[position + 1 :]]


def _swap(symbols: list[str], position: int) -> list[str]:
    left, right = symbols[position : position + 2]
    return [*symbols[:position], right, left, *symbols[position + 2 :]]


def _advance(letter: str, amount: int) -> str:
    return LETTERS[(LETTERS.index(letter) + amount) % 26]


def _raise(digit: str, amount: int) -> str:
    return str((int(digit) + amount) % 10)


def _separate_pairs(rng: random.Random, length: int) -> tuple[int, int]:
    """Return where two pairs of neighbours start that share no position."""
    first, second = sorted(rng.sample(range(length - 2), 2))
    return first, second + 1


def _order_preserving_replacements(letters: list[str]) -> list[list[str]]:
    """Return every way to exchange one of the sorted letters for a foreign one, still sorted."""
    replaced = (
        _replace(letters, position, letter)
        for position in range(len(letters))
        for letter in LETTERS
        if letter not in letters
    )
    return [candidate for candidate in replaced if candidate == sorted(candidate)]
