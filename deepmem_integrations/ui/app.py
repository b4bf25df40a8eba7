"""The application: which address leads to which page, and the server."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from deepmem_integrations.errors import DeepMemoryError, JobNotFoundError, ModelNotFoundError
from deepmem_integrations.report.page import own_file
from deepmem_integrations.ui.actions import Actions
from deepmem_integrations.ui.pages import Pages
from deepmem_integrations.ui.security import Access, Guard
from deepmem_integrations.ui.workspace import Workspace

_logger = logging.getLogger(__name__)

TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def make_app(work: Workspace, access: Access) -> ASGIApp:
    """Return the application, behind its guard.

    Args:
        work: What the application works on.
        access: Who may pass.
    """
    pages = Pages(work, shared=access.password is not None)
    actions = Actions(pages)

    def told(request: Request, error: Exception) -> Response:
        missing = isinstance(error, ModelNotFoundError | JobNotFoundError) and request.method == "GET"
        return pages.fault(request, 404 if missing else 400, str(error))

    def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return pages.fault(request, status, "There is no such page." if status == 404 else "This cannot be done here.")

    def failed(request: Request, error: Exception) -> Response:
        return pages.fault(request, 500, "The application has a fault, which its log tells.")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        work.close()

    gets = {
        "/": pages.search,
        "/why": pages.why,
        "/documents": pages.documents,
        "/labels": pages.labels,
        "/generate": pages.generate,
        "/train": pages.train,
        "/models": pages.models,
        "/models/{name}": pages.model,
        "/models/{name}/report": pages.report,
        "/history": pages.history,
        "/static/{name}": _static,
    }
    posts = {
        "/documents/folder": actions.read_folder,
        "/documents/demo": actions.read_demo,
        "/thumb": actions.thumb,
        "/labels/forget": actions.forget,
        "/generate": actions.generate,
        "/stop": actions.stop,
        "/train": actions.train,
        "/train/cancel": actions.cancel,
        "/train/resume": actions.resume,
        "/models/use": actions.use,
        "/models/rollback": actions.roll_back,
        "/models/measure": actions.measure,
    }
    routes = [
        Route(path, page, methods=[method]) for method, all_ in (("GET", gets), ("POST", posts)) for path, page in all_.items()
    ]
    handlers: Any = {DeepMemoryError: told, HTTPException: missing, Exception: failed}
    return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan), access, pages.login, pages.fault)


def _static(request: Request) -> Response:
    """Return a file of the package; the style and the script of reports are the report's own."""
    name = request.path_params["name"]
    kind = name.rpartition(".")[2]
    shared = {"report.css": "page.css", "report.js": "page.js"}
    if name in shared:
        return Response(own_file(shared[name]), media_type=TYPES[kind])
    place = files("deepmem_integrations.ui") / "static"
    if name not in {file.name for file in place.iterdir()} or kind not in TYPES:
        raise HTTPException(404)
    return Response((place / name).read_bytes(), media_type=TYPES[kind])


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address before anything is said about it, so that port 0 stands for a free port.

    Raises:
        OSError: The port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # whoever opens the address that is printed next waits for the server, and is not refused
    except BaseException:
        listening.close()
        raise
    return listening


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until the process is told to end."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, proxy_headers=False)
    uvicorn.Server(config).run([listening])
