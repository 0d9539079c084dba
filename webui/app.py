"""Builds the page's server: the one place where its parts are made and tied together."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from controller.chassis.http import RequestIdMiddleware, install_errors, install_health
from controller.chassis.remote_images import RemoteImages, RemotePolicy
from controller.chassis.tls import client_context
from webui.acts import Acts
from webui.arranging import Arranging
from webui.battle import Battles
from webui.battle_routes import battle_routes
from webui.battle_store import BattleStore
from webui.blocks import NewsBlocks
from webui.client import ControllerClient
from webui.cluster import ClusterHistory, cluster_routes
from webui.compare import Compare
from webui.conv_log import ConversationLog
from webui.csp import ContentSecurityPolicy
from webui.document import read_asset
from webui.gallery import read_gallery
from webui.heads import Heads
from webui.history import history_routes
from webui.image_address import image_address_routes
from webui.leaderboard_view import leaderboard_routes
from webui.login import HeaderLogin, PasswordLogin, login_of, read_logins
from webui.moderation import Moderate, moderator
from webui.page import ASSETS, TITLE, Component, build_page, theme
from webui.panels import Panels
from webui.person import PersonCookie
from webui.routes import chat_routes
from webui.runs import RunRegistry
from webui.settings import WebSettings
from webui.store import Bounds, ConversationStore
from webui.streams import Streams
from webui.toolkit import gr
from webui.uploads import UploadLimits
from webui.view import View
from webui.watch import FleetWatch

_HOUR_SECONDS = 3600
_UPLOADS_KEPT_SECONDS = 24 * _HOUR_SECONDS
# Gradio's own bounds. Questions are bounded by the run registry, which can say why; these only
# keep a flood of other calls from piling up.
_MAX_EVENTS = 1000
_MAX_QUEUED_EVENTS = 1000
_SCRIPTS = ("image_address.js", "page.js")
_EMBEDDED_CSS = "#title, #nav { display: none !important; }"


class WebApp:
    """The page's server and the parts that its process has to reach.

    Attributes:
        asgi: the application to serve.
        runs: the questions under way, to be ended before the process goes.
        store: chats, votes and images.
    """

    def __init__(self, settings: WebSettings) -> None:
        """Builds it; nothing is contacted before the application starts.

        Raises:
            GalleryError: the folder of examples is malformed.
            StoreError: the folder of chats cannot be used.
            LoginError: the file of logins cannot be used.
            ModerationError: the function that moderates cannot be found.
        """
        moderate = moderator(settings.moderate)
        self._client = ControllerClient(
            settings.controller_url[0],
            others=settings.controller_url[1:],
            silence_seconds=settings.silence_seconds,
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            tls=client_context(settings.tls_ca),
        )
        self._watch = FleetWatch(
            self._client,
            interval_seconds=settings.refresh_seconds,
            is_list_fixed=settings.model_list_mode == "once",
        )
        past = ClusterHistory(time.monotonic)
        self._watch.observers.append(past.take)
        self.store = ConversationStore(
            settings.store_folder,
            Bounds(settings.max_conversations, settings.max_data_mib * 2**20),
        )
        self._log = ConversationLog(
            settings.conv_log_dir,
            max_bytes=settings.conv_log_max_mib * 2**20,
            days=settings.conv_log_days,
        )
        self.runs = RunRegistry(
            self._client,
            self.store,
            self._watch.describe,
            limit=settings.concurrency_count,
            unwatched_seconds=settings.unwatched_seconds,
            note_end=self._log.chat,
        )
        self.asgi = FastAPI(
            title=TITLE, docs_url=None, redoc_url=None, openapi_url=None, lifespan=self._lifespan
        )
        self.asgi.add_middleware(ContentSecurityPolicy)
        self.asgi.add_middleware(PersonCookie)
        has_login = settings.auth_header is not None or settings.gradio_auth_path is not None
        # Added last of those that refuse, so that it stands before all routes and mounts.
        if settings.auth_header is not None:
            trusted = list(settings.trusted_proxies)
            self.asgi.add_middleware(ProxyHeadersMiddleware, trusted_hosts=trusted)
            self.asgi.add_middleware(
                HeaderLogin, header=settings.auth_header, proxies=settings.trusted_proxies
            )
        elif settings.gradio_auth_path is not None:
            logins = read_logins(settings.gradio_auth_path)
            self.asgi.add_middleware(PasswordLogin, logins=logins)
        self.asgi.add_middleware(RequestIdMiddleware)
        install_errors(self.asgi)
        install_health(self.asgi, not_ready_reason=lambda: self._watch.catalogue.problem)
        self.asgi.include_router(chat_routes(self.store.images))
        self.asgi.include_router(history_routes(self.store))
        battles = BattleStore(self.store.database)
        self.asgi.include_router(leaderboard_routes(battles))
        limits = UploadLimits(
            max_bytes=settings.max_upload_mib * 2**20,
            max_pixels=int(settings.max_image_megapixels * 1e6),
        )
        if settings.allow_remote_images:
            policy = RemotePolicy(settings.allow_remote_images, settings.remote_image_seconds)
            remote = RemoteImages(policy, max_bytes=limits.max_bytes)
            self.asgi.include_router(image_address_routes(remote, limits))
        self.asgi.include_router(
            battle_routes(
                Battles(
                    store=self.store,
                    battles=battles,
                    runs=self.runs,
                    watch=self._watch,
                    limits=limits,
                    note_vote=self._log.battle,
                    moderate=moderate,
                    chance=random.SystemRandom(),
                ),
                terms=settings.terms,
                can_fetch=bool(settings.allow_remote_images),
            )
        )
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
        self.asgi.include_router(
            cluster_routes(self._watch, self._client, past, admin_key=admin_key)
        )
        if settings.examples.is_dir():
            images = StaticFiles(directory=settings.examples)
            self.asgi.mount("/examples", images, name="examples")
        gr.mount_gradio_app(
            self.asgi,
            self._demo(settings, limits, moderate),
            path="/",
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            allowed_paths=[str(settings.examples.resolve()), str(self.store.images.root.resolve())],
            max_file_size=settings.max_upload_mib * 2**20,
            ssr_mode=False,
            root_path=settings.root_path or None,
            auth_dependency=(lambda request: login_of(request.scope)) if has_login else None,
            pwa=False,
            favicon_path=str(ASSETS / "favicon.png"),
            mcp_server=False,
            theme=theme(),
            css=read_asset("page.css") + (_EMBEDDED_CSS if settings.embed else ""),
            head=f"<script>{''.join(map(read_asset, _SCRIPTS))}</script>",
        )

    def _demo(self, settings: WebSettings, limits: UploadLimits, moderate: Moderate) -> Component:
        gallery = read_gallery(settings.examples)
        demo = NewsBlocks(
            title=TITLE,
            analytics_enabled=False,
            fill_width=True,
            fill_height=True,
            delete_cache=(_HOUR_SECONDS, _UPLOADS_KEPT_SECONDS),
        )
        with demo:
            can_fetch = bool(settings.allow_remote_images)
            page = build_page(
                gallery,
                refresh_seconds=settings.refresh_seconds,
                terms=settings.terms,
                can_fetch=can_fetch,
            )
            heads = Heads(page, self._watch)
            view = View(page, heads, can_fetch=can_fetch)
            acts = Acts(
                page,
                view,
                store=self.store,
                runs=self.runs,
                panels=Panels(self._client, has_key=settings.api_key is not None),
                limits=limits,
                note_rating=self._log.feedback,
            )
            Compare(
                page,
                view=view,
                acts=acts,
                streams=Streams(view=view, store=self.store, runs=self.runs),
                store=self.store,
                runs=self.runs,
                heads=heads,
                gallery=gallery,
                examples_folder=settings.examples.resolve(),
                limits=limits,
                moderate=moderate,
            ).connect(demo)
            Arranging(page, view=view, store=self.store, heads=heads).connect()
        # 40 by default, generators included; it is read by queue() and has no argument here.
        demo.max_threads = _MAX_EVENTS
        demo.queue(max_size=_MAX_QUEUED_EVENTS, api_open=False)
        return demo

    async def end_streams(self) -> None:
        """Ends what holds connections open: answers, and what Gradio sends to pages that live."""
        self.runs.cut_everything()
        for route in self.asgi.routes:
            if isinstance(route, Mount) and isinstance(route.app, gr.routes.App):
                route.app.stop_event.set()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch.run())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self.runs.aclose()
            await self._client.aclose()
            self.store.close()
            self._log.close()
