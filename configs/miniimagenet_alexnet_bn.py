"""AlexNet with BatchNorm on mini-ImageNet, 100 classes, 90 epochs: configs/alexnet_bn.py's recipe on fewer images.

python main.py --config configs/miniimagenet_alexnet_bn.py --workdir runs/miniimagenet_alexnet_bn --config.data.path=DIR

DIR holds train.txt, val.txt and test.txt, lines of `path label`, and the images they name (50,000, 5,000 and 5,000).
Published on mini-ImageNet, ten crops: 31.52% error; not reproduced here, and the epochs are ours.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=1.
"""

from configs import alexnet_bn


def get_config():
    """The recipe."""
    config = alexnet_bn.get_config()
    config.model.name, config.model.num_classes = 'alexnet_bn', 100
    config.data.format, config.data.path = 'list', 'data/mini-imagenet'
    config.epochs = 90
    return config
