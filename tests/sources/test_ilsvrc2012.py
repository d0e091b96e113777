"""The official ImageNet archives: small ones of the same shape."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io
from fixtures_images import flip_bit, image_folder, jpeg

from imagenet_jax import sources
from imagenet_jax.errors import UserError

# ILSVRC numbers are in another order than wnids.
WNIDS = {1: 'n03', 2: 'n01', 3: 'n02'}
TRUTH = [2, 2, 3, 1, 3]


def tar(files: dict[str, bytes] | list[tuple[str, bytes]], mode='w') -> bytes:
    """In a list, a name may come twice."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def meta(wnids) -> bytes:
    """meta.mat as the devkit has it: a struct array, inner nodes of the hierarchy after the classes."""
    fields = [('ILSVRC2012_ID', 'O'), ('WNID', 'O'), ('words', 'O'), ('gloss', 'O'), ('num_children', 'O'),
              ('children', 'O'), ('wordnet_height', 'O'), ('num_train_images', 'O')]
    rows = [(float(number), wnid, wnid, '', 0.0, np.array([]), 0.0, 3.0) for number, wnid in wnids.items()]
    rows.append((4.0, 'n00', 'everything', '', 3.0, np.array([1.0, 2.0, 3.0]), 1.0, 0.0))
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {'synsets': np.array(rows, fields).reshape(-1, 1)})
    return buffer.getvalue()


def images(wnid):
    return {f'{wnid}_{i}.JPEG': jpeg(i + 10 * int(wnid[1:])) for i in (10, 2, 33)}


@pytest.fixture
def root(tmp_path):
    truth = ''.join(f'{number}\n' for number in TRUTH).encode()
    kit = 'ILSVRC2012_devkit_t12'
    return image_folder(tmp_path, {
        'ILSVRC2012_img_train.tar': tar({f'{wnid}.tar': tar(images(wnid)) for wnid in WNIDS.values()}),
        'ILSVRC2012_img_val.tar': tar({f'ILSVRC2012_val_{i + 1:08d}.JPEG': jpeg(i) for i in (3, 0, 4, 2, 1)}),
        f'{kit}.tar.gz': tar({f'{kit}/readme.txt': b'', f'{kit}/data/meta.mat': meta(WNIDS),
                              f'{kit}/data/ILSVRC2012_validation_ground_truth.txt': truth}, 'w:gz')})


def create(root, split='train'):
    return sources.create('ilsvrc2012', str(root), split, 3)


def test_training_images_are_those_of_class_folders(root, tmp_path):
    unpacked = image_folder(tmp_path / 'unpacked', {f'train/{wnid}/{name}': data for wnid in WNIDS.values()
                                                    for name, data in images(wnid).items()})
    packed, folder = create(root), sources.create('folder', str(unpacked), 'train', 3)
    assert packed.class_names == folder.class_names == ('n01', 'n02', 'n03')
    assert len(packed) == len(folder) == 9
    for i in range(9):
        assert packed[i] == folder[i]


def test_validation_labels_are_in_the_order_of_wnids(root):
    source = create(root, 'val')
    assert [source.key(i) for i in range(5)] == [f'ILSVRC2012_val_{i + 1:08d}.JPEG' for i in range(5)]
    assert [source.class_names[label] for label in source.labels] == [WNIDS[number] for number in TRUTH]
    assert [source.image(i) for i in range(5)] == [jpeg(i) for i in range(5)]


def change(path, do):
    path.write_bytes(do(path.read_bytes()))


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('keep', [0.1, 0.5, 0.7])
def test_a_download_that_is_not_whole_is_refused(root, split, keep):
    change(root / f'ILSVRC2012_img_{split}.tar', lambda data: data[:int(len(data.rstrip(b'\0')) * keep)])
    with pytest.raises(UserError, match=f'ILSVRC2012_img_{split}.tar (is damaged or not whole|lacks)'):
        create(root, split)


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('number', [1, 2])
def test_a_damaged_header_is_no_end(root, split, number):
    path = root / f'ILSVRC2012_img_{split}.tar'
    with tarfile.open(path) as archive:
        at = archive.getmembers()[number].offset
    change(path, lambda data: data[:at] + b'?' * 200 + data[at + 200:])
    with pytest.raises(UserError, match='is damaged or not whole'):
        create(root, split)


