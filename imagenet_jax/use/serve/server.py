"""The process that listens: its socket, its patience with connections, its end."""

import asyncio
import ipaddress
import signal
import socket

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagenet_jax.errors import Stopped, UserError

# Seconds that requests have to be answered once a signal has come.
_GRACE_S = 0.5


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, port 0 a free one. Raises UserError where there can be none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM,
                                                                flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(f'no address {host!r} to listen on: {error}') from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise UserError(f'cannot listen on {host}, port {port}: {error.strerror}; another --port may be free, and 0 '
                        'takes one that is') from error
    return bound


def address(bound: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = bound.getsockname()[:2]
    return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


def is_open(bound: socket.socket) -> bool:
    """Whether others than this machine can reach it."""
    return not ipaddress.ip_address(bound.getsockname()[0].partition('%')[0]).is_loopback


class Server(uvicorn.Server):
    """Uvicorn's, of one process; a connection that sends no request in so many seconds is closed."""

    def __init__(self, app, seconds: float):
        super().__init__(uvicorn.Config(
            app, loop='asyncio', http=_Impatient, ws='none', lifespan='off', interface='asgi3', log_config=None,
            log_level='critical', access_log=False, server_header=False, proxy_headers=False,
            timeout_keep_alive=seconds, timeout_graceful_shutdown=_GRACE_S))

    def run(self, sockets: list[socket.socket]) -> None:
        """Serves until a signal comes. Raises Stopped after SIGTERM, KeyboardInterrupt after Ctrl-C."""
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            super().run(sockets)
        finally:
            signal.signal(signal.SIGTERM, before)


def _stop(number, frame):
    raise Stopped(number)


class _Impatient(H11Protocol):
    """Uvicorn's has no limit for the header of a request, nor for a client that does not read its answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """As asyncio calls it."""
        super().connection_made(transport)
        self.loop.call_later(self.timeout_keep_alive, self._look, [None])

    def _look(self, before: list) -> None:
        """Again and again; `before` has the last request that was answered at the look before, [] amid one."""
        if self not in self.connections:
            return
        now = [self.cycle] if self.cycle is None or self.cycle.response_complete else []
        if now and now == before:
            self.transport.abort()
        else:
            self.loop.call_later(self.timeout_keep_alive, self._look, now)
