"""python -m imagenet_jax COMMAND"""

import importlib
import os
import sys

_COMMANDS = {
    'train': 'train and evaluate one model, as main.py does',
    'convert': 'pack a data set into shards for training, shrunk where asked for',
    'verify': 'decode a data set and list what is unreadable, doubled or missing',
    'stats': "measure the mean, deviation and covariance of a data set's colours",
    'preview': 'draw what a model will see of its images',
    'evaluate': 'measure a trained model on its own evaluation split or on any other data set',
    'predict': 'name the classes of images',
    'models': 'list the models',
    'weights': 'import and export weights of PyTorch models',
}


def main() -> None:
    """Runs the command named by the first argument."""
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name not in _COMMANDS:
        lines = [f'  {command:10} {what}' for command, what in _COMMANDS.items()]
        print('\n'.join(['usage: python -m imagenet_jax COMMAND [--help]', '', *lines]))
        sys.exit(0 if name in ('-h', '--help') else f'error: no command {name!r}')
    sys.argv = [f'{sys.argv[0]} {name}', *sys.argv[2:]]
    try:
        importlib.import_module(f'imagenet_jax.commands.{name}').main()
        sys.stdout.flush()
    except BrokenPipeError:  # a reader such as head has seen enough; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == '__main__':
    main()
