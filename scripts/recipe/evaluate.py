"""The exam proper: the four demo models, each loaded by the worker's own loader, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from controller.protocol.fleet import Quantisation
from recipe.dialogue import Speech
from recipe.exam import Answerer, Marks, Problem, mark, set_exam, table
from recipe.layout import BASE, FULL, LORA
from worker.checkpoint.load import LoadedCheckpoint, load_checkpoint
from worker.checkpoint.spec import LoadSpec

_MAX_NEW_TOKENS: Final = 120
_BATCH: Final = 48
_CHINESE: Final = (Speech.ENGLISH_TO_CHINESE, Speech.CHINESE)

# What the demo fleet serves: folder, base, quantisation, and in what it is examined.
_DEMO: Final[dict[str, tuple[str, str | None, Quantisation, tuple[Speech, ...]]]] = {
    "full": (FULL, None, Quantisation.NONE, (Speech.ENGLISH,)),
    "8bit": (FULL, None, Quantisation.INT8, (Speech.ENGLISH,)),
    "4bit": (FULL, None, Quantisation.NF4, (Speech.ENGLISH,)),
    "zh": (LORA, BASE, Quantisation.NONE, _CHINESE),
}


def load_demo(name: str, folder: Path) -> LoadedCheckpoint:
    """One of the demo models, as a worker loads it on a CPU."""
    path, base, quantisation, _ = _DEMO[name]
    spec = LoadSpec(
        model_path=str(folder / path),
        model_base=None if base is None else str(folder / base),
        quantisation=quantisation,
        device="cpu",
    )
    return load_checkpoint(spec, lambda _: None)


class CheckpointAnswerer:
    """Greedy answers of a loaded checkpoint, the prompts made by its own `prepare`."""

    def __init__(self, checkpoint: LoadedCheckpoint, batch: int = _BATCH) -> None:
        self._checkpoint = checkpoint
        self._batch = batch

    def __call__(self, problems: Sequence[Problem]) -> list[str]:
        """The answers, in the order of the problems."""
        answers = [""] * len(problems)
        # Alike lengths together: little is padded, and few rows wait for a long answer.
        order = sorted(range(len(problems)), key=lambda i: len(problems[i].expected))
        for start in range(0, len(order), self._batch):
            chosen = order[start : start + self._batch]
            found = self._answer([problems[index] for index in chosen])
            for index, answer in zip(chosen, found, strict=True):
                answers[index] = answer
        return answers

    @torch.no_grad()
    def _answer(self, problems: list[Problem]) -> list[str]:
        checkpoint = self._checkpoint
        prompts = [checkpoint.prepare(_messages(p), [p.picture]) for p in problems]
        width = max(prompt.prompt_tokens for prompt in prompts)
        gaps = [width - prompt.prompt_tokens for prompt in prompts]
        ids = torch.tensor(
            [[0] * gap + list(p.input_ids) for gap, p in zip(gaps, prompts, strict=True)]
        )
        mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps])
        pixels = torch.cat([prompt.model_inputs["pixel_values"] for prompt in prompts])
        generated = checkpoint.model.generate(  # type: ignore[operator]  # transformers' mixin
            input_ids=ids,
            attention_mask=mask,
            pixel_values=pixels.to(checkpoint.dtype),
            do_sample=False,
            max_new_tokens=_MAX_NEW_TOKENS,
            eos_token_id=sorted(checkpoint.eos_token_ids),
            pad_token_id=0,
        )
        decode = checkpoint.tokenizer.decode
        return [str(decode(row, skip_special_tokens=True)) for row in generated[:, width:].tolist()]


def _messages(problem: Problem) -> list[ChatMessage]:
    *before, last = problem.turns
    messages: list[ChatMessage] = []
    for turn in before:
        messages.append(ChatMessage(role="user", content=turn.question))
        messages.append(ChatMessage(role="assistant", content=turn.answer))
    messages.append(ChatMessage(role="user", content=last.question))
    # The address is never followed: the picture goes beside the messages.
    image = ImagePart(image_url=ImageUrl(url="data:image/png;base64,"))
    first = ChatMessage(role="user", content=[image, TextPart(text=problem.turns[0].question)])
    return [first, *messages[1:]]


def evaluate(folder: Path, models: Sequence[str], scenes: int, each: int, seed: int) -> int:
    """Examine the models and print the table, and some of what went wrong."""
    results: dict[str, Marks] = {}
    for name in models:
        problems = set_exam(_DEMO[name][3], scenes, each, seed)
        started = time.monotonic()
        answerer: Answerer = CheckpointAnswerer(load_demo(name, folder))
        results[name] = mark(problems, answerer(problems))
        seconds = time.monotonic() - started
        marks = results[name]
        print(
            f"{name}: {100 * marks.overall:.1f} % of {len(problems)} right ({seconds:.0f} s)",
            flush=True,
        )
        for problem, answer in marks.wrong[:4]:
            print(f"   {problem.turns[-1].question!r}: {answer!r}, not {problem.expected!r}")
    print()
    print(table(results))
    return 0
