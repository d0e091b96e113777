"""Images of several classes: the step on one device and on eight, and whole runs."""

import numpy as np
import pytest
from fixtures_images import encode, image_folder
from fixtures_layouts import thing
from fixtures_scores import drawn
from fixtures_step import CLASSES, Run, Tiny, batch, relative_difference
from runs import contents, rows, run, saved
from sklearn.metrics import f1_score
from test_evaluation import batch as eval_batch
from test_evaluation import make

from configs import common
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import measure
from imagenet_jax.experiment import Experiment
from imagenet_jax.metrics.average_precision import average_precision
from imagenet_jax.task import Sigmoid

# --- the step


def with_labels(seed=0):
    return batch(seed=seed) | {'label': drawn(16, CLASSES, seed)[1]}


def test_eight_devices_train_as_one():
    runs = [Run(Tiny(norm='sync'), devices, rate=0.001, task=Sigmoid(smoothing=0.1)) for devices in (1, 8)]
    start = runs[0].host()
    for seed in range(5):
        one, eight = (run.step(with_labels(seed)) for run in runs)
        assert eight == pytest.approx(one, rel=1e-3)
    one, eight = (run.host() for run in runs)
    assert relative_difference(eight.params, one.params) < 1e-5
    assert relative_difference(one.params, start.params) > 1e-5


def test_metrics_are_those_of_the_task():
    run, data = Run(Tiny(norm='none'), task=Sigmoid()), with_labels()
    logits = Tiny(norm='none').apply({'params': run.host().params}, data['image'] / 128.0 - 1, train=True)
    metrics = run.step(data)
    assert metrics['loss'] == pytest.approx(float(Sigmoid().loss(logits, data['label']).mean()), rel=1e-5)
    assert metrics['accuracy'] == pytest.approx(float(Sigmoid().accuracy(logits, data['label']).mean()), rel=1e-6)


def split(scores, labels, size, bad=()):
    """As input_pipeline.eval_batches and to_devices give it; padding has scores that would count as right."""
    n = len(scores)
    for start in range(0, n, size):
        index = np.arange(start, start + size)
        rows, mask = index % n, index < n
        yield {}, eval_batch(np.where(mask[:, None], scores[rows], 9), np.where(mask[:, None], labels[rows], 1),
                             np.where(np.isin(index, bad), index, -1), mask)


@pytest.mark.parametrize('devices', [1, 8])
def test_evaluation_of_the_whole_split(devices):
    scores, labels = drawn(37, 6)
    labels[:, 2] = 0  # a class without images
    scores[4, 1] = np.nan
    result = measure(make(devices, Sigmoid()), Sigmoid(), {}, split(scores, labels, 16, bad=[0, 20]), 37)
    worst = np.where(np.isin(np.arange(37), [0, 20])[:, None], -np.inf, scores)
    expected = np.nanmean(average_precision(worst, labels))
    assert result.scalars['mean_average_precision'] == pytest.approx(expected)
    assert result.scalars['mean_average_precision'] != pytest.approx(np.nanmean(average_precision(scores, labels)))
    counted = ~np.isnan(labels)
    f1 = [f1_score(labels[c, k], worst[c, k] > 0, zero_division=np.nan) for k, c in enumerate(counted.T)]
    assert result.scalars['macro_f1'] == pytest.approx(np.nanmean(f1))
    assert result.scalars.keys() == {'mean_average_precision', 'macro_f1', 'loss', 'bad_samples'}
    assert result.scalars['bad_samples'] == 2 and not np.isfinite(result.scalars['loss'])
    np.testing.assert_array_equal(result.per_class['average_precision'], average_precision(worst, labels))
    assert result.confusion is None


def test_evaluation_loss():
    scores, labels = drawn(20, 6)
    result = measure(make(2, Sigmoid()), Sigmoid(), {}, split(scores, labels, 8), 20)
    assert result.scalars['loss'] == pytest.approx(float(Sigmoid().loss(scores, labels).mean()))


# --- whole runs

COLOURS = {'aeroplane': (0, 90), 'bird': (1, 90), 'boat': (2, 90)}


