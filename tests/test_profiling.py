"""Traces of a run's steps, and what took how long in one."""

import json
import logging
import os
import types

import jax
import jax.numpy as jnp
import pytest
from fixtures_step import Run, Tiny, batch

from imagenet_jax import profiling
from imagenet_jax.commands import profile
from imagenet_jax.errors import UserError


@pytest.fixture(scope='module')
def traced(tmp_path_factory):
    """Steps 3 to 5 of a run of 6."""
    folder, paused = tmp_path_factory.mktemp('run'), []
    tracer, run = profiling.Tracer(folder, (2, 5)), Run(Tiny(), devices=1)
    for at in range(1, 7):
        tracer.before(at, lambda at=at: paused.append(('before', at)))
        with profiling.step(at):
            run.step(batch())
        tracer.after(at, lambda at=at: paused.append(('after', at)))
    assert paused == [('before', 3), ('after', 5)]
    tracer.close()
    return folder


def test_a_trace_of_three_steps_and_its_summary(traced):
    found = json.loads((traced / 'profile.json').read_text())
    assert found == profiling.summary(traced) and found['steps'] == 3
    assert found['trace'] == str(next(traced.glob('plugins/profile/*/*.xplane.pb')))  # where TensorBoard looks
    for rows in (found['groups'], found['operations']):
        assert all(row['count'] % 3 == 0 and row['ms'] >= 0 for row in rows)
        assert sum(row['ms'] for row in rows) == pytest.approx(found['total_ms'], abs=1e-3)
        assert sum(row['share'] for row in rows) == pytest.approx(1, abs=1e-3)
        assert rows == sorted(rows, key=lambda row: (-row['ms'], row['name']))
    assert any('conv' in row['name'] for row in found['operations'])
    assert len(found['groups']) < len(found['operations'])


def test_the_command(traced, monkeypatch, capsys):
    def said(*arguments):
        monkeypatch.setattr('sys.argv', ['profile', str(traced), *arguments])
        profile.main()
        return capsys.readouterr().out
    found = profiling.summary(traced)
    assert json.loads(said('--json')) == found
    told = said('--top', '4').splitlines()
    assert 'ms a step of 3' in told[1] and len(told) == 8 and told[-1].endswith(f'{len(found["groups"]) - 4} more')
    assert found['operations'][0]['name'] in said('--each', '--top', '1').splitlines()[3]


@pytest.mark.parametrize(('make', 'message'), [
    (lambda path: None, 'no folder'),
    (lambda path: path.mkdir(), r'has no trace \(\*.xplane.pb\)'),
    (lambda path: path.write_bytes(b'torn'), 'is damaged, or no trace'),
    (lambda path: path.write_bytes(b''), 'has no operation')])
def test_what_holds_no_trace_is_refused(make, message, tmp_path):
    make(tmp_path / 'x')
    with pytest.raises(UserError, match=message):
        profiling.summary(tmp_path / 'x')


def test_a_trace_is_found_beside_what_is_none_and_under_any_name(traced, tmp_path):
    (tmp_path / 'gone.xplane.pb').symlink_to(tmp_path / 'nowhere')
    (tmp_path / 'folder.xplane.pb').mkdir()
    trace = tmp_path / os.fsdecode(b'\xff.xplane.pb')
    trace.write_bytes(next(traced.rglob('*.xplane.pb')).read_bytes())
    found = profiling.summary(traced)
    assert profiling.summary(tmp_path) == found | {'trace': str(trace)}


@pytest.mark.parametrize(('name', 'message'), [('x' * 300, 'no folder'), ('pipe', 'neither a folder nor a file')])
def test_what_is_no_path_of_a_trace_is_refused(name, message, tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(UserError, match=message):
        profiling.find(tmp_path / name)


@pytest.fixture
def spans(monkeypatch):
    """Of a tracer: the steps that came while it traced."""
    monkeypatch.setattr(jax.profiler, 'start_trace', lambda *_, **__: None)
    monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: None)
    monkeypatch.setattr(profiling, 'write_summary', lambda _: {'total_ms': 1, 'steps': 0, 'groups': [], 'trace': 'x'})

    def made(steps, first, last, evaluations=()):
        tracer, inside = profiling.Tracer(None, steps), []
        for at in range(first, last + 1):
            tracer.before(at, lambda: None)
            inside += [at] * tracer._on
            tracer.after(at, lambda: None, at in evaluations)
        return inside
    return made


