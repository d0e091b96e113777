"""ResNet-50 v2 on mini-ImageNet, 100 classes; or one of three others: their ImageNet recipes on fewer images.

python main.py --config configs/miniimagenet.py --workdir runs/miniimagenet --config.data.path=DIR
python main.py --config configs/miniimagenet.py:seresnet50 --workdir runs/seresnet50 --config.data.path=DIR

DIR holds train.txt, val.txt and test.txt, lines of `path label`, and the images they name (50,000, 5,000 and 5,000).
Published on mini-ImageNet, ten crops: 18.42% error for resnet50v2, 16.36% error for seresnet50, 31.52% error for
alexnet_bn, 29.42% error for zfnet_bn; not reproduced here, and batch, rate and epochs are ours.
On a laptop: those of configs/common.py and, for alexnet_bn and zfnet_bn, --config.augment.size=64
--config.eval.size=64 --config.eval.resize=64.
"""

from configs import alexnet_v1, common, resnet50, zfnet

RECIPES = {'resnet50v2': resnet50, 'seresnet50': resnet50, 'alexnet_bn': alexnet_v1, 'zfnet_bn': zfnet}
MODELS = tuple(RECIPES)


def get_config(model='resnet50v2'):
    """The recipe, of one of MODELS."""
    config = RECIPES[common.checked(model, MODELS)].get_config(model)
    config.model.num_classes = 100
    config.data.format, config.data.path = 'list', 'data/mini-imagenet'
    config.batch_size = 128  # of less than the recipe's own, so that the rate is less in proportion
    return config
