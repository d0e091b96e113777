"""Learning from a teacher: its loss against PyTorch, its part in the step, what is refused, and whole runs."""

import dataclasses
import json
import re
import shutil
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_commands import ran
from fixtures_step import CLASSES, SIZE, Run, Tiny, batch, preprocess, relative_difference
from runs import contents, finish, numbers, rows, run, saved, start, stop_when
from test_options import refused, small

from imagenet_jax import models, streams, trained
from imagenet_jax.checkpoint import save_variables
from imagenet_jax.distill import Teacher, load
from imagenet_jax.errors import UserError
from imagenet_jax.experiment import Experiment
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.mix import Mix
from imagenet_jax.task import Sigmoid, Softmax

PLAIN = Normalize((0.0,), (1.0,))

# --- the loss


class Means(nn.Module):
    """Logits are the channels' means times a scale."""

    @nn.compact
    def __call__(self, images, train):
        assert not train
        return images.mean((1, 2)) * self.param('scale', nn.initializers.ones, (3,))


@pytest.mark.parametrize(('temperature', 'weight'), [(1.0, 1.0), (4.0, 0.9)])
def test_agrees_with_pytorch(temperature, weight):
    """The teacher sees pixels by its own mean and std, and answers in the student's order of classes."""
    torch = pytest.importorskip('torch')
    rng = np.random.default_rng(0)
    pixels, logits = rng.integers(256, size=(5, 4, 4, 3), dtype=np.uint8), rng.normal(0, 3, (5, 3)).astype(np.float32)
    losses, scale = rng.random(5, np.float32), np.float32([30, -20, 10])
    ours, theirs = Normalize(), Normalize((0.1, 0.2, 0.3), (0.5,))
    teacher = Teacher(model=Means(), variables={}, seen_as=ours, normalize=theirs, temperature=temperature,
                      weight=weight, places=(2, 0, 1))
    found = teacher({'params': {'scale': scale}}, ours(pixels), logits, losses)
    answers = ((pixels / 255 - theirs.mean) / theirs.std).mean((1, 2)) * scale
    student, answers = (torch.tensor(x) / temperature for x in (logits, answers[:, [2, 0, 1]].astype(np.float32)))
    divergence = torch.nn.functional.kl_div(student.log_softmax(-1), answers.softmax(-1), reduction='none').sum(-1)
    np.testing.assert_allclose(found, (1 - weight) * losses + weight * temperature**2 * np.asarray(divergence),
                               rtol=1e-4)


# --- the step


def taught(model, weight, temperature, change=lambda x: x, **options):
    """A run of a student without a norm, whose teacher is `model` with its variables at seed 0, changed."""
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3)))
    teacher = Teacher(model=model, variables=jax.tree.map(lambda x: change(np.asarray(x)), variables), seen_as=PLAIN,
                      normalize=PLAIN, temperature=temperature, weight=weight)
    return Run(Tiny(norm='none'), teacher=teacher, **options)


def test_who_answers_as_its_teacher_stays_as_it_is():
    """And the teacher's variables are an argument of the program, not given away as the state is."""
    run = taught(Tiny(norm='none'), 1.0, 1.0, decay=0.0)
    rate, variables = run.train_step.given(run.state)
    program = run.train_step.lower(run.state, batch())
    arguments = re.search(r'func\.func public @main\((.*?)\) -> ', program.as_text(), re.DOTALL)[1]
    assert arguments.count('%arg') == len(jax.tree.leaves((run.state, batch(), rate, variables)))
    start, metrics = run.host(), run.step(batch())
    assert metrics['loss'] == pytest.approx(0, abs=1e-6) and metrics['grad_norm'] < 1e-6
    assert relative_difference(run.host().params, start.params) < 1e-6
    given_away = [{x.donated for x in jax.tree.leaves(argument)} for argument in program.args_info[0]]
    assert given_away == [{True}, {False}, {False}, {False}]


