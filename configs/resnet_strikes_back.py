"""ResNet-50 by the procedures of "ResNet strikes back" (arXiv 2110.00476): A3 of 100 epochs, A2 of 300, A1 of 600.

python main.py --config configs/resnet_strikes_back.py --workdir runs/a3
python main.py --config configs/resnet_strikes_back.py:a1 --workdir runs/a1

Published (table 2), at 224 pixels: 78.1 top-1 for a3, trained at 160 pixels; 79.8 top-1 for a2; 80.4 top-1 for a1. Not
reproduced here. Another model: --config.model.name=resnet34. On a laptop: those of configs/common.py
and --config.schedule.base_batch_size=32.

One thing differs: RandAugment. Theirs is timm's, whose magnitudes of 7 and 6 are of 10 and vary by 0.5, each operation
every second time; so are these, of 30, but a few operations are others, as images/policies.py tells.
"""

from configs import common

VARIANTS = {
    'a3': {'epochs': 100, 'augment.size': 160, 'optimizer.learning_rate': 8e-3, 'policy.magnitude': 18},
    'a2': {'epochs': 300, 'augment.repeats': 3, 'model.drop_path': 0.05},
    'a1': {'epochs': 600, 'augment.repeats': 3, 'model.drop_path': 0.05, 'mix.mixup': 0.2, 'loss.smoothing': 0.1,
           'optimizer.weight_decay': 0.01},
}


def get_config(variant='a3'):
    """The recipe, by one of VARIANTS."""
    config = common.get_config()
    config.model.name = 'resnet50'
    config.batch_size = 2048
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.name, config.optimizer.learning_rate = 'lamb', 5e-3
    config.optimizer.weight_decay, config.optimizer.decay_bias_and_norm = 0.02, False
    config.optimizer.clip_norm = 1.0  # that of timm's LAMB
    config.loss.name, config.loss.threshold = 'bce', 0.2
    config.mix.mixup, config.mix.cutmix = 0.1, 1.0
    config.policy.name, config.policy.magnitude = 'randaugment', 21
    config.policy.deviation, config.policy.probability = 1.5, 0.5
    config.eval.resize = 235  # of which 224 are .95
    return common.varied(config, VARIANTS, variant)
