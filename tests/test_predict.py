"""The command predict: which images it takes, and the forms of its answers."""

import base64
import csv
import dataclasses
import io
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures_commands import called
from fixtures_images import image_folder, jpeg
from fixtures_trained import imported
from PIL import Image

import imagenet_jax
from imagenet_jax import terminal
from imagenet_jax.command_line import bars, images
from imagenet_jax.errors import UserError
from imagenet_jax.task import Sigmoid
from imagenet_jax.use.classifier import Classifier
from imagenet_jax.use.predictions import Prediction, predictions

NAMES = 'n01440764', '<b>猫', *'cdefghij'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return imported(tmp_path_factory.mktemp('run'), class_names=NAMES)


def reading(monkeypatch, data):
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(buffer=io.BytesIO(data)))


def test_images_by_name_folder_pattern_and_list(tmp_path, monkeypatch):
    image_folder(tmp_path, {name: b'' for name in (
        'a/1.jpg', 'a/b/2.PNG', 'a/b/note.txt', 'a/.git/3.jpg', 'x[1].jpg', 'x1.jpg', 'd\n.jpg')})
    monkeypatch.chdir(tmp_path)

    def named(*arguments):
        found, wrong = images.named(list(map(Path, arguments)))
        return [str(path) for path in found], wrong
    assert named('a', 'x1.jpg', 'a', 'no.jpg') == (
        ['a/1.jpg', 'a/b/2.PNG', 'x1.jpg', 'a/1.jpg', 'a/b/2.PNG', 'no.jpg'], [])
    for pattern, expected in (('a/**', ['a/1.jpg', 'a/b/2.PNG']), ('a/*', ['a/1.jpg', 'a/b/2.PNG']),
                              ('**/*.jpg', ['a/1.jpg', 'd\n.jpg', 'x1.jpg', 'x[1].jpg']), ('x[1].jpg', ['x[1].jpg']),
                              ('x[1-3].jpg', ['x1.jpg']), ('a/b/*.txt', ['a/b/note.txt'])):
        assert named(pattern) == (expected, []), pattern
    (tmp_path / 'empty').mkdir()
    found, wrong = named('empty', 'no*', 'x1.jpg')
    assert found == ['x1.jpg'] and 'empty: holds no image (' in wrong[0] and wrong[1] == 'no*: matches no image'
    for data, expected in ((b'x1.jpg\r\n\nx[1].jpg', ['x1.jpg', 'x[1].jpg']),
                           (b'd\n.jpg\0a\0', ['d\n.jpg', 'a/1.jpg', 'a/b/2.PNG']),
                           (b'*.jpg\n\xe9.jpg', ['*.jpg', '\udce9.jpg'])):
        reading(monkeypatch, data)
        assert named('-') == (expected, [])
    reading(monkeypatch, b'\n')
    assert named('-', 'x1.jpg') == (['x1.jpg'], ['standard input: names no image'])


def test_every_form_has_the_same_answers(folder, tmp_path, monkeypatch, capsys):
    photos = image_folder(tmp_path / 'photos', {
        'a/<i>é.jpg': jpeg(1, 40, 50), 'b/<i>é.jpg': jpeg(2, 50, 40), 'torn.png': b'x', 'z.jpg': jpeg(3)})
    (photos / os.fsdecode(b'\xe9.jpg')).write_bytes(jpeg(4))
    out = tmp_path / 'out'
    code, printed = called(monkeypatch, capsys, 'predict', '--checkpoint', folder, photos, photos / 'z.jpg', '--json',
                           '--csv', out / 'a.csv', '--html', out / 'a.html', '--explain', out / 'maps', '--top', 3)
    assert code == 1
    lines = [json.loads(line) for line in printed.splitlines()]
    assert lines.pop(2) == {'image': str(photos / 'torn.png'),
                            'error': 'cannot be read: 1 bytes of no known image format'}
    assert [Path(line['image']).name for line in lines] == ['<i>é.jpg'] * 2 + ['z.jpg', '\udce9.jpg', 'z.jpg']
    rows = list(csv.DictReader((out / 'a.csv').open(encoding='utf-8')))
    assert [(row['class'], int(row['index']), float(row['probability'])) for row in rows if row['rank']] == [
        (one['class'], one['index'], one['probability']) for line in lines for one in line['classes']]
    assert [row['error'] for row in rows if row['error']] == ['cannot be read: 1 bytes of no known image format']
    assert all(row['name'] == 'tench' for row in rows if row['class'] == NAMES[0])
    drawn = [each for line in lines for each in line['overlays']]
    assert [each['index'] for each in drawn] == [line['classes'][0]['index'] for line in lines]
    assert len({each['file'] for each in drawn}) == 5 == len(list((out / 'maps').iterdir()))
    assert Image.open(drawn[0]['file']).size == (224, 224)
    page = (out / 'a.html').read_text()
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
    assert len(pictures) == 2 * 5 and max(Image.open(io.BytesIO(base64.b64decode(each))).width
                                          for each in pictures) <= 224
    assert '<b>' not in page and '<i>' not in page and '&lt;i&gt;é.jpg' in page and 'torn.png: cannot be read' in page
    assert '5 of 6 images have an answer' in page and not re.search('http(?!-equiv)', page)
    for line in lines:
        for one in line['classes']:
            assert f'<span>{one["probability"]:.4f}</span>' in page


