"""What every reader of a data set must do: checks used by the tests and by `bench test dataset`.

A check raises AssertionError or UserError with a line that says what was done, what was seen and where to
look. What it returns is a remark: counts, or why it does not apply.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.data.contract.card import (
    check_the_card_says_all_there_is_to_say,
    check_the_last_behavior_is_the_deepest,
)
from bench.data.contract.content import (
    check_items_are_those_of_the_events,
    check_pictures_are_where_the_items_say,
    check_vectors_are_finite_and_fit_their_items,
)
from bench.data.contract.events import (
    check_behaviors_are_those_declared,
    check_events_are_not_read_twice,
    check_events_have_their_four_columns,
    check_no_id_is_missing,
    check_times_are_seconds_or_say_their_unit,
    check_times_put_the_events_of_a_user_in_order,
    check_users_have_two_target_events,
)
from bench.data.contract.files import (
    check_a_malformed_row_is_refused,
    check_a_missing_file_is_named,
    check_every_row_is_accounted_for,
    check_malformed_rows_are_skipped_and_counted,
    check_the_order_of_rows_does_not_matter,
)
from bench.data.contract.reads import (
    check_a_stream_goes_on_from_any_part,
    check_another_process_reads_the_same,
    check_every_read_gives_the_same,
    check_the_raw_files_are_read,
)
from bench.data.contract.subject import Subject
from bench.errors import UserError

CHECKS: tuple[Callable[[Subject], str], ...] = (
    check_the_raw_files_are_read,
    check_the_card_says_all_there_is_to_say,
    check_events_have_their_four_columns,
    check_no_id_is_missing,
    check_behaviors_are_those_declared,
    check_the_last_behavior_is_the_deepest,
    check_times_are_seconds_or_say_their_unit,
    check_times_put_the_events_of_a_user_in_order,
    check_events_are_not_read_twice,
    check_users_have_two_target_events,
    check_items_are_those_of_the_events,
    check_vectors_are_finite_and_fit_their_items,
    check_pictures_are_where_the_items_say,
    check_every_read_gives_the_same,
    check_another_process_reads_the_same,
    check_a_stream_goes_on_from_any_part,
    check_a_missing_file_is_named,
    check_a_malformed_row_is_refused,
    check_malformed_rows_are_skipped_and_counted,
    check_the_order_of_rows_does_not_matter,
    check_every_row_is_accounted_for,
)


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    check: str
    """Its name in words."""
    fault: str
    """What is wrong; empty where it holds."""
    remark: str = ""
    """Counts, a warning, or why it does not apply."""

    @property
    def words(self) -> str:
        """What is printed beside the name."""
        if self.fault or self.remark.startswith(("warning", "not checked")):
            return self.fault or self.remark
        return f"holds: {self.remark}" if self.remark else "holds"


def run_checks(subject: Subject, checks: tuple[Callable[[Subject], str], ...] = CHECKS) -> Iterator[Outcome]:
    """Yield the outcome of all checks, also after a failure; where nothing is read, of none that follows."""
    for check in checks:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            with subject.reader.blamed():
                remark = check(subject)
            yield Outcome(name, "", remark)
        except (AssertionError, UserError) as error:
            yield Outcome(name, " ".join(str(error).split()))
            if check is check_the_raw_files_are_read:
                return
        except Exception as error:  # a check must not hide the ones after it
            yield Outcome(name, f"{type(error).__name__}: {error}".splitlines()[0])
