"""The stages in LLaVA's order, each from files to files, so that a run can stop and go on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import CLIPVisionModel, LlamaForCausalLM

from recipe.attention import BINNED
from recipe.dialogue import Speech
from recipe.eyes import Eyes, Projector, Seen, load_seen, look_at_scenes, scenes_of
from recipe.language import (
    CONTEXT_LENGTH,
    WrittenPictures,
    hide_ground,
    language_config,
    named_trainable,
    train,
)
from recipe.optimiser import Optimiser, Rates
from recipe.packing import Batch, Diet, Packer
from recipe.rounding import Rounding
from recipe.tower import settle, tower_config, train_tower
from recipe.vocabulary import save_vocabulary, train_vocabulary
from recipe.world import MAX_THINGS

_LOOK_SEED: Final = 100
LORA_RANK: Final = 64
LORA_ALPHA: Final = 128
LORA_TARGETS: Final = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How long each stage learns; docs/demo-checkpoints.md says how the shipped weights differ."""

    tower_rounds: int = 2
    tower_steps: int = 2000  # a round
    tower_batch: int = 48
    language_steps: int = 1400
    language_sequences: int = 12  # a step
    easy_steps: int = 150  # with at most one, two, three things; the first of them twice
    hiding_steps: int = 800  # until all ground words are in sight
    language_scenes: int = 40_000
    look_scenes: int = 32_000
    imitate_steps: int = 500
    align_steps: int = 200
    tune_steps: int = 1100
    adapt_steps: int = 900
    sequences: int = 6  # a step
    further: int = 0  # steps by which tower, tune or adapt go on from their own weights
    seed: int = 1

    @property
    def draw(self) -> int:
        """The seed of what is drawn: a run that goes on meets other conversations."""
        return self.seed + 1000 * self.further


@dataclass(frozen=True)
class Work:
    """The folder of intermediate files."""

    folder: Path

    @property
    def vocabulary(self) -> Path:
        """The tokenizer's folder."""
        return self.folder / "vocabulary"

    def file(self, name: str) -> Path:
        """A weight file by the stage that makes it."""
        return self.folder / f"{name}.safetensors"

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the first stage made."""
        return Tokenizer.from_file(str(self.vocabulary / "tokenizer.json"))

    def tower(self) -> CLIPVisionModel:
        """The tower as its stage left it."""
        tower = CLIPVisionModel(tower_config())
        tower.load_state_dict(load_file(self.file("tower")))
        return tower.eval()

    def seen(self) -> Seen:
        """What the tower saw of the training scenes."""
        return load_seen(self.folder / "seen.pt", _LOOK_SEED)

    def language(self, name: str) -> LlamaForCausalLM:
        """A language model with the weights that a stage left."""
        config = language_config()
        config._attn_implementation = BINNED  # noqa: SLF001  # the constructor's own switch
        model = LlamaForCausalLM(config)
        model.load_state_dict(load_file(self.file(name)))
        return model

    def projector(self, name: str) -> Projector:
        """The projector that a stage left."""
        projector = Projector(tower_config().hidden_size, language_config().hidden_size)
        projector.load_state_dict(load_file(self.file(f"{name}-projector")))
        return projector


def _save(module: torch.nn.Module, path: Path) -> None:
    state = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(state, partial)
    partial.replace(path)


def make_vocabulary(work: Work, plan: Plan) -> None:
    """The tokenizer, from conversations of the world."""
    save_vocabulary(train_vocabulary(plan.seed + 10), work.vocabulary, CONTEXT_LENGTH)


def make_tower(work: Work, plan: Plan) -> None:
    """The vision tower, by dense supervision."""
    gentle = Rates(matrices=0.0015, rest=0.0006, cool_down=0.8)
    train_tower(
        seed=plan.draw,
        rounds=1 if plan.further else plan.tower_rounds,
        steps=plan.further or plan.tower_steps,
        batch=plan.tower_batch,
        rates=gentle if plan.further else Rates(matrices=0.003, rest=0.001, cool_down=0.8),
        save=lambda tower: _save(tower, work.file("tower")),
        tower=work.tower() if plan.further else None,
    )
    tower = work.tower()
    settle(tower)
    _save(tower, work.file("tower"))


def make_language(work: Work, plan: Plan) -> None:
    """The language model, on text alone: pictures are written out as words, easy ones first."""
    torch.manual_seed(plan.seed + 1)
    tokenizer = work.tokenizer()
    scenes = scenes_of(plan.seed + 2, plan.language_scenes)
    config = language_config()
    config._attn_implementation = BINNED  # noqa: SLF001  # as in Work.language
    model = LlamaForCausalLM(config)
    pictures = WrittenPictures(tokenizer, scenes, model)
    speeches = ((Speech.ENGLISH, 0.6), (Speech.CHINESE, 0.4))
    diet = Diet(speeches, long_share=0.08, odd_share=0.06, noted_bins=1)
    packer = Packer(tokenizer, scenes, diet, plan.seed + 5)
    pools = [
        [index for index, scene in enumerate(scenes) if 1 <= len(scene.things) <= most]
        for most in range(1, MAX_THINGS)
    ]
    pools.append(list(range(len(scenes))))
    order = random.Random(plan.seed + 6)
    hiding = torch.Generator().manual_seed(plan.seed + 7)
    drawn = 0

    def next_batch() -> Batch:
        nonlocal drawn
        drawn += 1
        # One thing for twice as long as two and as three; then scenes as they come.
        stage = max(0, min(MAX_THINGS - 1, drawn // plan.easy_steps - 1))
        batch = packer.batch(plan.language_sequences, lambda: order.choice(pools[stage]))
        share = min(0.93, 1.1 - drawn / plan.hiding_steps)
        return hide_ground(batch, pictures, share, hiding)

    train(
        "language",
        model,
        next_batch,
        pictures,
        Optimiser(
            named_trainable(model), Rates(0.0014, 0.0006, cool_down=0.6), plan.language_steps
        ),
        plan.language_steps,
        every=100,
        checkpoint=lambda _: _save(model, work.file("language")),
    )


def look(work: Work, plan: Plan) -> None:
    """The frozen tower's features of the scenes that the later stages train on."""
    tower = work.tower()
    look_at_scenes(tower, _LOOK_SEED, plan.look_scenes).save(work.folder / "seen.pt")


