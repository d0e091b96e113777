"""ResNet-50 with ImageNet weights, fine-tuned to PASCAL VOC 2012, 20 classes, several to an image.

python main.py --config configs/voc2012_resnet50.py --workdir runs/voc2012 --config.data.path=DIR
    --config.init_from=hf:timm/resnet50.tv_in1k

DIR holds VOC2012/. init_from is a file of torchvision's weights, hf:OWNER/NAME, or the folder of a run or an import.
Evaluation gives the mean average precision of VOC 2010 and later. The crops keep at least half of an image, so that
most of its objects stay in. No published result is known for this recipe. On a laptop: --config.augment.size=64
--config.eval.size=64 --config.eval.resize=73 --config.model.name=resnet18, with weights of that.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.num_classes = 20
    config.loss.name = 'sigmoid'
    config.init_from = 'weights/resnet50'
    config.data.format, config.data.path, config.data.labels = 'voc', 'data', 'all'
    config.augment.scale = (0.5, 1.0)
    config.batch_size, config.epochs, config.schedule.warmup_epochs = 64, 20, 1
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate = 0.01
    config.optimizer.rate_factors = (('fc/*', 10.0),)
    return config
