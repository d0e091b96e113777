"""Servers on free ports of this machine, in threads of the tests' own process."""

import asyncio
import contextlib
import http.client
import json
import threading
import time
from types import SimpleNamespace

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.images.decode import decode
from imagenet_jax.task import Softmax


def middle(image):
    """The view of `Plain`: one pixel."""
    pixels = decode(image)
    return pixels[len(pixels) // 2, pixels.shape[1] // 2][None, None]


class Plain:
    """A model in numpy: of two classes, the likelier the redder and the less red an image; it waits until `free`,
    and has a `fault` where one is given."""
    num_classes, class_names, class_words, task, mesh = 2, ('red', 'other'), {}, Softmax(), SimpleNamespace(size=1)
    members = SimpleNamespace(entry={'model': {'name': 'plain'}}),
    view = SimpleNamespace(shape=(1, 1, 3), one=SimpleNamespace(size=1, resize=1))
    preprocess = picture = staticmethod(middle)

    def __init__(self):
        self.free, self.begun, self.sizes, self.fault = threading.Event(), threading.Event(), [], None
        self.free.set()

    def check_head(self):
        """As a classifier."""
        if not self.num_classes:
            raise UserError('no head')

    def batch(self, images):
        """Probabilities."""
        self.begun.set()
        self.sizes.append(len(images))
        self.free.wait(60)
        if self.fault:
            return self.fault(images)
        red = images[:, 0, 0, 0].astype(np.float32) / 255
        return np.stack([red, 1 - red], 1)


@contextlib.contextmanager
def serving(models, **limits):
    """What asks a server of these models."""
    from imagenet_jax.use.serve import app, server, service
    made = service.Service(models, service.Limits(**limits))
    bound = server.listen('127.0.0.1', 0)
    running = server.Server(app.create(made), made.limits.timeout)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([bound])), daemon=True)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield Client(bound.getsockname()[1], made)
    finally:
        running.should_exit = True
        thread.join(20)
        made.close()


class Client:
    """Asks it."""

    def __init__(self, port, service):
        self.port, self.service = port, service

    def ask(self, path, body=None, method=None, **headers):
        """(status, headers, the JSON or the text of the answer)."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        names = {name.replace('_', '-'): value for name, value in headers.items()}
        connection.request(method or ('GET' if body is None else 'POST'), path, body, names)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        kind = answer.headers.get_content_type()
        return answer.status, answer.headers, json.loads(text) if kind == 'application/json' else text.decode()

    def send(self, *files, query=''):
        """Sends (name, bytes) as the files of a form; answers as `ask`."""
        return self.ask(f'/predict{query}', form(*files), Content_Type='multipart/form-data; boundary=edge')

    @property
    def well(self):
        """Whether it answers."""
        return self.ask('/healthz')[0] == 200


def form(*files):
    """The body of a form with the boundary `edge`."""
    parts = [f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode() + data
             for name, data in files]
    return b''.join(part + b'\r\n' for part in parts) + b'--edge--\r\n'
