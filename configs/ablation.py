"""What single tricks are worth to ResNet-50 on ImageNet: the recipe of configs/resnet50.py, and one change each.

python main.py --config configs/ablation.py --workdir runs/ablation/base
python main.py --config configs/ablation.py:mixup --workdir runs/ablation/mixup
python -m imagenet_jax sweep --config configs/ablation.py:all --seeds 3 --workdir runs/ablation
python -m imagenet_jax report runs/ablation

docs/recipes.md has what was published for them, each a single run; not reproduced here. On a laptop:
configs/common.py, or configs/cifar_ablation.py.
"""

from configs import common, resnet50

VARIANTS = {
    'base': {},
    # losses and labels
    'label_smoothing': {'loss.smoothing': 0.1},
    'bce': {'loss.name': 'bce'},
    # the optimizer
    'no_decay': {'optimizer.decay_bias_and_norm': False},
    'centralization': {'optimizer.centralize': True},
    'lookahead': {'lookahead.steps': 5},
    'ema': {'ema_decay': 0.9999},
    # batches
    'mixup': {'mix.mixup': 0.2},
    'cutmix': {'mix.cutmix': 1.0},
    'cutout': {'erase.name': 'random'},
    # images
    'rotation': {'augment.rotation': 15.0},
    'autoaugment': {'policy.name': 'autoaugment', 'augment.color_jitter': 0.0},
    'randaugment': {'policy.name': 'randaugment', 'augment.color_jitter': 0.0},
    'trivialaugment': {'policy.name': 'trivialaugment', 'augment.color_jitter': 0.0},
    'lighting': {'augment.lighting': 0.1},
    'scale_augmentation': {'augment.crop': 'shorter_side'},
    # architecture
    'dropout': {'model.dropout': 0.2},
    'stochastic_depth': {'model.drop_path': 0.1},
    'drop_block': {'model.drop_block': 0.1},
    'zero_gamma': {'model.zero_gamma': True},
    'sync_bn': {'model.norm': 'sync'},
    'group_norm': {'model.norm': 'group'},
    'switch_norm': {'model.norm': 'switchable'},
    'evonorm': {'model.norm': 'evonorm_b0'},
    'relu6': {'model.act': 'relu6'},
    'swish': {'model.act': 'swish'},
    'mish': {'model.act': 'mish'},
    'preact': {'model.name': 'resnet50v2'},
    'resnet_d': {'model.name': 'resnet50d'},
    'squeeze_excite': {'model.name': 'seresnet50'},
    'blur_pool': {'model.antialias': True},
    'octconv': {'model.name': 'oct_resnet50'},
    'lip': {'model.lip': True},
    'dcnv2': {'model.deformable': 3},
}


def get_config(variant='base'):
    """The recipe, by one of VARIANTS."""
    return common.varied(resnet50.get_config(), VARIANTS, variant)
