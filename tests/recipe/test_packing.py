import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from recipe.attention import BINNED  # noqa: E402
from recipe.dialogue import Speech  # noqa: E402
from recipe.language import WrittenPictures, answer_loss, language_config  # noqa: E402
from recipe.packing import Diet, Packer, collate  # noqa: E402
from recipe.vocabulary import train_vocabulary  # noqa: E402
from recipe.world import draw_scene  # noqa: E402
from transformers import LlamaForCausalLM  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer():
    return train_vocabulary(3, conversations=1500)


def packer(tokenizer, **diet) -> Packer:
    rng = random.Random(1)
    scenes = [draw_scene(rng, held_out=False) for _ in range(20)]
    return Packer(tokenizer, scenes, Diet(((Speech.ENGLISH, 1.0),), **diet), seed=2)


def test_each_answer_weighs_the_same(tokenizer) -> None:
    batch = packer(tokenizer, long_share=0, odd_share=0).batch(2)
    assert float(batch.weights.sum()) == pytest.approx(batch.answers, abs=1e-3)


def test_a_branch_sees_the_prefix_and_itself_only(tokenizer) -> None:
    batch = packer(tokenizer, long_share=0, odd_share=0, text_share=0).batch(1)
    size = batch.mask.shape[2]
    prefix = batch.mask.shape[3] - size
    for number in range(batch.mask.shape[1]):
        start = prefix + number * size
        taken = batch.weights[0, start : start + size] > 0
        seen = batch.mask[0, number]
        assert seen[taken][:, :prefix].all()
        # Nothing looks ahead.
        assert not seen[:, prefix:].triu(1).any()
    # The second branch of a bin starts again at the prefix's end and does not see the first.
    positions = batch.positions[0, prefix : prefix + size]
    starts = (positions == prefix).nonzero().flatten().tolist()
    assert starts[0] == 0
    if len(starts) > 1:
        assert not batch.mask[0, 0, starts[1], prefix : prefix + starts[1]].any()


def test_small_talk_without_a_picture_does_not_see_the_picture(tokenizer) -> None:
    batch = packer(tokenizer, long_share=0, odd_share=0, text_share=1.0).batch(1)
    prefix = batch.mask.shape[3] - batch.mask.shape[2]
    assert not batch.mask[..., :prefix].any()


def test_binned_and_dense_attention_agree(tokenizer) -> None:
    chef = packer(tokenizer, long_share=0, odd_share=0)
    rng = random.Random(1)
    scenes = [draw_scene(rng, held_out=False) for _ in range(20)]
    sequences = [chef._branched(lambda: 3) for _ in range(2)]
    config = language_config()
    config._attn_implementation = BINNED
    torch.manual_seed(1)
    model = LlamaForCausalLM(config)
    see = WrittenPictures(tokenizer, scenes, model)
    binned, _ = answer_loss(model, collate(sequences, bins=4, bin_size=96), see)
    dense, _ = answer_loss(model, collate(sequences), see)
    assert binned.item() == pytest.approx(dense.item(), rel=2e-3)
