"""Stored spectra are the experts' own, and a merge that reads them is the merge that computes them."""

import numpy as np
import pytest
from safetensors.torch import load_file

from wildmerge.errors import Refusal
from wildmerge.merging import spectra
from wildmerge.merging.merge import merge
from wildmerge.storage.files import sha256_of
from wildmerge.study.recipe import Recipe

MATRIX = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def stored(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spectra")
    return {
        str(expert): spectra.compute(
            tiny.base, expert, folder / spectra.file_name("base", expert.name)
        )
        for expert in tiny.experts
    }


def test_the_leading_half_of_every_matrix_is_stored(tiny, stored):
    weights = [load_file(f / "model.safetensors")[MATRIX].double() for f in tiny.experts[:1]]
    delta = (weights[0] - load_file(tiny.base / "model.safetensors")[MATRIX].double()).numpy()
    found = load_file(stored[str(tiny.experts[0])])
    assert not any("embed" in name or "norm" in name for name in found)
    u, s, vt = np.linalg.svd(delta, full_matrices=False)
    half = len(s) // 2
    ours = [found[f"{MATRIX}.{part}"].double().numpy() for part in ("u", "sigma", "v")]
    assert np.allclose(ours[1], s[:half], rtol=1e-6)
    rebuilt = (ours[0].T * ours[1]) @ ours[2]
    assert np.allclose(rebuilt, (u[:, :half] * s[:half]) @ vt[:half], atol=1e-6 * s[0])


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("null_space", ["keep", "drop"])
def test_a_merge_from_stored_spectra_has_the_same_bytes(tiny, stored, count, null_space, tmp_path):
    experts = tuple(map(str, tiny.experts[:count]))
    recipe = Recipe(base=str(tiny.base), experts=experts, method="tsv_m", null_space=null_space)
    merge(recipe, tmp_path / "computed", progress=False)
    merge(recipe, tmp_path / "read", spectra=stored, progress=False)
    computed, read = (
        sha256_of(tmp_path / name / "model.safetensors") for name in ("computed", "read")
    )
    assert computed == read


def test_stored_spectra_are_what_a_merge_reads(tiny, stored, tmp_path):
    """Those of another expert change the result."""
    experts = tuple(map(str, tiny.experts[:2]))
    same = {experts[0]: stored[experts[0]], experts[1]: stored[experts[0]]}
    digests = {}
    for name, files in {"right": stored, "same": same}.items():
        recipe = Recipe(base=str(tiny.base), experts=experts, method="tsv_m")
        merge(recipe, tmp_path / name, spectra=files, progress=False)
        digests[name] = sha256_of(tmp_path / name / "model.safetensors")
    assert digests["same"] != digests["right"]


def test_broken_spectra_are_refused(tiny, stored, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\0" * 20)
    experts = tuple(map(str, tiny.experts[:2]))
    recipe = Recipe(base=str(tiny.base), experts=experts, method="tsv_m")
    with pytest.raises(Refusal, match=r"bad\.safetensors"):
        merge(recipe, tmp_path / "m", spectra=stored | {experts[0]: bad}, progress=False)
    assert not (tmp_path / "m").exists()


def test_names_follow_from_content():
    assert spectra.file_name("a", "b") != spectra.file_name("a", "c")
    assert spectra.file_name("a", "b") == spectra.file_name("a", "b")
