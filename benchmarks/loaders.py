"""Loaders that input_pipeline.py compares: ours, tf.data and PyTorch's, all of the same batches.

Each function gives endless batches of BATCH random resized crops of SIZE pixels, uint8, half of them flipped, made by
`workers` workers, and stops them when it is closed.
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BATCH, SIZE = 64, 224
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a crop: area, and width over height
IMAGENET = 1_281_167  # images in its training split
PREFETCH = 2  # batches ahead: ours, and the DataLoader's default for each worker


def ours(format: str, path: Path, split: str, kind: str, workers: int) -> Iterator[dict]:
    """input_pipeline.train_batches with so many 'threads' or 'processes'."""
    from imagenet_jax import input_pipeline, sources
    from imagenet_jax.images.crops import RandomResized
    from imagenet_jax.images.train_view import TrainView
    source = Repeated(sources.create(format, str(path), split, num_classes=10**6, size=SIZE))
    return input_pipeline.train_batches(source, TrainView(SIZE, RandomResized(SCALE, RATIO)), BATCH, seed=0,
                                        workers=input_pipeline.Workers(**{kind: workers}))


class Repeated:
    """A source's images again and again, as many as ImageNet has: finding places in a short shuffle takes longer."""

    def __init__(self, source):
        self._source = source
        self.labels = np.resize(source.labels, IMAGENET)

    def __len__(self):
        return IMAGENET

    def image(self, index):
        return self._source.image(index % len(self._source))

    def key(self, index):
        return self._source.key(index % len(self._source))


def tf_data(path: Path, workers: int) -> Iterator[dict]:
    """The usual input function of TensorFlow's ImageNet models: of each JPEG only the crop is decoded."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    import tensorflow as tf

    def read(file, label):
        data = tf.io.read_file(file)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(data), tf.constant([0.0, 0.0, 1.0, 1.0], shape=(1, 1, 4)),
            min_object_covered=0.1, aspect_ratio_range=RATIO, area_range=SCALE, max_attempts=10,
            use_image_if_no_bounding_boxes=True)
        image = tf.image.decode_and_crop_jpeg(data, tf.concat([begin[:2], size[:2]], 0), channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, (SIZE, SIZE), 'bilinear'))
        return {'image': tf.cast(image, tf.uint8), 'label': label}

    files, labels = listed(path)
    data = (tf.data.Dataset.from_tensor_slices((files, labels)).shuffle(len(files)).repeat()
            .map(read, num_parallel_calls=workers).batch(BATCH).prefetch(PREFETCH))
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1
    yield from data.with_options(options).as_numpy_iterator()


def listed(path: Path) -> tuple[list[str], list[int]]:
    """Files of class folders and their labels."""
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    pairs = [(str(file), label) for label, folder in enumerate(folders) for file in sorted(folder.iterdir())]
    return [file for file, _ in pairs], [label for _, label in pairs]


def torch_data_loader(path: Path, workers: int) -> Iterator[dict]:
    """torchvision's ImageFolder and RandomResizedCrop, which read with Pillow, in a DataLoader's worker processes."""
    from torch.utils.data import DataLoader, RandomSampler
    data = ImageFolder(path)
    sampler = RandomSampler(data, replacement=True, num_samples=10**9)  # at an epoch's end the workers would run dry
    for images, labels in DataLoader(data, BATCH, sampler=sampler, num_workers=workers, prefetch_factor=PREFETCH,
                                     multiprocessing_context='spawn'):
        yield {'image': images.numpy(), 'label': labels.numpy()}


class ImageFolder:
    """torchvision's, opened in the process that reads it."""

    def __init__(self, path: Path):
        self._path, self._length, self._data = path, len(listed(path)[0]), None

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        if self._data is None:
            transforms = torchvision().transforms
            self._data = torchvision().datasets.ImageFolder(str(self._path), transforms.Compose([
                transforms.RandomResizedCrop(SIZE, SCALE, RATIO), transforms.RandomHorizontalFlip(),
                transforms.PILToTensor()]))
        return self._data[index]


def torchvision():
    """The package; its compiled operators, which a PyTorch of another build lacks, need only be declared."""
    import torch
    for name in ('nms', 'qnms'):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f'torchvision::{name}', '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    import torchvision
    return torchvision


def has_torch() -> bool:
    """Whether there are PyTorch and torchvision."""
    return all(map(importlib.util.find_spec, ('torch', 'torchvision')))
