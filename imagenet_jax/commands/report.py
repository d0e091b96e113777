"""report: one table of many runs, those that differ only in the seed in one line.

    python -m imagenet_jax report runs/sweep
    python -m imagenet_jax report runs/sweep --base resnet18 --csv sweep.csv --html sweep.html

Reads config.json and metrics.jsonl of every run in the folders. A line has what was trained and how, `tricks` being the
options that are not as the base has them; scores in percent, the mean and standard deviation over seeds; and the
difference to the base. Its standard error is that of the differences seed by seed where both have the same seeds, else
that of two independent means. A difference below two standard errors is printed as none; of a single seed none is told.
The CSV file has every number as it is. Runs without a result, or unfinished, are listed with the reason.
"""

import sys

from imagenet_jax import report
from imagenet_jax.command_line import parsing
from imagenet_jax.errors import UserError, beside, writing
from imagenet_jax.report import folders, page, tables


def main() -> None:
    """The whole command."""
    parser = parsing.parser('report', __doc__)
    parser.add_argument('folders', metavar='DIR', nargs='+', type=parsing.path,
                        help='a run, or a folder with runs at any depth')
    parser.add_argument('--base', metavar='NAME',
                        help='the line that others are held against; default: base where there is one, else the first')
    parser.add_argument('--best', action='store_true',
                        help="each run's best evaluation, not its last, which flatters: it is picked by its score")
    parser.add_argument('--csv', metavar='FILE', type=parsing.path, help='write the numbers as CSV too')
    parser.add_argument('--html', metavar='FILE', type=parsing.path,
                        help='write a page too, with a table that sorts and curves')
    _report(parser.parse_args())


def _report(arguments) -> None:
    for folder in arguments.folders:
        if not folder.is_dir():
            raise UserError(f'no folder {folder}; {beside(folder)}')
    found = dict.fromkeys(path for root in arguments.folders for path in folders.find(root))
    if not found:
        raise UserError(f'no run in {", ".join(map(str, arguments.folders))}: nothing there has a config.json')
    groups, left_out = report.gather([folders.read(path) for path in found], arguments.best)
    missing = [f'Not in the table: {path}: {why}' for path, why in left_out]
    if not groups:
        raise UserError('\n'.join(['no run has a result:', *missing]))
    base = report.choose_base(groups, arguments.base)
    lines = [report.describe(group, base) for group in groups]
    said = tables.notes(lines, base.name, arguments.best)
    sys.stdout.reconfigure(encoding='utf-8')  # for ±
    print('\n'.join([*said, '', tables.markdown(lines), *([''] if missing else []), *missing]))
    if arguments.csv:
        tables.write_csv(arguments.csv, lines)
    if arguments.html:
        with writing(arguments.html):
            arguments.html.write_text(page.page(groups, lines, said, missing), encoding='utf-8')
