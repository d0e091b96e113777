"""How every command runs and ends."""

import gc
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
from fixtures_commands import called
from runs import ROOT, environment

import imagenet_jax
from imagenet_jax import __main__
from imagenet_jax.command_line import recipes, running
from imagenet_jax.errors import Stopped, UserError


def raising(error):
    def command():
        raise error
    return command


@pytest.mark.parametrize(('error', 'code'), [
    (UserError('too small'), 'error: too small'), (Stopped(signal.SIGTERM), 143), (KeyboardInterrupt(), 130)])
def test_what_a_user_may_cause_is_an_exit_code(error, code):
    assert running.exit_code(raising(error)) == code


def test_an_output_that_takes_no_more_is_an_error():
    with open('/dev/full', 'w') as full:
        done = subprocess.run([sys.executable, '-m', 'imagenet_jax', '--help'], cwd=ROOT, stdout=full, text=True,
                              stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, 'error: cannot write the output: No space left on device\n')


def test_other_errors_and_exits_pass():
    for error in (ZeroDivisionError(), SystemExit(2)):
        with pytest.raises(type(error)):
            running.exit_code(raising(error))
    assert running.exit_code(lambda: 1) == 1 and running.exit_code(lambda: None) is None


def user_time(pid) -> int:
    """Of a process, in the kernel's ticks."""
    return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[11])


def test_ctrl_c_ends_what_holds_the_main_thread():
    """As XLA does while it compiles: no exception gets into that, for minutes."""
    program = ('import hashlib; from imagenet_jax.command_line import running\n'
               'with running._ending_promptly(): print(1, flush=True); hashlib.pbkdf2_hmac("md5", b"", b"", 1 << 30)')
    with subprocess.Popen([sys.executable, '-c', program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        process.stdout.readline()
        started = user_time(process.pid)
        while user_time(process.pid) < started + 20:  # before that it may still be in Python
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130 and process.stderr.read() == ''


@pytest.mark.parametrize('error', [UserError('x'), Stopped(signal.SIGTERM), KeyboardInterrupt()])
def test_what_a_failed_command_held_is_let_go(error):
    """As batches in shared memory must be, before the process ends; not only when the garbage is collected."""
    class Batch:
        pass
    held = []

    def command():
        batch = Batch()
        held.append(weakref.ref(batch))
        raise type(error)(*(error.args and [signal.SIGTERM]))
    gc.disable()
    try:
        running.exit_code(command)
        assert held[0]() is None
    finally:
        gc.enable()


def test_ctrl_c_amid_imports_ends_the_process():
    before = signal.getsignal(signal.SIGINT)
    assert before is signal.default_int_handler
    with pytest.raises(ImportError), running.importing():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        raise ImportError
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell without job control
    try:
        with running.importing():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(('name', 'message'), [
    ('evalute', "error: unknown command 'evalute'; did you mean evaluate?"), ('zzz', 'known: train, sweep, report')])
def test_an_unknown_command_suggests_the_nearest(name, message, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['imagenet_jax', name])
    with pytest.raises(SystemExit, match=message):
        __main__.main()


@pytest.mark.parametrize(('command', 'arguments', 'message'), [
    ('convert', ['--quality', '0'], "argument --quality: '0' must be a whole number in 1..100; python -m imagenet_jax "
                                    'convert --help says more'), ('report', [], 'arguments are required: DIR'),
    ('weights', ['import', '--num-classes', 'x'], 'must be a whole number in 1..1000000')])
def test_arguments_are_refused_in_one_line(command, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['prog', *arguments])
    with pytest.raises(SystemExit) as caught:
        running.run(command)
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.startswith('error: ') and message in said and said.count('\n') == 1


@pytest.mark.parametrize('arguments', [[], ['-h'], ['--help']])
def test_commands_are_listed(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['imagenet_jax', *arguments])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert not caught.value.code
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == list(__main__._COMMANDS)


def test_the_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['imagenet_jax', '--version'])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert not caught.value.code and capsys.readouterr().out == f'imagenet_jax {imagenet_jax.__version__}\n'


@pytest.mark.parametrize('command', ['convert', 'models'])  # the others' own tests ask for theirs
def test_help_opens_with_what_a_command_does(command, monkeypatch, capsys):
    code, out = called(monkeypatch, capsys, command, '--help')
    assert code == 0 and out.count(f'python -m imagenet_jax {command} ') >= 3


@pytest.mark.skipif(sys.platform != 'linux' or Path('/proc/driver/nvidia').exists(), reason='for CPUs under Linux')
@pytest.mark.parametrize(('set_before', 'starts', 'told'), [
    (None, 2, 'glibc.malloc.hugetlb=1'), ('glibc.malloc.arena_max=4', 1, 'glibc.malloc.arena_max=4')])
def test_a_program_starts_anew_to_take_huge_pages(set_before, starts, told, tmp_path):
    """Once, as the same process with the same arguments; the C library reads what it started with."""
    program = tmp_path / 'program.py'
    program.write_text(
        'import os, pathlib, sys\nfrom imagenet_jax.command_line import running\n'
        'print("start", os.getpid(), *sys.argv[1:], flush=True)\nrunning.take_huge_pages()\n'
        'lines = pathlib.Path("/proc/self/environ").read_text().split("\\0")[:-1]\n'
        'print(dict(line.split("=", 1) for line in lines).get("GLIBC_TUNABLES"), os.environ.get("GLIBC_TUNABLES"))\n')
    given = {name: value for name, value in environment().items() if name != 'GLIBC_TUNABLES'}
    given |= {'GLIBC_TUNABLES': set_before} if set_before else {}
    done = subprocess.run([sys.executable, '-W', 'error', program, 'a b', '--c'], env=given, capture_output=True,
                          text=True)
    *begun, last = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(begun)) == (0, '', starts)
    assert set(begun) == {begun[0]} and begun[0].endswith(' a b --c')
    assert last == f'{told} {set_before}'  # what it starts in turn is not told of huge pages