@pytest.mark.parametrize(('file', 'data', 'message'), [
    ('ILSVRC2012_img_train.tar', tar({'n07.tar': b''}), 'holds n07.tar, which is no class of the devkit'),
    ('ILSVRC2012_img_train.tar', tar({'n01.tar': tar(images('n01'))}), 'lacks 2 classes of the devkit, the first n02'),
    ('ILSVRC2012_img_train.tar', tar({'n01.tar': bytes(1024)}), 'n01.tar holds no image'),
    ('ILSVRC2012_devkit_t12.tar.gz', b'\x1f\x8b half', 'cannot be read as the ILSVRC2012 devkit'),
    ('ILSVRC2012_devkit_t12.tar.gz',
     tar({'meta.mat': b'MATLAB', 'ILSVRC2012_validation_ground_truth.txt': b''}, 'w:gz'),
     'cannot be read as the ILSVRC2012 devkit'),
    ('ILSVRC2012_devkit_t12.tar.gz', tar({'x': b''}, 'w:gz'), 'cannot be read as the ILSVRC2012 devkit')],
    ids=['stranger', 'lacking', 'empty', 'half', 'no table', 'nothing'])  # bytes in a name would hold gzip's time
def test_wrong_archives_are_refused(root, file, data, message):
    (root / file).write_bytes(data)
    with pytest.raises(UserError, match=message):
        create(root)


