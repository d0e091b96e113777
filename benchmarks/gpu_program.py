"""What an NVIDIA GPU is given to do in a step, and how fast it can be at best; seen without one.

XLA compiles for a card by its description:

    pip install -e '.[cuda13]'    # 3 GB; Python 3.12 or later, for JAX 0.11; no driver and no GPU
    python benchmarks/gpu_program.py --model resnet50
    python benchmarks/gpu_program.py --model resnet50,mobilenet_v2 --card A100,H200 --mode train,infer
    python benchmarks/gpu_program.py --model resnet50 --devices 8 --text programs      # and the programs themselves

Half a minute a program on two cores. All is as on the card but for what is timed there, the algorithms of convolutions
and matrix products: bytes and operations are right, how long they take is not known. Bytes are what operations read and
write, each operand and each result once. The bound is what a card's memory takes for these bytes at the rate of a large
copy, or its tensor cores for the model's products at the maker's rate, whichever is longer: no run is faster. It is
given for every card, of the program for the one that is named; of images a second, of one device.
"""

import argparse
import itertools
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

os.environ['JAX_PLATFORMS'] = 'cpu'  # what compiles; before JAX is imported

import outputs
from jax.experimental import topologies
from tqdm import tqdm

from imagenet_jax import catalog, peaks, runtime, step
from imagenet_jax.command_line import without_recipe
from imagenet_jax.errors import UserError
from imagenet_jax.models import summary
from imagenet_jax.use import workloads


class Card(NamedTuple):
    """A card as XLA asks for it, by its data sheet and CUDA's deviceQuery."""
    name: str
    capability: tuple[int, int]
    cores: int          # multiprocessors
    clock: float        # GHz
    memory: int         # bytes
    bandwidth: float    # bytes a second, of the data sheet
    cache: int          # bytes of the L2
    shared: int         # bytes of shared memory of a multiprocessor; a block gets 1 KiB less
    copy: float         # bytes a second, read and written: measured; of the A100 nine tenths of its sheet's, as theirs


CARDS = {
    'A100': Card('NVIDIA A100-SXM4-80GB', (8, 0), 108, 1.41, 85_899_345_920, 2.039e12, 41_943_040, 167_936, 1.84e12),
    'H100': Card('NVIDIA H100 80GB HBM3', (9, 0), 132, 1.98, 84_942_979_072, 3.352e12, 52_428_800, 233_472, 3.0e12),
    'H200': Card('NVIDIA H200', (9, 0), 132, 1.98, 150_754_820_096, 4.8e12, 62_914_560, 233_472, 4.3e12),
}
_WIDTH = {'pred': 1, 'u8': 1, 's8': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 's32': 4, 'u32': 4, 's64': 8, 'u64': 8, 'f64': 8}
_ARRAY = re.compile(rf'\b({"|".join(_WIDTH)})\[([\d,]*)\]')
_OPERATION = re.compile(r'\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
_FREE = ('parameter', 'constant', 'get-tuple-element', 'bitcast', 'tuple', 'all-reduce-done')  # nothing is computed
_TINY = 1.5e6  # bytes: below, an operation is all launch


def main() -> None:
    """A line a program, and the table as JSON."""
    arguments = parse()
    cases = list(itertools.product(arguments.model, arguments.card, arguments.mode))
    rows = []
    for name, card, mode in tqdm(cases, disable=not sys.stderr.isatty()):
        try:
            rows.append(measure(name, card, mode, arguments))
        except UserError as error:
            sys.exit(f'error: {error}')
        except (RuntimeError, ValueError) as error:
            if 'cuda' not in str(error).lower():
                raise
            sys.exit(f"error: JAX cannot compile for CUDA here: pip install 'imagenet_jax[cuda13]', with Python 3.12 "
                     f'or later ({error})')
        tqdm.write(json.dumps(rows[-1]))
        if arguments.output:
            arguments.output.write_text(json.dumps({
                'command': shlex.join(['python', 'benchmarks/gpu_program.py', *sys.argv[1:]]),
                'date': datetime.now(UTC).isoformat(timespec='seconds'), **runtime.versions(),
                'programs': rows}, indent=1) + '\n')


def parse() -> argparse.Namespace:
    """The command line."""
    def known(names):
        def read(text):
            given = text.split(',')
            if unknown := set(given) - set(names):
                raise argparse.ArgumentTypeError(f'{", ".join(sorted(unknown))} is none of {", ".join(names)}')
            return given
        return read
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', metavar='NAME,NAME', default='resnet50',
                        help="default %(default)s; patterns too: 'resnet*', '*'; see python -m imagenet_jax models")
    parser.add_argument('--card', metavar='CARD,CARD', type=known(CARDS), default=['H100'],
                        help=f'of {", ".join(CARDS)}; default H100')
    parser.add_argument('--mode', metavar='MODE,MODE', type=known(('train', 'infer')), default=['train'],
                        help='train, infer; default train')
    parser.add_argument('--dtype', choices=('bfloat16', 'float16', 'float32'), default='bfloat16')
    parser.add_argument('--batch', type=int, default=256, help='images a step on each device; default %(default)s')
    parser.add_argument('--size', type=int, help="side of the images; default: the model's, 224 of most")
    parser.add_argument('--devices', type=int, default=1, help='GPUs; default %(default)s')
    parser.add_argument('--text', metavar='DIR', type=outputs.folder, help='the compiled programs go there')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='JSON')
    arguments = parser.parse_args()
    try:
        arguments.model = catalog.matching(arguments.model.split(','))
    except UserError as error:
        parser.error(str(error))
    if min(arguments.batch, arguments.devices) < 1 or (arguments.size is not None and arguments.size < 1):
        parser.error('--batch, --size and --devices must be at least 1')
    return arguments


