"""Settings of the page's process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from controller.chassis.remote_images import check_hosts
from controller.chassis.settings import ProcessSettings, split_list

ENV_PREFIX = "PARAGONE_WEBUI_"


class WebSettings(ProcessSettings):
    """Serves the page that compares checkpoints side by side."""

    port: int = Field(default=7860, ge=0, le=65535, description="port to listen on; 0: a free one")
    controller_url: tuple[str, ...] = Field(
        default=("http://127.0.0.1:21001",),
        min_length=1,
        description="where the controller answers; several of one fleet with commas between them: "
        "the next is asked where one cannot be reached",
    )
    api_key: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="what the controller asks of its clients, if it does; it never reaches the "
        "browser, and is better in the environment than on a command line",
    )
    admin_key: SecretStr | None = Field(
        default=None,
        min_length=8,
        description="who types it on the Cluster view may drain workers; it is the controller's "
        "fleet token, where that has one; left out: nobody may",
    )
    examples: Path = Field(
        default=Path(__file__).parent / "examples",
        description="folder with examples.json and its images; without the file no examples",
    )
    concurrency_count: int = Field(
        default=200, ge=1, description="questions that may be answered at the same time"
    )
    data_dir: Path | None = Field(
        default=None,
        description="folder of chats, votes and images; left out: paragone/webui in the user's "
        "folder for state (XDG_STATE_HOME, or ~/.local/state)",
    )
    share: bool = Field(
        default=False,
        description="a public address by Gradio's tunnel, for up to a week; it needs the internet, "
        "and should have --gradio-auth-path beside it",
    )
    embed: bool = Field(
        default=False, description="without title and links to other views, for a frame of a site"
    )
    moderate: str | None = Field(
        default=None,
        description="package.module:function that is given each question's text and image files, "
        "and returns why it is refused, or None",
    )
    gradio_auth_path: Path | None = Field(
        default=None,
        description="file of name:password, separated by commas or line ends, of those who may "
        "log in; left out: nobody has to",
    )
    auth_header: str | None = Field(
        default=None,
        min_length=1,
        description="header in which a reverse proxy names who has logged in, such as "
        "X-Forwarded-User; believed from --trusted-proxies, or from this machine alone",
    )
    root_path: str = Field(
        default="", description="path of this page at a reverse proxy that does not tell it"
    )
    terms: str = Field(
        default="",
        description="what people are told before they ask, as HTML: your terms of use; empty: "
        "nothing",
    )
    max_conversations: int = Field(
        default=10_000, ge=1, description="chats that are kept; the longest unused goes"
    )
    max_data_mib: int = Field(
        default=4096,
        ge=1,
        description="MiB of chats and images that are kept; the longest unused chats go",
    )
    conv_log_dir: Path | None = Field(
        default=None,
        description="folder of a log of answers and votes as JSON lines with LLaVA's fields; left "
        "out: there is no such log",
    )
    conv_log_days: int = Field(
        default=90, ge=1, description="days for which files of that log are kept"
    )
    conv_log_max_mib: int = Field(
        default=100, ge=1, description="MiB of one file of that log; a full one is continued"
    )
    max_upload_mib: int = Field(default=20, ge=1, description="largest image file, MiB")
    max_image_megapixels: float = Field(
        default=50.0, gt=0, description="largest image, million pixels"
    )
    allow_remote_images: tuple[str, ...] = Field(
        default=("*",),
        description="hosts that people may have images fetched from by their address, with commas "
        "between: example.org, *.example.org for all below it, * for any; private addresses "
        "never; none: there is no button for it",
    )
    remote_image_seconds: float = Field(
        default=10.0, gt=0, description="how long one image may take to fetch, redirects included"
    )
    silence_seconds: float = Field(
        default=60.0, gt=0, description="a stream without a sign of life for so long has failed"
    )
    unwatched_seconds: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="how long answers go on that no tab shows any more, so that a reload finds "
        "them; then they are stopped",
    )
    refresh_seconds: float = Field(
        default=0.5, gt=0, le=60, description="how often the controller is asked for its models"
    )
    model_list_mode: Literal["once", "reload"] = Field(
        default="reload",
        description="which models can be chosen: reload: the fleet's, also in tabs that are open; "
        "once: those that the controller named first after the start",
    )

    @property
    def store_folder(self) -> Path:
        """Where chats, votes and images are kept."""
        if self.data_dir is not None:
            return self.data_dir.expanduser()
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(state).expanduser() / "paragone" / "webui"

    @field_validator("allow_remote_images", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return () if value == "none" else split_list(value)

    @field_validator("allow_remote_images")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return check_hosts(hosts)

    @model_validator(mode="after")
    def _has_one_login(self) -> Self:
        if self.gradio_auth_path is not None and self.auth_header is not None:
            raise ValueError("--gradio-auth-path and --auth-header exclude each other")
        return self

    @model_validator(mode="after")
    def _can_be_shared(self) -> Self:
        if self.share and self.auth_header is not None:
            # The tunnel's strangers come from this machine, whose word is believed.
            raise ValueError(
                "--share and --auth-header exclude each other: through the tunnel anybody could "
                "send that header; use --gradio-auth-path"
            )
        if self.share and self.tls_cert is not None:
            raise ValueError(
                "--share and --tls-cert exclude each other: the tunnel speaks HTTP to the page, "
                "and its public address has a certificate of its own"
            )
        return self

    @field_validator("controller_url", mode="before")
    @classmethod
    def _split_addresses(cls, value: object) -> object:
        return split_list(value)

    @field_validator("controller_url")
    @classmethod
    def _plain_http_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(each.startswith(("http://", "https://")) for each in value):
            raise ValueError("expected an address such as http://127.0.0.1:21001")
        return tuple(each.rstrip("/") for each in value)