@pytest.mark.parametrize(('arguments', 'message'), [
    (('--stage', 'layer1'), 'give --explain DIR or --html FILE'), (('--class', 1), 'give --explain DIR or --html'),
    (('--csv', 'x.png'), 'would write over an image'), (('--html', '.'), 'a folder has that name'),
    (('--csv', 'x', '--html', 'x'), '--csv and --html name one file'), (('--explain', __file__), 'is a file')])
def test_wrong_use_is_explained_first(folder, arguments, message, monkeypatch, capsys):
    code, _ = called(monkeypatch, capsys, 'predict', '--checkpoint', folder / 'none', 'x.jpg', *arguments)
    assert message in code


@pytest.mark.parametrize(('error', 'said'), [(UserError('no more'), 'error: no more'), (BrokenPipeError(), 141)])
def test_a_failure_leaves_no_file(folder, tmp_path, error, said, monkeypatch, capfd):
    def failing(*_):
        yield Prediction(tmp_path / 'a.jpg')
        raise error
    monkeypatch.setattr('imagenet_jax.use.predictions.predictions', failing)
    code, _ = called(monkeypatch, capfd, 'predict', '--checkpoint', folder, tmp_path / 'a.jpg', '--csv',
                     tmp_path / 'a.csv')
    assert code == said and not list(tmp_path.iterdir())


def test_each_likely_class_of_several_is_explained(folder, tmp_path):
    only = imagenet_jax.load(folder).members[0]
    model = Classifier(dataclasses.replace(only, task=Sigmoid()))
    (tmp_path / 'a.jpg').write_bytes(jpeg())

    class Explain:
        batch_size = 2

        def each(self, asked):
            return [(None, numbers) for _, numbers in asked]
    files = [tmp_path / 'a.jpg', tmp_path / 'no.jpg', tmp_path / 'a.jpg']
    found = list(predictions(model, files, 5, Explain()))
    assert [answer.image for answer in found] == files and found[1].reason and not found[1].explained
    numbers = [one['index'] for one in found[2].classes]
    assert len(numbers) > 1 and [number for number, _ in found[2].explained] == numbers
    assert [number for number, _ in next(predictions(model, files, 5, Explain(), [7, 3])).explained] == [7, 3]


def test_lines_fit_a_terminal(monkeypatch):
    classes = [{'class': '猫' * 60, 'index': 0, 'probability': 1.0}, {'class': 'b', 'index': 1, 'probability': 0.25},
               {'class': 'c\x1b[31m', 'index': 2, 'probability': 0.0}]
    plain = bars.lines('a\n.jpg', classes)
    assert plain == ['a\\n.jpg', f'  1.0000  {"猫" * 60}', '  0.2500  b', '  0.0000  c\\x1b[31m']
    monkeypatch.setattr(sys, 'stdout', SimpleNamespace(isatty=lambda: True, encoding='utf-8'))
    monkeypatch.setenv('COLUMNS', '200')
    shown = bars.lines('a.jpg', classes)
    assert max(map(terminal.columns, shown)) <= 80 and shown[1].endswith('…')
    assert [line.count('█') for line in shown[1:]] == [24, 6, 0]
    assert [line[:10] for line in shown[1:]] == [line[:10] for line in plain[1:]]
    monkeypatch.setattr(sys, 'stdout', SimpleNamespace(isatty=lambda: True, encoding='ascii'))
    assert bars.lines('a.jpg', classes)[2] == f'  0.2500  {"#" * 6:24}  b'
    assert terminal.columns('e\u0301猫') == 3 and bars.lines('a', [])[1] == '  no class to name'


def test_no_image_is_written_over(folder, tmp_path, monkeypatch, capsys):
    photos = image_folder(tmp_path / 'photos', {'cat.jpg': jpeg(1)})
    own = photos / f'cat.{imagenet_jax.load(folder).class_names[0][:20]}.png'
    Image.new('RGB', (9, 9)).save(own)
    before = {file: file.read_bytes() for file in photos.iterdir()}
    code, out = called(monkeypatch, capsys, 'predict', '--checkpoint', folder, '--explain', photos, '--json', '--class',
                       imagenet_jax.load(folder).class_names[0], photos)
    assert not code and {file: file.read_bytes() for file in before} == before
    drawn = [one['file'] for line in out.splitlines() for one in json.loads(line)['overlays']]
    assert len(set(drawn)) == 2 and all(os.path.exists(file) and Path(file) not in before for file in drawn)


def test_links_are_followed_once_and_devices_are_written_to(folder, tmp_path, monkeypatch, capsys):
    image_folder(tmp_path / 'real', {'a.jpg': jpeg(1)})
    (tmp_path / 'real' / 'loop').symlink_to('.')
    (tmp_path / 'link').symlink_to('real')
    (tmp_path / 'real' / 'gone.jpg').symlink_to('nowhere')
    files, _ = images.named([tmp_path / '**' / 'a.jpg'])
    assert len(files) == 1
    target = tmp_path / 'out.csv'
    (tmp_path / 'to.csv').symlink_to(target)
    target.write_text('')
    code, out = called(monkeypatch, capsys, 'predict', '--checkpoint', folder, '--csv', tmp_path / 'to.csv', '--json',
                       tmp_path / 'real')
    assert code == 1 and 'gone.jpg' in target.read_text() and (tmp_path / 'to.csv').is_symlink()
    assert [sorted(json.loads(line)) for line in out.splitlines()] == [['classes', 'image'], ['error', 'image']]
    called(monkeypatch, capsys, 'predict', '--checkpoint', folder, '--csv', '/dev/null', tmp_path / 'real' / 'a.jpg')
    assert not os.path.isfile('/dev/null')
