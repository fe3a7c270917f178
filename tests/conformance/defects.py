"""Ways for a log to be wrong, each with the behaviours that find it: the suite is as good as the logs it rejects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from ergon.storage.sqlite import children, ended, inbox, intake, leases
from tests.conformance.faulty import (
    ActsWhateverTheStatus,
    AlwaysNew,
    AnswersBeforeItIsWritten,
    AnswersThoughClosed,
    ConsumesNothing,
    CountsEverything,
    CutsPayloads,
    DisownsEverything,
    DoublesMessages,
    FencesByWorkerOnly,
    FencesNoCancels,
    FencesNoChildren,
    FencesNoConsuming,
    FencesNoEnd,
    FencesNoEvents,
    ForgetsMessagesOfClaims,
    ForgetsStartTimes,
    GivesNothingBack,
    IgnoresKeys,
    IgnoresQueues,
    IgnoresTags,
    IgnoresVersions,
    LeavesTheInboxOfDeletedFlows,
    LosesArrivals,
    LosesEvents,
    LosesNothing,
    NeverHints,
    NeverParksWhatKillsWorkers,
    ReadsHistoriesFromTheStart,
    RenewsTheDead,
    RepeatsPages,
    ReversesClaims,
    ReversesInboxes,
    RoundsTimes,
    SaysThatItCreatedWhatWasThere,
    SleepsOnMessages,
    Sound,
    TakesEveryNewFlowForTheFirstOfItsId,
    TakesOneTooMany,
    WakesForAnyName,
    WritesEventsBeforeTheRest,
)

Patch = Callable[[pytest.MonkeyPatch], None]


def _no_patch(_: pytest.MonkeyPatch) -> None:
    """Most defects are in the class."""


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One way to be wrong."""

    says: str
    log: type[Sound]
    patch: Patch
    subjects: tuple[str, ...]
    fails: frozenset[str]
    """Behaviours that find it, each by itself."""
    oracle: bool
    """The comparison with the model finds it too."""

    @property
    def id(self) -> str:
        return self.says.replace(" ", "-")


# -- in the statements and functions of the SQLite log --------------------------------------------------------


def tells_no_relatives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ended, "tell_relatives", lambda tx: tx.ended.clear())


def wakes_no_parents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ended, "_wake_parents", lambda tx, parents: None)


