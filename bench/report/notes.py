"""The lines under a table: what was measured on what, under which protocol, and what the marks mean."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.evaluation.consistency import check_consistency
from bench.experiments.record import NOT_VALIDATED, DataFacts
from bench.report.rows import Row, Table

MODALITIES = ("image", "text")
"""Named under a table also where no item has them."""
LEVEL = 0.05
"""Level of significance."""
FEW = 50
"""Validation users below which a table warns."""
SLOW = 0.1
"""Part of the training targets of another row below which a row ended by a time limit is named."""
SAID_ELSEWHERE = ("candidates", "task", "ctr_negatives")


def notes(table: Table) -> list[str]:
    """Return the lines under a table: what was measured on what, and what its marks mean."""
    facts = table.facts
    lines = [f"Data: {table.dataset}" + (" (SIMULATED, not real)" if table.simulated else "") + _sizes(facts)]
    if table.where:
        lines.insert(0, f"Test users where {table.where} alone")
    lines += [f"Behaviors: {' -> '.join(facts.behaviors)}; mapping: {facts.mapping or 'none'}"]
    lines += [_content(facts)]
    options = [f"{name} {value}" for name, value in table.protocol.items() if name not in SAID_ELSEWHERE]
    candidates = f"{table.protocol['candidates']}, hash {table.candidates_hash[:12]}"
    lines += [f"Protocol: candidates {candidates}; {'; '.join(options)}"]
    lines += table.kind.notes(table.protocol, table.measured)
    if table.saturated:
        cannot = "the cut-off takes in all candidates of some users, who cannot miss"
        lines += [f"‡ {', '.join(table.saturated)}: {cannot}; compare by a smaller cut-off"]
    lines += [f"Held-out items that stand in the history shown already: {facts.target_in_history:.3f} of all"]
    if facts.hidden_events:
        rule = f"drop_target_click {table.protocol['drop_target_click']}"
        lines += [
            f"Left out of training: {facts.hidden_events:,} shallower events on held-out items ({rule})"
        ]
    lines += [_seeds(table.rows), *table.left_out]
    lines += _audit(table)
    lines += _validation_notes(facts.validation_users, table.rows)
    return lines + _row_notes(table.rows, table)


def _seeds(rows: Sequence[Row]) -> str:
    """Say which seeds the rows hold, and name those that hold fewer."""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    words = [
        f"Seeds: {', '.join(map(str, seeds)) or 'none'}; mean ± sample deviation where there are several"
    ]
    for held in sorted({row.seeds for row in rows if row.metrics and set(row.seeds) != set(seeds)}):
        few = [row.label for row in rows if row.metrics and row.seeds == held]
        words.append(f"{', '.join(map(str, held))} alone: {', '.join(few)}")
    return "; ".join(words)


def _audit(table: Table) -> list[str]:
    """Say which rows break the arithmetic of HR and NDCG, which no evaluator of one ranking can."""
    rows = {row.label: {name: value.mean for name, value in row.metrics.items()} for row in table.rows}
    broken = check_consistency(rows, candidates=None, rounding=0.0)
    if not broken:
        return []
    named = ", ".join(dict.fromkeys(f"{one.row} ({one.metric})" for one in broken))
    return [f"Audit: HR and NDCG cannot come from one ranking, this is a fault of the harness: {named}"]


def _validation_notes(number: int, rows: Sequence[Row]) -> list[str]:
    """Say where validation could not choose, or chose on few users."""
    lines = []
    if 0 < number < FEW:
        lines.append(f"Warning: {number} validation users choose which epoch is kept: that choice is noisy")
    if blind := [row.label for row in rows if not row.validated]:
        lines.append(f"{NOT_VALIDATED.capitalize()}, last weights kept: {', '.join(blind)}")
    return lines


def _row_notes(rows: Sequence[Row], table: Table) -> list[str]:
    """Return the notes that name rows: limits, options, marks."""
    lines = []
    limits = {
        limit: [row.label for row in rows if row.limits == limit]
        for limit in sorted({r.limits for r in rows})
    }
    for limit, labels in limits.items():
        if limit:
            lines.append(
                f"Limit: {limit} for {'all models' if len(labels) == len(rows) else ', '.join(labels)}"
            )
    if any("for all trainings" in row.limits for row in rows):
        had = ", ".join(f"{row.label} {row.train_seconds / 60:.1f}" for row in rows if row.epochs)
        lines.append(f"Minutes of training that each had: {had}")
    if cut := [row.label for row in rows if row.cut]:
        lines.append(f"Training ended by the time limit, not by convergence: {', '.join(cut)}")
    if used_up := [row.label for row in rows if row.used_up and row.validated]:
        end = "the most epochs that its options allow, not by early stopping"
        lines.append(f"Training of a seed or more ended by {end}: {', '.join(used_up)}")
    lines += _slow_notes(rows)
    changed = [f"{row.label} ({_pairs(row.options)})" for row in rows if row.options]
    if changed:
        lines.append(f"Options other than the model's defaults: {'; '.join(changed)}")
    lines += _commits(rows) + _preparations(rows)
    lines += [f"Tuned on validation: {'; '.join(table.tuned)}"] if table.tuned else []
    if any(row.reconstruction for row in rows):
        lines.append(
            "† reconstruction: no official code was found and the paper alone does not fix the model"
        )
    tested = [row.p for row in rows if row.p is not None]
    if tested:
        best = next(row.label for row in rows if row.model == table.best)
        test = f"{table.kind.test} over users on {table.kind.tested}, Holm-corrected"
        if max(tested) >= LEVEL:
            lines.append(
                f"* {best}, the best, is not significantly better than this row: p >= {LEVEL}, {test}"
            )
        else:
            lines.append(
                f"{best}, the best, is significantly better than every other row: p < {LEVEL}, {test}"
            )
    return lines


def _commits(rows: Sequence[Row]) -> list[str]:
    """Say at which commits the cells were run, where they were not all run at one."""
    known = sorted({commit for row in rows for commit in row.commits})
    if len(known) < 2:
        return []
    made = [f"{one} ({', '.join(row.label for row in rows if one in row.commits)})" for one in known]
    return [f"Made by commits: {'; '.join(made)}"]


def _preparations(rows: Sequence[Row]) -> list[str]:
    """Say which cells were run on vectors that another machine made, where some were."""
    known = sorted({fingerprint for row in rows for fingerprint in row.fingerprints})
    if len(known) < 2:
        return []
    made = [f"{one[:8]} ({', '.join(row.label for row in rows if one in row.fingerprints)})" for one in known]
    why = "equal events, candidates and encoders; vectors differ, as in their last bits between processors"
    return [f"Prepared more than once: {'; '.join(made)}: {why}"]


def _slow_notes(rows: Sequence[Row]) -> list[str]:
    """Name the rows that a time limit ended after a small part of the targets that another row saw."""
    most = max((row.targets_seen for row in rows), default=0)
    slow = [row for row in rows if row.cut and row.targets_seen < SLOW * most]
    if not slow:
        return []
    named = ", ".join(f"{row.label} ({row.targets_seen:,}, {row.targets_per_second:,.0f}/s)" for row in slow)
    return [f"Saw less than a tenth of the {most:,} training targets of the row that saw most: {named}"]


def _sizes(facts: DataFacts) -> str:
    sizes = f", {facts.users:,} users, {facts.items:,} items, {facts.interactions:,} events"
    return f"{sizes}, {facts.validation_users:,} validation users, {facts.test_users:,} test users"


def _content(facts: DataFacts) -> str:
    """Say by what each modality was encoded and how many items have it."""
    parts = []
    for modality, share in facts.coverage.items():
        encoder = facts.encoders.get(modality, "given features")
        if isinstance(encoder, Mapping):
            encoder = f"{encoder.get('name', 'given features')} {str(encoder.get('hash', ''))[:8]}".strip()
        parts.append(f"{modality}: {encoder}, present for {share:.3f} of the items")
    if not parts:
        return "Modalities: none beside the item id"
    parts += [f"{modality}: none" for modality in MODALITIES if modality not in facts.coverage]
    return "Modalities: " + "; ".join(parts)


def _pairs(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
