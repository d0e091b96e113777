"""What is said of each option, and which is meant by a name that is none."""

import sys

import pytest
from runs import ROOT

from configs import common
from imagenet_jax import record
from imagenet_jax.command_line import option_names, recipes
from imagenet_jax.errors import UserError

KNOWN = list(record.flatten(common.get_config().to_dict()))


@pytest.fixture
def started(monkeypatch, capsys):
    """Parses main.py's arguments in this process; answers what it says on leaving or prints."""
    from imagenet_jax.commands import train  # defines flags

    def start(*arguments):
        argv = ['main.py', *arguments]
        monkeypatch.setattr(sys, 'argv', argv)
        try:
            recipes._parse(train.__doc__, lambda argv: argv, argv)
        except UserError as error:
            return f'error: {error}'
        except SystemExit as left:
            assert not left.code
        return capsys.readouterr().out
    return start


@pytest.mark.parametrize(('flag', 'said'), [
    ('--config.epochs=many', '--config.epochs=many must be a number'), ('--config.seed=1e9', 'must be a whole number'),
    ('--config.seed=' + '9' * 5000, f'--config.seed={"9" * 40} must be a whole number'),
    ('--config.dry_run=-1', '--config.dry_run=-1 must be true or false')])
def test_a_value_of_another_kind_is_refused_in_one_line(flag, said):
    with pytest.raises(UserError) as caught:
        recipes.make('configs/digits.py', [flag])
    assert said in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(('name', 'options'), [
    ('lr', ['optimizer.learning_rate']), ('optimizer.lr', ['optimizer.learning_rate']),
    ('wd', ['optimizer.weight_decay']),
    ('label-smoothing', ['loss.smoothing']), ('num_workers', ['data.processes', 'data.threads']),
    ('learning_rate', ['optimizer.learning_rate']), ('optimizer.momentun', ['optimizer.momentum']),
    ('optimizer', ['optimizer.name']), ('epoch', ['epochs']), ('momentun', ['optimizer.momentum']),
    ('size', ['augment.size', 'eval.size']), ('batch-size', ['batch_size']), ('zzzzz', [])])
def test_meant(name, options):
    assert option_names.meant(name, KNOWN)[:max(1, len(options))] == options


def test_names_known_elsewhere_mean_options_there_are():
    """And none of them two things, nor what is an option here."""
    given = [name for names in option_names._ELSEWHERE.values() for name in names.split()]
    assert sorted(given) == sorted(set(given)) and not set(given) & set(KNOWN)
    assert {option for options in option_names._ELSEWHERE for option in options.split()} <= set(KNOWN)


def test_every_option_has_its_meaning():
    said = option_names.meanings((ROOT / 'configs' / 'common.py').read_text())
    assert not [name for name in KNOWN if not said.get(name)]
    assert said['batch_size'] == 'images of one update, on all devices together'
    assert said['eval.size'] == 'then the centre crop'
    assert said['model.dtype'].endswith('float32 (where unset, on a CPU)')  # a comment of two lines


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--batch_size=4'], "error: unknown flag --batch_size; did you mean --config.batch_size?"),
    (['--config', 'digits', '--num-workers', '2'], 'flag --num-workers; did you mean --config.data.processes or'),
    (['--config', 'digits', '--output_dir', 'x'], 'error: unknown flag --output_dir; did you mean --workdir DIR?'),
    (['--config', 'digits', '--workdr=x'], 'error: unknown flag --workdr; did you mean --workdir?'),
    (['--config', 'digits', '--config.lr=1'], "error: unknown option 'config.lr'; did you mean config.optimizer.learn"),
    (['--config', 'digits', '--zzz'], 'error: unknown flag --zzz; options are given as --config.NAME=VALUE')])
def test_wrong_flags_are_told_as_options(arguments, message, started):
    assert message in started(*arguments)


def test_help_of_a_recipe_has_meanings_in_80_columns(started):
    told = started('--config', 'ffcv_resnet50', '--help').splitlines()
    assert max(map(len, told)) <= 80
    at = told.index('  --config.batch_size=4096')
    assert told[at + 1] == '      images of one update, on all devices together'
    assert sum(line.startswith('  --config.') for line in told) >= len(KNOWN)
