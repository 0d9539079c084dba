"""The page's only door to the controller: its models, and streamed answers.

Everything that can go wrong on the way leaves here as a `ControllerError` whose message names
the cause and the way out, so that a column can show it as it is.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
import httpx
from pydantic import ValidationError

from controller.chassis.addresses import Addresses
from controller.protocol.chat import ChatCompletionChunk
from controller.protocol.fleet import DrainReply, DrainRequest, FleetView
from controller.protocol.preview import Preview
from controller.protocol.sse import Decoder
from webui.controller_error import ControllerError, error_of_body

_CONNECT_SECONDS = 5.0


class ControllerClient:
    """Talks to one controller over HTTP, or to another of its fleet where it cannot be reached.

    Args:
        base_url: the controller's address, without a trailing slash.
        others: of the same fleet. Which answered last is asked first.
        silence_seconds: how long a stream may send nothing at all, not even a ping.
        api_key: what the controller asks of its clients, if it does.
        tls: whose certificates are trusted; None is the system's choice.
    """

    def __init__(
        self,
        base_url: str,
        *,
        others: Sequence[str] = (),
        silence_seconds: float = 60.0,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._addresses = Addresses((base_url, *others))
        self._silence_seconds = silence_seconds
        self._tls = tls
        self._headers = {"accept-encoding": "identity"} | (
            {"authorization": f"Bearer {api_key}"} if api_key else {}
        )
        self._http = httpx.AsyncClient(
            verify=tls or True,
            timeout=httpx.Timeout(_CONNECT_SECONDS, read=silence_seconds),
            # A proxy from the environment must not stand between us and a local controller.
            trust_env=False,
            headers=self._headers,
        )
        # Answers come in a thousand pieces a second, of which httpx takes three times the work.
        # Made when first needed: it belongs to the loop that runs then.
        self._streams: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Closes every connection."""
        await self._http.aclose()
        if self._streams is not None:
            await self._streams.close()

    @property
    def base_url(self) -> str:
        """The controller that is asked now."""
        return self._addresses.current

    async def fleet(self) -> FleetView:
        """The workers as the controller sees them now.

        Raises:
            ControllerError: it cannot be reached, or what answers is no controller.
        """
        asked = self.base_url
        try:
            response = await self._request("GET", "/fleet/workers", seconds=3.0)
        except httpx.TransportError as exc:
            self._addresses.pass_over(asked)  # it may hang
            raise self._unreachable(exc) from exc
        if response.status_code != httpx.codes.OK:
            raise _error_of(response)
        try:
            return FleetView.model_validate_json(response.content)
        except ValidationError as exc:
            raise ControllerError(
                f"What answers at {self.base_url} is not a Paragone controller of this version "
                f"(its /fleet/workers has another shape); check --controller-url",
                code="unreachable",
            ) from exc

    async def drain(self, worker_id: str, *, admin_key: str) -> bool:
        """Has the controllers route nothing more to a worker. Returns whether one knew it.

        Args:
            worker_id: which.
            admin_key: the fleet's token, where the controller has one; empty: none is sent.

        Raises:
            ControllerError: none can be reached, or the key is not the right one.
        """
        authorization = {"authorization": f"Bearer {admin_key}"} if admin_key else {}
        body = DrainRequest(worker_id=worker_id).model_dump_json()
        answers: list[bool] = []
        failed: httpx.TransportError | None = None
        for address in self._addresses:  # each has a list of its own
            try:
                response = await self._http.post(
                    address + "/fleet/drain",
                    content=body,
                    headers={"content-type": "application/json", **authorization},
                    timeout=5.0,
                )
            except httpx.TransportError as exc:
                failed = exc
                continue
            if response.status_code != httpx.codes.OK:
                raise _error_of(response)
            answers.append(DrainReply.model_validate_json(response.content).known)
        if not answers and failed is not None:
            raise self._unreachable(failed) from failed
        return any(answers)

    async def chat(
        self, body: bytes, *, note_worker: Callable[[str], None] | None = None
    ) -> AsyncGenerator[ChatCompletionChunk]:
        """Chunks of one streamed answer; closing the iterator hangs up at once.

        Args:
            body: a `ChatCompletionRequest` with ``stream``, as JSON.
            note_worker: is told which worker answers, before the first chunk.

        Raises:
            ControllerError: refused, broken off, or silent for too long.
        """
        async with self._open(body) as response:
            worker_id = response.headers.get("x-worker-id")
            if note_worker is not None and worker_id:
                note_worker(worker_id)
            decoder = Decoder()
            try:
                async for piece in response.content.iter_any():
                    for event in decoder.feed(piece):
                        if event.is_error:
                            raise error_of_body(event.data, *_origin(response))
                        if event.is_done:
                            return
                        yield _chunk(event.data)
            except TimeoutError as exc:
                raise self._silent() from exc
            except aiohttp.ClientError as exc:
                raise ControllerError(
                    f"The connection to the controller at {self.base_url} broke in the middle of "
                    f"the answer; what had arrived is kept. Ask again.",
                    code="stream_broken",
                ) from exc
        raise ControllerError(
            "The answer broke off: its stream ended without an end mark, as when a worker or the "
            "controller is killed. What had arrived is kept. Ask again.",
            code="stream_broken",
        )

    async def preview(self, body: bytes) -> Preview:
        """What a model would be given: its prompt, and the images as its encoder sees them.

        Args:
            body: a `PreviewRequest`, as JSON.

        Raises:
            ControllerError: refused, or the model's server has no such route.
        """
        try:
            response = await self._request("POST", "/v1/preview", content=body)
        except httpx.ReadTimeout as exc:
            raise self._silent() from exc
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc
        if response.status_code != httpx.codes.OK:
            raise _error_of(response)
        try:
            return Preview.model_validate_json(response.content)
        except ValidationError as exc:
            raise ControllerError(
                "What serves this model does not tell what it sees: that is known of Paragone's "
                "own workers alone.",
                code="bad_preview",
            ) from exc

    async def _request(
        self, method: str, path: str, *, content: bytes | None = None, seconds: float | None = None
    ) -> httpx.Response:
        """The answer of the first controller that accepts a connection.

        Args:
            method: of HTTP.
            path: what is asked for.
            content: JSON, if there is a body.
            seconds: how long it may take; None is as long as a stream may be silent.
        """
        headers = {} if content is None else {"content-type": "application/json"}
        timeout = self._http.timeout if seconds is None else httpx.Timeout(seconds)
        return await self._addresses.reach(
            lambda address: self._http.request(
                method, address + path, content=content, headers=headers, timeout=timeout
            ),
            refused=(httpx.ConnectError, httpx.ConnectTimeout),
        )

    async def _post_stream(self, body: bytes) -> aiohttp.ClientResponse:
        """Likewise, for an answer that comes in pieces."""
        return await self._addresses.reach(
            lambda address: self._session().post(
                address + "/v1/chat/completions",
                data=body,
                headers={"content-type": "application/json"},
                allow_redirects=False,
            ),
            refused=(aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError),
        )

    @asynccontextmanager
    async def _open(self, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        response = None
        try:
            try:
                response = await self._post_stream(body)
                refusal = None if response.status == httpx.codes.OK else await response.text()
            except aiohttp.ConnectionTimeoutError as exc:
                raise self._unreachable(exc) from exc
            except TimeoutError as exc:
                raise self._silent() from exc
            except aiohttp.ClientError as exc:
                raise self._unreachable(exc) from exc
            if refusal is not None:
                raise error_of_body(refusal, *_origin(response))
            yield response
        finally:
            if response is not None:
                response.close()  # hangs up, if it has not ended

    def _session(self) -> aiohttp.ClientSession:
        if self._streams is None:
            self._streams = aiohttp.ClientSession(
                # The number of streams is bounded where they are started, not by a hidden queue.
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=_CONNECT_SECONDS, sock_read=self._silence_seconds
                ),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._streams

    def _silent(self) -> ControllerError:
        return ControllerError(
            f"No sign of life for {self._silence_seconds:g} s: the worker hangs. What had arrived "
            f"is kept. Ask again, or choose another model for this column.",
            code="silent",
        )

    def _unreachable(self, exc: httpx.TransportError | aiohttp.ClientError) -> ControllerError:
        nobody, nothing = (
            "nothing accepts connections there",
            f"no connection within {_CONNECT_SECONDS:g} s",
        )
        reasons: dict[type[Exception], str] = {
            httpx.ConnectError: nobody,
            aiohttp.ClientConnectorError: nobody,
            httpx.ConnectTimeout: nothing,
            aiohttp.ConnectionTimeoutError: nothing,
            httpx.ReadTimeout: "it does not answer",
        }
        reason = reasons.get(type(exc), str(exc) or type(exc).__name__)
        return ControllerError(
            f"The controller at {self._addresses} cannot be reached: {reason}. Start it, or check "
            f"--controller-url; this page goes on by itself once it is back.",
            code="unreachable",
        )


def _chunk(data: str) -> ChatCompletionChunk:
    try:
        return ChatCompletionChunk.model_validate_json(data)
    except ValidationError as exc:
        raise ControllerError(
            f"The worker sent an event that is no chat completion chunk: {data[:120]}",
            code="bad_chunk",
        ) from exc


def _origin(response: aiohttp.ClientResponse) -> tuple[int, str, Mapping[str, str]]:
    return response.status, str(response.url), response.headers


def _error_of(response: httpx.Response) -> ControllerError:
    address = str(response.url)
    return error_of_body(response.text, response.status_code, address, response.headers)
