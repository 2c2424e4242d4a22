"""`bench audit`, `bench compare`: can the numbers be true, and do two models differ? Parsing and printing."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UserError
from bench.terminal import Json, Results, TaskName, TaskOption, print_json, print_rows, warn


def audit(
    file: Annotated[
        Path | None, typer.Argument(help="A CSV or Markdown table; default: the M3BSR paper's own numbers.")
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=0, help="Items ranked for each user, for the chance level; 0: not known.")
    ] = 100,
    percent: Annotated[bool, typer.Option("--percent", help="The values are percentages.")] = False,
    as_json: Json = False,
) -> None:
    """Check the arithmetic that HR@K and NDCG@K of one ranking must obey; exit code 1 if it is broken.

    NDCG within what HR allows, at each cut-off and between two; nothing falls with growing K; nothing lies
    below a random ranker. Half a unit of the last printed digit is allowed for.

    Example: bench audit results/tables/table_ml-100k_uniform99.csv
    """
    from bench.evaluation.audit import audit_file, audit_paper, explained

    done = audit_file(file, candidates or None, percent) if file else audit_paper()
    broken = list(dict.fromkeys(violation.row for violation in done.violations))
    count = Counter(violation.rule for violation in done.violations)
    if as_json:
        print_json(
            {
                "source": done.source,
                "rows": len(done.rows),
                "broken_rows": len(broken),
                "violations": [vars(violation) for violation in done.violations],
            }
        )
    else:
        if broken:
            rows = [(one.row, one.rule, explained(one)) for one in done.violations]
            print_rows(("row", "rule", "what"), rows)
        parts = ", ".join(f"{rule} {number}" for rule, number in sorted(count.items()))
        print(
            f"{done.source}: {len(broken)} of {len(done.rows)} rows break it"
            + (f" ({parts})" if parts else "")
        )
    if broken:
        raise typer.Exit(1)


def compare(
    first: Annotated[str, typer.Argument(help="A model of the store, or path/to/model.py.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    dataset: Annotated[str | None, typer.Option(help="Needed where the store knows several.")] = None,
    protocol: Annotated[str | None, typer.Option(help="uniform99, popular99 or full.")] = None,
    task: TaskOption = TaskName.rank,
    metric: Annotated[str, typer.Option(help="HR@K, NDCG@K or MRR.")] = "NDCG@10",
    margin: Annotated[
        float, typer.Option(min=0, help="Difference that would not matter, for the statement of equivalence.")
    ] = 0.01,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Compare two models user by user: sign-flip, Wilcoxon, bootstrap, effect size, wins, seeds.

    Example: bench compare gru4rec sasrec --dataset ml-100k
    """
    from bench.experiments.chosen import model_name, named, stored
    from bench.experiments.store import Store
    from bench.report.compare import compare_models, lines_of, to_dict
    from bench.report.tables import comparable, left_out

    if task is TaskName.ctr:
        raise UserError("bench compare: tests ranks; leave --task ctr out")
    records, pair = stored(Store(results), dataset, protocol), (model_name(first), model_name(second))
    records = [record for name in pair for record in named(records, name)]
    shown = comparable(records)
    made = compare_models(shown, pair, metric.upper(), margin)
    warn(left_out(records, shown))
    if as_json:
        print_json(to_dict(made))
        return
    print_rows(("what", "value"), lines_of(made))
