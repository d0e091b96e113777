"""One answer by every road: evaluate, predict, Python, an exported file; and serve where it is installed."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet
import pytest
from fixtures_commands import called
from fixtures_images import encode, scene
from fixtures_serve import serving
from fixtures_trained import imported
from runs import ROOT

import imagenet_jax
from imagenet_jax.use import export

PHOTOGRAPHS = ROOT.parent / 'shared' / 'data' / 'imagenet_sample'
NAMES = tuple('abcdefghij')


def drawn(folder: Path, count: int) -> Path:
    """A class folder of photographs of many shapes, JPEG and PNG, colour and grey."""
    (folder / 'val' / 'a').mkdir(parents=True)
    for i in range(count):
        pixels = scene(37 + 11 * i, 90 - 5 * i)
        kind = ('JPEG', 'PNG')[i % 2]
        pixels = pixels if i % 3 else pixels[..., 0]
        (folder / 'val' / 'a' / f'{i:02}.{kind.lower()}').write_bytes(encode(pixels, kind))
    return folder


def roads(folder: Path, data: Path, where: Path, monkeypatch, capsys):
    """Road -> {file: probabilities}, each with a batch size of its own."""
    files = sorted(file for file in (data / 'val').rglob('*') if file.is_file())
    model = imagenet_jax.load(folder)
    yield 'Python', dict(zip(files, model.predict(files, batch_size=7), strict=True))
    code, out = called(monkeypatch, capsys, 'predict', '--checkpoint', folder, data / 'val', '--json', '--top', 1000)
    assert not code
    rows = {}
    for line in out.splitlines():
        answer = json.loads(line)
        rows[Path(answer['image'])] = by_index(answer['classes'], model.num_classes)
    yield 'predict', rows
    called(monkeypatch, capsys, 'evaluate', '--checkpoint', folder, '--format', 'folder', '--path', data, '--split',
           'val', '--batch-size', 5, '--by-image', where / 'rows.parquet', '--top', model.num_classes)
    numbers = {name: number for number, name in enumerate(model.class_names)}
    rows = {}
    for row in pyarrow.parquet.read_table(where / 'rows.parquet').to_pylist():
        found = np.zeros(model.num_classes, np.float32)
        for place in range(1, model.num_classes + 1):
            found[numbers[row[f'name_{place}']]] = row[f'probability_{place}']
        rows[data / 'val' / row['key'] if not Path(row['key']).is_absolute() else Path(row['key'])] = found
    yield 'evaluate', rows
    export.write(model, where / 'x.stablehlo')
    call = jax.jit(jax.export.deserialize(bytearray((where / 'x.stablehlo').read_bytes())).call)
    yield 'serve', served(model, files)
    yield 'export', {file: np.asarray(call(model.preprocess(file)[None]))[0] for file in files}


def served(model, files):
    """From several clients at a time, so that batches are of many sizes."""
    pytest.importorskip('fastapi')

    def ask(file):
        status, _, answer = client.send((file.name, file.read_bytes()), query=f'?top={model.num_classes}')
        assert status == 200, answer
        return by_index(answer['images'][0]['classes'], model.num_classes)
    with serving({'model': model}, max_batch=8) as client, ThreadPoolExecutor(6) as pool:
        return dict(zip(files, pool.map(ask, files), strict=True))


def by_index(classes, count):
    found = np.zeros(count, np.float32)
    for each in classes:
        found[each['index']] = each['probability']
    return found


def agree(found):
    (_, first), *others = found
    for road, rows in others:
        assert {file.name for file in rows} == {file.name for file in first}, road
        by_name = {file.name: row for file, row in rows.items()}
        for file, row in first.items():
            np.testing.assert_allclose(by_name[file.name], row, atol=1e-5, err_msg=f'{road} {file}')
            assert by_name[file.name].argmax() == row.argmax(), (road, file)


def test_every_road_gives_the_same_answer(tmp_path, monkeypatch, capsys):
    folder = imported(tmp_path / 'model', class_names=NAMES, eval={'size': 32, 'resize': 36, 'flip': True})
    agree(roads(folder, drawn(tmp_path / 'data', 6), tmp_path, monkeypatch, capsys))


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason='no photographs here')
def test_every_road_gives_the_same_answer_to_500_photographs(tmp_path, monkeypatch, capsys):
    folder = imported(tmp_path / 'model', class_names=sorted(each.name for each in PHOTOGRAPHS.iterdir()),
                      eval={'size': 32, 'resize': 36})
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'val').symlink_to(PHOTOGRAPHS)
    agree(roads(folder, tmp_path / 'data', tmp_path, monkeypatch, capsys))
