"""A trained model, or several that answer together: images in, probabilities or features out."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image, ImageOps

from imagenet_jax import step, trained, weights
from imagenet_jax.class_names import match
from imagenet_jax.errors import UserError, few
from imagenet_jax.images import pillow
from imagenet_jax.images.decode import DecodeError
from imagenet_jax.models.layers import DATA_AXIS, at_least_float32, global_mean
from imagenet_jax.sources.upright import Upright
from imagenet_jax.task import Task
from imagenet_jax.trained import Trained
from imagenet_jax.workers import cores

BATCH_SIZE = 64
# What an image may be given as: a file's path, its bytes, uint8 pixels (H, W, 3), or one of Pillow's.
Picture = str | Path | bytes | np.ndarray | Image.Image


class Classifier:
    """One model, or the mean of the probabilities of several (an ensemble), each with its own view of an image.

    Attributes:
      members: the models.
      class_names: in the order of the answers, which is the first one's; () where unknown.
      class_words: readable names of those that are WordNet ids outside ImageNet's 1000, by id.
      num_classes: of the answers.
      view: encoded image, or pixels -> uint8 of its `shape`, what `answer` takes; `one` of it makes a picture.
      exif: whether images are turned as their EXIF says.
    """

    def __init__(self, *members: Trained):
        """Raises UserError where they cannot answer together."""
        first = members[0]
        self.members, self.class_names, self.exif = members, first.class_names, first.exif
        self.class_words = {word: text for each in members for word, text in each.class_words.items()}
        self.num_classes: int = first.model.num_classes
        self._orders = [_order(first, other) for other in members]
        views = list(dict.fromkeys(each.view for each in members))
        self.view = views[0] if len(views) == 1 else _Views(views)
        self._shown = [views.index(each.view) for each in members]

    @property
    def task(self) -> Task:
        """What they were trained for."""
        return self.members[0].task

    @property
    def model(self) -> nn.Module:
        """The model, of one alone."""
        return self._only.model

    @property
    def variables(self) -> dict:
        """{'params', 'batch_stats'}, of one alone."""
        return self._only.variables

    @property
    def _only(self) -> Trained:
        if len(self.members) > 1:
            raise UserError(f'{len(self.members)} models have no common variables: load one of them alone')
        return self.members[0]

    @property
    def arguments(self) -> tuple[dict, ...]:
        """The members' variables, the first argument of `answer`."""
        return tuple(each.variables for each in self.members)

    def answer(self, arguments: tuple[dict, ...], images: jax.Array) -> jax.Array:
        """(`arguments`, uint8 (N, *view.shape)) -> logits (N, K), at least float32; to be compiled."""
        if len(self.members) == 1:
            return self.members[0].answer(arguments[0], images)
        shown = self.view.unpack(images) if isinstance(self.view, _Views) else [images]
        answers = []
        for each, variables, at, order in zip(self.members, arguments, self._shown, self._orders, strict=True):
            logits = at_least_float32(each.answer(variables, shown[at]))
            answers.append(logits if order is None else logits[:, order])
        return self.task.average(jnp.stack(answers))

    def preprocess(self, image: Picture) -> np.ndarray:
        """uint8 of `view.shape`, as the models are shown it. Raises DecodeError or OSError."""
        return self.view(self._encoded(image))

    def picture(self, image: Picture) -> np.ndarray:
        """uint8 (size, size, 3): the centre crop, which the first model sees. Raises DecodeError or OSError."""
        return self.view.one(self._encoded(image))

    def predict(self, images: Sequence[Picture], batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Probabilities, float32 (N, K). Raises UserError where an image cannot be read, or is answered by NaN."""
        return self._all(images, self.answers(images, batch_size), self.num_classes)

    def answers(self, images: Sequence[Picture], batch_size: int = BATCH_SIZE) -> Iterator[np.ndarray | str]:
        """For each image its classes' probabilities, float32 (K,), or the reason why there are none."""
        return self._through(self._probabilities, images, batch_size)

    def rounded(self, batch_size: int) -> int:
        """So many images or more, which divide among the devices."""
        return -(-max(1, batch_size) // self.mesh.size) * self.mesh.size

    def batch(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (N, K), of uint8 (N, *view.shape), N as `rounded` has it; compiled for each N."""
        return np.asarray(self._probabilities(images))

    def features(self, images: Sequence[Picture], stage: str | None = None,
                 batch_size: int = BATCH_SIZE) -> np.ndarray:
        """What the head sees, or a stage's map averaged over its pixels: float32 (N, C). Raises UserError."""
        return self._all(images, self.each_features(images, stage, batch_size), 0)

    def each_features(self, images: Sequence[Picture], stage: str | None = None,
                      batch_size: int = BATCH_SIZE) -> Iterator[np.ndarray | str]:
        """For each image its features, float32 (C,), or the reason why there are none; of one view alone, the centre
        crop. Raises UserError for a stage that the model lacks."""
        self.check_stage(stage)
        program = functools.partial(self.feature_program(stage), self.placed)
        return self._through(program, images, batch_size, self.view.one)

    def check_head(self) -> None:
        """Raises UserError for a model that names no class."""
        if not self.num_classes:
            raise UserError(f'this {type(self.model).__name__} has no head (num_classes=0), and so names no class')

    def check_stage(self, stage: str | None) -> None:
        """Raises UserError for a stage that the model lacks, and where there are several models."""
        model = self._only.model
        if stage is not None and stage not in self.stages:
            raise UserError(f'{type(model).__name__} has no stage {stage!r}; it has {", ".join(self.stages)}')

    @functools.cached_property
    def stages(self) -> tuple[str, ...]:
        """Names of the maps that the model tells of, first to last, such as layer4: PyTorch's paths."""
        side, names = self.view.one.size, []

        def look():  # JAX would answer a dict in the order of the alphabet
            names.extend(self.model.apply(self.variables, jnp.zeros((1, side, side, 3)), features=True)[1])
        jax.eval_shape(look)
        return tuple(names)

    @functools.cached_property
    def _probabilities(self) -> Callable:
        return self.on_devices(lambda arguments, images: self.task.probabilities(self.answer(arguments, images)))

    def feature_program(self, stage: str | None) -> Callable:
        """(`arguments`, uint8 (N, *view.one.shape)) -> float32 (N, C), jitted, over all devices."""
        only = self._only
        bare = only.model.clone(num_classes=0)

        def features(arguments, images):
            images = only.normalize(images)
            if stage is None:
                return at_least_float32(bare.apply(weights.without_head(only.model, arguments[0]), images, train=False))
            return global_mean(only.model.apply(arguments[0], images, train=False, features=True)[1][stage])
        return self._over_devices(features)

    def on_devices(self, function: Callable) -> Callable:
        """`function(arguments, batch)` -> a function of the batch alone, compiled over all devices, which share it: its
        size is as `rounded` has it."""
        return functools.partial(self._over_devices(function), self.placed)

    def _over_devices(self, function: Callable) -> Callable:
        split = jax.shard_map(function, mesh=self.mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=P(DATA_AXIS))
        return jax.jit(split)

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """All devices."""
        return step.make_mesh()

    @functools.cached_property
    def placed(self) -> tuple[dict, ...]:
        """`arguments`, on every device."""
        return jax.device_put(self.arguments, NamedSharding(self.mesh, P()))

    def _through(self, compiled: Callable, images: Sequence[Picture], batch_size: int,
                 view: Callable | None = None) -> Iterator[np.ndarray | str]:
        """Rows of `compiled`, batch by batch, or reasons; every batch has the same size."""
        if isinstance(images, str | bytes | Path) or not hasattr(images, '__len__'):
            raise UserError(f'images must be a list of them, and not {type(images).__name__}')
        view = view or self.view
        batch_size = self.rounded(min(batch_size, len(images)))
        with ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(images), batch_size):
                seen = list(pool.map(functools.partial(self.see, view), images[start:start + batch_size]))
                batch = np.zeros((batch_size, *view.shape), np.uint8)
                for row, pixels in enumerate(seen):
                    batch[row] = 0 if isinstance(pixels, str) else pixels
                rows = np.asarray(compiled(batch))
                for row, pixels in zip(rows, seen, strict=False):
                    yield (pixels if isinstance(pixels, str) else
                           row if np.isfinite(row).all() else "the model's answer is not finite")

    def see(self, view: Callable, image: Picture) -> np.ndarray | str:
        """What a view gives of an image, or the reason why it cannot be read."""
        try:
            return view(self._encoded(image))
        except OSError as error:
            return f'cannot be read: {error.strerror or error}'
        except DecodeError as error:
            return f'cannot be read: {error}'

    def _encoded(self, image: Picture) -> bytes | np.ndarray:
        if isinstance(image, Image.Image):
            return pillow.rgb(ImageOps.exif_transpose(image) if self.exif else image)
        if isinstance(image, np.ndarray):
            return _refuse_no_pixels(image)
        if not isinstance(image, str | Path | bytes):
            raise UserError("an image must be a path, bytes, an array or one of Pillow's, and is "
                            f'{type(image).__name__}')
        image = image if isinstance(image, bytes) else Path(image).read_bytes()
        return Upright(image) if self.exif else image

    def _all(self, images, rows: Iterator[np.ndarray | str], width: int) -> np.ndarray:
        rows = list(rows)
        if bad := [at for at, row in enumerate(rows) if isinstance(row, str)]:
            named = [str(images[at]) if isinstance(images[at], str | Path) else f'image {at}' for at in bad]
            raise UserError(f'{len(bad)} of {len(rows)} images have no answer: {few(named, 5)}; the first '
                            f'{rows[bad[0]]}')
        return np.stack(rows) if rows else np.zeros((0, width), np.float32)


class _Views:
    """Several models' views of one image, one after the other."""

    def __init__(self, views: Sequence):
        self.views = views
        self.one = views[0].one
        self.size = views[0].size
        self.shape = (sum(int(np.prod(view.shape)) for view in views),)

    def __call__(self, image: bytes | np.ndarray) -> np.ndarray:
        return np.concatenate([view(image).ravel() for view in self.views])

    def unpack(self, images: jax.Array) -> list[jax.Array]:
        """(N, *shape) -> of each view (N, *view.shape)."""
        edges = np.cumsum([int(np.prod(view.shape)) for view in self.views])[:-1]
        return [part.reshape(-1, *view.shape) for part, view in zip(
            jnp.split(images, edges, axis=1), self.views, strict=True)]


def load(source: str | Path, *others: str | Path, best: bool = False, ema: bool = False, dtype: str | None = None,
         exif: bool | None = None, view: Mapping[str, Any] | None = None,
         normalize: Mapping[str, Any] | None = None, model: str | Mapping[str, Any] | None = None) -> Classifier:
    """The model of a run's folder, of an import's, or of a file of weights or hf:OWNER/NAME; an ensemble where `others`
    are given.

    The arguments are those of `trained.load`, for each. Raises UserError.
    """
    return Classifier(*(trained.load(each, best=best, ema=ema, dtype=dtype, exif=exif, view=view, normalize=normalize,
                                     model=model)
                        for each in (source, *others)))


def _order(first: Trained, other: Trained) -> np.ndarray | None:
    """Of each of the first one's classes its number in the other's; None where they are the same."""
    if other.task.multi_label != first.task.multi_label:
        raise UserError('models for images of one class and of several do not answer together: '
                        f'{first.entry["loss"]["name"]}, {other.entry["loss"]["name"]}')
    if other.exif != first.exif:
        raise UserError("one model's run had config.data.exif and another's had not: --exif or --no-exif decides")
    if other.model.num_classes != first.model.num_classes:
        raise UserError(f'models of {first.model.num_classes} and {other.model.num_classes} classes do not answer '
                        'together')
    if other.class_names == first.class_names:
        return None
    if not other.class_names or not first.class_names:
        raise UserError('of models that answer together one has class names and another has none, so that there is no '
                        'telling which class is which: import it anew with --class-names')
    return np.array(match(first.class_names, other.class_names))


def _refuse_no_pixels(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise UserError(f'an image given as an array must be uint8 (height, width, 3), and is {image.dtype} '
                        f'{image.shape}')
    return image
