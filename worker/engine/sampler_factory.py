"""What a checkpoint's answers have in common as to sampling, and what of a request it can do."""

from __future__ import annotations

from collections.abc import Iterable, Set

from controller.protocol.errors import BadRequestError
from worker.engine.protocol import SamplingParams
from worker.engine.sampler import Sampler, SamplingDefaults
from worker.engine.vocabulary import Vocabulary


class SamplerFactory:
    """Makes the samplers of one checkpoint.

    Args:
        defaults: what its generation config says.
        vocabulary: its tokenizer's.
        vocab_size: width of its logits.
        end_token_ids: tokens that end an answer.
    """

    def __init__(
        self,
        defaults: SamplingDefaults,
        *,
        vocabulary: Vocabulary,
        vocab_size: int,
        end_token_ids: Set[int],
    ) -> None:
        self._defaults = defaults
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._end_token_ids = end_token_ids

    def check(self, asked: SamplingParams) -> None:
        """Refuses what cannot be done, and gets ready what takes long; not for the model's thread.

        Raises:
            BadRequestError: a field is wrong for this model; ``param`` names it.
            UnsupportedError: this model cannot do that.
        """
        self.require_ids("logit_bias", (token_id for token_id, _ in asked.logit_bias))
        self.require_ids("stop_token_ids", asked.stop_token_ids)
        if asked.logprobs is not None:
            self._vocabulary.read()
        if asked.json_schema is not None:
            self._vocabulary.constraint(asked.json_schema)

    def sampler(
        self,
        asked: SamplingParams,
        prompt_ids: Iterable[int],
        stop_token_ids: Set[int] = frozenset(),
    ) -> Sampler:
        """The sampler of one answer, to a request that was checked.

        Args:
            asked: what the request says.
            prompt_ids: of the prompt.
            stop_token_ids: tokens that end the answer besides the model's and the request's own.
        """
        schema = asked.json_schema
        ends = self._end_token_ids | stop_token_ids
        return Sampler(
            asked,
            self._defaults,
            prompt_ids,
            end_token_ids=frozenset() if asked.ignore_eos else ends,
            constraint=None if schema is None else self._vocabulary.constraint(schema),
        )

    def require_ids(self, field: str, token_ids: Iterable[int]) -> None:
        """Refuses ids that are none of this model's.

        Raises:
            BadRequestError: the first of them; ``param`` is ``field``.
        """
        for token_id in token_ids:
            if not 0 <= token_id < self._vocab_size:
                raise BadRequestError(
                    f"{field}: this model has no token {token_id}; its ids go from 0 to "
                    f"{self._vocab_size - 1}",
                    param=field,
                )