def align(work: Work, plan: Plan) -> None:
    """Stage 1: tower and language model frozen, only the projector learns."""
    torch.manual_seed(plan.seed + 20)
    seen = work.seen()
    model = work.language("language").requires_grad_(requires_grad=False)
    projector = Projector(tower_config().hidden_size, language_config().hidden_size)
    projector.expect(seen.features[:500])
    diet = Diet(
        ((Speech.ENGLISH, 0.6), (Speech.CHINESE, 0.4)), long_share=0, odd_share=0, noted_bins=1
    )
    packer = Packer(work.tokenizer(), seen.scenes, diet, plan.seed + 21)
    imitate(projector, seen, WrittenPictures(work.tokenizer(), seen.scenes, model), plan)
    train(
        "align",
        model,
        lambda: packer.batch(plan.sequences),
        Eyes(seen, projector),
        Optimiser(named_trainable(projector), Rates(0.0, 0.002), plan.align_steps),
        plan.align_steps,
        every=100,
        checkpoint=lambda _: _save(projector, work.file("align-projector")),
    )


def imitate(projector: Projector, seen: Seen, written: WrittenPictures, plan: Plan) -> None:
    """Bring the projected patches near the words that the language model already reads there."""
    rng = torch.Generator().manual_seed(plan.seed + 22)
    optimiser = Optimiser(named_trainable(projector), Rates(0.0, 0.003), plan.imitate_steps)
    for step in range(1, plan.imitate_steps + 1):
        chosen = torch.randint(len(seen.scenes), (32,), generator=rng).tolist()
        with torch.no_grad():
            words = written(chosen)
        weight = 1 + 15 * written.holds_thing(chosen).float()
        error = (projector(seen.features[chosen].float()) - words).square().mean(dim=-1)
        loss = (error * weight).mean() / words.square().mean()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            print(f"imitate {step}/{plan.imitate_steps}  error {loss.item():.4f}", flush=True)


def _diet(plan: Plan, *speeches: Speech) -> Diet:
    """What answers about pictures are learnt from; who reads pictures already needs no notes."""
    return Diet(
        tuple((speech, 1.0) for speech in speeches),
        long_share=0.1,
        odd_share=0.06,
        noted_bins=0 if plan.further else 1,
    )


def tune(work: Work, plan: Plan) -> None:
    """Stage 2: projector and language model learn; late in the stage, also under 4-bit rounding."""
    torch.manual_seed(plan.seed + 30)
    seen = work.seen()
    steps = plan.further or plan.tune_steps
    model = work.language("tune" if plan.further else "language")
    projector = work.projector("tune" if plan.further else "align")
    packer = Packer(work.tokenizer(), seen.scenes, _diet(plan, Speech.ENGLISH), plan.draw + 31)
    rounding = Rounding(model, 0 if plan.further else steps // 2, share=0.4, seed=plan.draw + 32)

    def keep(_: int) -> None:
        _save(model, work.file("tune"))
        _save(projector, work.file("tune-projector"))

    train(
        "tune",
        model,
        lambda: packer.batch(plan.sequences),
        Eyes(seen, projector),
        Optimiser(named_trainable(model, projector), Rates(0.0009, 0.00045, cool_down=1.0), steps),
        steps,
        every=100,
        checkpoint=keep,
        before_step=rounding.before_step,
        after_backward=rounding.after_backward,
    )


def adapt(work: Work, plan: Plan) -> None:
    """The LoRA run over the base language model, with its own projector: Chinese answers."""
    torch.manual_seed(plan.seed + 40)
    seen = work.seen()
    steps = plan.further or plan.adapt_steps
    base = work.language("language")
    projector = work.projector("adapt" if plan.further else "align")
    adapted = get_peft_model(
        base,
        LoraConfig(
            r=LORA_RANK,
            lora_alpha=LORA_ALPHA,
            target_modules=list(LORA_TARGETS),
            task_type="CAUSAL_LM",
        ),
    )
    if plan.further:
        learnt = load_file(work.file("adapt"))
        with torch.no_grad():
            for name, parameter in named_trainable(adapted):
                parameter.copy_(learnt[name])
    diet = _diet(plan, Speech.ENGLISH_TO_CHINESE, Speech.CHINESE)
    packer = Packer(work.tokenizer(), seen.scenes, diet, plan.draw + 41)

    def keep(_: int) -> None:
        learned = {n: p.detach().contiguous() for n, p in named_trainable(adapted)}
        partial = work.folder / "adapt.partial"
        save_file(learned, partial)
        partial.replace(work.file("adapt"))
        _save(projector, work.file("adapt-projector"))

    train(
        "adapt",
        adapted.base_model.model,
        lambda: packer.batch(plan.sequences),
        Eyes(seen, projector),
        Optimiser(named_trainable(adapted, projector), Rates(0.0, 0.0012, cool_down=1.0), steps),
        steps,
        every=100,
        checkpoint=keep,
    )


STAGES: Final = {
    "vocabulary": make_vocabulary,
    "tower": make_tower,
    "language": make_language,
    "look": look,
    "align": align,
    "tune": tune,
    "adapt": adapt,
}
