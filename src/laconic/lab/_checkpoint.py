"""Checkpoint file of a run: written atomically, read back only by the same settings."""

import json
import os
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SECONDS = 5.0
"""Time between two checkpoints. A round that takes longer is saved when it ends."""

_FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what to do."""


@dataclass
class Checkpoint:
    """A file that always holds a complete state, and the settings that it belongs to.

    It is a NumPy ``.npz`` archive: arrays, and one JSON text for the rest. A new state is written beside the
    old one, to the disk, and then takes its name.

    Args:
        path: the file; its folder must exist.
        settings: what decides the course of the runs, by name, for JSON.
    """

    path: Path
    settings: dict[str, Any]
    _saved: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock."""
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state in the file; None if there is no file.

        Raises:
            CheckpointError: the file is damaged, or was written by a run of other settings.
        """
        if not self.path.exists():
            return None
        remedy = f"delete {self.path} to start anew"
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            text = json.loads(str(arrays.pop("rest")))
            settings, number = text["settings"], text["format"]
            state: dict[str, Any] = _joined(text["state"], arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{self.path} is no whole checkpoint ({reason}); {remedy}") from error
        if number != _FORMAT:
            raise CheckpointError(f"{self.path} was written by another version of laconic; {remedy}")
        for name, value in _plain(self.settings).items():
            if name not in settings or settings[name] != value:
                raise CheckpointError(
                    f"{self.path} was written by a run with other settings: {name} is {_short(value)} here"
                    f" and {_short(settings.get(name))} there; use the same settings, or {remedy}"
                )
        return state

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is older than ``SECONDS``."""
        return time.monotonic() - self._saved >= SECONDS

    def save(self, state: dict[str, Any]) -> None:
        """Write a state (dicts and lists of tensors, arrays and plain values), whole or not at all."""
        arrays: dict[str, Any] = {}
        text = {"format": _FORMAT, "settings": self.settings, "state": _parted(state, arrays)}
        arrays["rest"] = np.array(json.dumps(text))
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            with beside.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)
        self._saved = time.monotonic()


def _parted(tree: Any, arrays: dict[str, Any]) -> Any:
    """The tree with arrays moved to ``arrays`` and a note of the name in their place."""
    if isinstance(tree, (Tensor, np.ndarray)):
        name = f"array{len(arrays)}"
        arrays[name] = tree.numpy() if isinstance(tree, Tensor) else tree
        return {"array": name, "tensor": isinstance(tree, Tensor)}
    if isinstance(tree, dict):
        return {"dict": {key: _parted(value, arrays) for key, value in tree.items()}}
    if isinstance(tree, (list, tuple)):
        return [_parted(value, arrays) for value in tree]
    return tree


def _joined(tree: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(tree, list):
        return [_joined(value, arrays) for value in tree]
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        array = arrays[tree["array"]]
        return torch.from_numpy(array) if tree["tensor"] else array
    return {key: _joined(value, arrays) for key, value in tree["dict"].items()}


def _plain(value: Any) -> Any:
    """The value as JSON gives it back."""
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
