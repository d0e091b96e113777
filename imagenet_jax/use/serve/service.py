"""Models side by side and what is asked of them: decoding, batches, answers and the reasons why there is none."""

import asyncio
import base64
import dataclasses
import io
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from imagenet_jax.errors import UserError, ran_out_of_memory
from imagenet_jax.images.decode import image_size
from imagenet_jax.images.limits import MAX_PIXELS, DecodeError, refuse_bomb
from imagenet_jax.use.classifier import Classifier
from imagenet_jax.use.explain import GradCAM, overlay
from imagenet_jax.use.predictions import named
from imagenet_jax.use.serve.batching import Batcher, batch_sizes
from imagenet_jax.use.serve.bodies import Refused, Upload
from imagenet_jax.use.serve.metrics import Metrics
from imagenet_jax.workers import cores

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server takes.

    Attributes:
      max_batch: images that are answered together, at most.
      max_wait_ms: how long the first of a batch waits for others.
      queue: images that wait for their answer, decoded or not; one more is refused.
      max_bytes: of a request's body.
      max_pixels: of an image, by its header.
      timeout: seconds that a request's body may take to come, and then again its answer.
      top: classes of an image, where a request does not say.
    """
    max_batch: int = 32
    max_wait_ms: int = 2
    queue: int = 256
    max_bytes: int = 2**25
    max_pixels: int = MAX_PIXELS
    timeout: float = 30
    top: int = 5


class Service:
    """Answers images: decoded by a pool of threads, computed by one."""

    def __init__(self, models: Mapping[str, Classifier], limits: Limits):
        """`models` by name. Raises UserError for one that names no class."""
        for model in models.values():
            model.check_head()
        self.models, self.limits, self.waiting = models, limits, 0
        self.metrics = Metrics(limits.max_batch, lambda: self.waiting)
        self._sizes = {name: batch_sizes(limits.max_batch, model.mesh.size) for name, model in models.items()}
        self._maps = {name: GradCAM(model, most=1) for name, model in models.items()}
        self._pool = ThreadPoolExecutor(cores(), 'decode')
        self._device = Batcher({name: model.batch for name, model in models.items()}, self._sizes, limits.max_batch,
                               limits.max_wait_ms / 1000, self.metrics.batches.observe, lambda: self.waiting)

    @property
    def alive(self) -> bool:
        """Whether it can answer."""
        return self._device.alive

    @property
    def programs(self) -> list[Callable[[], Any]]:
        """Calls each of which compiles one program, so that no request has to wait for it."""
        calls = []
        for name, model in self.models.items():
            blank = np.zeros(2 * (model.view.one.size,) + (3,), np.uint8)
            calls += [partial(model.batch, np.zeros((size, *model.view.shape), np.uint8)) for size in self._sizes[name]]
            calls.append(partial(self._maps[name], blank[None], [0]))
        return calls

    def close(self) -> None:
        """Ends its threads, as soon as what they do is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._device.close()

    def refuse_busy(self, images: int = 1) -> None:
        """Raises Refused where so many images more are too many."""
        if images > self.limits.queue:
            raise Refused(413, f'{images} images are more than the {self.limits.queue} that may wait: send fewer at a '
                               'time')
        if self.waiting + images > self.limits.queue:
            raise Refused(503, f'{self.waiting} images wait already, of at most {self.limits.queue}', again=True)

    async def answer(self, name: str, images: Sequence[Upload], top: int, explain: bool) -> list[dict]:
        """For each image {'image', 'classes', ...}, or {'image', 'error', 'status'}. Raises Refused where busy.

        Classes are as `predict --json` has them, likeliest first, with probabilities in full. With `explain` there is
        'explanation' too: a PNG in base64, what the model saw with Grad-CAM's map over it.
        """
        self.refuse_busy(len(images))
        gone = threading.Event()
        tasks = []
        for image in images:
            tasks.append(asyncio.create_task(self._answer(name, image, top, explain, gone.is_set)))
            tasks[-1].add_done_callback(self._leave)
        self.waiting += len(tasks)
        try:
            await asyncio.wait(tasks, timeout=self.limits.timeout)
        finally:
            gone.set()  # what has not begun is left out; tasks that have keep their place until they are done
        late = {'error': f'no answer within {self.limits.timeout:g} s', 'status': 504}
        found = [{'image': image.name} | (task.result() if task.done() else late)
                 for image, task in zip(images, tasks, strict=True)]
        for each in found:
            self.metrics.images.labels(name, each.get('status', 200)).inc()
        return found

    def _leave(self, task: asyncio.Task) -> None:
        self.waiting -= 1

    async def _answer(self, name, image, top, explain, gone) -> dict:
        model = self.models[name]
        try:
            pixels = await self._in_pool(gone, self._seen, model, image.data)
            row = await asyncio.wrap_future(self._device.submit(name, pixels, gone))
            if not np.isfinite(row).all():
                return {'error': "the model's answer is not finite", 'status': 500}
            found = {'classes': named(model, row, top)}
            if explain:
                found['explanation'] = await self._explained(name, image.data, int(row.argmax()), gone)
            return found
        except DecodeError as error:
            unknown = isinstance(error.__cause__, UnidentifiedImageError)
            return {'error': f'cannot be read: {error}', 'status': 415 if unknown else 422}
        except UserError as error:
            return {'error': str(error), 'status': 422}
        except asyncio.CancelledError:
            return {'error': 'the server is ending', 'status': 503}
        except Exception as error:  # nothing that is sent may end the server
            log.exception('an image has no answer')
            if ran_out_of_memory(error):
                return {'error': 'the server had no memory left for it', 'status': 503}
            return {'error': 'the server failed on it', 'status': 500}

    async def _explained(self, name, image, number, gone) -> str:
        """A PNG in base64: the map of that class over the picture."""
        picture = await self._in_pool(gone, self.models[name].picture, image)
        heat = await asyncio.wrap_future(self._device.call(
            lambda: self._maps[name](picture[None], [number])[0], gone))
        if not np.isfinite(heat).all():
            raise UserError("the gradient of the model's answer is not finite: ask without an explanation")
        return await self._in_pool(gone, _drawn, picture, heat)

    async def _in_pool(self, gone, function, *arguments):
        def run():
            if gone():
                raise CancelledError
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    def _seen(self, model: Classifier, image: bytes) -> np.ndarray:
        refuse_bomb(*image_size(image), self.limits.max_pixels)
        return model.preprocess(image)


def _drawn(picture: np.ndarray, heat: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(overlay(picture, heat)).save(file, 'PNG')
    return base64.b64encode(file.getvalue()).decode()