def test_teacher_answers_to_mixed_pixels_as_in_evaluation():
    """By hand: its dropout is off and its norm goes by running statistics; the labels' part is what it was."""
    teacher, data = Tiny(dropout=0.5), batch()
    run = taught(teacher, 0.7, 2.0, change=lambda x: x + 0.5, mix=Mix(0.4), devices=2, accumulation=2)

    @jax.jit
    def by_hand(params, variables):
        share = Mix(0.4).share(streams.stream(streams.step_key(jax.random.key(0), 0), 'mix'))
        images, targets = (share * x + (1 - share) * x[::-1]
                           for x in (preprocess(data['image']), Softmax().targets(data['label'], CLASSES)))
        logits = Tiny(norm='none').apply({'params': params}, images)
        log_s, log_t = (jax.nn.log_softmax(x / 2) for x in (logits, teacher.apply(variables, images, train=False)))
        divergence = (jnp.exp(log_t) * (log_t - log_s)).sum(-1)
        return (0.3 * Softmax().loss(logits, targets) + 0.7 * 4 * divergence).mean()

    expected = float(by_hand(run.state.params, run.train_step.teacher.variables))
    assert run.step(data)['loss'] == pytest.approx(expected, rel=1e-4)


# --- the teacher


NAMES = ('ant', 'bee', 'cat')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Of a ResNet of three classes."""
    root = tmp_path_factory.mktemp('teacher')
    model = models.create('resnet8_cifar', num_classes=3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    save_variables(root, jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes))
    return root


def read(folder, names=NAMES, loss='softmax', task=Softmax(), dtype='float32', ours=NAMES, classes=3, **options):
    entry = {'model': {'name': 'resnet8_cifar', 'num_classes': 3}, 'loss': {'name': loss, 'smoothing': 0.0},
             'normalize': {'mean': [0.5], 'std': [0.2]}, 'run': {'class_names': names}}
    if folder.exists():
        (folder / 'config.json').write_text(json.dumps(entry))
    student = models.create('resnet20_cifar', num_classes=classes, dtype=dtype)
    return load(teacher=str(folder), student=student, task=task, normalize=Normalize(), class_names=ours, size=8,
                **options)


@pytest.mark.parametrize(('names', 'ours', 'places'), [
    (NAMES, NAMES, ()), ((), NAMES, ()), (NAMES, (), ()), (('cat', 'ant', 'bee'), NAMES, (1, 2, 0)),
    (('ant', 'ant', 'bee'), ('ant', 'ant', 'bee'), ())])
def test_classes_are_matched_by_name(names, ours, places, folder, caplog):
    assert read(folder, names, ours=ours).places == places
    assert ('by number, unchecked' in caplog.text) == (not names or not ours)


def test_a_teacher_is_as_its_folder_has_it(folder):
    """But for the dtype, which is the student's."""
    teacher = read(folder, dtype='bfloat16')
    assert teacher.model.dtype == jnp.bfloat16 and teacher.normalize == Normalize((0.5,), (0.2,))
    assert (teacher.seen_as, teacher.temperature, teacher.weight) == (Normalize(), 4.0, 0.9)
    changed = jax.tree.map(np.copy, teacher.variables)
    changed['params']['linear']['bias'][1] = 0.5
    other = Teacher(model=teacher.model, variables=changed, seen_as=PLAIN, normalize=PLAIN, temperature=1, weight=1)
    assert read(folder).checksum == teacher.checksum != other.checksum


@pytest.mark.parametrize(('options', 'message'), [
    ({'weight': 0.0}, r'config\.distill\.weight=0\.0 must be above 0 and at most 1'),
    ({'weight': 1.1}, r'config\.distill\.weight=1\.1 must be'),
    ({'temperature': 0.0}, r'config\.distill\.temperature=0\.0 must be positive'),
    ({'task': Sigmoid()}, r'the loss of the run is for images of several'),
    ({'loss': 'sigmoid'}, r'config\.distill\.teacher=.*the loss of the teacher is for images of several'),
    ({'classes': 5}, r'has 3 classes, and config\.model\.num_classes=5'),
    ({'names': ('ant', 'bee', 'cow')}, r"other classes: 1 of 3 .* 'cat'; the model has 'ant', 'bee', 'cow'"),
    ({'names': ('ant', 'ant', 'bee'), 'ours': ('ant', 'bee', 'ant')}, r'several classes share a name')])
