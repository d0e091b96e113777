"""config.json: what a later start may change."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT

from configs import common
from imagenet_jax import record
from imagenet_jax.errors import UserError


def test_flatten_names_every_value_by_its_path():
    assert record.flatten({'a': {'b': {'c': 1}, 'd': [2]}, 'e': {}}) == {'a.b.c': 1, 'a.d': [2], 'e': {}}


def test_what_is_written_is_read(tmp_path):
    assert record.read(tmp_path) is None and record.read(tmp_path / 'nowhere') is None
    for entry in ({'seed': 0}, {'seed': 1, 'run': {'devices': 8}}):  # the second over the first
        record.write(tmp_path, entry)
        assert record.read(tmp_path) == entry
        assert [path.name for path in tmp_path.iterdir()] == ['config.json']


@pytest.mark.parametrize('name', ['a[64]', 'a*', 'what?', 'b]'])
def test_names_that_orbax_takes_for_patterns_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=r' in its path, by which Orbax would look'):
        record.make_folder(tmp_path / name / 'run')
    assert not list(tmp_path.iterdir())


def test_other_names_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in ('with spaces', 'lr=0.1,wd=1e-4', 'Größe', 'x' * 255, "it's"):
        assert record.make_folder(tmp_path / name) == tmp_path / name and (tmp_path / name).is_dir()
    assert record.make_folder(Path('~/runs')) == tmp_path / 'runs'
    with pytest.raises(UserError, match=r'cannot make the workdir .*: File name too long'):
        record.make_folder(tmp_path / ('x' * 256))


@pytest.mark.parametrize(('name', 'message'), [
    ('a\\b', r'has \\ in its path, by which Orbax'), ('\udcff', 'is no text'), ('/'.join(['x' * 250] * 16), 'has 4'),
    ('~nobody_of_that_name/a', 'no user of that name has a folder here')])
def test_folders_that_nothing_could_be_read_from_again(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        record.make_folder(Path(name))
    assert not list(tmp_path.iterdir())


def test_a_folder_is_locked_for_as_long_as_its_owner_lives(tmp_path):
    program = ('import pathlib, sys, time; from imagenet_jax import record\n'
               'with record.locked(pathlib.Path(sys.argv[1])): print("locked", flush=True); time.sleep(60)')
    with subprocess.Popen([sys.executable, '-c', program, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout.readline() == b'locked\n'
        for _ in range(2):  # a refusal takes nothing from the owner
            with pytest.raises(UserError, match=rf'^another process trains in .*: process {owner.pid} on \S+; give '):
                record.locked(tmp_path).__enter__()
        owner.kill()
    with record.locked(tmp_path):
        assert (tmp_path / '.lock').read_text().startswith(f'process {os.getpid()} on ')
    with record.locked(tmp_path):
        pass
    (tmp_path / 'other' / '.lock').mkdir(parents=True)
    with pytest.raises(UserError, match=r'cannot write .*\.lock: '):
        record.locked(tmp_path / 'other').__enter__()


@pytest.mark.parametrize('text', [b'', b'{"seed":', b'[1]', b'7', b'null', b'{"model": 3}', b'{"run": [1]}',
                                  b'\xff\xfe{\0', b'{"a":' * 5000 + b'1' + b'}' * 5000, b'[' * 100_000])
def test_a_damaged_record_is_an_error(text, tmp_path):
    (tmp_path / 'config.json').write_bytes(text)
    with pytest.raises(UserError, match=r'config\.json is damaged .* mend it, or move it away'):
        record.check_resumable(tmp_path, {'seed': 0})


def test_a_record_that_is_a_folder_is_an_error(tmp_path):
    (tmp_path / 'config.json').mkdir()
    with pytest.raises(UserError, match=r'config\.json cannot be read: Is a directory'):
        record.read(tmp_path)
    with pytest.raises(UserError, match=r'cannot write .*config\.json'):
        record.write(tmp_path, {})


def test_a_new_folder_takes_any_run(tmp_path):
    (tmp_path / 'checkpoints').mkdir()
    record.check_resumable(tmp_path, {'seed': 0})


def test_checkpoints_without_a_record_go_on_only_where_asked(tmp_path, caplog):
    (tmp_path / 'checkpoints' / '45').mkdir(parents=True)
    with pytest.raises(UserError, match=r'has checkpoints but no config\.json.*--config\.resume_unchecked=True'):
        record.check_resumable(tmp_path, {'seed': 0, 'resume_unchecked': False})
    record.check_resumable(tmp_path, {'seed': 0, 'resume_unchecked': True})
    assert 'has no config.json' in caplog.text


def test_another_number_of_devices_is_told_of_where_it_matters(tmp_path, caplog):
    for norm in ('batch', 'sync'):
        entry = record.upgrade({'loss': {'name': 'softmax'}, 'model': {'norm': norm}})
        record.write(tmp_path, entry | {'run': {'devices': 1}})
        with caplog.at_level(logging.INFO, 'imagenet_jax'):
            record.check_resumable(tmp_path, entry | {'run': {'devices': 8}})
    assert len(caplog.messages) == 1 and 'resuming on 8 devices, which were 1' in caplog.text


def test_a_run_begun_in_another_order_is_told_what_becomes_of_its_epoch(tmp_path, caplog):
    entry = record.upgrade({'loss': {'name': 'softmax'}, 'model': {}})
    record.write(tmp_path, entry | {'run': {'train_examples': 1_281_167}})
    for _ in range(2):  # at the second start it has the new order
        record.check_resumable(tmp_path, now := entry | {'run': {'train_examples': 1_281_167, 'order': 'cipher'}})
        record.write(tmp_path, now)
    assert len(caplog.messages) == 1 and 'some come twice and others not at all' in caplog.text


def test_every_change_that_is_refused_is_named(tmp_path):
    record.write(tmp_path, {'seed': 0, 'loss': {'name': 'softmax'}, 'model': {'name': 'resnet18'}, 'epochs': 1})
    with pytest.raises(UserError) as caught:
        record.check_resumable(tmp_path, {'seed': 1, 'loss': {'name': 'softmax'},
                                          'model': {'name': 'resnet18', 'width': 2}})
    assert str(caught.value).splitlines() == [
        f'{tmp_path} holds a run that this config cannot go on with:', '  config.model.width: was None, now 2',
        '  config.seed: was 0, now 1', 'use another --workdir, or the earlier values']


def test_other_changes_are_logged_and_those_of_the_machine_are_not(tmp_path, caplog):
    record.write(tmp_path, {'loss': {'name': 'softmax'}, 'epochs': 1, 'normalize': {'mean': [0.5]},
                            'run': {'devices': 1, 'versions': {'jax': '1'}}})
    with caplog.at_level(logging.INFO, 'imagenet_jax'):
        # A tuple is a list in JSON, and no change.
        record.check_resumable(tmp_path, {'loss': {'name': 'softmax'}, 'epochs': 2, 'normalize': {'mean': (0.5,)},
                                          'run': {'devices': 8, 'versions': {'jax': '2'}}})
    assert caplog.messages == ['resuming with config.epochs=2, which was 1']


def test_runs_from_before_there_were_losses_are_understood(tmp_path):
    record.write(tmp_path, {'model': {}, 'seed': 0})
    record.check_resumable(tmp_path, {'model': {}, 'seed': 0, 'loss': {'name': 'softmax', 'smoothing': 0.0}})
    with pytest.raises(UserError, match=r"config\.loss\.name: was 'softmax', now 'sigmoid'"):
        record.check_resumable(tmp_path, {'model': {}, 'seed': 0, 'loss': {'name': 'sigmoid', 'smoothing': 0.0}})


def test_sections_that_an_earlier_run_lacked_are_no_change(tmp_path, caplog):
    record.write(tmp_path, {'model': {}, 'loss': {'name': 'softmax'}})
    today = json.loads(json.dumps(common.get_config().to_dict()))
    sections = {name: today[name] for name in ('policy', 'erase', 'mix', 'distill', 'lookahead', 'stop_after')}
    with caplog.at_level(logging.INFO, 'imagenet_jax'):
        record.check_resumable(tmp_path, {'model': {}, 'loss': {'name': 'softmax'}, **sections})
    assert not caplog.messages


def test_a_dtype_that_nobody_chose_is_what_was_computed_in(tmp_path):
    """On a GPU it is one, on a CPU another; a run of before, which named the GPU's, goes on on a GPU."""
    def entry(dtype, computed):
        return {'model': {'dtype': dtype}, 'loss': {'name': 'softmax'}, 'run': {'dtype': computed} if computed else {}}
    record.write(tmp_path, entry('bfloat16', None))
    record.check_resumable(tmp_path, entry(None, 'bfloat16'))
    with pytest.raises(UserError, match=r"config\.model\.dtype: was 'bfloat16', now 'float32'"):
        record.check_resumable(tmp_path, entry(None, 'float32'))


def test_a_run_may_go_on_with_remat(tmp_path):
    record.write(tmp_path, {'loss': {'name': 'softmax'}, 'model': {'name': 'resnet50', 'remat': None}})
    record.check_resumable(tmp_path, {'loss': {'name': 'softmax'}, 'model': {'name': 'resnet50', 'remat': True}})
    with pytest.raises(UserError, match=r'model\.name'):
        record.check_resumable(tmp_path, {'loss': {'name': 'softmax'}, 'model': {'name': 'resnet101', 'remat': True}})


def test_what_decides_which_images_come_is_fixed_and_what_becomes_of_them_is_not(tmp_path, caplog):
    def entry(**augment):
        return {'loss': {'name': 'softmax'}, 'augment': {'size': 8, **augment}}
    record.write(tmp_path, entry(repeats=None))
    with pytest.raises(UserError, match=r'config\.augment\.repeats: was None, now 3'):
        record.check_resumable(tmp_path, entry(repeats=3))
    with caplog.at_level(logging.INFO, 'imagenet_jax'):
        record.check_resumable(tmp_path, entry(views=2, first_size=4))
    assert caplog.messages == ['resuming with config.augment.first_size=4, which was None',
                               'resuming with config.augment.views=2, which was None']
