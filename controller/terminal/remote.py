"""Answers from a controller, a worker, or any other server that speaks OpenAI's API."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager

import httpx
from pydantic import ValidationError

from controller.chassis.addresses import Addresses
from controller.protocol.chat import ChatCompletionChunk, ChatCompletionRequest
from controller.protocol.error_bodies import error_of_body
from controller.protocol.preview import Preview, PreviewRequest
from controller.protocol.sse import Decoder
from controller.terminal.source import AnswerError

_CONNECT_SECONDS = 5.0
# Nothing at all for so long, not even a ping: prefill on a slow CPU sends pings meanwhile.
_SILENCE_SECONDS = 120.0


class RemoteSource:
    """An `AnswerSource` over HTTP.

    Args:
        address: what stands before ``/v1``.
        others: of controllers of the same fleet. Which answered last is asked first.
        api_key: what it asks of its clients, if it does.
        tls: whose certificates are believed; None is the system's choice.
    """

    def __init__(
        self,
        address: str,
        *,
        others: Sequence[str] = (),
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._addresses = Addresses((address, *others))
        self._http = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None),
            timeout=httpx.Timeout(_CONNECT_SECONDS, read=_SILENCE_SECONDS),
            trust_env=False,  # no proxy stands between us and a fleet
            verify=tls or True,
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
        )

    async def models(self) -> Sequence[str]:
        """See `AnswerSource.models`."""
        response = await self._whole("GET", "/v1/models")
        try:
            # Only what OpenAI's API promises, so that other servers do too.
            return [str(entry["id"]) for entry in json.loads(response.content)["data"]]
        except (ValueError, TypeError, KeyError) as exc:
            raise AnswerError(
                f"What answers at {self._addresses.current} lists no models as OpenAI's API does; "
                "check --controller",
                code="bad_models",
            ) from exc

    async def answer(self, asked: ChatCompletionRequest) -> AsyncGenerator[ChatCompletionChunk]:
        """See `AnswerSource.answer`."""
        async with self._open("/v1/chat/completions", _body(asked)) as response:
            decoder = Decoder()
            try:
                async for piece in response.aiter_bytes():
                    for event in decoder.feed(piece):
                        if event.is_error:
                            raise _error_of(event.data, response)
                        if event.is_done:
                            return
                        yield _chunk(event.data)
            except httpx.TransportError as exc:
                raise self._broken(exc) from exc
        raise AnswerError(
            "the answer broke off: its stream ended without an end mark, as when a worker is "
            "killed; ask again",
            code="stream_broken",
        )

    async def prompt(self, asked: PreviewRequest) -> str:
        """See `AnswerSource.prompt`."""
        response = await self._whole("POST", "/v1/preview", _body(asked))
        try:
            return Preview.model_validate_json(response.content).prompt
        except ValidationError as exc:
            raise AnswerError(
                "the server does not tell its prompt: only Paragone's own workers do",
                code="bad_preview",
            ) from exc

    async def aclose(self) -> None:
        """See `AnswerSource.aclose`."""
        await self._http.aclose()

    async def _whole(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        async with self._open(path, body, method=method) as response:
            try:
                await response.aread()
            except httpx.TransportError as exc:
                raise self._broken(exc) from exc
            return response

    @asynccontextmanager
    async def _open(
        self, path: str, body: bytes | None, *, method: str = "POST"
    ) -> AsyncIterator[httpx.Response]:
        response = await self._ask(method, path, body)
        try:
            if not response.is_success:
                await response.aread()
                raise _error_of(response.text, response)
            yield response
        finally:
            await response.aclose()

    async def _ask(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        """The head of the first controller's answer that accepts a connection."""
        headers = {} if body is None else {"content-type": "application/json"}

        def ask(address: str) -> Awaitable[httpx.Response]:
            request = self._http.build_request(
                method, address + path, content=body, headers=headers
            )
            return self._http.send(request, stream=True)

        try:
            return await self._addresses.reach(
                ask, refused=(httpx.ConnectError, httpx.ConnectTimeout)
            )
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            raise self._unreachable(exc) from exc

    def _broken(self, exc: httpx.TransportError) -> AnswerError:
        if isinstance(exc, httpx.ReadTimeout):
            return AnswerError(
                f"no sign of life for {_SILENCE_SECONDS:g} s: the worker hangs; ask again, or "
                "another model",
                code="silent",
            )
        return AnswerError(
            f"the connection to {self._addresses.current} broke in the middle of the answer; "
            "ask again",
            code="stream_broken",
        )

    def _unreachable(self, exc: Exception) -> AnswerError:
        why = str(exc) or type(exc).__name__
        return AnswerError(
            f"nobody answers at {self._addresses} ({why}); start a fleet with "
            "`paragone up FILE`, or name another address with --controller URL",
            code="unreachable",
        )


def _body(asked: ChatCompletionRequest | PreviewRequest) -> bytes:
    # What was not set is left out, so that servers that know less than ours take it.
    return asked.model_dump_json(exclude_unset=True).encode()


def _chunk(data: str) -> ChatCompletionChunk:
    try:
        return ChatCompletionChunk.model_validate_json(data)
    except ValidationError as exc:
        raise AnswerError(
            f"the server sent an event that is no chat completion chunk: {data[:120]}",
            code="bad_chunk",
        ) from exc


def _error_of(text: str, response: httpx.Response) -> AnswerError:
    detail = error_of_body(text, response.status_code)
    if detail is None:
        return AnswerError(
            f"{response.url} answered {response.status_code} without an explanation: "
            f"{text[:200] or 'an empty body'}",
            code=f"http_{response.status_code}",
        )
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return AnswerError(
            f"{detail.message} (--api-key, or PARAGONE_API_KEY)", code=detail.code or detail.type
        )
    return AnswerError(detail.message, code=detail.code or detail.type)
