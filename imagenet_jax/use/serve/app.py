"""The server's addresses. None opens a file: the page is read once, at the start."""

import asyncio
import dataclasses
import logging
import time
from importlib import resources
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from imagenet_jax.use.serve.bodies import Bodies, Refused, uploads
from imagenet_jax.use.serve.service import Service

log = logging.getLogger(__name__)

_PATHS = '/', '/predict', '/models', '/healthz', '/metrics'
# The page needs nothing from elsewhere, and nothing else may come to run in it.
_POLICY = ("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; "
           "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
_BODY = {'requestBody': {'required': True, 'content': {
    'multipart/form-data': {'schema': {'type': 'object', 'properties': {
        'image': {'type': 'array', 'items': {'type': 'string', 'format': 'binary'}}}}},
    'image/*': {'schema': {'type': 'string', 'format': 'binary'}}}}}


def create(service: Service) -> 'Watched':
    """What answers requests, for any ASGI server."""
    app = FastAPI(title='imagenet_jax', docs_url=None, redoc_url=None)  # whose pages load scripts from elsewhere
    bodies = Bodies(service.limits.max_bytes, service.limits.timeout)
    page = resources.files(__package__).joinpath('page.html').read_text(encoding='utf-8')

    @app.get('/', include_in_schema=False)
    async def show() -> Response:
        return HTMLResponse(page, headers={'Content-Security-Policy': _POLICY, 'Referrer-Policy': 'no-referrer'})

    @app.get('/models')
    async def models() -> dict:
        """The models side by side; the first answers where a request names none."""
        return {'models': [_described(name, model) for name, model in service.models.items()],
                'limits': dataclasses.asdict(service.limits)}

    @app.get('/healthz')
    async def health() -> Response:
        """200 while images can be answered."""
        return JSONResponse({'status': 'ok' if service.alive else 'failed'}, 200 if service.alive else 503)

    @app.get('/metrics')
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return PlainTextResponse(service.metrics.text(), media_type='text/plain; version=0.0.4')

    @app.post('/predict', openapi_extra=_BODY)
    async def predict(request: Request, model: str = '', top: Annotated[int, Query(ge=1)] = service.limits.top,
                      explain: bool = False) -> Response:
        """The likeliest classes of one image or many."""
        name = _chosen(service, model)
        service.refuse_busy()
        async with bodies.read(request) as body:
            images = await uploads(request, body, service.limits.queue)
            found = await service.answer(name, images, top, explain)
        return JSONResponse({'model': name, 'images': found}, _status(found))

    for kind, refuse in ((Refused, _refused), (HTTPException, _other), (RequestValidationError, _invalid),
                         (ClientDisconnect, _left), (Exception, _failed)):
        app.add_exception_handler(kind, refuse)
    return Watched(app, service)


class Watched:
    """Counts an app's requests; one that is cancelled, since the server ends, is answered by 503."""

    def __init__(self, app: FastAPI, service: Service):
        self._app, self._metrics = app, service.metrics

    async def __call__(self, scope, receive, send) -> None:
        """As ASGI has it."""
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        status, began = 0, time.perf_counter()

        async def noted(message):
            nonlocal status
            status = message.get('status', status)
            if message['type'] == 'http.response.start':
                message = message | {'headers': [*message['headers'], (b'x-content-type-options', b'nosniff')]}
            await send(message)
        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if not status:
                await _error(503, 'the server is ending')(scope, receive, noted)
        except Exception:
            log.exception('%s %s failed', scope['method'], scope['path'])
        finally:
            path = scope['path'] if scope['path'] in _PATHS else 'other'
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)


def _chosen(service: Service, model: str) -> str:
    if model and model not in service.models:
        raise Refused(404, f'no model {model[:80]!r}; there are {", ".join(service.models)}')
    return model or next(iter(service.models))


def _described(name: str, model) -> dict:
    view = model.view.one
    return {'name': name, 'architecture': model.members[0].entry['model']['name'], 'num_classes': model.num_classes,
            'multi_label': model.task.multi_label, 'size': view.size, 'resize': view.resize}


def _status(found: list[dict]) -> int:
    """Of the whole: 200 where any image has an answer, else the one that all have, or 422."""
    each = {one.get('status', 200) for one in found}
    return 200 if 200 in each else each.pop() if len(each) == 1 else 422


def _error(status: int, reason: str, again: bool = False) -> Response:
    return JSONResponse({'error': reason}, status, {'Retry-After': '1'} if again else None)


async def _refused(request: Request, error: Refused) -> Response:
    return _error(error.status, str(error), error.again)


async def _other(request: Request, error: HTTPException) -> Response:
    return JSONResponse({'error': error.detail}, error.status_code, error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return _error(422, '; '.join(f'{each["loc"][-1]}: {each["msg"]}' for each in error.errors()))


async def _left(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody reads it; it is counted


async def _failed(request: Request, error: Exception) -> Response:
    return _error(500, 'the server failed on this request')