def describe(card: Card) -> str:
    """The card for XLA, as the text form of its GpuTargetConfigProto."""
    major, minor = card.capability
    extension = ' feature_extension: ACCELERATED_FEATURES' if major >= 9 else ''  # sm_90a; there is no sm_80a
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor}{extension} }}
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {card.shared - 1024}
  shared_memory_per_core: {card.shared}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: {card.cores} fpus_per_core: {64 if major == 8 else 128} clock_rate_ghz: {card.clock}
  memory_bandwidth: {int(card.bandwidth)} l2_cache_size: {card.cache} device_memory_size: {card.memory}
  device_vendor: "NVIDIA Corporation" name: "{card.name}" device_address_bits: 64
  platform_version: "Compute Capability {major}.{minor}"
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.20.0"
}}
platform_name: "CUDA" device_description_str: "{card.name}"
dnn_version_info {{ major: 9 minor: 20 }} runtime_version {{ major: 13 }}
"""


def measure(name: str, card_name: str, mode: str, arguments: argparse.Namespace) -> dict:
    """The row of one program."""
    card, batch = CARDS[card_name], arguments.batch * arguments.devices
    there = topologies.get_topology_desc(card_name.lower(), 'cuda', target_config=describe(card),
                                         topology=f'1x1x{arguments.devices}')
    config = without_recipe.get_config(name).to_dict()
    config['model'] |= {'dtype': arguments.dtype, 'num_classes': None}
    model, infer, train = workloads.works(config, size=arguments.size, mesh=step.make_mesh(there.devices))
    work = {'train': train, 'infer': infer}[mode]
    began = time.perf_counter()
    program = work.lower(batch).compile()
    text = program.as_text()
    if arguments.text:
        (arguments.text / f'{name}_{card_name}_{mode}.txt').write_text(text)
    found = count(text, arguments.batch)
    _, multiply_adds = summary.total(summary.layers(model, work.size))
    products = 2 * multiply_adds * arguments.batch * {'train': 3, 'infer': 1}[mode]
    seconds = {name: max(found['bytes'] / other.copy, products / peaks.flops(other.name, arguments.dtype))
               for name, other in CARDS.items()}
    return {'model': name, 'card': card_name, 'mode': mode, 'dtype': arguments.dtype, 'batch': arguments.batch,
            'image': work.size, 'devices': arguments.devices, 'compile_s': round(time.perf_counter() - began, 1),
            'gb': round(found.pop('bytes') / 1e9, 2),
            'temporary_gb': round(program.memory_analysis().temp_size_in_bytes / 1e9, 2),
            'tflop': round(products / 1e12, 3), **found,
            'bound_images_per_s': {name: round(arguments.batch / bound) for name, bound in seconds.items()}}


class Operation(NamedTuple):
    """One that the device is given: its name and kind in XLA, its result's type, operands, the bytes it moves."""
    name: str
    kind: str
    result: str
    operands: tuple[str, ...]
    bytes: int


