"""What took how long in a trace that jax.profiler made: operations by their total time; on a GPU, kernels.

    python -m imagenet_jax train --config configs/resnet50.py --workdir runs/a --config.profile_steps="(10, 13)"
    python -m imagenet_jax profile runs/a
    python -m imagenet_jax profile runs/a --each --top 50
    python -m imagenet_jax profile runs/a --json

Reads the newest *.xplane.pb in the folder, of a run or any other. Operations that differ in their number alone, such as
fusion.1 and fusion.2, are one line, or with --each a line each. An operation's time is its own, without that of those
within it. --json prints all lines of both tables.
"""

import json

from imagenet_jax.command_line import parsing, running


def main() -> None:
    """The whole command."""
    parser = parsing.parser('profile', __doc__)
    parser.add_argument('folder', metavar='FOLDER', type=parsing.path, help='where a trace lies, or its file')
    parser.add_argument('--each', action='store_true', help='a line for each operation')
    parser.add_argument('--top', metavar='N', type=parsing.positive, default=20, help='lines; default %(default)s')
    parser.add_argument('--json', action='store_true', help='print it as JSON')
    arguments = parser.parse_args()
    with running.importing():  # JAX too, for which help does not wait
        from imagenet_jax import profiling
    found = profiling.summary(arguments.folder)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        print('\n'.join([found['trace'],
                         *profiling.lines(found, arguments.top, 'operations' if arguments.each else 'groups')]))
