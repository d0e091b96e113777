"""Grad-CAM (arXiv 1610.02391): the part of an image that the logit of a class rests on, as a stage of the model has it.

The map of a stage is weighted, channel by channel, with the mean over its pixels of the logit's gradient with respect
to it; what is left of the sum above 0 is the explanation.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, DropVar, jaxpr_as_fun
from PIL import Image

from imagenet_jax.class_names import are_numbers, first, match, readable
from imagenet_jax.errors import UserError
from imagenet_jax.use.classifier import Classifier, Picture
from imagenet_jax.workers import cores

# Maps at once; a gradient holds more than an answer.
_BATCH = 16
# Sides below it, in pixels, are enlarged in an overlay; how much of a picture the strongest colour hides.
_SMALLEST, _STRENGTH = 224, 0.6


class GradCAM:
    """Explains what a classifier says; of several models the first one's part. To be kept: it is compiled once.

    Attributes:
      stage: the stage whose map it is, one of the model's `stages`.
      batch_size: maps that are made at once.
    """

    def __init__(self, classifier: Classifier, stage: str | None = None, most: int = _BATCH):
        """The last stage where none is given; `most` maps are wanted, as far as is known. Raises UserError where the
        model has no such stage, or no head."""
        self._one = classifier if len(classifier.members) == 1 else Classifier(classifier.members[0])
        self._one.check_head()
        self._one.check_stage(stage)
        self.stage = self._one.stages[-1] if stage is None else stage
        self.batch_size = self._one.rounded(min(most, _BATCH))
        self._run = self._one.on_devices(self._maps)

    def __call__(self, pictures: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        """(uint8 (N, size, size, 3) as `Classifier.picture` gives them, a class's number each, -1 for the likeliest) ->
        float32 (N, h, w) in 0..1, the most of each 1, or 0 where nothing speaks for the class; NaN where the model's
        gradient is not finite."""
        maps = []
        for start in range(0, len(pictures), self.batch_size):
            some = pictures[start:start + self.batch_size]
            batch = np.zeros((self.batch_size, *pictures.shape[1:]), np.uint8)
            numbers = np.zeros(self.batch_size, np.int32)
            batch[:len(some)], numbers[:len(some)] = some, classes[start:start + self.batch_size]
            maps.append(np.asarray(self._run((batch, numbers)))[:len(some)])
        return np.concatenate(maps) if maps else np.zeros((0, 1, 1), np.float32)

    def each(self, asked: Iterable[tuple[Picture, Sequence[int]]]) -> Iterator[tuple[np.ndarray, np.ndarray] | str]:
        """For each image and the numbers of its classes the picture that the model sees, uint8 (size, size, 3), and a
        map a class, float32 (classes, h, w); or the reason why there are none."""
        asked = list(asked)
        with ThreadPoolExecutor(cores()) as pool:
            seen = list(pool.map(partial(self._one.see, self._one.view.one), [image for image, _ in asked]))
        pairs = [(picture, number) for picture, (_, numbers) in zip(seen, asked, strict=True)
                 for number in numbers if not isinstance(picture, str)]
        size = self._one.view.one.size
        maps = self(np.array([picture for picture, _ in pairs], np.uint8).reshape(-1, size, size, 3),
                    [number for _, number in pairs])
        for picture, (_, numbers) in zip(seen, asked, strict=True):
            if isinstance(picture, str):
                yield picture
                continue
            own, maps = maps[:len(numbers)], maps[len(numbers):]
            yield (picture, own) if np.isfinite(own).all() else "the gradient of the model's answer is not finite"

    def _maps(self, arguments, batch):
        (variables,), (pixels, classes) = arguments, batch
        maps, logits_of = from_stage(self._one.model, variables, self._one.members[0].normalize(pixels), self.stage)

        def chosen(maps):
            logits = logits_of(maps)
            numbers = jnp.where(classes < 0, logits.argmax(-1), classes)
            return jnp.take_along_axis(logits, numbers[:, None], axis=-1).sum()
        weights = jax.grad(chosen)(maps).astype(jnp.float32).mean((1, 2), keepdims=True)
        heat = nn.relu((weights * maps.astype(jnp.float32)).sum(-1))
        most = heat.max((1, 2), keepdims=True)
        return heat / jnp.where(most == 0, 1, most)


def grad_cam(classifier: Classifier, images: Sequence[Picture], stage: str | None = None,
             classes: int | str | Sequence[int | str] | None = None) -> np.ndarray:
    """Grad-CAM of the centre crops of images, those that `Classifier.picture` gives.

    Args:
      classifier: of several models the first one is explained.
      images: in any form that it takes.
      stage: the last one where not given.
      classes: numbers or names, one for all images or one for each; by default the likeliest of each crop.

    Returns:
      float32 (N, h, w) in 0..1, as large as the stage's map is: see `overlay`.

    Raises:
      UserError: no such stage or class, or an image that cannot be read.
    """
    if classes is None:
        classes = -1
    several = [classes] * len(images) if isinstance(classes, int | str) else list(classes)
    if len(several) != len(images):
        raise UserError(f'{len(several)} classes were given for {len(images)} images: one for all, or one for each')
    numbers = [-1 if name == -1 else class_number(classifier, name) for name in several]
    explain, maps = GradCAM(classifier, stage, len(images)), []
    for start in range(0, len(images), explain.batch_size):
        stop = start + explain.batch_size
        asked = [(image, [number]) for image, number in zip(images[start:stop], numbers[start:stop], strict=True)]
        for at, found in enumerate(explain.each(asked), start):
            if isinstance(found, str):
                name = images[at] if not isinstance(images[at], bytes | np.ndarray | Image.Image) else f'image {at}'
                raise UserError(f'{name} has no explanation: {found}')
            maps.append(found[1][0])
    return np.stack(maps) if maps else np.zeros((0, 1, 1), np.float32)


def from_stage(model: nn.Module, variables: dict, images: jax.Array,
               stage: str) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """A stage's map of normalised images, and the logits as a function of it, all else of the images as it is.

    The model's own program, with one variable of it made an argument: no family has to know.
    """
    def run(variables, images):
        return model.apply(variables, images, train=False, features=True)
    program, shapes = jax.make_jaxpr(run, return_shape=True)(variables, images)
    jaxpr = program.jaxpr
    logits, maps = jax.tree.unflatten(jax.tree.structure(shapes), jaxpr.outvars)
    at = maps[stage]
    steps = [step.replace(outvars=[DropVar(out.aval) if out is at else out for out in step.outvars])
             for step in jaxpr.eqns]
    rest = jaxpr.replace(invars=[at, *jaxpr.invars], outvars=[logits], eqns=steps,
                         debug_info=jaxpr.debug_info.with_unknown_names())
    given = jax.tree.leaves((variables, images))
    # What the rest does again to come to the map is dropped by XLA, since nothing of it is read.
    rest = jaxpr_as_fun(ClosedJaxpr(rest, program.consts))
    return run(variables, images)[1][stage], lambda maps: rest(maps, *given)[0]


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map over the picture that it explains, from blue to red; where it is 0 the picture is as it was.

    Args:
      picture: uint8 (H, W, 3).
      heat: float32 (h, w) in 0..1.

    Returns:
      uint8, of the picture's size; a small one is enlarged, a whole number of times.
    """
    import matplotlib  # here: a command that draws nothing does not wait for it
    picture = enlarged(picture)
    height, width = picture.shape[:2]
    heat = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    colour = matplotlib.colormaps['turbo'](heat)[..., :3] * 255
    strength = _STRENGTH * heat[..., None]
    return np.round(picture * (1 - strength) + colour * strength).astype(np.uint8)


def enlarged(picture: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3), each pixel a square of them where the picture is small."""
    times = max(1, _SMALLEST // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def class_number(classifier: Classifier, name: int | str) -> int:
    """The number of a class that is given by name, such as 'n01440764' or 'tench', or by number. Raises UserError."""
    names, count = classifier.class_names, classifier.num_classes
    text = str(name)
    if isinstance(name, str) and name in names:
        return names.index(name)
    if are_numbers([text]) and len(text) < 10 and int(text) < count:
        return int(text)
    if isinstance(name, str) and not are_numbers([text]):
        with suppress(UserError):
            return match([name], names)[0]
    near = difflib.get_close_matches(text, [*names, *filter(None, map(readable, names))], n=3)
    known = f'did you mean {" or ".join(near)}?' if near else f'it has {first(names) if names else "no names"},'
    raise UserError(f'the model has no class {text!r}; {known} or give a number in 0..{count - 1}')
