"""What is in a data set: every image decoded, copies found, classes and sizes counted, pixels measured."""

import collections
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from tqdm import tqdm

from imagenet_jax.errors import UserError
from imagenet_jax.images import pillow
from imagenet_jax.images.decode import DecodeError, decode, image_size
from imagenet_jax.sources import Source
from imagenet_jax.workers import cores

# Images a thread takes at once: enough that handing over costs nothing, few enough that all threads end together.
_CHUNK = 16
# Pixels whose products are summed at once: what stays in a core's cache, and far below where float64 stops being exact.
_BLOCK = 1 << 15


def verify(splits: Mapping[str, Source], workers: int = 0) -> dict:
    """Decodes every image of every split and compares their contents.

    Args:
      splits: name -> source.
      workers: threads, 0: one a core.

    Returns:
      'splits': for each its images, bad (key and reason), classes (name -> images), class_size, missing_classes (of
        all splits' classes those without an image here), height and width (quantiles, in pixels), kinds (encoding and
        colours -> images);
      'duplicates': groups of images with the same stored bytes (or pixels), how many copies are surplus within each
        split, how many groups are in several splits, and how many under several classes. Unreadable ones are left out;
      'same_classes': whether the splits number the same classes alike;
      'clean': nothing unreadable, no image in two splits, the same classes.
    """
    report, places = {}, collections.defaultdict(list)
    for name, source in splits.items():
        report[name] = _look_at_split(name, source, workers, places)
    every = dict.fromkeys(name for split in report.values() for name in split['classes'])
    for split in report.values():
        split['missing_classes'] = [name for name in every if not split['classes'].get(name)]
    duplicates = _duplicates(splits, [group for group in places.values() if len(group) > 1])
    same = len({source.class_names for source in splits.values()}) == 1
    clean = same and not duplicates['across_splits'] and not any(split['bad'] for split in report.values())
    return {'splits': report, 'duplicates': duplicates, 'same_classes': same, 'clean': clean}


def _look_at_split(name: str, source: Source, workers: int, places: dict[bytes, list]) -> dict:
    """One split's part of the report; notes in `places` where each content is found."""
    sizes, kinds, bad = np.zeros((len(source), 2), np.int32), collections.Counter(), []
    for index, seen in enumerate(_in_order(partial(_look, source), range(len(source)), workers, name)):
        if isinstance(seen, str):
            bad.append({'key': source.key(index), 'reason': seen})
            continue
        digest, sizes[index], kind = seen
        kinds[kind] += 1
        places[digest].append((name, index))
    counts, readable = class_counts(source), sizes[sizes[:, 0] > 0]
    return {'images': len(source), 'bad': bad, 'classes': counts, 'class_size': _quantiles(list(counts.values())),
            'height': _quantiles(readable[:, 0]), 'width': _quantiles(readable[:, 1]),
            'kinds': dict(kinds.most_common())}


def _look(source: Source, index: int) -> tuple[bytes, tuple[int, int], str] | str:
    """(hash of the contents, (height, width), kind) of one image, or why it cannot be read."""
    try:
        image = source.image(index)
        height, width = image_size(image)
        decode(image)
    except (DecodeError, OSError) as error:
        return str(error)
    content = image if isinstance(image, bytes) else repr(image.shape).encode() + image.tobytes()
    return hashlib.blake2b(content, digest_size=16).digest(), (height, width), _kind(image)


def _kind(image: bytes | np.ndarray) -> str:
    """Encoding and colours, such as 'JPEG RGB' or 'PNG grey'."""
    if isinstance(image, np.ndarray):
        return 'pixels grey' if image.shape[2] == 1 else 'pixels RGB'
    try:
        with pillow.opened(image) as opened:
            return f'{opened.format} {"grey" if opened.mode == "L" else opened.mode}'
    except Exception:  # the JPEG decoder takes headers that Pillow does not
        return 'other'


def class_counts(source: Source) -> dict[str, int]:
    """Class -> its images; an image of several classes counts in each."""
    names = classes(source)
    return dict(zip(names, source.class_counts(len(names)).tolist(), strict=True))


def classes(source: Source, at_least: int = 0) -> list[str]:
    """A different name for each class that the labels count, and for so many at least: its number where it has none,
    and before it where two share theirs."""
    known = source.class_names
    shared = len(set(known)) < len(known)
    return [f'{i} {name}' if shared else name for i, name in enumerate(known)] + [
        str(i) for i in range(len(known), max(source.num_labels, at_least))]


