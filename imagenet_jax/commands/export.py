"""Makes one file of a trained model that JAX alone can run: no imagenet_jax, no Flax, no checkpoint.

    python -m imagenet_jax export --checkpoint runs/resnet50 --output resnet50.stablehlo
    python -m imagenet_jax export --checkpoint runs/resnet50 --best --ema --flip --output resnet50.stablehlo

The file holds StableHLO with the weights, for CPUs and CUDA alike: uint8 images of any batch in, probabilities out. A
JSON of the same name beside it says how an image becomes the input, and has the names of the classes. docs/export.md
shows how to load it. Of several --checkpoint it is the mean of their answers. Weights alone, for PyTorch's models, are
written by `weights export`.
"""

from imagenet_jax.command_line import checkpoints, outputs, parsing, running


def main() -> None:
    """The whole command."""
    parser = parsing.parser('export', __doc__)
    checkpoints.add_arguments(parser)
    parser.add_argument('--output', required=True, metavar='FILE', type=parsing.path, help='its name, .stablehlo')
    _export(parser.parse_args())


def _export(arguments) -> None:
    outputs.check([('--output', arguments.output, ('.stablehlo',))])
    with running.importing():
        from imagenet_jax import runtime
        from imagenet_jax.use import export
    runtime.keep_to_cpu()
    classifier = checkpoints.load(arguments)
    classifier.check_head()
    about = export.write(classifier, arguments.output)
    view = about['view']
    size = arguments.output.stat().st_size / 1e6
    print(f'{arguments.output}: {size:.1f} MB, for {" and ".join(about["platforms"])}; '
          f'it takes {view["center_crop"]} pixels out of {view["shorter_side"]}, and '
          f'{arguments.output.with_suffix(".json").name} says the rest')
