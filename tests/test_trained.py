"""Trained models in use: the commands evaluate and predict."""

import json

import jax
import numpy as np
import pytest
from fixtures_commands import called, ran
from fixtures_images import class_tree, encode, image_folder, jpeg, parquet_file, scene
from fixtures_trained import CLASSES, make_run
from PIL import Image
from runs import ROOT
from test_multi_label import voc

import imagenet_jax
from imagenet_jax import class_names, models, record, sources, trained, weight_files, weights
from imagenet_jax.checkpoint import load_variables, save_variables
from imagenet_jax.errors import UserError
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.sources.upright import Upright


def folder(root):
    return sources.create('folder', str(root), 'train')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run on a tree of eleven images; its evaluation split lacks none of the classes."""
    root = tmp_path_factory.mktemp('run')
    class_tree(root / 'data', 30, split='val')
    return make_run(root / 'run', {'format': 'folder', 'path': str(root / 'data')})


def test_it_computes_in_what_the_run_did(run):
    """Where nobody chose a dtype, too: not in what the present machine would take."""
    entry = record.read(run)
    for dtype, computed, expected in (('float32', None, 'float32'), (None, 'bfloat16', 'bfloat16'),
                                      (None, None, 'float32')):
        record.write(run, {**entry, 'model': entry['model'] | {'dtype': dtype},
                           'run': entry['run'] | ({'dtype': computed} if computed else {})})
        assert trained.load(run).model.dtype.name == expected
    record.write(run, entry)


def test_it_turns_images_as_the_run_did(run, tmp_path):
    entry = record.read(run)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / 'held.png').write_bytes(data := encode(scene(20, 10), 'PNG', exif=exif))
    for recorded, asked, turned in ((None, None, False), (True, None, True), (True, False, False), (None, True, True)):
        record.write(run, {**entry, 'data': entry['data'] | {'exif': recorded}})
        one = imagenet_jax.load(run, exif=asked)
        assert one.exif == turned
        np.testing.assert_array_equal(one.preprocess(tmp_path / 'held.png'),
                                      one.view(Upright(data) if turned else data))
    record.write(run, entry)


def test_the_three_lines_of_the_readme(run, tmp_path, monkeypatch, capsys):
    """As they stand there: a run in a folder of that name, and an image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'runs').mkdir()
    (tmp_path / 'runs' / 'resnet50').symlink_to(run)
    (tmp_path / 'cat.jpg').write_bytes(jpeg(1))
    lines = (ROOT / 'README.md').read_text().partition('in three lines:\n\n```python\n')[2].partition('```')[0]
    assert len(lines.splitlines()) <= 4
    exec(lines, {})
    assert capsys.readouterr().out.strip() in CLASSES


def as_json(monkeypatch, capsys, command, *arguments):
    code, out = called(monkeypatch, capsys, command, *arguments, '--json')
    return code, [json.loads(line) for line in out.splitlines()] if command == 'predict' else json.loads(out)


def test_evaluate_and_predict_agree_whatever_the_layout(run, tmp_path, monkeypatch, capsys):
    tree = sources.create('folder', str(run.parent / 'data'), 'val')
    code, own = as_json(monkeypatch, capsys, 'evaluate', '--checkpoint', run)
    assert code is None and own['images'] == 30 and own['split'] == 'val' and own['bad_samples'] == 0
    order = ('cat', 'ant', 'bee')
    parquet_file(tmp_path / 'test-0.parquet', [tree.image(i) for i in range(30)],
                 [order.index(CLASSES[label]) for label in tree.labels], order)
    code, other = as_json(monkeypatch, capsys, 'evaluate', '--checkpoint', run, '--format', 'parquet', '--path',
                          tmp_path, '--split', 'test', '--batch-size', 9)
    for name in ('top1', 'top5', 'loss'):
        assert other[name] == pytest.approx(own[name], rel=1e-5)
    code, lines = as_json(monkeypatch, capsys, 'predict', '--checkpoint', run, run.parent / 'data', '--top', 3)
    assert code == 0 and len(lines) == 30
    right = [line['classes'][0]['class'] == line['image'].split('/')[-2] for line in lines]
    assert own['top1'] == pytest.approx(np.mean(right)) and 0 < np.mean(right) < 1
    for line in lines:
        p = [one['probability'] for one in line['classes']]
        assert p == sorted(p, reverse=True) and sum(p) == pytest.approx(1, abs=1e-4)
        assert {CLASSES[one['index']] for one in line['classes']} == {one['class'] for one in line['classes']}
    loss = [-np.log(next(one['probability'] for one in line['classes'] if one['class'] in line['image']))
            for line in lines]
    assert own['loss'] == pytest.approx(np.mean(loss), rel=1e-3)


