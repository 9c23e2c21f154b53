"""Model folders as the backends load them: the files that merging reads, no other, and all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge.checkpoints.files import model_files
from wildmerge.scoring.checks import check_tokenizer, require_finite, require_whole
from wildmerge.storage.folders import Scratch, private_folder
from wildmerge.study.file import EvaluationSettings

if TYPE_CHECKING:
    from wildmerge.scoring.vllm.engine import Engine


class Backend:
    """Loads one model after the other.

    Args:
        settings: backend, dtype and chat template.
        device: "cpu", "cuda" or "cuda:i".
        store: folder for tokens and passes, which all models of a base share; None keeps none.
        batch_size: of the `hf` backend.
    """

    def __init__(
        self, settings: EvaluationSettings, device: str, store: Path | None, batch_size: int
    ) -> None:
        self._settings, self._device = settings, device
        self._store, self._batch_size = store, batch_size
        self._scratch = Scratch("wildmerge-models-")

    def load(self, folder: Path) -> Any:
        """Return lm-eval's model of a folder.

        Raises:
            Refusal: tokenizer, chat template or tensors are missing, or weights are no numbers.
        """
        check_tokenizer(folder, chat_template=self._settings.chat_template)
        with _as_read(folder, self._scratch.path) as links:
            require_whole(links, str(folder))
            if self._settings.backend == "vllm":
                return self._engine.load(links)
            lm = self._load(links)
        require_finite(lm.model, str(folder))
        return lm

    def _load(self, folder: Path) -> Any:
        options: dict[str, Any] = {
            "dtype": self._settings.dtype,
            "device": self._device,
            "batch_size": self._batch_size,
            "trust_remote_code": False,
        }
        if self._settings.backend == "hf":
            from lm_eval.models.huggingface import HFLM

            return HFLM(str(folder), **options)
        from wildmerge.scoring.prefix.backend import PrefixLM

        return PrefixLM(str(folder), store=self._store, **options)

    @cached_property
    def _engine(self) -> Engine:
        from wildmerge.scoring.vllm.engine import Engine

        return Engine(self._settings.dtype, self._device, self._scratch.path)


@contextmanager
def _as_read(folder: Path, scratch: Path) -> Iterator[Path]:
    """Give a folder of links to the files of a checkpoint that merging reads."""
    with private_folder(scratch, "model-") as links:
        for file in model_files(folder):
            link = links / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
        yield links
