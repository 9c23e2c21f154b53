"""A checkpoint as a whole model: of an adapter, the model that it makes of its base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wildmerge.checkpoints.adapter import is_adapter
from wildmerge.checkpoints.opening import open_weights
from wildmerge.errors import Refusal
from wildmerge.hub.references import folder_of, is_here
from wildmerge.merging.merge import merge
from wildmerge.storage.folders import private_folder
from wildmerge.study.recipe import Recipe


@contextmanager
def whole_model(reference: str, base: str | None, scratch: Path) -> Iterator[Path]:
    """Give the folder of a model; one made of an adapter is gone afterwards.

    Args:
        reference: folder or hub id of a model or an adapter.
        base: what an adapter is applied to; default what its config names.
        scratch: where a model is made of an adapter.

    Raises:
        Refusal: there is no such checkpoint, or an adapter's base is not known or not here.
    """
    folder = folder_of(reference)
    weights = open_weights(folder)
    if not is_adapter(weights.config):
        yield folder
        return
    base = base or weights.config.get("base_model_name_or_path")
    if not isinstance(base, str) or not is_here(base):
        raise Refusal(f"{reference}: an adapter of {base}, which is not here; give --base")
    with private_folder(scratch, ".model-") as private:
        recipe = Recipe(base=base, experts=(reference,), method="task_arithmetic")
        folders = {base: folder_of(base), reference: folder}
        merge(recipe, private / folder.name, folders=folders, progress=False)
        yield private / folder.name
