"""What is built: the source archive has all that the wheel is made of, and the wheel alone is enough to work with."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import ROOT, TINY, WITHOUT_TENSORFLOW, environment

import imagenet_jax
from imagenet_jax import __main__

missing = [name for name in ('pip', 'setuptools') if not importlib.util.find_spec(name)]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing), reason=f'there is no {missing}')]

# Two epochs would be 46 steps.
SHORT = [*(option for option in TINY[2:] if 'epochs' not in option), '--config.steps=4',
         '--config.schedule.warmup_epochs=0']
# What each command says of its own where it has worked; run in this order, in one folder.
CALLS = [
    (['--version'], f'imagenet_jax {imagenet_jax.__version__}'),
    (['train', '--config', 'resnet50', '--help'], 'resnext50_32x4d'),
    (['train', '--config', 'configs/resnet50.py', '--help'], '--config.model.name=resnet50'),
    (['train', '--config', 'digits', '--workdir', 'runs/x', '--config.data.processes=2',
      '--config.profile_steps=(0, 1)', *SHORT], 'done: '),
    (['train', '--config', 'digits', '--workdir', 'runs/x', '--config.data.processes=2', *SHORT], 'done: '),
    (['sweep', '--config', 'digits', '--workdir', 'runs/sweep', *SHORT], '1 of 1 runs done'),
    (['report', 'runs'], 'Scores in percent'),
    (['convert', '--format', 'digits', '--split', 'train', '--output', 'packed'], '1,437 images, 0 left out'),
    (['verify', '--format', 'array_record', '--path', 'packed', '--split', 'train'], '1,437 images, 0 unreadable'),
    (['stats', '--format', 'digits', '--split', 'train'], '--config.normalize.mean='),
    (['preview', '--config', 'digits', '--output', 'preview.png'], '16 images are in preview.png'),
    (['profile', 'runs/x', '--top', '3'], ' ms of operations'),
    (['evaluate', '--checkpoint', 'runs/x'], 'top-1'),
    (['predict', '--checkpoint', 'runs/x', 'image.png'], 'image.png\n  0.'),
    (['export', '--checkpoint', 'runs/x', '--output', 'x.stablehlo'], 'x.stablehlo'),
    (['benchmark', 'resnet8_cifar', '--batch-size', '2', '--seconds', '0.1'], 'resnet8_cifar'),
    (['features', '--checkpoint', 'runs/x', '--output', 'x.npz'], 'x.npz'),
    (['serve', '--help'], 'POST /predict'),
    (['models', 'resnet50', 'vgg16'], '25.56 M'),
    (['models', 'resnet8_cifar'], 'conv1'),
    (['weights', 'export', '--checkpoint', 'runs/x', '--output', 'x.safetensors'], 'are in x.safetensors'),
    (['weights', 'import', '--model', 'resnet8_cifar', '--num-classes', '10', '--input', 'x.safetensors', '--output',
      'weights/x'], 'are in weights/x'),
]


def build(kind, tree, output):
    """Of a tree, by its own build backend and this environment's setuptools; answers the file."""
    code = f'from setuptools import build_meta; build_meta.build_{kind}({str(output)!r})'
    done = subprocess.run([sys.executable, '-c', code], cwd=tree, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    file, = output.iterdir()
    return file


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """(the archive, the wheel that was made of it alone)."""
    root = tmp_path_factory.mktemp('built')
    tree, unpacked = root / 'tree', root / 'unpacked'
    unneeded = shutil.ignore_patterns('.*', '__pycache__', '*.so', '*.egg-info', 'runs', 'build', 'dist', 'data')
    shutil.copytree(ROOT, tree, symlinks=True, ignore=unneeded)
    archive = build('sdist', tree, root / 'sdist')
    with tarfile.open(archive) as file:
        file.extractall(unpacked, filter='data')
    return archive, build('wheel', next(unpacked.iterdir()), root / 'wheel')


def sources():
    """Every file of the package as a checkout has it, from its folder on."""
    files = (Path(folder) / name for folder, _, names in os.walk(ROOT / 'imagenet_jax', followlinks=True)
             for name in names)
    return {str(file.relative_to(ROOT)) for file in files if '__pycache__' not in file.parts and file.suffix != '.so'}


def test_archive_and_wheel_have_every_file_of_the_package(built):
    archive, wheel = built
    with tarfile.open(archive) as file:
        inside = {name.partition('/')[2] for name in file.getnames()}
        assert not any(member.issym() for member in file)
    assert {'imagenet_jax/configs/resnet50.py', 'imagenet_jax/images/jpeg.c', 'imagenet_jax/sizes.json'} <= sources()
    assert sources() - inside == set()
    assert {'README.md', 'CHANGELOG.md', 'docs/design.md', 'pyproject.toml'} <= inside
    assert not any(name.startswith(('tests', 'configs')) for name in inside)
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if '.dist-info/' not in name and not name.endswith('.so')}
    assert inside == sources()


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    """(the program of an environment that has the wheel, a folder to work in).

    Other packages are the test's own, the checkout is not: what a .pth file adds is not searched for further ones, such
    as that of an editable installation. The folder has what other projects have too.
    """
    root = tmp_path_factory.mktemp('installed')
    home, work = root / 'venv', root / 'work'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(home)], check=True)
    subprocess.run([sys.executable, '-m', 'pip', '--python', str(home / 'bin' / 'python'), 'install', '--quiet',
                    '--no-deps', '--no-index', '--no-compile', str(built[1])], check=True, timeout=300)
    packages, = home.glob('lib/python*/site-packages')
    (packages / 'others.pth').write_text('\n'.join({sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}))
    (work / 'configs').mkdir(parents=True)
    for name in ('main.py', 'configs/common.py', 'configs/__init__.py'):
        (work / name).write_text('raise SystemExit("of another project")\n')
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(work / 'image.png')
    return home / 'bin' / 'imagenet_jax', work


def said(installed, arguments):
    program, work = installed
    done = subprocess.run([str(program), *arguments], cwd=work, text=True, capture_output=True, timeout=300,
                          env=environment() | WITHOUT_TENSORFLOW | {'XDG_CACHE_HOME': str(work)})
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stdout + done.stderr
    return done.stdout


def test_every_command_works_in_any_folder(installed):
    assert {words[0] for words, _ in CALLS} == {'--version', *__main__._COMMANDS}
    program, work = installed
    where = [str(program.with_name('python')), '-c', 'import imagenet_jax; print(imagenet_jax.__file__)']
    home = subprocess.run(where, cwd=work, text=True, capture_output=True, check=True).stdout
    assert home.startswith(str(program.parent.parent))
    for words, expected in CALLS:
        assert expected in said(installed, words), words


def test_help_of_every_command(installed):
    for name in __main__._COMMANDS:
        assert f'imagenet_jax {name}' in said(installed, [name, '--help'])