def test_refused(options, message, folder):
    with pytest.raises(UserError, match=message):
        read(folder, **options)


def test_a_teacher_of_larger_images_is_refused(folder, monkeypatch):
    read(folder)  # writes config.json
    found, model = trained.load(folder), models.create('vgg11', num_classes=3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    found = dataclasses.replace(found, model=model, variables=shapes)
    monkeypatch.setattr(trained, 'load', lambda *args, **kwargs: found)
    with pytest.raises(UserError, match=r'takes no images of config\.augment\.size=8: images too small'):
        read(folder)


def test_options_arrive(folder):
    """And what does not go together is refused, before the teacher is looked for."""
    config = small()
    config.model.num_classes = 3
    config.distill.temperature = 2.0
    refused(config, r'config\.distill lacks teacher')
    config.distill.teacher = str(folder / 'nowhere')
    refused(config, r'config\.distill\.teacher=.*/nowhere: .*nowhere must be the folder of a run')
    config.loss.consistency = 12.0
    refused(config, r'config\.loss\.consistency=12\.0 and config\.augment\.views=1 go together')
    config.loss.consistency, config.distill.teacher, config.mix.mixup = None, str(folder), 0.2
    read(folder, ())  # writes config.json
    experiment = Experiment(config)
    teacher = experiment.train_step.teacher
    assert (teacher.temperature, teacher.weight, teacher.model.num_classes) == (2.0, 0.9, 3)
    assert experiment.record()['teacher_crc32'] == teacher.checksum


# --- whole runs


@pytest.mark.slow
@pytest.mark.runs
def test_killed_and_resumed(tmp_path):
    """Bit for bit, by binary cross-entropy; with another teacher it goes on too, and says so."""
    steps = ('--config.steps=8', '--config.epochs=0', '--config.schedule.warmup_epochs=0', '--config.eval_steps=4',
             '--config.checkpoint_steps=2')
    teachers = [tmp_path / name for name in ('teacher', 'other')]
    for seed, folder in enumerate(teachers):
        run(folder, *steps, f'--config.seed={seed}')
    learn = (*steps, '--config.seed=2', '--config.normalize.mean=(0.5,)', '--config.mix.mixup=0.2',
             '--config.loss.name=bce', '--config.loss.threshold=0.2',
             f'--config.distill.teacher={teachers[0]}')
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    run(whole, *learn)
    process = start(parts, *learn)
    stop_when(process, lambda: saved(parts)[-1:] >= [2])
    finish(process, -signal.SIGKILL)
    shutil.copytree(parts, tmp_path / 'changed')
    assert 'resuming at step' in (output := run(parts, *learn)) and 'teacher' not in output.partition('resuming at')[2]
    assert contents(parts, 8) == contents(whole, 8) and numbers(parts) == numbers(whole)
    output = run(tmp_path / 'changed', *learn, f'--config.distill.teacher={teachers[1]}')
    assert 'resuming with config.distill.teacher=' in output and 'config.run.teacher_crc32=' in output
    assert contents(tmp_path / 'changed', 8) != contents(whole, 8)
    alone = tmp_path / 'alone'
    run(alone, *(each for each in learn if 'distill' not in each))
    assert rows(alone)[0]['train/loss'] != rows(whole)[0]['train/loss']
    measured, _ = json.JSONDecoder().raw_decode(ran('evaluate', '--checkpoint', whole, '--json'))
    for name in ('top1', 'loss'):
        assert measured[name] == pytest.approx(rows(whole)[-1][f'eval/{name}'], rel=1e-5)
