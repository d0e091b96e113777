"""Convolutions on a GPU as they are written, and in the form that models/layers/gpu_convs.py gives them there.

    python benchmarks/conv_forms.py --output forms.jsonl

One line of JSON a convolution, in ms: forward, by the map, by the kernel, each as written and in its form. The least
of three blocks of twenty calls; a call's start counts, some 20 us, so that small ones are a little less than they seem.
"""

import argparse
import json
import sys
import time
from functools import partial

import jax
import outputs

from imagenet_jax import runtime
from imagenet_jax.models.layers import gpu_convs

# (side, kernel, stride, padding, channels, features, groups): the stems of ResNets and MobileNets, resnext50_32x4d.
CASES = [(224, 7, 2, 3, 3, 64, 1), (224, 3, 2, 1, 3, 32, 1), (56, 3, 1, 1, 128, 128, 32), (56, 3, 2, 1, 256, 256, 32),
         (28, 3, 1, 1, 256, 256, 32), (14, 3, 1, 1, 512, 512, 32), (7, 3, 1, 1, 1024, 1024, 32)]


def main() -> None:
    """Measures every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=256, help='images; default %(default)s')
    parser.add_argument('--dtype', choices=('bfloat16', 'float16'), default='bfloat16')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='the lines are added to it')
    arguments = parser.parse_args()
    if jax.default_backend() != 'gpu':
        sys.exit('error: no GPU here, and on other devices a convolution is what is written')
    for case in CASES:
        line = json.dumps(measure(case, arguments.batch, arguments.dtype) | runtime.describe())
        print(line, flush=True)
        if arguments.output:
            with open(arguments.output, 'a') as file:
                file.write(line + '\n')


def measure(case: tuple[int, ...], batch: int, dtype: str) -> dict:
    """The row of a convolution."""
    side, size, stride, padding, channels, features, groups = case
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, side, side, channels)).astype(dtype)
    kernel = jax.random.normal(keys[1], (size, size, channels // groups, features)).astype(dtype)
    options = {'lhs_dilation': (1, 1), 'rhs_dilation': (1, 1), 'precision': None, 'feature_group_count': groups,
               'dimension_numbers': jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC'))}
    strides, edges = (stride, stride), [(padding, padding)] * 2
    ways = {'written': partial(jax.lax.conv_general_dilated, window_strides=strides, padding=edges, **options),
            'form': partial(gpu_convs.conv, window_strides=strides, padding=edges, **options)}
    row = {'side': side, 'kernel': size, 'stride': stride, 'channels': channels, 'features': features, 'groups': groups,
           'batch': batch, 'dtype': dtype}
    for name, way in ways.items():
        y = jax.eval_shape(way, x, kernel)
        g = jax.random.normal(keys[2], y.shape).astype(dtype)

        def by_map(x, kernel, g, way=way):
            return jax.vjp(lambda x: way(x, kernel), x)[1](g)

        def by_kernel(x, kernel, g, way=way):
            return jax.vjp(lambda kernel: way(x, kernel), kernel)[1](g)
        row[name] = {'forward': milliseconds(way, x, kernel), 'by_kernel': milliseconds(by_kernel, x, kernel, g)}
        if channels > 3:  # of images nobody asks it
            row[name]['by_map'] = milliseconds(by_map, x, kernel, g)
    return row


def milliseconds(function, *arguments) -> float:
    """Of one call."""
    program = jax.jit(function).lower(*arguments).compile()

    def block(calls):
        began = time.perf_counter()
        for _ in range(calls):
            done = program(*arguments)
        jax.block_until_ready(done)
        return 1e3 * (time.perf_counter() - began) / calls
    block(3)
    return round(min(block(20) for _ in range(3)), 4)


if __name__ == '__main__':
    main()
