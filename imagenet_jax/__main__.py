"""python -m imagenet_jax COMMAND"""

import sys
from typing import NoReturn

import imagenet_jax
from imagenet_jax.command_line import running
from imagenet_jax.errors import unknown

_COMMANDS = {
    'train': 'train and evaluate one model',
    'sweep': 'train recipes x variants x seeds, each in its own folder, and go on where it stopped',
    'report': 'make one table of many runs: means, deviations, differences',
    'convert': 'pack a data set into shards for training, shrunk where asked for',
    'verify': 'decode a data set and list what is unreadable, doubled or missing',
    'stats': "measure the mean, deviation and covariance of a data set's colours",
    'preview': 'draw what a model will see of its images',
    'evaluate': 'measure a trained model on its own evaluation split or on any other data set',
    'benchmark': 'measure how fast models are, in inference and in training',
    'profile': 'show what took how long in a trace of a run',
    'predict': 'name the classes of images',
    'features': 'write what a trained model makes of images, and how well it tells classes apart',
    'serve': 'answer images over HTTP, with a page to try trained models on',
    'models': 'list the models',
    'export': 'make one file of a trained model that JAX alone can run',
    'weights': 'import and export weights of PyTorch models',
}


def program() -> NoReturn:
    """What a shell starts."""
    running.take_huge_pages()
    main()


def main() -> NoReturn:
    """Runs the command named by the first argument."""
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name not in _COMMANDS:
        running.leave(lambda: _list(name))
    sys.argv = [f'{sys.argv[0]} {name}', *sys.argv[2:]]
    running.run(name)


def _list(name: str) -> None:
    if name == '--version':
        print(f'imagenet_jax {imagenet_jax.__version__}')
        return
    if name not in ('-h', '--help'):
        raise unknown('command', name, _COMMANDS)
    lines = [f'  {command:10} {what}' for command, what in _COMMANDS.items()]
    print('\n'.join(['usage: python -m imagenet_jax COMMAND [--help] | --version', '', *lines]))


if __name__ == '__main__':
    program()