def operations(text: str) -> Iterator[Operation]:
    """Those of a compiled program's top, in the order in which they are started."""
    types, sliced = {}, _sliced(text)
    for line in text[text.index('\nENTRY'):].splitlines():
        if not (found := _OPERATION.match(line)):
            continue
        name, types[name], kind, rest = found[1], found[2], found[3], found[4]
        operands = tuple(re.findall(r'%([\w.\-]+)', rest.split(')')[0]))
        called = re.search(r'calls=%([\w.\-]+)', rest)
        parts = sliced.get(called and called[1], {})
        read = sum(parts.get(i, size(types.get(other, ''))) for i, other in enumerate(operands))
        yield Operation(name, kind, found[2], operands, size(found[2]) + read)


def _sliced(text: str) -> dict[str, dict[int, int]]:
    """{fusion: {number of an operand: bytes}}, of those operands of which it reads slices alone."""
    found = {}
    for name, body in re.findall(r'^%([\w.\-]+) \([^\n]*\{\n(.*?)^\}', text, re.DOTALL | re.MULTILINE):
        if ' slice(' not in body:
            continue
        lines = [match for line in body.splitlines() if (match := _OPERATION.match(line))]
        for parameter in (line for line in lines if line[3] == 'parameter'):
            users = [line for line in lines if re.search(rf'%{re.escape(parameter[1])}(?![\w.\-])', line[4])]
            if users and all(line[3] == 'slice' for line in users):
                found.setdefault(name, {})[int(parameter[4].split(')')[0])] = sum(size(line[2]) for line in users)
    return found


def size(kind: str) -> int:
    """Bytes of all arrays of a type."""
    total = 0
    for name, shape in _ARRAY.findall(kind):
        elements = _WIDTH[name]
        for side in filter(None, shape.split(',')):
            elements *= int(side)
        total += elements
    return total


def count(text: str, batch: int) -> dict:
    """What a program is made of.

    Returns:
      bytes: that its operations read and write. operations, tiny: how many there are, and of less than 1.5 MB.
      float32_activation_gb: of float32 results that have the batch's images and more than 2 x 2 pixels. transposes,
      copies: [how many, GB]. all_reduces: of each its MB, its dtype and how many operations stand between its start and
      its end, 0 for one that all others wait for.
    """
    every = list(operations(text))
    real = [one for one in every if one.kind not in _FREE]
    maps = (found for one in real for found in re.finditer(rf'f32\[{batch},(\d+),(\d+),\d+\]', one.result))
    float32 = sum(size(found[0]) for found in maps if int(found[1]) * int(found[2]) > 4)
    return {
        'bytes': sum(one.bytes for one in real), 'operations': len(real),
        'tiny': sum(one.bytes < _TINY for one in real), 'float32_activation_gb': round(float32 / 1e9, 3),
        'transposes': _share(real, 'transpose'), 'copies': _share(real, 'copy'), 'all_reduces': _all_reduces(every)}


def _share(found, name) -> list:
    some = [one.bytes for one in found if name in one.name]
    return [len(some), round(sum(some) / 1e9, 3)]


def _all_reduces(every) -> list[dict]:
    """Each, and what runs beside it: those that start after it and before what waits for it."""
    at, rows = {one.name: i for i, one in enumerate(every)}, []
    for end, one in enumerate(every):
        if one.kind in ('all-reduce', 'all-reduce-done'):
            begin = at[one.operands[0]] if one.kind == 'all-reduce-done' else end
            beside = [other for other in every[begin + 1:end] if other.kind not in _FREE]
            rows.append({'mb': round(size(one.result) / 1e6, 3),
                         'dtypes': sorted({name for name, _ in _ARRAY.findall(one.result)}),
                         'beside': len(beside), 'beside_gb': round(sum(other.bytes for other in beside) / 1e9, 2)})
    return rows


if __name__ == '__main__':
    main()
