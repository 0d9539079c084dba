"""The tokenizer: byte-level BPE, so that any text can be asked, with one token a Chinese character.

Its decoder drops the space before an answer, as Llama's own does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from recipe.dialogue import Speech, converse, talk
from recipe.prompt import SYSTEM, picture_words
from recipe.world import draw_scene

UNKNOWN: Final = "<unk>"  # id 0, also the padding, as in LLaVA's own checkpoints
BEGIN: Final = "<s>"  # id 1
END: Final = "</s>"  # id 2
VOCABULARY_ROWS: Final = 1024  # of the embedding; the tokenizer leaves at least one free
_HAN: Final = r"[\p{Han}，。？：、！]"


def train_vocabulary(seed: int, conversations: int = 6000) -> Tokenizer:
    """Learn the merges on conversations of the world."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_HAN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = BpeTrainer(
        vocab_size=VOCABULARY_ROWS - 1,
        special_tokens=[UNKNOWN, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, conversations), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in (UNKNOWN, BEGIN, END)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, 1)]
    )
    for word in picture_words():
        if len(tokenizer.encode(word, add_special_tokens=False).ids) != 1:
            raise ValueError(f"the picture word {word!r} is not a single token: train on more text")
    return tokenizer


def _texts(seed: int, conversations: int) -> Iterator[str]:
    rng = random.Random(seed)
    words = picture_words()
    for _ in range(conversations):
        speech = rng.choice((Speech.ENGLISH, Speech.CHINESE))
        scene = draw_scene(rng, held_out=False)
        turns = converse(scene, rng, 4, speech) + talk(rng, 1, speech)
        for turn in turns:
            yield f"USER: {turn.question} ASSISTANT: {turn.answer}"
        yield "".join(rng.choices(words, k=12))
    yield from [SYSTEM] * (conversations // 10)


def save_vocabulary(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Write the files that transformers' AutoTokenizer reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "pad_token": UNKNOWN,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "padding_side": "right",
    }
    special = {key: config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    for name, content in (("tokenizer_config", config), ("special_tokens_map", special)):
        text = json.dumps(content, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
