"""Several checkpoints over one base in memory, with adapters and projectors of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from controller.protocol.fleet import LoadProgress, ModelCard
from worker.checkpoint import llava
from worker.checkpoint.adapter import is_plain, lora_pairs
from worker.checkpoint.card import card_of
from worker.checkpoint.errors import AdapterError, TemplateError
from worker.checkpoint.formats import plan_load
from worker.checkpoint.load import LoadedCheckpoint, OwnParts, assemble, load_checkpoint
from worker.checkpoint.lora import AdapterSet
from worker.checkpoint.plan import Family, Part
from worker.checkpoint.projector_set import Projector
from worker.checkpoint.spec import LoadSpec, LoraSpec
from worker.checkpoint.survey import Survey, survey
from worker.checkpoint.tensors import TensorStore

OnProgress = Callable[[LoadProgress], None]


class SharedBase:
    """A base that is loaded, and takes adapters in and out.

    Attributes:
        checkpoints: what is served over it at first, the base itself included where it can answer.
    """

    def __init__(self, host: Survey, loaded: LoadedCheckpoint, base: LoadSpec) -> None:
        self._host = host
        self._base = base
        self._loaded = loaded
        self._adapters = (
            loaded.adapters
            if loaded.adapters is not None
            else AdapterSet(loaded.model, loaded.dtype)
        )
        has_projector = hasattr(getattr(loaded.model, "model", None), "multi_modal_projector")
        self._projector = Projector.in_place(loaded.model) if has_projector else None
        self._is_projector_taken = False
        # What is whose: the base's files, without the projector that the host brought along.
        self._files = _files(host)
        self.checkpoints: list[LoadedCheckpoint] = []

    def read(self, lora: LoraSpec) -> Callable[[], LoadedCheckpoint]:
        """Reads an adapter and its projector; the call that puts them beside the base.

        Reading may run on any thread; what it returns belongs to the model's.

        Raises:
            CheckpointError: it cannot be read, or does not share this base.
        """
        surveyed = survey(self.spec(lora))
        source = surveyed.plan.adapter
        if source is None:
            raise AdapterError(f"{lora.path} is no adapter; what shares a base is a LoRA over it")
        if not is_plain(source):
            raise AdapterError(
                f"{lora.path} is more than two matrices a linear layer (DoRA, embeddings, or whole "
                "modules), which cannot share its base; serve it with --model-path alone"
            )
        self._require_same_base(surveyed)
        if surveyed.plan.family is Family.TEXT and self._host.plan.family is Family.LLAVA:
            # The language model is a part of the one in memory, under longer names.
            source = replace(source, candidates=llava.module_names)
        pairs = lora_pairs(self._loaded.model, source)
        projector = self._own_projector(surveyed)
        card = card_of(surveyed)

        def put() -> LoadedCheckpoint:
            own = OwnParts(self._adapters, self._adapters.add(pairs), projector)
            return self._assembled(surveyed, card, own)

        return put

    def spec(self, lora: LoraSpec) -> LoadSpec:
        """How an adapter would be loaded alone."""
        return replace(
            self._base, model_path=lora.path, model_base=self._base.model_path, model_name=lora.name
        )

    def add_base(self) -> None:
        """Serves the base itself, where it has a way of being asked."""
        try:
            surveyed = survey(self._base)
        except TemplateError:
            return
        sees = surveyed.plan.family is self._host.plan.family
        own = OwnParts(self._adapters, None, self._projector if sees else None)
        self.checkpoints.append(self._assembled(surveyed, card_of(surveyed), own))

    def _assembled(self, surveyed: Survey, card: ModelCard, own: OwnParts) -> LoadedCheckpoint:
        return assemble(
            surveyed.plan,
            card=card,
            family=surveyed.family,
            model=self._loaded.model,
            placement=self._host.placement,
            own=own,
        )

    def _require_same_base(self, surveyed: Survey) -> None:
        """Checks that all but adapter and projector come from the files that are in memory."""
        path = surveyed.plan.folder.path
        family = surveyed.plan.family
        if family is Family.LLAVA and self._host.plan.family is not Family.LLAVA:
            raise AdapterError(
                f"{path} sees, and the base in memory was loaded without a vision tower; name one "
                "such adapter with --lora when the worker starts"
            )
        other = sorted(str(file) for file in _files(surveyed) - self._files)
        if other:
            raise AdapterError(
                f"{path} does not share the base in memory: it also needs {other[0]}. Serve it "
                "with a worker of its own"
            )
        if family is not self._host.plan.family:
            return  # a language model's adapter, and the language model is the same
        for key in _SHAPING:
            ours, theirs = self._host.plan.config.get(key), surveyed.plan.config.get(key)
            if ours != theirs:
                raise AdapterError(
                    f"{path} does not share the base in memory: its {key} is {theirs}, not {ours}. "
                    "Serve it with a worker of its own"
                )

    def _own_projector(self, surveyed: Survey) -> Projector | None:
        """The projector of its own that it brings along, if it does."""
        if self._projector is None or surveyed.plan.family is Family.TEXT:
            return None
        if surveyed.plan.family is not Family.LLAVA:
            return self._projector
        if not self._is_projector_taken and surveyed.plan.folder == self._host.plan.folder:
            self._is_projector_taken = True
            return self._projector  # the base was loaded with it
        store = TensorStore(lambda _part, _bytes: None)
        try:
            tensors = {
                name: store.read(planned)
                for name, planned in surveyed.tensors.items()
                if planned.part is Part.PROJECTOR
            }
            return self._projector.another(tensors)
        finally:
            store.close()


# Of a vision-language model's config, what decides how its parts work together.
_SHAPING = (
    "model_type",
    "vision_config",
    "vision_feature_layer",
    "vision_feature_select_strategy",
    "image_grid_pinpoints",
)


def load_shared(base: LoadSpec, loras: Sequence[LoraSpec], on_progress: OnProgress) -> SharedBase:
    """Loads a base once, and what is to be served over it.

    Args:
        base: the base alone.
        loras: what lies over it; of those that see, the first says which vision tower there is.
        on_progress: called as `load_checkpoint` does.

    Raises:
        CheckpointError: the base or one of the others does not load.
    """
    seeing = _first_that_sees(base, loras)
    spec = base
    if seeing is not None:
        spec = replace(base, model_path=seeing.path, model_base=base.model_path)
    host = survey(spec)
    loaded = load_checkpoint(spec, on_progress)
    if loaded.adapters is not None and loaded.adapter is not None:
        loaded.adapters.remove(loaded.adapter)  # it is put beside the base with the others
    shared = SharedBase(host, loaded, base)
    shared.add_base()
    for lora in loras:
        on_progress(LoadProgress(phase=f"adapter {lora.name}", fraction=1.0))
        shared.checkpoints.append(shared.read(lora)())
    return shared


def _first_that_sees(base: LoadSpec, loras: Sequence[LoraSpec]) -> LoraSpec | None:
    """The first LLaVA adapter over a base that is a language model alone."""
    if plan_load(base).family is not Family.TEXT:
        return None
    for lora in loras:
        spec = replace(base, model_path=lora.path, model_base=base.model_path)
        if plan_load(spec).family is Family.LLAVA:
            return lora
    return None


def _files(surveyed: Survey) -> set[Path]:
    """Files that hold something else than a projector."""
    return {
        planned.header.file.resolve()
        for planned in surveyed.tensors.values()
        if planned.part is not Part.PROJECTOR
    }