def tells_of_no_taken_id(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(children, "answer", lambda tx, commits: None)


def cancels_whoever_has_the_id(patch: pytest.MonkeyPatch) -> None:
    before, _, _ = children._SQL["theirs"].partition("WHERE")
    patch.setitem(children._SQL, "theirs", before)


def repeats_cancels_beside_new_ones(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(inbox._SQL, "repeated", "SELECT iif(:cancels <> '', '[]', '[]')")


def releases_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases, "_release", lambda tx, workers, *, willingly: 0)


def counts_willing_ends(patch: pytest.MonkeyPatch) -> None:
    release = leases._release
    patch.setattr(leases, "_release", lambda tx, workers, *, willingly: release(tx, workers, willingly=False))


def notes_no_retry(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(intake._SQL, "note_retry", "SELECT :flow, :kind, :now")


def counts_epochs_anew(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(intake._SQL, "begin_lives", "SELECT :flows")


def deletes_parents_of_unfinished_children(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(intake._SQL, "family", intake._SQL["family"].replace("c.close_with_parent OR", ""))


def _d(says: str, how: type[Sound] | Patch, subjects: str, *fails: str, oracle: bool = False) -> Defect:
    log, patch = (how, _no_patch) if isinstance(how, type) else (Sound, how)
    return Defect(
        says=says,
        log=log,
        patch=patch,
        subjects=tuple(subjects.split()),
        fails=frozenset(f"test_{name}" for name in fails),
        oracle=oracle,
    )


DEFECTS: Final = (
    _d(
        "loses all events of a commit but the first",
        LosesEvents,
        "history atomicity",
        "events_come_back_as_they_were_written_in_order",
        "many_events_in_one_commit_land_together",
        oracle=True,
    ),
    _d(
        "rounds the times of events",
        RoundsTimes,
        "history",
        "the_time_of_an_event_is_kept_to_the_last_bit",
    ),
    _d("cuts large payloads", CutsPayloads, "values", "a_result_of_8_mb_comes_back_whole"),
    _d(
        "writes the events though the rest is refused",
        WritesEventsBeforeTheRest,
        "atomicity",
        "a_commit_that_consumes_what_is_not_there_leaves_none_of_its_parts",
        "a_commit_that_returns_what_it_never_took_leaves_none_of_its_parts",
        oracle=True,
    ),
    _d(
        "says that a commit landed before it is written",
        AnswersBeforeItIsWritten,
        "atomicity",
        "a_commit_is_not_done_before_its_call_returned",
        oracle=True,
    ),
    _d(
        "checks no fence for events",
        FencesNoEvents,
        "fencing dead_workers",
        "a_worker_whose_flow_was_taken_over_writes_nothing",
        "a_lease_that_was_never_given_writes_nothing",
        oracle=True,
    ),
    _d(
        "checks no fence for ends",
        FencesNoEnd,
        "fencing dead_workers",
        "a_worker_whose_flow_was_taken_over_writes_nothing",
        "a_flow_that_was_retried_is_not_written_to_by_its_earlier_owner",
        oracle=True,
    ),
    _d(
        "checks no fence for children",
        FencesNoChildren,
        "fencing dead_workers",
        "a_child_of_a_lost_parent_is_neither_started_nor_told",
    ),
    _d(
        "checks no fence for cancels",
        FencesNoCancels,
        "fencing dead_workers",
        "a_lease_that_was_never_given_writes_nothing",
    ),
    _d(
        "checks no fence for consumed messages",
        FencesNoConsuming,
        "fencing dead_workers",
        "a_lease_that_was_never_given_writes_nothing",
    ),
    _d(
        "fences by the worker and not by the claim",
        FencesByWorkerOnly,
        "fencing dead_workers",
        "a_worker_writes_nothing_under_the_lease_of_an_earlier_claim_of_its_own",
        oracle=True,
    ),
    _d(
        "counts epochs anew when an id is free again",
        counts_epochs_anew,
        "fencing",
        "a_worker_writes_nothing_to_another_flow_that_got_the_id_of_one_it_had",
        "no_epoch_of_a_deleted_flow_comes_again_for_its_id",
        oracle=True,
    ),
    _d(
        "consumes no message",
        ConsumesNothing,
        "consuming",
        "consuming_a_message_and_its_event_is_one_act",
        "a_message_is_consumed_once",
        oracle=True,
    ),
    _d(
        "gives no signal back",
        GivesNothingBack,
        "consuming",
        "a_signal_that_nobody_received_is_unread_again_in_its_old_place",
        oracle=True,
    ),
    _d(
        "lets a flow sleep on its own message",
        SleepsOnMessages,
        "waking",
        "a_message_that_came_while_a_flow_went_to_sleep_wakes_it_at_once",
        oracle=True,
    ),
    _d(
        "keeps each message twice",
        DoublesMessages,
        "messages",
        "messages_without_a_key_are_all_kept_in_order",
        oracle=True,
    ),
    _d(
        "ignores keys",
        IgnoresKeys,
        "messages repeats",
        "a_message_with_a_key_is_kept_once_however_often_it_is_sent",
        "a_signal_with_a_key_that_comes_twice_is_heard_once_however_far_apart",
        oracle=True,
    ),
    _d(
        "forgets start times",
        ForgetsStartTimes,
        "due",
        "a_flow_due_in_the_future_is_left_alone_also_by_its_id",
        "a_flow_is_not_claimable_before_its_start_and_is_after",
        oracle=True,
    ),
    _d(
        "says that it created what was there",
        SaysThatItCreatedWhatWasThere,
        "creating",
        "creating_a_flow_twice_changes_nothing_and_returns_what_is_there",
        oracle=True,
    ),
    _d(
        "takes every flow created for its owner for the first of its id",
        TakesEveryNewFlowForTheFirstOfItsId,
        "fencing",
        "no_epoch_of_a_deleted_flow_comes_again_for_its_id",
    ),
    _d(
        "acts whatever the status it was asked for",
        ActsWhateverTheStatus,
        "operators killing",
        "whoever_means_to_resume_retries_nothing_that_failed_meanwhile",
        oracle=True,
    ),
    _d(
        "leaves the inbox of a deleted flow",
        LeavesTheInboxOfDeletedFlows,
        "deleting",
        "an_ended_flow_is_deleted_with_its_history_and_inbox",
    ),
    _d(
        "deletes a flow whose child still cleans up",
        deletes_parents_of_unfinished_children,
        "deleting",
        "a_flow_whose_child_still_cleans_up_is_not_deleted_yet",
        oracle=True,
    ),
    _d("ignores tags", IgnoresTags, "fitting", "a_worker_gets_the_flows_whose_tags_it_has", oracle=True),
    _d(
        "ignores versions",
        IgnoresVersions,
        "fitting",
        "a_flow_goes_only_to_a_worker_that_runs_its_version",
        "a_worker_claims_the_versions_in_its_names_and_ranges",
        oracle=True,
    ),
    _d("ignores queues", IgnoresQueues, "fitting", "flows_of_other_queues_stay_untouched", oracle=True),
    _d(
        "takes one too many", TakesOneTooMany, "claiming", "a_claim_takes_no_more_than_its_limit", oracle=True
    ),
    _d(
        "never parks what kills its workers",
        NeverParksWhatKillsWorkers,
        "takeover giving_back stalled",
        "a_flow_that_kills_its_workers_is_parked_with_the_reason",
    ),
    _d(
        "hands flows out in reverse",
        ReversesClaims,
        "claiming",
        "flows_are_claimed_by_priority_and_then_by_how_long_they_are_ready",
        oracle=True,
    ),
    _d(
        "claims without the messages",
        ForgetsMessagesOfClaims,
        "claiming",
        "a_claim_brings_history_and_unread_messages",
        oracle=True,
    ),
    _d(
        "renews the dead",
        RenewsTheDead,
        "fencing dead_workers",
        "a_worker_that_is_not_alive_renews_nothing",
        oracle=True,
    ),
    _d(
        "disowns what the worker knows",
        DisownsEverything,
        "takeover giving_back stalled",
        "what_a_worker_owns_and_does_not_know_of_goes_back",
        oracle=True,
    ),
    _d(
        "releases nothing that the dead or retired held",
        releases_nothing,
        "takeover giving_back stalled",
        "a_worker_whose_lease_ran_out_loses_its_flows",
        "retiring_gives_the_flows_back_and_ends_the_incarnation",
    ),
    _d(
        "counts a willing end as a death",
        counts_willing_ends,
        "takeover giving_back stalled",
        "retiring_does_not_count_as_a_stalled_claim",
    ),
    _d(
        "reads histories from the start",
        ReadsHistoriesFromTheStart,
        "history",
        "a_history_can_be_read_from_an_event_on",
    ),
    _d(
        "reverses inboxes",
        ReversesInboxes,
        "messages",
        "messages_without_a_key_are_all_kept_in_order",
        oracle=True,
    ),
    _d(
        "moves the cursor of arrivals too far",
        LosesArrivals,
        "arrivals",
        "arrivals_bring_each_message_for_the_workers_flows_past_the_cursor",
    ),
    _d(
        "tells no owner what it lost",
        LosesNothing,
        "operators killing",
        "an_owner_hears_which_of_its_flows_were_taken_away",
        oracle=True,
    ),
    _d(
        "counts everything",
        CountsEverything,
        "listing",
        "each_filter_narrows_lists_and_counts_alike",
        oracle=True,
    ),
    _d(
        "repeats a flow on the next page",
        RepeatsPages,
        "listing",
        "pages_cover_every_flow_once_newest_first",
        oracle=True,
    ),
    _d("wakes for any name", WakesForAnyName, "due", "the_next_wake_is_the_earliest_of_the_names_asked_for"),
    _d(
        "is new for ever",
        AlwaysNew,
        "creating",
        "a_log_is_not_new_once_a_flow_was_created",
        "a_log_is_not_new_once_flows_were_created_together",
        "a_log_is_not_new_once_somebody_looked_for_flows_in_it",
    ),
    _d(
        "never hints",
        NeverHints,
        "hints",
        "a_listener_hears_of_a_new_flow",
        "a_listener_hears_of_a_message",
        "a_listener_hears_of_a_flow_that_was_killed",
    ),
    _d(
        "answers though it is closed",
        AnswersThoughClosed,
        "life",
        "a_closed_log_answers_every_question_with_log_closed",
    ),
    _d(
        "tells nobody of an end",
        tells_no_relatives,
        "child_ends child_cancels",
        "a_parent_hears_once_how_its_child_ended",
        "children_are_told_how_their_parent_ended",
        oracle=True,
    ),
    _d(
        "settles without waking the parent",
        wakes_no_parents,
        "child_ends",
        "the_end_of_a_child_wakes_its_sleeping_parent",
    ),
    _d(
        "tells no parent of a taken id",
        tells_of_no_taken_id,
        "children",
        "a_stranger_with_a_childs_id_is_left_alone_and_the_parent_is_told",
        oracle=True,
    ),
    _d(
        "cancels whoever has the id of a child",
        cancels_whoever_has_the_id,
        "child_cancels",
        "a_cancel_never_reaches_a_flow_that_only_has_the_id",
        oracle=True,
    ),
    _d(
        "obeys a repeated cancel beside a new one",
        repeats_cancels_beside_new_ones,
        "child_cancels",
        "a_cancel_that_is_repeated_beside_a_new_one_wakes_no_child_that_is_held_back",
    ),
    _d(
        "notes no failure of what is retried",
        notes_no_retry,
        "retrying",
        "a_failed_flow_that_is_retried_has_its_failure_in_its_history",
        oracle=True,
    ),
)