@pytest.mark.parametrize('arguments', [['main.py', '--help'], ['-m', 'imagenet_jax']])
def test_a_reader_that_went_away_is_no_error(arguments):
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b''
    assert process.returncode == 128 + signal.SIGPIPE


def test_neither_workers_nor_refusals_import_what_takes_long():
    """Data workers import main.py anew."""
    code = ('import runpy, sys; runpy.run_path("main.py", run_name="__mp_main__"); '
            'print([name for name in ("absl", "flax", "jax", "ml_collections", "numpy") if name in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
    code = ('import runpy, sys; sys.argv = ["main.py", "--config", "configs/digits.py"]\n'
            'try: runpy.run_path("main.py", run_name="__main__")\n'
            'except SystemExit as error: print(error.code, "jax" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith('error: where should the run go?') and done.stdout.endswith(' False\n')


def test_no_help_imports_what_takes_long():
    """Of any command, nor the list of models."""
    code = ('import contextlib, io, sys\nfrom imagenet_jax import __main__\n'
            'for command in [*([name, "--help"] for name in __main__._COMMANDS), ["weights", "import", "--help"],\n'
            '                ["train", "--config", "resnet50", "--help"], ["models"], ["--version"]]:\n'
            '    sys.argv = ["imagenet_jax", *command]\n'
            '    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())), contextlib.suppress(SystemExit):\n'
            '        __main__.main()\n'
            '    found = set("jax flax optax orbax tensorflow cv2 matplotlib pyarrow scipy torch".split())\n'
            '    assert not found & set(sys.modules), (command, found & set(sys.modules))\n')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize(('line', 'message'), [
    ("config.label_smoothing = 0.1",
     "{path} sets label_smoothing, which is no option; did you mean config.loss.smoothing"),
    ("config.optimizer.momentun = 1.0", 'sets momentun, which is no option; did you mean config.optimizer.momentum'),
    ("config.loss = 'sigmoid'",
     '{path} sets loss to something of another kind; such options are config.loss.consistency'),
    ('config.epochs = 1 / 0 if 0 else int("x")', '{path} cannot be read as a recipe: ValueError: invalid literal')])
def test_a_mistake_in_a_recipe_is_explained(line, message, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f'from configs import common\n\n\ndef get_config():\n    config = common.get_config()\n    {line}\n'
                    '    return config\n')
    with pytest.raises(UserError) as caught:
        recipes._recipe(['main.py', '--config', str(path)])
    assert message.format(path=path) in str(caught.value)
