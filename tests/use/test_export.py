"""A model in one file: the same answers, for any batch, and without this package."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures_commands import called
from fixtures_images import encode, scene
from fixtures_trained import imported
from runs import ROOT

import imagenet_jax
from imagenet_jax.errors import UserError
from imagenet_jax.use import export

NAMES = ('n01440764', *'bcdefghij')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return imported(tmp_path_factory.mktemp('one'), class_names=NAMES, eval={'size': 32, 'resize': 36, 'flip': True})


@pytest.fixture(scope='module')
def written(folder):
    output = folder / 'model.stablehlo'
    export.write(imagenet_jax.load(folder), output)
    return output


def images(count):
    return [scene(40 + 5 * i, 70 - 3 * i) for i in range(count)]


def test_it_answers_batches_of_any_size_as_the_model_does(folder, written):
    model, call = imagenet_jax.load(folder), jax.export.deserialize(bytearray(written.read_bytes())).call
    for count in (1, 3):
        pixels = np.stack([model.preprocess(image) for image in images(count)])
        np.testing.assert_allclose(call(pixels), model.predict(images(count)), atol=1e-6)


def test_its_json_says_how_to_use_it(written):
    about = json.loads(written.with_suffix('.json').read_text())
    assert about['input']['shape'] == ['batch', 32, 32, 3] and about['output']['shape'] == ['batch', 10]
    assert about['view'] == {'shorter_side': 36, 'center_crop': 32, 'interpolation': 'bilinear', 'exif': False}
    assert about['classes'][:2] == ['n01440764', 'b'] and about['readable'][:2] == ['tench', '']
    assert about['platforms'] == ['cpu', 'cuda'] and about['versions']['jax'] == jax.__version__


def test_what_is_shown_several_crops_is_refused(folder, tmp_path):
    for view in ({'views': 'ten_crop', 'flip': False}, {'scales': (24, 32)}):
        with pytest.raises(UserError, match='takes one crop of an image'):
            export.write(imagenet_jax.load(folder, view=view), tmp_path / 'x.stablehlo')
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused(folder, tmp_path, monkeypatch, capsys):
    code, _ = called(monkeypatch, capsys, 'export', '--checkpoint', folder, '--output', tmp_path / 'x.onnx')
    assert 'ends in .stablehlo' in code and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_lines_of_the_docs_load_it_without_this_package(folder, written, tmp_path):
    """In a process that can import what JAX and Pillow need, and neither this package nor Flax."""
    lines = re.search('```python\n(.*?)```', (ROOT / 'docs' / 'export.md').read_text(), re.S)[1]
    site = Path(np.__file__).parent.parent
    (tmp_path / 'site').mkdir()
    for name in ('jax', 'jaxlib', 'numpy', 'numpy.libs', 'PIL', 'pillow.libs', 'ml_dtypes', 'opt_einsum', 'scipy',
                 'scipy.libs', 'flatbuffers'):
        if (site / name).exists():
            (tmp_path / 'site' / name).symlink_to(site / name)
    for suffix in ('.stablehlo', '.json'):
        (tmp_path / f'resnet50{suffix}').write_bytes(written.with_suffix(suffix).read_bytes())
    picture = scene(60, 90)
    (tmp_path / 'cat.jpg').write_bytes(encode(picture, 'JPEG'))
    check = 'import importlib.util as u; assert not (u.find_spec("imagenet_jax") or u.find_spec("flax"))\n'
    done = subprocess.run([sys.executable, '-S', '-c', check + lines], cwd=tmp_path, text=True, capture_output=True,
                          env={'PYTHONPATH': str(tmp_path / 'site'), 'JAX_PLATFORMS': 'cpu', 'PATH': '/usr/bin:/bin'})
    assert done.returncode == 0, done.stderr
    name, probability = done.stdout.split()
    row, = imagenet_jax.load(folder).predict([tmp_path / 'cat.jpg'])
    assert name == NAMES[row.argmax()] and float(probability) == pytest.approx(row.max(), abs=1e-5)
