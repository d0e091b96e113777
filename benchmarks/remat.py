"""What config.model.remat saves: memory and work of a training step's gradient as XLA plans them, with and without it.

    python benchmarks/remat.py --output benchmarks/results/remat.json
    python benchmarks/remat.py --models resnet50 --batch-size 128 --image-size 224 --dtype bfloat16
    python benchmarks/remat.py --models resnet50 --batch-size 32 --image-size 224 --dtype bfloat16 --option deformable=3

Programs are compiled, never run: `temporary_bytes` is what XLA reserves for the gradient's intermediate values, beside
parameters, gradients and images; `flops` is its own count.

XLA for the CPU drops the barriers that keep a recomputation in its place before it merges equal operations, for the GPU
after it has ordered them. So on a CPU, rematerialising saves nothing; here that pass is left out on one, unless
--as-is asks for what the CPU really does.
"""

import argparse
import json
import shlex
import sys
import time
from datetime import UTC, datetime

import jax
import jax.numpy as jnp
import optax
import outputs
from jax.stages import Compiled

from imagenet_jax import models, options, runtime
from imagenet_jax.errors import UserError

MODELS = ('resnet50', 'resnet101', 'resnet152', 'resnest101e')
KEEP_BARRIERS = {'xla_disable_hlo_passes': 'cse_barrier_expander'}


def main() -> None:
    """Compiles, prints a line a model, and writes the numbers."""
    arguments = parse()
    compiler_options = KEEP_BARRIERS if jax.default_backend() == 'cpu' and not arguments.as_is else {}
    print(f'{"model":<20} {"temporary MiB":>14} {"with remat":>11} {"ratio":>6} {"flops ratio":>12}')
    rows = []
    try:
        for name in arguments.models:
            rows.append(compare(name, arguments, compiler_options))
            without, remat = (rows[-1][key]['temporary_bytes'] / 2**20 for key in ('without', 'with'))
            print(f'{name:<20} {without:>14,.0f} {remat:>11,.0f} {rows[-1]["memory_ratio"]:>6.2f} '
                  f'{rows[-1]["flops_ratio"]:>12.2f}', flush=True)
    except UserError as error:
        sys.exit(f'error: {error}')
    result = {
        'command': shlex.join(['python', 'benchmarks/remat.py', *sys.argv[1:]]),
        'date': datetime.now(UTC).isoformat(timespec='seconds'), **runtime.describe(),
        'batch_size': arguments.batch_size,
        'image_size': arguments.image_size, 'dtype': arguments.dtype, 'options': arguments.option,
        'compiler_options': compiler_options, 'models': rows}
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + '\n')


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', metavar='NAME,NAME', type=lambda text: text.split(','), default=MODELS,
                        help=f'default: {",".join(MODELS)}')
    parser.add_argument('--batch-size', metavar='N', type=int, default=8, help='images, default %(default)s')
    parser.add_argument('--image-size', metavar='N', type=int, default=128, help='pixels, default %(default)s')
    parser.add_argument('--dtype', default='float32', help='of the computation, default %(default)s')
    parser.add_argument('--option', metavar='KEY=VALUE', action='append', default=[],
                        help='of config.model, such as deformable=3; may be repeated')
    parser.add_argument('--as-is', action='store_true', help="on a CPU: XLA's own passes, barriers dropped")
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    arguments = parser.parse_args()
    if min(arguments.batch_size, arguments.image_size) < 1:
        parser.error('--batch-size and --image-size must be positive')
    try:
        arguments.option = dict(map(options.key_value, arguments.option))
    except UserError as error:
        parser.error(str(error))
    return arguments


def compare(name: str, arguments: argparse.Namespace, compiler_options: dict) -> dict:
    """One model, both ways."""
    row = {'model': name}
    for key, remat in (('without', False), ('with', True)):
        model = models.create(name, dtype=arguments.dtype, remat=remat, **arguments.option)
        began = time.perf_counter()
        program = gradient(model, arguments.batch_size, arguments.image_size, compiler_options)
        row[key] = {'temporary_bytes': program.memory_analysis().temp_size_in_bytes,
                    'flops': program.cost_analysis()['flops'],
                    'compile_s': round(time.perf_counter() - began, 1)}
    for ratio, number in (('memory_ratio', 'temporary_bytes'), ('flops_ratio', 'flops')):
        row[ratio] = round(row['with'][number] / row['without'][number], 3)
    return row


def gradient(model, batch_size: int, image_size: int, compiler_options: dict) -> Compiled:
    """The compiled loss, gradient and new statistics of a batch."""
    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def loss(params, stats, images, labels):
        logits, updated = model.apply({'params': params, 'batch_stats': stats}, images, train=True,
                                      mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)})
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

    program = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return program.lower(variables['params'], variables['batch_stats'], images, labels).compile(compiler_options)


if __name__ == '__main__':
    main()
