"""Every option and every recipe as golden text, so that a change shows as a diff; and what recipes say of themselves.

After a change that is meant: python tests/test_configs.py writes the texts anew.
"""

import inspect
import re
import sys
from pathlib import Path

import pytest
import runs

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the command above

from recipes import RECIPES, ROOT, arguments, get_config, module, pairs

from configs import common, miniimagenet
from imagenet_jax import catalog, models, options, record
from imagenet_jax.command_line.recipes import make
from imagenet_jax.errors import UserError
from imagenet_jax.experiment import Experiment
from imagenet_jax.options import apply

GOLDEN = ROOT / 'tests' / 'golden'
PAIRS = pairs()
TAKING = [recipe for recipe in RECIPES if arguments(recipe)]


def flat(pair: str) -> dict[str, str]:
    config = common.get_config() if pair == 'common.py' else get_config(pair)
    return {name: repr(value) for name, value in record.flatten(config.to_dict()).items()}


def laptop(recipe: str) -> str:
    """What its first lines say of a laptop, up to the end of the paragraph."""
    return module(recipe).__doc__.partition('On a laptop')[2].split('\n\n')[0]


def differences(pair: str) -> str:
    """What a recipe changes in common.py; with another argument, what that changes in the recipe."""
    before = flat(pair.split(':')[0] if ':' in pair else 'common.py')
    return ''.join(f'    {name}={value}\n' for name, value in flat(pair).items() if value != before[name])


def common_text() -> str:
    return ''.join(f'{name}={value}\n' for name, value in flat('common.py').items())


def recipes_text() -> str:
    return ''.join(f'{pair}\n{differences(pair)}' for pair in PAIRS)


