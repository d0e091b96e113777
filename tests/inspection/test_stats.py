"""Mean, deviation and covariance of colours."""

import json

import numpy as np
import pytest
from fixtures_commands import called
from fixtures_images import class_tree, encode, image_folder, jpeg, scene
from fixtures_sources import Pixels, folder

from imagenet_jax import inspection
from imagenet_jax.errors import UserError
from imagenet_jax.images.decode import decode
from imagenet_jax.images.eval_view import EvalView


def all_pixels(images):
    return np.concatenate([decode(image).reshape(-1, 3) for image in images]) / 255


@pytest.mark.parametrize('workers', [1, 2])
def test_statistics_are_those_of_all_pixels(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(inspection, '_BLOCK', 7)
    monkeypatch.setattr(inspection, '_CHUNK', 2)
    images = [jpeg(i, 10 + i, 30 - i) for i in range(9)] + [encode(scene(9, 9)[..., 0])]
    image_folder(tmp_path, {f'train/{"ab"[i % 2]}/{i}.jpg': image for i, image in enumerate(images)})
    found, pixels = inspection.statistics(folder(tmp_path), workers=workers), all_pixels(images)
    assert found['images'] == 10 and found['pixels'] == len(pixels) and found['bad'] == []
    np.testing.assert_allclose(found['mean'], pixels.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found['std'], pixels.std(0), rtol=1e-12)
    np.testing.assert_allclose(found['covariance'], np.cov(pixels.T, bias=True), rtol=1e-12)
    values, vectors = np.array(found['eigenvalues']), np.array(found['eigenvectors'])
    assert values[0] > values[1] > values[2] > 0
    np.testing.assert_allclose(np.array(found['covariance']) @ vectors, vectors * values, atol=1e-15)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-14)
    assert (vectors[np.abs(vectors).argmax(0), range(3)] > 0).all()


def test_statistics_do_not_depend_on_workers(tmp_path):
    source = folder(class_tree(tmp_path, 40))
    assert inspection.statistics(source, workers=1) == inspection.statistics(source, workers=2)


def test_statistics_of_known_colours():
    images = [np.full((2, 2, 3), (255, 0, 51), np.uint8), np.full((1, 4, 3), (0, 0, 51), np.uint8)]
    found = inspection.statistics(Pixels(images, np.zeros(2, np.int32)))
    assert found['mean'] == [.5, 0, .2] and found['std'] == [.5, 0, 0]
    assert found['covariance'] == [[.25, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert found['eigenvalues'] == [.25, 0, 0] and np.array(found['eigenvectors'])[:, 0].tolist() == [1, 0, 0]


def test_statistics_of_a_view_weigh_images_alike(tmp_path):
    images = [jpeg(0, 12, 12), jpeg(1, 60, 40)]
    image_folder(tmp_path, {f'train/a/{i}.jpg': image for i, image in enumerate(images)})
    view = EvalView(8, 10)
    found = inspection.statistics(folder(tmp_path), view)
    np.testing.assert_allclose(found['mean'], np.mean([view(image) / 255 for image in images], (0, 1, 2)), rtol=1e-13)
    assert found['pixels'] == 2 * 64


def test_some_images_are_evenly_spaced(tmp_path):
    images = [jpeg(i) for i in range(10)]
    image_folder(tmp_path, {f'train/{"ab"[i // 5]}/{i}.jpg': image for i, image in enumerate(images)})
    found = inspection.statistics(folder(tmp_path), max_images=4)
    np.testing.assert_allclose(found['mean'], all_pixels([images[i] for i in (0, 2, 5, 7)]).mean(0), rtol=1e-13)
    assert inspection.statistics(folder(tmp_path), max_images=11) == inspection.statistics(folder(tmp_path))


def test_unreadable_images_are_named_and_left_out(tmp_path):
    image_folder(tmp_path, {'train/a/0.jpg': b'', 'train/a/1.jpg': jpeg(1)})
    found = inspection.statistics(folder(tmp_path))
    assert [sample['key'] for sample in found['bad']] == ['a/0.jpg'] and found['images'] == 1
    np.testing.assert_allclose(found['mean'], all_pixels([jpeg(1)]).mean(0), rtol=1e-13)
    (tmp_path / 'train' / 'a' / '1.jpg').unlink()
    with pytest.raises(UserError, match=r'none of 1 images can be read, the first a/0\.jpg: 0 bytes'):
        inspection.statistics(folder(tmp_path))


def test_stats_command(tmp_path, monkeypatch, capsys):
    class_tree(tmp_path)
    image_folder(tmp_path, {'train/ant/torn.jpg': b'x'})
    where = ('--format', 'folder', '--path', tmp_path, '--split', 'train')
    code, out = called(monkeypatch, capsys, 'stats', *where, '--size', '8', '--output', tmp_path / 'stats.json')
    assert code is None
    saved = json.loads((tmp_path / 'stats.json').read_text())
    assert (saved['size'], saved['resize'], saved['split'], saved['pixels']) == (8, 8, 'train', 11 * 64)
    assert saved['bad'][0]['key'] == 'ant/torn.jpg' and len(saved['eigenvectors']) == 3
    assert '11 images, 704 pixels, 8 x 8, shorter side to 8; 1 unreadable' in out
    assert 'ant/torn.jpg: 1 bytes of no known image format' in out
    assert f"--config.normalize.mean='({', '.join(f'{x:.4f}' for x in saved['mean'])})'" in out
    code, _ = called(monkeypatch, capsys, 'stats', *where, '--resize', '8')
    assert code == 'error: --resize needs --size, the side of the crop that is measured'
    code, _ = called(monkeypatch, capsys, 'stats', *where, '--size', '8', '--resize', '7')
    assert 'must be at most' in code
    assert called(monkeypatch, capsys, 'stats', *where, '--max-images', '-1')[0] == 2


@pytest.mark.parametrize('command', ['verify', 'stats'])
def test_help_shows_examples(command, monkeypatch, capsys):
    code, out = called(monkeypatch, capsys, command, '--help')
    assert code == 0 and f'python -m imagenet_jax {command} --format' in out
