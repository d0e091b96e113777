"""metrics.jsonl, new and gone on with, and what is handed to TensorBoard."""

import contextlib
import errno
import io
import json
import os
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from tensorboard.plugins.hparams import metadata

from imagenet_jax.errors import UserError
from imagenet_jax.metrics import run_log
from imagenet_jax.metrics.board import Board
from imagenet_jax.metrics.run_log import MetricWriter, read_rows


class Asked:
    """Takes down what it is asked to write."""

    def __init__(self):
        self.written = []

    def __getattr__(self, name):
        return lambda *arguments: self.written.append((name, *arguments))


@pytest.fixture
def board(monkeypatch):
    made = Asked()
    monkeypatch.setattr(run_log.board, 'Board', lambda workdir, start: made)
    return made


def lines(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Seconds of the wall, which stand until a test moves them."""
    now = [100.0]
    monkeypatch.setattr(run_log.time, 'monotonic', lambda: now[0])
    return now


def test_rows_are_there_as_soon_as_they_are_written(tmp_path, board):
    writer = MetricWriter(tmp_path, None)
    writer.write(3, {'train/loss': 0.5, 'eval/top1': float('nan'), 'eval/best': None})
    assert lines(tmp_path) == [{'step': 3, 'seconds': 0.0, 'train/loss': 0.5, 'eval/top1': None, 'eval/best': None}]
    writer.write(4, {'train/loss': float('inf')})
    assert lines(tmp_path)[1] == {'step': 4, 'seconds': 0.0, 'train/loss': None}
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ['metrics.jsonl']
    name, step, row = board.written[0]
    assert (name, step) == ('write_scalars', 3) and row['train/loss'] == 0.5 and 'eval/best' not in row
    assert board.written[-1] == ('close',)


def test_a_new_run_begins_an_empty_log(tmp_path, board):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n')
    MetricWriter(tmp_path, None).close()
    assert lines(tmp_path) == []


@pytest.mark.parametrize(('step', 'expected'), [
    (2, [{'step': 1}, {'step': 2, 'loss': 2, 'resume/step': 2}]),  # no step stands in two rows
    (3, [{'step': 1}, {'step': 2, 'loss': 2}, {'step': 3, 'resume/step': 3}]),
    (0, [{'step': 0, 'resume/step': 0}])])
def test_rows_past_the_resumed_step_come_again(tmp_path, board, step, expected):
    rows = [{'step': 1}, {'step': 2, 'loss': 2}, {'step': 4, 'loss': 4}]
    (tmp_path / 'metrics.jsonl').write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
    for _ in range(2):  # at the second start there is the first one's mark
        MetricWriter(tmp_path, step).close()
        assert lines(tmp_path) == expected


def test_seconds_are_of_all_starts_without_what_is_made_again(tmp_path, board, clock):
    def session(resume_step, *steps):
        writer = MetricWriter(tmp_path, resume_step)
        for step in steps:
            clock[0] += 10.04
            writer.write(step, {})
        clock[0] += 1000
    session(None, 1, 2, 3)
    session(2, 3, 4)
    assert [row.get('seconds') for row in lines(tmp_path)] == [10, 20.1, 30.1, 40.2]


@pytest.mark.parametrize('torn', [
    b'{"step": 2, "lo', b'\xff\xfe', b'\0\0\0\0', b'5', b'{"step": "2"}', b'{"loss": 1}', b'[' * 100_000,
    b'{"step": 2, "eval/top1": "0.5"}'], ids=range(8))
def test_torn_rows_are_left_out_and_the_file_is_kept(torn, tmp_path, caplog):
    path = tmp_path / 'metrics.jsonl'
    assert read_rows(path) == []
    path.write_bytes(b'{"step": 1}\n' + torn + b'\n{"step": 3}\n')
    found = path.read_bytes()
    assert read_rows(path) == [{'step': 1}, {'step': 3}]
    assert f'{path}: 1 of 3 rows are damaged and left out, the first in line 2' in caplog.text
    MetricWriter(tmp_path, 3).close()
    assert [row['step'] for row in lines(tmp_path)] == [1, 3]
    assert (tmp_path / 'metrics.damaged.jsonl').read_bytes() == found


@pytest.mark.slow  # imports TensorFlow
def test_event_files_hold_each_step_once_however_often_a_run_resumes(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
    for resume_step, last in ((None, 3), (None, 5), (3, 6), (3, 7), (7, 7)):  # None again: killed before it saved
        writer = MetricWriter(tmp_path, resume_step)
        writer.write_config({'message': 'why'})
        for step in range((resume_step or 0) + 1, last + 1):
            writer.write(step, {'loss': float(last)})
        writer.close()
    for reader in (event_accumulator, plugin_event_accumulator):
        events = reader.EventAccumulator(str(tmp_path), size_guidance={'tensors': 0})
        events.Reload()
        assert sorted(event.step for event in events.Tensors('loss')) == [1, 2, 3, 4, 5, 6, 7]
        assert sorted(event.step for event in events.Tensors('config')) == [0, 4, 8]


def test_steps_that_stand_in_several_rows_become_one(tmp_path, board):
    (tmp_path / 'metrics.jsonl').write_text(
        '{"step": 4, "resume/step": 4}\n{"step": 2, "a": 1}\n{"step": 4, "b": 2}\n{"step": 4, "resume/step": 4}\n')
    MetricWriter(tmp_path, 4).close()
    assert lines(tmp_path) == [{'step': 2, 'a': 1}, {'step': 4, 'resume/step': 4, 'b': 2}]


class Full(io.StringIO):
    """A file on a full disk."""

    def flush(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_that_cannot_be_read_or_written_is_one_error(tmp_path, board, monkeypatch):
    (tmp_path / 'metrics.jsonl').mkdir()
    with pytest.raises(UserError, match=r'cannot read .*metrics\.jsonl: Is a directory'):
        MetricWriter(tmp_path, 3)
    with pytest.raises(UserError, match=r'cannot write .*metrics\.jsonl: .*Is a directory'):
        MetricWriter(tmp_path, None)
    (tmp_path / 'metrics.jsonl').rmdir()
    writer = MetricWriter(tmp_path, None)
    writer._file.close()
    writer._file = Full()
    with pytest.raises(UserError, match=r'cannot write .*metrics\.jsonl: .*No space left on device'):
        writer.write(1, {'loss': 1.0})
    writer.close()


def test_pictures_and_the_config_are_for_the_board(tmp_path, board):
    writer, image = MetricWriter(tmp_path, None), np.zeros((2, 3, 3), np.uint8)
    writer.write_image(7, 'eval/confusion', image)
    writer.write_config({'seed': 0, 'message': 'why', 'mean': (0.5, 0.5), 'run.class_names': ['ant'] * 1000})
    writer.close()
    (_, step, images), (_, _, texts), (name, _, *trial), _ = board.written
    assert name == 'write_trial'
    assert step == 7 and images['eval/confusion'].shape == (1, 2, 3, 3)
    assert '| seed | 0 |' in texts['config'] and texts['message'] == 'why'
    (tag, experiment), (session, kept) = run_log.board.trial(*trial)
    assert session == metadata.SESSION_START_INFO_TAG
    trial = metadata.parse_session_start_info_plugin_data(kept.plugin_data.content)
    assert trial.group_name == str(tmp_path)
    assert {name: getattr(value, value.WhichOneof('kind')) for name, value in trial.hparams.items()} == {
        'seed': 0, 'message': 'why', 'mean': '(0.5, 0.5)'}
    assert tag == metadata.EXPERIMENT_TAG
    experiment = metadata.parse_experiment_plugin_data(experiment.plugin_data.content)
    assert [info.name for info in experiment.hparam_infos] == ['seed', 'message', 'mean']
    assert [info.name.tag for info in experiment.metric_infos] == ['best/top1']


def test_a_picture_may_lie_in_the_folder_too(tmp_path, board):
    writer, image = MetricWriter(tmp_path, None), np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    for step in (1, 2):
        writer.write_image(step, 'eval/misclassified', image * step, 'wrong.png')
    writer.close()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'wrong.png')), image * 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['metrics.jsonl', 'wrong.png']


def test_the_board_has_a_group_for_the_run_and_the_best_so_far(tmp_path, board):
    """metrics.jsonl keeps its names, which others read."""
    row = {f'train/{name}': 1.0 for name in ('loss', 'accuracy', 'grad_norm', 'images_per_s', 'learning_rate',
                                             'loss_scale', 'bad_steps', 'bad_samples', 'epoch')}
    writer = MetricWriter(tmp_path, None)
    writer.write(1, row | {'eval/top1': 0.5, 'eval/bad_samples': 0}, best=0.5)
    writer.write(2, row)
    writer.write(3, {'eval/top1': float('nan')}, best=0.5)
    writer.close()
    assert set(lines(tmp_path)[0]) == {'step', 'seconds', *row, 'eval/top1', 'eval/bad_samples'}
    shown = [written[2] for written in board.written if written[0] == 'write_scalars']
    assert set(shown[0]) == {
        'train/loss', 'train/accuracy', 'train/grad_norm', 'train/images_per_s', 'run/learning_rate', 'run/loss_scale',
        'run/bad_steps', 'run/bad_samples', 'run/epoch', 'run/eval_bad_samples', 'eval/top1', 'best/top1'}
    assert [row.get('best/top1') for row in shown] == [0.5, None, 0.5]


class Writer:
    """In the place of clu's: takes down what it is asked, in which thread, and raises what it is given."""

    def __init__(self, error=None):
        self.error, self.asked = error, []

    def __getattr__(self, name):
        def ask(*values):
            self.asked.append((name, threading.current_thread().name, *values))
            if self.error:
                raise self.error
        return ask


def test_event_files_are_opened_when_the_board_begins_and_take_all_in_order(tmp_path, monkeypatch):
    writer, opened = Writer(), []
    monkeypatch.setattr(Board, '_opened', lambda self: opened.append(self) or writer)
    board = Board(tmp_path, 0)
    board.write_texts(0, {'a': 'b'})
    board.write_scalars(1, {'c': 2.0})
    assert not opened
    board.begin()
    board.begin()
    board.write_scalars(2, {'c': 3.0})
    board.close()
    assert len(opened) == 1 and [(asked[0], *asked[2:3]) for asked in writer.asked] == [
        ('write_texts', 0), ('write_scalars', 1), ('write_scalars', 2), ('close',)]
    assert {asked[1] for asked in writer.asked} == {'board'}


@pytest.mark.parametrize('full', [True, False])
def test_a_board_that_fails_is_one_warning_or_where_the_disk_is_full_one_error(full, tmp_path, monkeypatch, caplog):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else ValueError('no such thing')
    monkeypatch.setattr(Board, '_opened', lambda self: Writer(error))
    board = Board(tmp_path, 0)
    board.write_scalars(1, {})
    board.write_scalars(2, {})
    with pytest.raises(UserError, match=r'event files .* No space left') if full else contextlib.nullcontext():
        board.close()
    board.write_scalars(3, {})  # which nobody would take up
    assert board._jobs.qsize() <= 2
    board.close()
    assert caplog.text.count('no more TensorBoard event files, metrics.jsonl alone: ValueError: no such') == (not full)


class Raising:
    """A finder of modules, in whose place clu's writers cannot be imported."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path, target=None):
        if name == 'clu.metric_writers':
            raise self.error


@pytest.mark.parametrize('error', [None, TypeError('Descriptors cannot be created directly.'), AttributeError('x'),
                                   OSError('libcudart.so: cannot open')], ids=str)
def test_without_a_tensorflow_that_works_the_log_goes_on(error, tmp_path, monkeypatch, caplog):
    if error:
        monkeypatch.delitem(sys.modules, 'clu.metric_writers', raising=False)
        monkeypatch.delattr('clu.metric_writers', raising=False)
        monkeypatch.setattr(sys, 'meta_path', [Raising(error), *sys.meta_path])
    else:
        monkeypatch.setitem(sys.modules, 'clu', None)
    writer = MetricWriter(tmp_path, None)
    writer.write(1, {'loss': 1.0})
    writer.write_image(1, 'train/images', np.zeros((2, 3, 3), np.uint8))
    writer.write_config({'message': ''})
    writer.close()
    assert lines(tmp_path) == [{'step': 1, 'seconds': 0.0, 'loss': 1.0}]
    assert caplog.text.count('no TensorBoard event files, metrics.jsonl alone') == 1