def members(*names, wnid='n01', **fields):
    """A tar in which names may come twice; further fields are those of the last member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            if name is names[-1]:
                for field, value in fields.items():
                    setattr(member, field, value)
            data = jpeg(number) if member.isfile() else b''
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def validation(*numbers, **fields):
    return members(*(f'ILSVRC2012_val_{number:08d}.JPEG' for number in numbers), **fields)


def training(**changed):
    """The archive with other class tars."""
    return tar({f'{wnid}.tar': changed.get(wnid) or tar(images(wnid)) for wnid in WNIDS.values()})


@pytest.mark.parametrize(('split', 'data', 'words'), [
    ('val', validation(1, 2, 3, 3, 5), ['holds ILSVRC2012_val_00000003.JPEG twice', 'lacks 1 of 5', '00000004.JPEG']),
    ('val', validation(1, 2, 3, 4, 5, 5), ['holds ILSVRC2012_val_00000005.JPEG twice']),
    ('val', validation(1, 2, 4), ['lacks 2 of 5 images, the first ILSVRC2012_val_00000003.JPEG, ILSVRC2012_val_0']),
    ('val', validation(1, 2, 3, 4, 6), ['holds ILSVRC2012_val_00000006.JPEG']),
    ('val', validation(1, 2, 3, 4, 5, type=tarfile.SYMTYPE, linkname='/etc/passwd'), ['00000005.JPEG', 'link']),
    ('val', validation(1, 2, 3, 4, 5, type=tarfile.LNKTYPE, linkname='x'), ['00000005.JPEG', 'link']),
    ('val', validation(1, 2, 3, 4, 5, type=tarfile.FIFOTYPE), ['00000005.JPEG', 'no plain file']),
    ('val', members('../ILSVRC2012_val_00000001.JPEG'), ['../ILSVRC', 'leads out']),
    ('val', members('/ILSVRC2012_val_00000001.JPEG'), ['/ILSVRC', 'leads out']),
    ('train', training(n02=members('n02_1.JPEG', 'n02_2.JPEG', 'n02_2.JPEG')),
     ['n02.tar holds n02_2.JPEG twice and 2 different images', 'devkit counts 3']),
    ('train', training(n02=members('n02_1.JPEG', 'n02_2.JPEG')), ['n02.tar holds 2 different', 'devkit counts 3']),
    ('train', training(n02=members(*'abcd')), ['n02.tar holds 4 different images', 'devkit counts 3']),
    ('train', tar([('n01.tar', tar(images('n01')))] * 2), ['holds n01.tar twice'])],
    ids=lambda value: value if isinstance(value, str) else '')
def test_archives_that_are_not_as_published_are_refused(root, split, data, words):
    (root / f'ILSVRC2012_img_{split}.tar').write_bytes(data)
    with pytest.raises(UserError) as caught:
        create(root, split)
    assert all(word in str(caught.value) for word in words), caught.value


def test_folders_and_what_macos_adds_to_archives_are_passed_over(root):
    folder = tarfile.TarInfo('./val')
    folder.type = tarfile.DIRTYPE
    litter = tar({'./._ILSVRC2012_val_00000001.JPEG': b'x' * 512})[:1024]
    change(root / 'ILSVRC2012_img_val.tar', lambda data: folder.tobuf() + litter + data)
    assert len(create(root, 'val')) == 5


@pytest.mark.parametrize('kind', [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.REGTYPE])
@pytest.mark.parametrize('size', [1 << 40, -512, -(1 << 40)])
def test_headers_that_claim_gigabytes_or_less_than_nothing_are_refused(root, kind, size):
    header = tarfile.TarInfo('x.JPEG')
    header.type, header.size = kind, size
    archive = root / 'ILSVRC2012_img_val.tar'
    archive.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with archive.open('r+b') as file:
        file.truncate(1 << 42)  # a hole, which would be read as zeros
    with pytest.raises(UserError, match=r'img_val\.tar (is damaged or not whole|holds x\.JPEG)'):
        create(root, 'val')


def test_many_headers_for_one_name_are_refused(root):
    header = tarfile.TarInfo('x')
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    (root / 'ILSVRC2012_img_val.tar').write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b'x'.ljust(512, b'\0')) * 3000)
    with pytest.raises(UserError, match='is damaged or not whole'):
        create(root, 'val')


def bomb(name):
    """A devkit that unpacks to gigabytes at one of the three places where it may."""
    if name == 'gzip':
        return b''.join([gzip.compress(bytes(64 << 20), 1)] * 20)
    if name == 'meta.mat':
        part = zlib.compress(bytes(80 << 20), 1)
        mat = meta(WNIDS)[:128] + struct.pack('<II', 15, len(part)) + part
        return tar({'meta.mat': mat, 'ILSVRC2012_validation_ground_truth.txt': b'1'}, 'w:gz')
    member = tarfile.TarInfo('meta.mat')
    member.size = 1 << 40
    return gzip.compress(member.tobuf() + bytes(10240))


@pytest.mark.parametrize('name', ['gzip', 'meta.mat', 'member'])
def test_a_devkit_that_claims_gigabytes_is_refused(root, name):
    (root / 'ILSVRC2012_devkit_t12.tar.gz').write_bytes(bomb(name))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match='cannot be read as the ILSVRC2012 devkit'):
            create(root, 'val')
        assert tracemalloc.get_traced_memory()[1] < 300 << 20
    finally:
        tracemalloc.stop()


def test_a_damaged_devkit_is_refused(root):
    kit = root / 'ILSVRC2012_devkit_t12.tar.gz'
    good, expected, refused = kit.read_bytes(), create(root, 'val').labels.tolist(), 0
    for at in range(0, len(good), 5):
        for data in (good[:at], flip_bit(good, at)):
            kit.write_bytes(data)
            try:
                assert create(root, 'val').labels.tolist() == expected  # the bit was in gzip's own time or name
            except UserError as error:
                assert 'cannot be read as the ILSVRC2012 devkit' in str(error)
                refused += 1
    assert refused > 0.9 * 2 * len(good) / 5


def test_missing_files_are_named(root):
    with pytest.raises(UserError, match='has the splits train and val'):
        create(root, 'test')
    (root / 'ILSVRC2012_devkit_t12.tar.gz').unlink()
    with pytest.raises(UserError, match=r'no file .*devkit_t12.tar.gz; in .*: ILSVRC2012_img_train.tar'):
        create(root)


def test_it_goes_straight_into_convert(root, tmp_path):
    from imagenet_jax.convert import Plan, convert
    manifest = convert(Plan(create(root, 'val'), {'format': 'ilsvrc2012'}, tmp_path / 'out', 'val'), workers=1)
    packed = sources.create('array_record', str(tmp_path / 'out'), 'val', 3)
    assert manifest['examples'] == 5 and packed.class_names == ('n01', 'n02', 'n03')
    assert packed.labels.tolist() == create(root, 'val').labels.tolist()
