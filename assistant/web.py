"""The page: the tabs put together, and served. Everything from a file or a user is shown as text, never as HTML."""

import os
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.model import LanguageModel, load_model
from assistant.quantization import DtypeName, Quantization
from assistant.users import Users
from assistant.web_ask import ask_tab
from assistant.web_batch import batch_tab
from assistant.web_courses import UPLOAD_LIMIT, courses_tab
from assistant.web_look import CSS, HEAD, ON_LOAD, header, theme
from assistant.web_models import models_tab
from assistant.web_practise import practise_tab
from assistant.web_service import Service
from ingest.embed import load_embedder
from ingest.errors import UserError

_SESSIONS = 400  # visitors whose questions are remembered at a time
_QUEUE = 200  # events that may wait; the next one is told that the page is busy
# The page's own files and nothing else: whatever slipped in, a browser would not fetch it from elsewhere. Gradio's scripts
# stand in the page itself.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


class _Guarded:
    """Adds the headers to what is sent, as it is sent: answers arrive piece by piece."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        await self.app(scope, receive, guarded if scope["type"] == "http" else send)


def create_app(service: Service) -> gr.Blocks:
    """Build the page without starting it; the model is loaded when the first question needs it."""
    # What was uploaded is copied to where it belongs; the copies that Gradio keeps go after an hour.
    with gr.Blocks(title="Course questions", analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        gr.HTML(header(), apply_default_css=False)
        # Outside of the tabs, of which those that are not open are built later. What they hold is no secret.
        last = gr.BrowserState("", storage_key="mcqa-course", secret="mcqa")  # noqa: S106
        history = gr.BrowserState([], storage_key="mcqa-practice", secret="mcqa")  # noqa: S106
        with gr.Tabs():
            with gr.Tab("Ask", id="ask"):
                ask_tab(app, service, last)
            with gr.Tab("Practise", id="practise"):
                practise_tab(app, service, history)
            with gr.Tab("Batch", id="batch") as batch:
                batch_tab(app, service)
            with gr.Tab("Courses", id="courses") as courses:
                courses_tab(app, service)
            with gr.Tab("Models", id="models") as models:
                models_tab(app, service)
        staff_only = [batch, courses, models]
        if service.users is not None:

            def for_role(request: gr.Request) -> list[Any]:
                return [gr.Tab(visible=service.is_staff(request)) for _ in staff_only]

            app.load(for_role, outputs=staff_only, queue=False, show_progress="hidden", api_visibility="private")
    app.state_session_capacity = _SESSIONS
    return app


def create_server(service: Service, *, host: str = "127.0.0.1", port: int = 7860, root_path: str = "") -> FastAPI:
    """Return the web application: the page, and `/health` for whoever watches over it. `root_path` is a proxy's prefix."""
    server = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @server.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "model": service.name}

    app = create_app(service)
    app.queue(max_size=_QUEUE, default_concurrency_limit=4, api_open=False)
    server.add_middleware(_Guarded)
    return gr.mount_gradio_app(  # type: ignore[no-any-return]
        server,
        app,
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        auth=None if service.users is None else service.users.check,
        root_path=root_path or None,
        show_error=False,
        max_file_size=UPLOAD_LIMIT,
        ssr_mode=False,
        enable_monitoring=False,
        theme=theme(),
        css=CSS,
        js=ON_LOAD,
        head=HEAD,
    )


def serve(
    *,
    host: str,
    port: int,
    model: str | None,
    quantize: Quantization = "none",
    dtype: DtypeName = "auto",
    open_browser: bool,
    auth: Path | None = None,
    root_path: str = "",
) -> None:
    """Open the page on `host`:`port` and serve it until interrupted.

    `auth` is a file of users (assistant.users). Raises ModelError where the model cannot be loaded, and UserError where the
    port is taken or the file is none, before anyone sees the page.
    """
    import socket

    import uvicorn

    users = None if auth is None else Users(auth)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            remedy = "something else may be using it; choose another --port"
            raise UserError(f"cannot listen on {host}:{port}, {remedy}") from error

    def load(name: str | None) -> LanguageModel:
        return load_model(
            name or model, quantize=quantize, dtype=dtype, on_status=lambda words: print(words + " ...", flush=True)
        )

    print("Loading the models ...", flush=True)
    service = Service(load, users)
    print(service.lm().summary, flush=True)
    load_embedder()
    with tempfile.TemporaryDirectory(prefix="mcqa-uploads-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # what Gradio keeps of uploads ends with the server
        server = create_server(service, host=host, port=port, root_path=root_path)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}{root_path}"
        print(f"The page is at {address} (Ctrl+C stops it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(
            server, host=host, port=port, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=3
        )
        uvicorn.Server(config).run()