def test_a_trace_has_no_evaluation_in_it(spans, caplog):
    caplog.set_level(logging.INFO)
    assert spans((3, 9), 1, 12, evaluations=(6, 12)) == [4, 5, 6]
    assert 'ends with step 6, not 9: an evaluation follows' in caplog.text
    assert spans((3, 6), 1, 12, evaluations=(6, 12)) == [4, 5, 6] and caplog.text.count('follows') == 1


def test_a_run_that_goes_on_amid_or_past_its_traced_steps_says_so(spans, caplog):
    caplog.set_level(logging.INFO)
    assert spans((3, 6), 5, 8) == [5, 6] and 'tracing steps 5 to 6' in caplog.text
    assert 'were made before' not in caplog.text
    assert spans((3, 6), 7, 9) == [] and caplog.text.count('no trace: steps 4 to 6 were made before this start') == 1


def event(name, start, duration, **stats):
    return types.SimpleNamespace(name=name, start_ns=start, duration_ns=duration, stats=stats.items())


def plane(name, **lines):
    return types.SimpleNamespace(name=name, lines=[
        types.SimpleNamespace(name=line.replace('_', ' '), events=events) for line, events in lines.items()])


def test_of_a_gpu_kernels_and_copies_count_and_nothing_of_the_host():
    streams = {'Stream_7': [event('fusion_1', 0, 5, hlo_op='fusion.1'), event('MemcpyH2D', 9, 1)],
               'Stream_8': [event('sm90_xmma_f32_2', 0, 4, hlo_op='conv.2'),
                            event('fusion_3', 5, 2, hlo_op='fusion.3')],
               'XLA_Modules': [event('jit__step', 0, 10)]}
    planes = [plane('/host:CPU', python=[event('copy.1', 0, 99, hlo_op='copy.1')]), plane('/device:GPU:0', **streams)]
    found = profiling._operations(planes)
    assert {name: (one.group, one.nanoseconds) for name, one in found.items()} == {
        'fusion_1': ('fusion', 5), 'MemcpyH2D': ('MemcpyH2D', 1), 'sm90_xmma_f32_2': ('sm90_xmma_f32_2', 4),
        'fusion_3': ('fusion', 2)}


def test_an_operation_is_not_charged_for_those_within_it():
    inner = [event('add.1', 1, 3, hlo_op='add.1'), event('add.1', 5, 4, hlo_op='add.1')]
    loop = event('while.1', 0, 10, hlo_op='while.1')
    line = plane('/host:CPU', a=[*inner, loop, event('dot.1', 10, 2, hlo_op='dot.1'), event('call', 0, 50)])
    found = profiling._operations([line])
    assert {name: (one.nanoseconds, one.count) for name, one in found.items()} == {
        'add.1': (7, 2), 'while.1': (3, 1), 'dot.1': (2, 1)}


def test_a_profiler_that_fails_is_a_warning(tmp_path, caplog):
    tracer = profiling.Tracer(tmp_path, (0, 5))
    with profiling.traced(tmp_path / 'other'), caplog.at_level(logging.WARNING):  # one at a time
        tracer.before(1, lambda: None)
        tracer.before(2, lambda: None)
        jnp.zeros(3).block_until_ready()
    tracer.close()
    assert caplog.text.count('no trace: ') == 1 and not (tmp_path / 'profile.json').exists()


def test_without_steps_nothing_is_traced(monkeypatch):
    monkeypatch.setattr(jax.profiler, 'start_trace', None)
    tracer = profiling.Tracer(None, ())
    for at in range(3):
        tracer.before(at, None)
        tracer.after(at, None)
    tracer.close()
