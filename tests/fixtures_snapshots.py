"""Folders as a model hub's snapshot has them: config.json beside weights."""

import json

from fixtures_weights import random_variables

from imagenet_jax import models, weight_files, weights

# What timm writes beside its ResNet-50.
RESNET50 = {
    'architecture': 'resnet50', 'num_classes': 1000, 'num_features': 2048, 'pretrained_cfg': {
        'tag': 'a1_in1k', 'custom_load': False, 'input_size': [3, 224, 224], 'test_input_size': [3, 288, 288],
        'fixed_input_size': False, 'interpolation': 'bicubic', 'crop_pct': 0.95, 'test_crop_pct': 1.0,
        'crop_mode': 'center', 'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225], 'num_classes': 1000,
        'pool_size': [7, 7], 'first_conv': 'conv1', 'classifier': 'fc', 'license': 'apache-2.0'}}
TINY = {'architecture': 'resnet8_cifar', 'num_classes': 3, 'label_names': ['ant', 'bée', 'cat'], 'pretrained_cfg': {
    'input_size': [3, 32, 32], 'crop_pct': 0.8, 'mean': [0.5, 0.5, 0.5], 'std': [0.25, 0.25, 0.25], 'num_classes': 3}}


def snapshot(folder, config=TINY, file='model.safetensors'):
    """The folder, of a small model of three classes, and its variables."""
    model = models.create('resnet8_cifar', num_classes=3)
    variables = random_variables(model)
    weight_files.write(folder / file, weights.to_torch(model, variables))
    if config is not None:
        (folder / 'config.json').write_text(json.dumps(config))
    return folder, variables