@pytest.mark.slow
def test_images_are_turned_as_the_run_turned_them(run, tmp_path, monkeypatch, capsys):
    """By its config.json, on its own data and on others, unless the command says otherwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data, turned = encode(scene(20, 20), 'PNG', exif=exif), encode(np.rot90(scene(20, 20), -1), 'PNG')
    for name, image in (('held', data), ('turned', turned), ('stored', encode(scene(20, 20), 'PNG'))):
        image_folder(tmp_path / name, {f'val/{cls}/0.png': image for cls in CLASSES})
    entry = record.read(run)
    save_variables(tmp_path / 'run', load_variables(run)[1])
    record.write(tmp_path / 'run', {**entry, 'data': entry['data'] | {'exif': True, 'path': str(tmp_path / 'held')}})

    def measured(*arguments):
        return as_json(monkeypatch, capsys, 'evaluate', '--checkpoint', tmp_path / 'run', *arguments)[1]['loss']

    def on(name, *arguments):
        return measured('--format', 'folder', '--path', tmp_path / name, '--split', 'val', *arguments)
    assert measured() == on('held') == on('turned') != on('stored')
    assert on('held', '--no-exif') == on('held', '--option', 'exif=false') == on('stored')
    answers = [as_json(monkeypatch, capsys, 'predict', '--checkpoint', tmp_path / 'run', *arguments)[1][0]['classes']
               for arguments in ((tmp_path / 'held',), (tmp_path / 'turned',), (tmp_path / 'held', '--no-exif'),
                                 (tmp_path / 'stored',))]
    assert answers[0] == answers[1] != answers[2] == answers[3]


def test_several_classes_an_image(tmp_path, monkeypatch, capsys):
    voc(tmp_path / 'data', 80)
    run = make_run(tmp_path / 'run', {'format': 'voc', 'path': str(tmp_path / 'data'), 'labels': 'all'}, 'sigmoid',
                   sources.voc.CLASSES)
    _, found = as_json(monkeypatch, capsys, 'evaluate', '--checkpoint', run)
    classes = [value for value in found['average_precision'].values() if value is not None]
    assert found['average_precision'].keys() == set(sources.voc.CLASSES)
    assert found['mean_average_precision'] == pytest.approx(np.mean(classes))
    assert 0 < found['mean_average_precision'] < 1 and found['bad_samples'] == 1 and 'top1' not in found
    image = tmp_path / 'data' / 'VOC2012' / 'JPEGImages' / '2012_000000.jpg'
    _, (line,) = as_json(monkeypatch, capsys, 'predict', '--checkpoint', run, image)
    assert all(one['probability'] > 0.5 for one in line['classes']) and 0 < len(line['classes']) < 20
    code, _ = called(monkeypatch, capsys, 'evaluate', '--checkpoint', run, '--option', 'labels=largest')
    assert 'loss sigmoid is for images that may have several classes, and these have one each' in code


def test_a_bad_image_is_named_and_the_others_are_answered(run, tmp_path):
    image_folder(tmp_path, {'a/b/1.JPG': jpeg(1), 'a/torn.png': b'x', 'a/notes.txt': b'', 'a/.hidden.jpg': b''})
    (tmp_path / 'empty').mkdir()
    shown = ran('predict', '--checkpoint', run, tmp_path / 'a', tmp_path / 'no.jpg', tmp_path / 'empty', '--top', 2,
                code=1)
    assert f'{tmp_path}/a/torn.png: cannot be read: 1 bytes of no known image format' in shown
    assert f'{tmp_path}/no.jpg: cannot be read: No such file or directory' in shown
    assert f'{tmp_path}/empty: holds no image' in shown
    assert 'notes' not in shown and 'hidden' not in shown
    classes = shown.split(f'{tmp_path}/a/b/1.JPG\n')[1].splitlines()[:2]
    assert all(line.split()[1] in CLASSES for line in classes)


def test_evaluate_in_its_own_process(run, tmp_path):
    image_folder(tmp_path, {f'test/{name}/{i}.jpg': jpeg(i) for name in ('bee', 'cat') for i in range(5)})
    image_folder(tmp_path, {'test/bee/torn.jpg': b''})
    shown = ran('evaluate', '--checkpoint', run, '--path', tmp_path, '--split', 'test')
    assert f"{tmp_path}, split 'test': 11 images, 1 unreadable" in shown
    assert "renumbered by class name: 2 of the model's 3 classes, 2 of them under another number" in shown
    assert 'bee/torn.jpg cannot be read' in shown and 'top-1 ' in shown and 'loss ' in shown


def test_an_import_has_no_data_or_view_of_its_own(run, tmp_path, monkeypatch, capsys):
    entry = record.read(run)
    record.write(tmp_path, {'model': entry['model'], 'run': {}})
    (tmp_path / 'checkpoints').symlink_to(run / 'checkpoints')
    loaded = trained.load(tmp_path, normalize={'mean': (0.5, 0.5, 0.5)})
    assert (loaded.view.size, loaded.view.resize, loaded.class_names) == (32, 32, ())
    assert loaded.normalize.mean == (0.5, 0.5, 0.5) and loaded.normalize.std == (0.229, 0.224, 0.225)
    for arguments, message in [((), 'is an import'), (('--format', 'folder', '--path', run), '--format needs --split')]:
        code, _ = called(monkeypatch, capsys, 'evaluate', '--checkpoint', tmp_path, *arguments)
        assert message in code


def test_an_import_knows_imagenets_classes_and_its_view(tmp_path, monkeypatch, capsys):
    model = models.create('resnet8_cifar', num_classes=1000)
    variables = jax.device_get(jax.jit(lambda: model.init(jax.random.key(0), np.zeros((1, 32, 32, 3))))())
    weight_files.write(tmp_path / 'x.safetensors', weights.to_torch(model, variables))
    folder = tmp_path / 'import'
    called(monkeypatch, capsys, 'weights', 'import', '--model', 'resnet8_cifar', '--num-classes', 1000, '--input',
           tmp_path / 'x.safetensors', '--output', folder, '--mean', '0.5,0.5,0.5', '--interpolation', 'bicubic')
    loaded = trained.load(folder, view={'size': 48})
    assert loaded.view == EvalView(48, 48, 'bicubic') and loaded.normalize.mean == (0.5, 0.5, 0.5)
    assert loaded.class_names == tuple(class_names.imagenet()) and trained.load(folder).view.size == 32
    (tmp_path / 'a.jpg').write_bytes(jpeg(1))
    _, out = called(monkeypatch, capsys, 'predict', '--checkpoint', folder, tmp_path / 'a.jpg', '--top', 1)
    wnid, name = out.splitlines()[1].split(None, 2)[1:]
    assert class_names.imagenet()[wnid].split(', ')[0] == name
    (tmp_path / 'names.txt').write_text('ant\nbee\n')
    code, _ = called(monkeypatch, capsys, 'weights', 'import', '--model', 'resnet8_cifar', '--input',
                     tmp_path / 'x.safetensors', '--output', tmp_path / 'b', '--class-names', tmp_path / 'names.txt')
    assert '2 class names are given, and the model has 10 classes' in code


@pytest.mark.parametrize('command', ['evaluate', 'predict'])
def test_a_damaged_file_is_no_checkpoint(command, tmp_path, monkeypatch, capsys):
    (tmp_path / 'x.safetensors').write_bytes(b'')
    code, _ = called(monkeypatch, capsys, command, '--checkpoint', tmp_path / 'x.safetensors', *['x.jpg'] * (
        command == 'predict'))
    assert code.startswith('error: ') and 'x.safetensors cannot be read' in code


def test_a_model_without_a_head_names_no_class(run, tmp_path, monkeypatch, capsys):
    _, variables = load_variables(run)
    del variables['params']['linear']
    save_variables(tmp_path, variables)
    record.write(tmp_path, {'model': {**record.read(run)['model'], 'num_classes': 0}, 'run': {}})
    code, _ = called(monkeypatch, capsys, 'predict', '--checkpoint', tmp_path, 'x.jpg')
    assert 'has no head' in code


@pytest.mark.parametrize('wrong', [{'std': (0.0, 1.0, 1.0)}, {'std': (1.0, -1.0, 1.0)}, {'mean': (float('nan'),) * 3}])
def test_normalizing_by_nothing_is_refused(wrong):
    with pytest.raises(UserError, match='must be finite, std above 0'):
        Normalize(**wrong)


@pytest.mark.parametrize(('arguments', 'message'), [
    (('--size', 10), 'eval.size=10 must be at most config.eval.resize=9'), (('--dtype', 'float8'), "'float8'"),
    (('--ema',), 'holds no averaged weights'), (('--split', 'test'), 'no folder'),
    (('--option', 'images=x'), "images='x' is read by config.data.format=list, not by folder"),
])
def test_wrong_use_is_explained(run, arguments, message, monkeypatch, capsys):
    code, _ = called(monkeypatch, capsys, 'evaluate', '--checkpoint', run, *arguments)
    assert message in code


@pytest.mark.parametrize('command', ['evaluate', 'predict'])
def test_help_shows_examples(command, monkeypatch, capsys):
    code, out = called(monkeypatch, capsys, command, '--help')
    assert code == 0 and out.count('python -m imagenet_jax') >= 3
