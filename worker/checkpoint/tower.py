"""Finding the vision tower that an original LLaVA checkpoint only names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from worker.checkpoint import kinds
from worker.checkpoint.errors import PathError, TowerError
from worker.checkpoint.folder import CheckpointFolder, fetch, looks_like_hub_id
from worker.checkpoint.kinds import require_kinds

# Encoders that transformers' Llava can hold, and the key their config has inside a two-tower one.
ENCODERS = {
    "clip_vision_model": "clip_vision_model",
    "siglip_vision_model": "siglip_vision_model",
    "clip": "clip_vision_model",
    "siglip": "siglip_vision_model",
}
# What is read of an encoder's config here.
_READ = {"hidden_size", "image_size", "patch_size"}


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision tower's folder and the config of its image half."""

    folder: CheckpointFolder
    config: Mapping[str, Any]  # with model_type

    @property
    def preprocessor(self) -> Mapping[str, Any]:
        """How its images are scaled and normalised.

        Raises:
            TowerError: its folder does not say.
        """
        found = self.folder.json("preprocessor_config.json")
        if found is None:
            raise TowerError(
                f"the vision tower {self.folder.path} has no preprocessor_config.json, which says "
                f"how images are scaled for it. It holds: {self.folder.listing()}. Copy it from "
                "the original download"
            )
        origin = self.folder.path / "preprocessor_config.json"
        require_kinds(found, kinds.PREPROCESSOR, origin=origin)
        return found

    @property
    def has_class_token(self) -> bool:
        """Whether its first feature stands for the whole image."""
        return str(self.config["model_type"]).startswith("clip")


def find_tower(name: str, homes: Sequence[Path]) -> Tower:
    """The tower that a checkpoint calls ``name``.

    Looked for inside each home, then beside it (the whole name, then its last component, since
    checkpoints are often copied without their tree), then on the hub.

    Args:
        name: ``mm_vision_tower`` of the config.
        homes: the checkpoint's folder, and the base's where there is one.

    Raises:
        TowerError: it is nowhere, or is no encoder that can be used; says where it was looked for.
    """
    tried: list[str] = []
    for candidate in _candidates(name, homes):
        if (candidate / "config.json").is_file():
            return _open(CheckpointFolder.open(candidate))
        tried.append(str(candidate))
    if looks_like_hub_id(name):
        try:
            return _open(CheckpointFolder.open(fetch(name)))
        except PathError as error:
            tried.append(f"the Hugging Face hub ({str(error).rpartition(': ')[2]})")
    raise TowerError(
        f"the vision tower {name!r} was not found. Looked for at: {'; '.join(tried)}. "
        "Put its folder beside the checkpoint, or let the hub be reached"
    )


def _candidates(name: str, homes: Sequence[Path]) -> Iterator[Path]:
    path = PurePath(name)
    seen: set[Path] = set()
    if path.is_absolute():
        seen.add(Path(path))
        yield Path(path)
        shapes = [PurePath(path.name)]
    else:
        shapes = [path, PurePath(path.name)]
    for home in homes:
        for shape in shapes:
            for place in (home / shape, home.resolve().parent / shape):
                if place not in seen:
                    seen.add(place)
                    yield place


def _open(folder: CheckpointFolder) -> Tower:
    kind = str(folder.config.get("model_type", ""))
    encoder = ENCODERS.get(kind)
    if encoder is None:
        raise TowerError(
            f"{folder.path} is a {kind or 'model without a model_type'}, not a vision tower that "
            f"can be used: expected one of {', '.join(ENCODERS)}"
        )
    config = dict(folder.config.get("vision_config") or {} if kind != encoder else folder.config)
    require_kinds(config, kinds.TOWER, origin=folder.path / "config.json")
    config["model_type"] = encoder
    if not set(config) >= _READ:
        # transformers saves only what differs from its own defaults. Imported on use: it takes a
        # second, and most towers say all of it.
        from transformers import CONFIG_MAPPING  # noqa: PLC0415

        defaults = CONFIG_MAPPING[encoder]()
        config = {key: getattr(defaults, key) for key in _READ} | config
    return Tower(folder, config)


def rename_tower_tensor(name: str) -> str | None:
    """A tensor of a tower's own folder as Llava's parameter; None for the text half."""
    if name.startswith(("text_model.", "text_projection.", "visual_projection.", "logit_")):
        return None
    inner = name.removeprefix("vision_model.")
    if inner.endswith("position_ids"):  # a buffer that older versions saved
        return None
    return f"model.vision_tower.{inner}"