def recipes_golden() -> dict[str, str]:
    """{pair: its lines}"""
    parts = re.split(r'^(\S+)\n', (GOLDEN / 'recipes.txt').read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_earlier_names_of_recipes_lead_to_what_there_is():
    for name, command in catalog.EARLIER_RECIPES.items():
        assert name not in RECIPES and command.removeprefix('configs/') in PAIRS


def test_options_are_as_they_were():
    assert common_text() == (GOLDEN / 'common.txt').read_text()


@pytest.mark.parametrize('pair', PAIRS)
def test_recipe_is_as_it_was(pair):
    assert differences(pair) == recipes_golden().get(pair)


def test_every_golden_text_has_its_recipe():
    assert list(recipes_golden()) == PAIRS


def test_no_recipe_is_another_with_a_new_name():
    """A model of the same recipe is an argument, not a file. An ablation begins with another's, and says so."""
    seen = {}
    for pair in (pair for pair in PAIRS if 'ablation' not in pair):
        rest = tuple((name, value) for name, value in flat(pair).items()
                     if name not in ('model.name', 'model.num_classes', 'model.width'))
        assert seen.setdefault(rest, pair).split(':')[0] == pair.split(':')[0]


@pytest.mark.parametrize('recipe', RECIPES)
def test_recipe_opens_with_its_command(recipe):
    doc = module(recipe).__doc__
    assert doc.split('\n\n')[1].startswith(f'python main.py --config configs/{recipe}.py --workdir ')
    for pair in re.findall(r'--config configs/(\S+)', doc):
        assert pair in PAIRS or pair == f'{recipe}.py:all'


def laptop_options(recipe: str) -> list[str]:
    """What it says to give on a laptop, where it names configs/common.py with what that says."""
    texts = [common.__doc__.partition('On a laptop')[2]] if 'configs/common.py' in laptop(recipe) else []
    return [option.replace('"', '') for text in (*texts, laptop(recipe))
            for option in re.findall(r'--config\.[\w.]+=(?:"[^"]*"|\S*\w)', text)]


@pytest.mark.parametrize('recipe', RECIPES)
def test_recipe_says_what_to_do_on_a_laptop(recipe):
    assert laptop(recipe) and (laptop_options(recipe) or recipe in ('digits', 'cifar100_alexnet'))


@pytest.mark.parametrize('recipe', [recipe for recipe in RECIPES if 'digits' in str(laptop_options(recipe))])
def test_recipe_goes_on_a_laptop_as_it_says(recipe):
    """With the options of common.py and its own, none of its checks refuses the run."""
    experiment = Experiment(make(recipe, laptop_options(recipe)))
    assert len(experiment.train) == 1437 and experiment.steps <= 360


@pytest.mark.slow
@pytest.mark.parametrize(('recipe', 'model', 'least'), [
    ('digits', 'resnet8_cifar', 0.8), ('cifar10_resnet20', 'resnet8_cifar', 0.6), ('resnet50', 'resnet18', 0.5)])
def test_recipe_learns_on_a_laptop(recipe, model, least, tmp_path):
    """As it says, but for a smaller model, and fewer epochs of many; on one device, as a laptop's CPU is.

    Over the eight of other tests a BatchNorm would see two images.
    """
    options = [*laptop_options(recipe), f'--config.model.name={model}', '--config.model.num_classes=10',
               '--config.eval_batch_size=120', *(['--config.epochs=5'] if recipe == 'digits' else [])]
    runs.run(tmp_path, *options, base=('--config', f'configs/{recipe}.py'))
    assert runs.rows(tmp_path)[-1]['eval/top1'] >= least


@pytest.mark.parametrize('pair', PAIRS)
def test_the_rate_of_a_recipe_goes_with_the_batch(pair):
    """The published batch takes the published rate; of another batch it is in proportion."""
    config = get_config(pair)
    assert config.schedule.base_batch_size == (get_config(f'{miniimagenet.RECIPES[config.model.name].__name__[8:]}.py')
                                               if pair.startswith('mini') else config).batch_size


@pytest.mark.parametrize('recipe', RECIPES)
def test_misspelt_option_is_an_error(recipe):
    with pytest.raises(AttributeError, match='learning_rate'):
        get_config(f'{recipe}.py').optimizer.learning_rat = 1.0


def test_every_model_option_is_read_by_a_model():
    read = {option for name in models.names() for option in options.reads(models._REGISTRY[name])}
    assert set(common.get_config().model) - {'name'} <= read


# --- the model of a recipe


@pytest.mark.parametrize('pair', PAIRS)
def test_model_is_the_arguments(pair):
    config = get_config(pair)
    model = apply(models.create, config.model, 'config.model')
    assert model.num_classes == config.model.num_classes
    path, *argument = pair.split(':')
    assert not argument or argument[0] in getattr(module(path.removesuffix('.py')), 'VARIANTS', ()) or (
        [config.model.name] == argument)


@pytest.mark.parametrize('recipe', TAKING)
def test_first_argument_is_the_default(recipe):
    first, *_ = arguments(recipe)
    assert module(recipe).get_config(first) == module(recipe).get_config()
    parameter, = inspect.signature(module(recipe).get_config).parameters.values()
    assert (parameter.name, parameter.default) == ('model' if hasattr(module(recipe), 'MODELS') else 'variant', first)


@pytest.mark.parametrize('recipe', [recipe for recipe in RECIPES if hasattr(module(recipe), 'VARIANTS')])
def test_wrong_variant_is_refused(recipe):
    with pytest.raises(UserError, match=r"^unknown variant of this recipe 'zzz'; known: "):
        module(recipe).get_config('zzz')


@pytest.mark.parametrize('name', models.names())
def test_every_model_has_its_recipe(name):
    path = catalog.config(name)
    assert (ROOT / path.split(':')[0]).is_file()
    config = get_config(path.removeprefix('configs/'))
    assert (config.model.name, config.augment.size) == (name, catalog.image_size(name))
    assert name in module(catalog.RECIPE_OF[name]).MODELS


def test_catalog_has_each_model_once():
    assert sorted(model for of_recipe in catalog.RECIPES.values() for model in of_recipe) == sorted(models.names())


@pytest.mark.parametrize(('model', 'message'), [
    ('resnet5', r"^unknown model of this recipe 'resnet5'; did you mean resnet50 or "),
    ('zzz', r"^unknown model of this recipe 'zzz'; known: resnet50, resnet18, "),
    ('vgg16', r'^vgg16 is no model of this recipe; it is trained with --config configs/vgg16\.py$'),
    ('vgg11_bn', r'^vgg11_bn is no model of this recipe; it is trained with --config configs/vgg16\.py:vgg11_bn$')])
def test_wrong_model_is_refused(model, message):
    with pytest.raises(UserError, match=message):
        module('resnet50').get_config(model)


# --- published numbers, which stand in the catalog


def numbers(results) -> set[float]:
    return {number for result in results for number in (result.top1, result.top5) if number is not None}


@pytest.mark.parametrize('recipe', RECIPES)
def test_numbers_of_a_recipe_are_the_catalogs(recipe):
    text = re.sub(r'arXiv \S+', '', ' '.join(module(recipe).__doc__.split()))
    said = {float(x) for x in re.findall(r'([\d.]+) top-[15]', text)}
    said |= {round(100 - float(x), 2) for x in re.findall(r'([\d.]+)% error', text)}
    assert not re.findall(r'\b\d+\.\d\d\b(?! top-[15]|% error)', text)
    taken = {get_config(f'{recipe}.py').model.name, *getattr(module(recipe), 'MODELS', ())}
    also = {model: catalog.ALSO_PUBLISHED.get((recipe, model), ()) for model in taken}
    assert said <= numbers([catalog.PUBLISHED[model] for model in taken if model in catalog.PUBLISHED]
                           + [result for results in also.values() for result in results])
    assert said >= numbers(result for results in also.values() for result in results)
    default = next(iter(catalog.RECIPES.get(recipe, ())), None)
    assert default not in catalog.PUBLISHED or catalog.PUBLISHED[default].top1 in said


def test_numbers_of_the_readme_are_the_catalogs():
    table = (ROOT / 'README.md').read_text().partition('| family | names |')[2].partition('\n\n')[0]
    said = [float(x) for x in re.findall(r'\d\d\.\d+', table)]
    assert sorted(said) == sorted(published.top1 for published in catalog.PUBLISHED.values())


def test_published_results_are_of_models_and_recipes():
    assert set(catalog.PUBLISHED) <= set(models.names())
    assert {f'{recipe}.py' for recipe, _ in catalog.ALSO_PUBLISHED} <= set(PAIRS)


if __name__ == '__main__':
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / 'common.txt').write_text(common_text())
    (GOLDEN / 'recipes.txt').write_text(recipes_text())
