"""Small data sets in each layout on disk, made on the spot: three classes (voc: 20), split 'train'."""

import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import numpy as np
from fixtures_images import class_tree, image_folder, jpeg, parquet_file


def text(root: Path, **files: str) -> Path:
    """Text files, named without their ending."""
    return image_folder(root, {f'{name}.txt': data.encode() for name, data in files.items()})


def flat(root: Path, synsets: str = 'n01440764 tench, Tinca tinca\nn01443537\nn01484850 great white shark\n',
         files: tuple[str, ...] = ()) -> Path:
    """Four images and `files`, each of which holds its name."""
    names = ['n01484850_3.JPEG', 'n01440764_10026.JPEG', 'n01440764_ILSVRC2012_val_00000293.JPEG', 'n01443537_1.png',
             *files]
    text(root, synsets=synsets)
    return image_folder(root, {f'train_flatten/{name}': name.encode() for name in names})


def listed(root: Path, lines: str = 'train/a b/1.JPEG 2\ntrain/c.JPEG\t0\n', **files: str) -> Path:
    """Two images, a list of them, and more text files."""
    image_folder(root, {'train/a b/1.JPEG': b'one', 'train/c.JPEG': b'two'})
    return text(root, train=lines, **files)


def python2(value) -> bytes:
    """A pickle of protocol 2 as Python 2 and its numpy wrote it: str as bytes, arrays through _reconstruct."""
    def write(item):
        if isinstance(item, np.ndarray):
            state = (1, item.shape, np.dtype, False, item.tobytes())
            return (b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R' + write(state)
                    + b'b')
        if item is np.dtype:
            return b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        if isinstance(item, int):
            return b'J' + struct.pack('<i', item)
        if isinstance(item, str | bytes):
            data = item.encode() if isinstance(item, str) else item
            return b'T' + struct.pack('<i', len(data)) + data
        if isinstance(item, dict):
            return b'}(' + b''.join(write(k) + write(v) for k, v in item.items()) + b'u'
        inside = b'(' + b''.join(map(write, item))
        return inside + b't' if isinstance(item, tuple) else b']' + inside + b'e'
    return b'\x80\x02' + write(value) + b'.'


class Run:
    """Runs a command where it is unpickled."""

    def __init__(self, command):
        self._command = command

    def __reduce__(self):
        return os.system, (self._command,)


IMAGES = np.random.default_rng(0).integers(256, size=(60, 3, 32, 32), dtype=np.uint8)


def cifar10(root: Path, dump: Callable = python2, **changes) -> Path:
    """Files of ten of IMAGES each, labels row % 3; `changes` go into data_batch_3."""
    files = {}
    for number, name in enumerate([f'data_batch_{n}' for n in range(1, 6)] + ['test_batch']):
        data = IMAGES[number * 10:number * 10 + 10].reshape(10, 3072)
        batch = {'batch_label': name, 'labels': [row % 3 for row in range(10)], 'data': data,
                 'filenames': [f'{row}.png' for row in range(10)]} | (changes if number == 2 else {})
        files[f'cifar-10-batches-py/{name}'] = dump(batch)
    files['cifar-10-batches-py/batches.meta'] = dump({'num_cases_per_batch': 10, 'label_names': ['cat', 'dog', 'elk']})
    return image_folder(root, files)


def cifar100(root: Path, count: int = 10, dump: Callable = python2) -> Path:
    """Fine labels row % 5, coarse ones row % 2, the first row of an image's red row % 251."""
    data = np.zeros((count, 3072), np.uint8)
    data[:, :32] = np.arange(count)[:, None] % 251
    batch = dump({'fine_labels': [row % 5 for row in range(count)],
                     'coarse_labels': [row % 2 for row in range(count)], 'data': data})
    meta = dump({'fine_label_names': list('abcde'), 'coarse_label_names': ['vowel', 'consonant']})
    return image_folder(root, {'cifar-100-python/train': batch, 'cifar-100-python/meta': meta})


def database(root: Path, dump: Callable = pickle.dumps, count: int = 6, subdir: bool = False, **changes) -> Path:
    """Values (jpeg(i), i % 3); `changes` replace entries, None removes one."""
    entries = {str(i): dump((jpeg(i), i % 3)) for i in range(count)}
    entries |= {'__keys__': dump([str(i).encode() for i in range(count)]), '__len__': dump(count)} | changes
    root.mkdir(exist_ok=True)
    with (lmdb.open(str(root / 'train.lmdb'), subdir=subdir, map_size=1 << 24) as environment,
          environment.begin(write=True) as transaction):
        for key, value in entries.items():
            if value is not None:
                transaction.put(key.encode(), value)
    return root


def thing(name: str, box: tuple = (1, 2, 3, 4), difficult: int = 0) -> str:
    """An object of an annotation, with a part as persons have them."""
    corners = ''.join(f'<{k}>{v}</{k}>' for k, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), box, strict=True))
    return f'''<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox>
               <part><name>head</name><bndbox><xmin>0</xmin></bndbox></part></object>'''


ANNOTATIONS = {
    '2007_000027': thing('person', (0, 0, 10, 10)) + thing('dog', (5.5, 0, 25.5, 10)),
    '2007_000032': thing('sofa', (0, 0, 90, 90), 1) + thing('cat') + thing('sofa', (0, 0, 80, 80), 1),
    '2007_000033': thing('car', difficult=1) + thing('bus', (0, 0, 5, 5), 1) + thing('aeroplane', (0, 0, 2, 2), 1),
    '2007_000042': thing('bird', difficult=1) + thing('bird')}


def voc(root: Path, folder: str = 'VOC2012', lines: str = '\n'.join(ANNOTATIONS)) -> Path:
    """The four images of ANNOTATIONS; `lines` is the split's file."""
    files = {f'JPEGImages/{name}.jpg': name.encode() for name in ANNOTATIONS}
    for name, inside in ANNOTATIONS.items():
        files[f'Annotations/{name}.xml'] = f'<annotation><size/>{inside}</annotation>'.encode()
    files['ImageSets/Main/train.txt'] = lines.encode()
    return image_folder(root, {f'{folder}/{name}': data for name, data in files.items()})


def tar(file: Path, files: Sequence[tuple[str, bytes]], mode: str = 'w') -> Path:
    """A tar of (name, contents)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def shards(root: Path, name: str = 'tiny-train-%04d.tar', **others: bytes) -> Path:
    """Two tars of three samples each, labels i % 3; `others` are more files of the second."""
    for number in range(2):
        images = range(3 * number, 3 * number + 3)
        files = [pair for i in images for pair in ((f'n/{i}.jpg', jpeg(i)), (f'n/{i}.cls', b'%d\n' % (i % 3)))]
        tar(root / (name % number), files + (list(others.items()) if number else []))
    return root


def hub(root: Path) -> Path:
    """A Parquet file of three images."""
    return parquet_file(root / 'train-0.parquet', [jpeg(i) for i in range(3)], [0, 1, 2]).parent


# Format -> what writes a good one into a folder.
LAYOUTS = {'folder': class_tree, 'parquet': hub, 'flat': flat, 'list': listed, 'lmdb': database, 'cifar': cifar10,
           'voc': voc, 'webdataset': shards}
