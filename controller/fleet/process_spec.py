"""What a fleet file may say of any process that listens, and of the controller and the page."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from controller.fleet.section import Section

CONTROLLER_NAME = "controller"
WEB_NAME = "web"

# Addresses that mean "every interface": processes of the same machine dial the loopback instead.
_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told apart, not bound


def _as_text(value: object) -> object:
    """YAML reads ``1`` as a number; an environment variable is text."""
    if isinstance(value, bool):
        raise ValueError("put it in quotes, as the program expects it: 'true', '1', 'yes'")  # noqa: TRY004 - pydantic collects ValueErrors
    if isinstance(value, int | float):
        return str(value)
    return value


Text = Annotated[str, BeforeValidator(_as_text)]
Environment = dict[str, Text]


class ListeningProcess(Section):
    """A process that serves HTTP on a port of this machine."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(ge=1, le=65535, description="port to listen on")
    env: Environment = Field(
        default_factory=dict, description="environment variables of this process alone"
    )
    args: tuple[Text, ...] = Field(
        default=(), description="further flags, passed on as they are: [--log-level, debug]"
    )

    @property
    def url(self) -> str:
        """Where processes of this machine reach it without TLS; without a trailing slash."""
        host = _EVERY_INTERFACE.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class ControllerSpec(ListeningProcess):
    """The controller: the API's address, and where workers register."""

    port: int = Field(default=21001, ge=1, le=65535, description="port to listen on")


class WebSpec(ListeningProcess):
    """The web page."""

    port: int = Field(default=7860, ge=1, le=65535, description="port to listen on")
