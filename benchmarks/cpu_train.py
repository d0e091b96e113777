"""Training on a CPU: images a second in float32, ours beside PyTorch's and beside XLA's own convolutions.

    python benchmarks/cpu_train.py --output benchmarks/results/cpu_train.json
    python benchmarks/cpu_train.py --cases resnet18:64:64 mobilenet_v2:128:32

A case is MODEL:SIDE:BATCH. The three take turns, a few steps each, and rates and ratios are medians over the rounds, so
that what else the machine does falls on all alike. Images are there already; PyTorch's are normalised and channels_last
too, ours uint8. All take memory in huge pages, as this project's commands do. PyTorch's models are torchvision's and,
for CIFAR, those that the tests compare with. `plain` is ours without layers/cpu_convs.py. Each `compile_s` is from
tracing to the program. Cases that --output has already stay there, unless they are measured anew.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jax
import outputs
import torch
from jax.extend.core.primitives import conv_general_dilated_p
from jax.interpreters import mlir

from imagenet_jax import runtime
from imagenet_jax.command_line import running, without_recipe
from imagenet_jax.models.layers import cpu_convs
from imagenet_jax.use import workloads
from imagenet_jax.workers import cores

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))
import torch_reference

CASES = ('resnet8_cifar:32:128', 'resnet20_cifar:32:128', 'resnet18:64:64', 'resnet18:128:32', 'resnet50:128:16',
         'mobilenet_v2:128:32', 'alexnet:224:32', 'resnext50_32x4d:64:16')


def main() -> None:
    """Measures each case, prints a line of it, and writes the numbers."""
    arguments = parse()
    running.take_huge_pages()
    runtime.keep_to_cpu()
    torch.set_num_threads(cores())
    print(f'{"case":<22} {"images/s":>9} {"PyTorch":>9} {"ratio":>6} {"plain":>9} {"ratio":>6} {"compile s":>15}')
    for case in arguments.cases:
        row = measure(case, arguments.seconds)
        print('{case:<22} {images_per_s:>9.1f} {pytorch_images_per_s:>9.1f} {to_pytorch:>6.2f} '
              '{plain_images_per_s:>9.1f} {to_plain:>6.2f} {compile_s:>7.1f} {plain_compile_s:>7.1f}'.format(**row),
              flush=True)
        if arguments.output:
            write(arguments.output, row)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', metavar='CASE', nargs='+', default=CASES, help=f'default: {" ".join(CASES)}')
    parser.add_argument('--seconds', type=float, default=20, help='of a case, about; default %(default)s')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    return parser.parse_args()


def measure(case: str, seconds: float) -> dict:
    """One case, its three programs in turns."""
    name, size, batch = case.split(':')
    size, batch = int(size), int(batch)
    compile_s, steps = {}, {}
    for key, rule in (('plain_', cpu_convs.plain), ('', None)):
        cpu_convs.register()
        if rule:
            mlir.register_lowering(conv_general_dilated_p, rule, platform='cpu')
        compile_s[f'{key}compile_s'], steps[key] = ours(name, size, batch)
    steps['pytorch_'] = theirs(name, size, batch)
    pace = {key: once(step) for key, step in steps.items()}  # the first step of each is the slowest
    pace = {key: once(step) for key, step in steps.items()}
    rounds = 5
    rates = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            count = max(1, round(seconds / (3 * rounds * pace[key])))
            rates[key].append(batch / once(step, count))

    def ratio(other):
        return round(statistics.median(mine / its for mine, its in zip(rates[''], rates[other], strict=True)), 3)
    medians = {f'{key}images_per_s': round(statistics.median(each), 1) for key, each in rates.items()}
    return {'case': case, 'model': name, 'image_size': size, 'batch_size': batch, **medians,
            'to_pytorch': ratio('pytorch_'), 'to_plain': ratio('plain_'),
            **{key: round(value, 2) for key, value in compile_s.items()}}


def once(step: Callable[[], object], count: int = 1) -> float:
    """Seconds a step, of so many."""
    began = time.perf_counter()
    for _ in range(count):
        done = step()
    jax.block_until_ready(done)
    return (time.perf_counter() - began) / count


def ours(name: str, size: int, batch: int) -> tuple[float, Callable[[], object]]:
    """(seconds to compile, the train step as `train --model` makes it)."""
    config = without_recipe.get_config(name).to_dict()
    config['model']['dtype'] = 'float32'
    _, _, training = workloads.works(config, size=size)
    program = workloads.compiled(training, batch)
    return program.seconds, training.begin(program.step, batch)


def theirs(name: str, size: int, batch: int) -> Callable[[], object]:
    """PyTorch's, by SGD with momentum."""
    if name.endswith('_cifar'):
        model = torch_reference.CifarResNet((int(name.removeprefix('resnet').removesuffix('_cifar')) - 2) // 6)
    else:
        model = getattr(torch_reference.torchvision_models(), name)()
    model = model.to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()
    return step


def write(file: Path, row: dict) -> None:
    """Puts a case among those that the file has."""
    known = json.loads(file.read_text())['cases'] if file.is_file() else []
    cases = [each for each in known if each['case'] != row['case']] + [row]
    about = {'command': shlex.join(['python', 'benchmarks/cpu_train.py', *sys.argv[1:]]),
             'date': datetime.now(UTC).isoformat(timespec='seconds'), **runtime.describe(), 'torch': torch.__version__,
             'cpu': cpu(), 'cores': cores(), 'xla_flags': os.environ.get('XLA_FLAGS', ''), 'dtype': 'float32'}
    file.write_text(json.dumps(about | {'cases': cases}, indent=1) + '\n')


def cpu() -> str:
    """The processor's name."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(': ')[2] for line in lines if line.startswith('model name')), platform.machine())


if __name__ == '__main__':
    main()
