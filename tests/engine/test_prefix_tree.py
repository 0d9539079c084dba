"""The tree of what was read before finds the longest known beginning, and nothing else."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.prefix_tree import PrefixTree, prefix_keys

IMAGE = 99


@dataclass(frozen=True)
class Text:
    """A piece that is the text that it stands for."""

    tokens: tuple[int, ...]

    def split(self, at):
        return Text(self.tokens[:at]), Text(self.tokens[at:])


def keys(tokens):
    return np.array(tokens, dtype=np.int64)


def keep(tree, root, tokens):
    return tree.insert(root, keys(tokens), lambda start: Text(tuple(tokens[start:])))


def known(tree, root, tokens):
    pieces = tree.match(root, keys(tokens))
    return [token for piece, taken in pieces for token in piece.tokens[:taken]]


def test_a_prompt_is_known_as_far_as_it_was_seen():
    tree = PrefixTree()
    assert keep(tree, "a", [1, 2, 3, 4]) == 4
    assert known(tree, "a", [1, 2, 3, 9]) == [1, 2, 3]
    assert keep(tree, "a", [1, 2, 5, 6]) == 2
    assert known(tree, "a", [1, 2, 5, 6, 7]) == [1, 2, 5, 6]
    assert known(tree, "a", [1, 2, 3, 4, 5]) == [1, 2, 3, 4]
    assert tree.tokens == 6


def test_roots_know_nothing_of_each_other():
    tree = PrefixTree()
    keep(tree, "a", [1, 2, 3])
    assert known(tree, "b", [1, 2, 3]) == []
    keep(tree, "b", [1, 2])
    tree.forget("a")
    assert (known(tree, "a", [1, 2, 3]), known(tree, "b", [1, 2, 3])) == ([], [1, 2])
    assert tree.tokens == 2
    tree.forget("never seen")


def test_what_was_used_last_goes_last_and_ends_go_before_beginnings():
    tree = PrefixTree()
    for tokens in ([1, 2, 3], [1, 2, 4, 5], [7, 8]):
        keep(tree, "a", tokens)
    known(tree, "a", [1, 2, 3])
    assert tree.evict(1) == 2  # 4 and 5, used before 7 and 8
    assert known(tree, "a", [1, 2, 4]) == [1, 2]
    assert tree.evict(1) == 2
    assert known(tree, "a", [7, 8]) == []
    assert tree.evict(100) == 3
    assert (tree.tokens, tree.evict(1)) == (0, 0)


PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


@given(PROMPTS, st.integers(0, 20))
def test_it_knows_what_a_list_of_all_prompts_would_know(prompts, evicted):
    tree = PrefixTree()
    for prompt in prompts:
        keep(tree, 0, prompt)
    beginnings = {tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)}
    assert tree.tokens == len(beginnings)
    for prompt in [*prompts, [0, 1, 2, 0, 1, 2]]:
        longest = max((b for b in beginnings if list(b) == prompt[: len(b)]), key=len, default=())
        assert known(tree, 0, prompt) == list(longest)
    before = tree.tokens
    assert tree.evict(evicted) == before - tree.tokens
    assert tree.tokens <= max(0, before - evicted)
    for prompt in prompts:
        found = known(tree, 0, prompt)
        assert found == prompt[: len(found)]


def test_an_image_is_known_by_its_content_and_its_place():
    ids = [1, IMAGE, IMAGE, 2, IMAGE, IMAGE, 3]
    one, spans = prefix_keys(ids, IMAGE, [b"a", b"b"])
    assert spans == (slice(1, 3), slice(4, 6))
    again, _ = prefix_keys(ids, IMAGE, [b"a", b"b"])
    assert (one == again).all()
    other, _ = prefix_keys(ids, IMAGE, [b"a", b"c"])
    assert (one == other).tolist() == [True, True, True, True, False, False, True]
    assert len(set(one.tolist())) == len(ids)
    assert one[[0, 3, 6]].tolist() == [1, 2, 3]
    swapped, _ = prefix_keys(ids, IMAGE, [b"b", b"a"])
    assert not (one == swapped)[[1, 2, 4, 5]].any()


def test_images_that_cannot_be_told_apart_count_together():
    ids = [1, IMAGE, IMAGE, IMAGE, IMAGE, 3]
    one, spans = prefix_keys(ids, IMAGE, [b"a", b"b"])
    assert spans is None
    other, _ = prefix_keys(ids, IMAGE, [b"a", b"c"])
    assert (one == other).tolist() == [True, False, False, False, False, True]
    assert len(set(one.tolist())) == len(ids)


def test_images_side_by_side_are_told_apart_by_their_sizes():
    ids = [1, IMAGE, IMAGE, IMAGE, IMAGE, 3]
    one, spans = prefix_keys(ids, IMAGE, [b"a", b"b"], [1, 3])
    assert spans == (slice(1, 2), slice(2, 5))
    other, _ = prefix_keys(ids, IMAGE, [b"a", b"c"], [1, 3])
    assert (one == other).tolist() == [True, True, False, False, False, True]


def test_text_alone_is_known_by_its_tokens():
    found, spans = prefix_keys([5, 6, 7], None, [])
    assert (found.tolist(), spans) == ([5, 6, 7], ())
