"""Who may talk to the web application: the guard that every request passes.

A page in a browser can send requests to any address, this machine's own included. So a request is answered only if it names this
server as its host (a name that was bound to 127.0.0.1 after the page had loaded does not), carries the cookie of a session, and,
where it changes something, comes from a page of this server (``Origin``) and holds the session's secret (the field ``csrf``).
"""

import asyncio
import contextlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepmem_integrations.audit import user

MOST_BYTES = 64 * 1024
"""How many bytes a form has at most."""
SHORTEST_PASSWORD = 8
"""How many characters a password has at least."""
LONGEST_NAME = 80
"""How many characters the name of a person has at most."""
WAIT = 1.0
"""For how many seconds a wrong password is kept waiting."""
MOST_SESSIONS = 1_000
"""How many people, or browsers, may be in."""
DEFAULT_PORTS = {"http": 80, "https": 443}
"""The port of an address that names none."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load and run: files of this server, and no script that stands in a page."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer, browsers would send "Origin: null" along with forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server at this address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass
class Session:
    """Somebody who was let in.

    Attributes:
        name: Who it is, for the audit log.
        csrf: The secret that forms of this session hold.
    """

    name: str
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class Access:
    """How the application is reached, and who is in.

    Args:
        host: The address that the server listens on.
        port: Its port.
        password: The password, which any address but the loopback address needs. Without one, a token in the URL lets in.
        public_url: The address under which a proxy shows the application to others, such as ``https://docs.example.com``.

    Raises:
        ValueError: Others reach the address, and there is no password of at least 8 characters. The public URL is none.
    """

    def __init__(self, host: str, port: int, password: str | None = None, public_url: str | None = None) -> None:
        self.public = None if public_url is None else public_origin(public_url)
        if password is not None and len(password) < SHORTEST_PASSWORD:
            raise ValueError(f"The password has {len(password)} characters; {SHORTEST_PASSWORD} are the least.")
        if password is None and (self.public or not is_loopback(host)):
            raise ValueError(f"Whoever reaches {public_url or host} could read and change everything: set a password.")
        self.host, self.port, self.password = host, port, password
        self.token = None if password is not None else secrets.token_urlsafe(24)
        self.sessions: dict[str, Session] = {}
        self.cookie = f"deepmem-{port}"  # cookies do not tell ports apart, and two applications may run
        anywhere = host in ("0.0.0.0", "::")
        self._names = {"localhost", socket.gethostname(), socket.getfqdn()} if anywhere else set()  # DNS may be slow

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        if self.public:
            return f"{self.public.scheme}://{self.public.netloc}/"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def knows(self, host: str) -> bool:
        """Tell whether a ``Host`` header names this server."""
        if self.is_public(host):
            return True
        name, port = split_host(host)
        if port != self.port:
            return False
        if name == self.host or (is_loopback(self.host) and is_loopback(name)):
            return True
        if self.host in ("0.0.0.0", "::"):
            with contextlib.suppress(ValueError):
                return bool(ipaddress.ip_address(name))  # an address is nobody's to bind to another place
            return name in self._names
        return False

    def is_public(self, host: str) -> bool:
        """Tell whether a ``Host`` header is that of the public URL, as a proxy passes it on."""
        if self.public is None:
            return False
        default = DEFAULT_PORTS[self.public.scheme]
        return split_host(host, default) == split_host(self.public.netloc, default)

    def enter(self, name: str) -> str:
        """Let somebody in, and return the value of the cookie. Where too many are in, the first must enter again."""
        while len(self.sessions) >= MOST_SESSIONS:
            self.sessions.pop(next(iter(self.sessions)), None)
        key = secrets.token_urlsafe(32)
        self.sessions[key] = Session(name)
        return key


def public_origin(url: str) -> SplitResult:
    """Read the address under which others see the application.

    Raises:
        ValueError: It is no address of a server, or names more than a server.

    Example:
        >>> public_origin("https://docs.example.com/").netloc
        'docs.example.com'
    """
    parts = urlsplit(url)
    name, port = split_host(parts.netloc, DEFAULT_PORTS.get(parts.scheme, 80))
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in DEFAULT_PORTS or not name or not url.isascii() or any(map(str.isspace, url)) or port is None or more:
        raise ValueError(f"{url!r} is no address of a server: write one such as https://docs.example.com, without a path.")
    return parts


def split_host(host: str, default: int = 80) -> tuple[str, int | None]:
    """Split a ``Host`` header into name and port.

    Example:
        >>> split_host("[::1]:8000"), split_host("localhost"), split_host("a:b")
        (('::1', 8000), ('localhost', 80), ('', None))
    """
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname or "", parts.port or default
    except ValueError:
        return "", None


class Guard:
    """Lets only those requests through to an application that may pass; the form of a request is in ``scope["form"]``.

    Args:
        app: The application.
        access: Who may pass.
        login: Draws the page that asks for the password: (request, message) → response.
        refuse: Draws a refusal: (request, status, message) → response.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        login: Callable[[Request, str], Response],
        refuse: Callable[[Request, int, str], Response],
    ) -> None:
        self._app, self._access, self._login, self._refuse = app, access, login, refuse
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        scope["session"] = Session("")
        response = await self._answer(request)
        if response is not None:
            await response(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    async def _answer(self, request: Request) -> Response | None:
        """Return a response where the guard itself answers; None where the request may pass."""
        access, path = self._access, request.url.path
        if len(request.headers.getlist("host")) != 1 or not access.knows(request.headers["host"]):
            return PlainTextResponse("This server does not go by that name.", 421)
        if request.method not in ("GET", "HEAD", "POST"):
            return self._refuse(request, 405, "Only GET and POST are known here.")
        if request.method == "POST" and (fault := self._foreign(request)):
            return self._refuse(request, 403, fault)
        if path.startswith("/static/"):
            return None
        session = access.sessions.get(request.cookies.get(access.cookie, ""))
        if request.method == "POST":
            form = await self._form(request)
            if isinstance(form, Response):
                return form
            request.scope["form"] = form
            if session is not None and not hmac.compare_digest(form.get("csrf", "").encode(), session.csrf.encode()):
                return self._refuse(request, 403, "This form is of an earlier session. Load the page again.")
        if access.password is not None and path == "/login":
            return await self._logged_in(request)
        if (token := request.query_params.get("token")) is not None and request.method == "GET" and access.token is not None:
            if not hmac.compare_digest(token.encode(), access.token.encode()):
                return self._refuse(request, 403, "The token is wrong. Open the address that the command printed last.")
            rest = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "token"])
            return self._entered(f"/{path.lstrip('/')}{'?' if rest else ''}{rest}", user())
        if session is None:
            if access.password is not None:
                return RedirectResponse("/login", 303)
            return self._refuse(request, 403, "Open the address that the command printed: it holds the token that lets you in.")
        request.scope["session"] = session
        return None

    def _foreign(self, request: Request) -> str:
        """Say why a request does not come from a page of this server; empty where it does."""
        host, public = request.headers["host"], self._access.public
        origin = urlsplit(request.headers.get("origin", ""))
        if public and origin.scheme == public.scheme and self._access.is_public(origin.netloc):
            own = True  # whether the proxy keeps the Host header or puts this server's own there
        else:
            own = origin.scheme in DEFAULT_PORTS and origin.netloc == host and not self._access.is_public(host)
        if not own:
            return "This request comes from another page."
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "This request comes from another page."
        return ""

    async def _form(self, request: Request) -> dict[str, str] | Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            return self._refuse(request, 415, "Forms alone are taken here.")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                return self._refuse(request, 413, f"This is more than {MOST_BYTES:,} bytes.")
        try:
            return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
        except ValueError:
            return self._refuse(request, 400, "This is no form.")

    async def _logged_in(self, request: Request) -> Response:
        if request.method != "POST":
            return self._login(request, "")
        form, password = request.scope["form"], self._access.password
        assert password is not None
        async with self._one_at_a_time:  # who tries many passwords at once learns no more in a second than who tries one
            if not hmac.compare_digest(form.get("password", "").encode(), password.encode()):
                await asyncio.sleep(WAIT)
                return self._login(request, "This is not the password.")
        return self._entered("/", form.get("name", "").strip()[:LONGEST_NAME] or user())

    def _entered(self, to: str, name: str) -> Response:
        response = RedirectResponse(to, 303)
        secure = self._access.public is not None and self._access.public.scheme == "https"
        key = self._access.enter(name)
        response.set_cookie(self._access.cookie, key, httponly=True, samesite="strict", secure=secure, path="/")
        return response