def voc(root, count=96):
    """VOC2012 with splits train and val; each of three classes adds a colour, and one image of val is unreadable."""
    rng = np.random.default_rng(0)
    files, names = {}, [f'2012_{i:06d}' for i in range(count)]
    for i, name in enumerate(names):
        present = [c for c in COLOURS if rng.random() < 0.5] or ['bird']
        pixels = rng.integers(60, size=(12, 12, 3)).astype(np.uint8)
        for channel, value in (COLOURS[c] for c in present):
            pixels[..., channel] += value
        inside = ''.join(thing(c) for c in present) + (thing('cow', difficult=1) if i % 5 == 0 else '')
        files[f'JPEGImages/{name}.jpg'] = b'' if i == count - 1 else encode(pixels, quality=95)
        files[f'Annotations/{name}.xml'] = f'<annotation>{inside}</annotation>'.encode()
    files['ImageSets/Main/train.txt'] = '\n'.join(names[:64]).encode()
    files['ImageSets/Main/val.txt'] = '\n'.join(names[64:]).encode()
    return image_folder(root, {f'VOC2012/{name}': data for name, data in files.items()})


def arguments(path):
    return ('--config', 'configs/digits.py', '--config.model.name=resnet8_cifar',
            '--config.data.format=voc', f'--config.data.path={path}', '--config.data.labels=all',
            '--config.data.eval_split=val', '--config.loss.name=sigmoid', '--config.model.num_classes=20',
            '--config.augment.size=8', '--config.augment.pad=1', '--config.eval.size=8', '--config.eval.resize=8',
            '--config.batch_size=16', '--config.eval_batch_size=32', '--config.epochs=0', '--config.steps=20',
            '--config.schedule.name=constant', '--config.schedule.warmup_epochs=0', '--config.eval_steps=10',
            '--config.log_steps=10')


@pytest.mark.runs
def test_learns_resumes_and_keeps_the_best(tmp_path):
    base = arguments(voc(tmp_path / 'data'))
    run(tmp_path / 'whole', base=base)
    written = rows(tmp_path / 'whole')
    assert written[-1]['eval/mean_average_precision'] > 0.9  # chance is a class's share of the images, here a half
    assert written[-1]['train/accuracy'] > 0.9
    assert written[-1]['eval/bad_samples'] == 1 and 'eval/top1' not in written[-1]
    scores = {row['step']: row['eval/mean_average_precision'] for row in written}
    assert saved(tmp_path / 'whole') == sorted({10, 20, max(scores, key=lambda step: (scores[step], step))})
    run(tmp_path / 'parts', '--config.steps=12', base=base)
    assert 'resuming at step 12' in run(tmp_path / 'parts', base=base)
    assert contents(tmp_path / 'parts', 20) == contents(tmp_path / 'whole', 20)
    assert rows(tmp_path / 'parts')[-1]['eval/mean_average_precision'] == scores[20]


def config(path, **changes):
    made = common.get_config()
    made.model.name, made.model.num_classes = 'resnet8_cifar', 20
    made.data.format, made.data.path = 'voc', str(path)
    with made.unlocked():
        made.update_from_flattened_dict(changes)
    return made


@pytest.mark.parametrize(('changes', 'message'), [
    ({'data.labels': 'all'}, 'what config.loss.name=sigmoid is for'),
    ({'loss.name': 'sigmoid'}, 'what config.loss.name=softmax is for'),
    ({'loss.name': 'hinge'}, "unknown config.loss.name 'hinge'; known: softmax, sigmoid"),
    ({'loss.name': 'sigmoid', 'data.labels': 'all', 'data.eval_split': 'empty'}, 'none of 2 images is of any class'),
])
def test_labels_and_loss_must_agree(tmp_path, changes, message):
    root = voc(tmp_path)
    hard = b'<annotation>' + thing('cow', difficult=1).encode() + b'</annotation>'
    image_folder(root / 'VOC2012', {'ImageSets/Main/empty.txt': b'a\nb', 'Annotations/a.xml': hard,
                                    'Annotations/b.xml': hard})
    with pytest.raises(UserError, match=message):
        Experiment(config(root, **changes))
