"""What single tricks are worth to ResNet-20 on CIFAR-10: configs/cifar10_resnet20.py, and one change each.

python main.py --config configs/cifar_ablation.py --workdir runs/ablation/base --config.data.path=DIR
python main.py --config configs/cifar_ablation.py:mixup --workdir runs/ablation/mixup --config.data.path=DIR
python -m imagenet_jax sweep --config configs/cifar_ablation.py:all --seeds 3 --workdir runs/all --config.data.path=DIR
python -m imagenet_jax report runs/all

DIR holds train-*.parquet and test-*.parquet, the layout of the Hugging Face hub. No published result is known for this
recipe. On a laptop: --config.model.name=resnet8_cifar --config.epochs=3.
"""

from configs import ablation, cifar10_resnet20, common

# Those of ImageNet's that 32 pixels and this model have a use for, with CIFAR's own values.
VARIANTS = {name: changes for name, changes in ablation.VARIANTS.items() if name in (
    'base', 'label_smoothing', 'bce', 'no_decay', 'centralization', 'lookahead', 'mixup', 'cutmix', 'rotation',
    'randaugment', 'trivialaugment', 'dropout', 'stochastic_depth', 'zero_gamma', 'sync_bn', 'group_norm',
    'switch_norm', 'evonorm', 'relu6', 'swish', 'mish')} | {
    'cutout': {'erase.name': 'cutout', 'erase.side': 16},
    'autoaugment': {'policy.name': 'autoaugment', 'policy.dataset': 'cifar10'},
    'ema': {'ema_decay': 0.999},
    'squeeze_excite': {'model.squeeze_excite': True},
}


def get_config(variant='base'):
    """The recipe, by one of VARIANTS."""
    return common.varied(cifar10_resnet20.get_config(), VARIANTS, variant)