def _duplicates(splits: Mapping[str, Source], groups: list[list[tuple[str, int]]]) -> dict:
    within, names = dict.fromkeys(splits, 0), {name: classes(source) for name, source in splits.items()}
    described = []
    for group in groups:
        for name, count in collections.Counter(name for name, _ in group).items():
            within[name] += count - 1
        described.append([{'split': name, 'key': splits[name].key(index),
                           'class': class_of(splits[name], index, names[name])} for name, index in group])
    return {'within_split': within,
            'across_splits': sum(len({place['split'] for place in group}) > 1 for group in described),
            'across_classes': sum(len({place['class'] for place in group}) > 1 for group in described),
            'groups': described}


def class_of(source: Source, index: int, names: list[str]) -> str:
    """The name of an image's class, or the names where it has several."""
    return label_text(source.labels[index], names)


def label_text(label: np.ndarray, names: list[str]) -> str:
    """The same of a label, as a source or a batch has it."""
    return ', '.join(names[i] for i in Source.classes_in(label))


def _quantiles(values: Sequence[int]) -> dict[str, float] | None:
    """None where there are no values."""
    if not len(values):
        return None
    return dict(zip(('min', 'q05', 'median', 'q95', 'max'), np.quantile(values, (0, .05, .5, .95, 1)).tolist(),
                    strict=True))


def statistics(source: Source, view: Callable[[bytes | np.ndarray], np.ndarray] = decode, workers: int = 0,
               max_images: int = 0) -> dict:
    """Mean, deviation and covariance of RGB, of pixels scaled to 0..1.

    Every pixel counts the same, so that an image weighs by its size; a view of one size weighs all images alike. Sums
    are of integers and exact: the number of workers changes nothing.

    Args:
      source: what to read.
      view: image -> uint8 (height, width, 3).
      workers: threads, 0: one a core.
      max_images: read so many, evenly spaced; 0: all.

    Returns:
      images, pixels, bad (key and reason); mean and std (3); covariance (3, 3); eigenvalues (3), largest first, and
      eigenvectors (3, 3), one a column, its largest entry positive: the p and lambda of AlexNet's colour augmentation.

    Raises:
      UserError: no image can be read.
    """
    indices = range(len(source))
    if 0 < max_images < len(source):
        indices = np.arange(max_images) * len(source) // max_images
    pixels, bad, sums = 0, [], np.zeros((4, 3), np.int64)
    measured = _in_order(partial(_measure, source, view), indices, workers, 'images')
    for index, result in zip(indices, measured, strict=True):
        if isinstance(result, str):
            bad.append({'key': source.key(index), 'reason': result})
        else:
            pixels, sums = pixels + result[0], sums + result[1]
    if not pixels:
        raise UserError(f'none of {len(bad)} images can be read, the first {bad[0]["key"]}: {bad[0]["reason"]}')
    return {'images': len(indices) - len(bad), 'pixels': pixels, 'bad': bad, **_moments(pixels, sums)}


def _measure(source: Source, view: Callable, index: int) -> tuple[int, np.ndarray] | str:
    """(pixels, int64 (4, 3): sums of R, G, B over sums of their products) of one image, or why it cannot be read."""
    try:
        pixels = view(source.image(index)).reshape(-1, 3)
    except (DecodeError, OSError) as error:
        return str(error)
    sums = np.zeros((4, 3))
    for start in range(0, len(pixels), _BLOCK):
        block = pixels[start:start + _BLOCK].astype(np.float64)
        sums[0] += np.ones(len(block)) @ block  # several times as fast as sum(0)
        sums[1:] += block.T @ block
    return len(pixels), sums.astype(np.int64)


def _moments(count: int, sums: np.ndarray) -> dict:
    """Of exact sums; integers of any length keep what float64 would cancel."""
    first, second = sums[0].tolist(), sums[1:].tolist()
    covariance = np.array([[(count * second[i][j] - first[i] * first[j]) / (255 * count)**2 for j in range(3)]
                           for i in range(3)])
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
    return {'mean': [total / (255 * count) for total in first], 'std': np.sqrt(covariance.diagonal()).tolist(),
            'covariance': covariance.tolist(), 'eigenvalues': values.tolist(), 'eigenvectors': vectors.tolist()}


def _in_order(work: Callable[[int], object], indices: Sequence[int], workers: int, what: str) -> Iterator:
    """work(index) of every index, in order, by threads: decoding and hashing leave the interpreter lock."""
    parts = (indices[start:start + _CHUNK] for start in range(0, len(indices), _CHUNK))
    workers = workers or cores()
    pool = ThreadPoolExecutor(workers)

    def submit(count):
        return [pool.submit(lambda part: list(map(work, part)), part) for part in itertools.islice(parts, count)]

    try:
        pending = collections.deque(submit(4 * workers))
        with tqdm(total=len(indices), desc=what, unit=' images', disable=None, dynamic_ncols=True) as bar:
            while pending:
                results = pending.popleft().result()
                pending.extend(submit(1))
                bar.update(len(results))
                yield from results
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
