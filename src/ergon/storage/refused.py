"""Why a commit was refused whose lease does not hold any more: the same words in every log."""

from __future__ import annotations

from ergon.core.commit import Commit
from ergon.errors import LeaseLost


def lease_lost(commit: Commit, standing: tuple[str, str | None, int] | None) -> LeaseLost:
    """`standing`: the flow's status, owner and epoch as the log has them; None when it is not there."""
    flow_id, lease = commit.flow_id, commit.lease
    if standing is None:
        return LeaseLost.of_flow(flow_id, "is not in the log any more", status=LeaseLost.GONE)
    status, owner, epoch = standing
    holder = f"is owned by {owner!r}" if owner else f"is {status}"
    why = f"{holder} at epoch {epoch}; {lease.worker!r} held it at epoch {lease.epoch}"
    if owner:
        # A lower epoch than the lease's: the log is an older copy of itself, and whoever owns the flow there, nobody
        # meant that.
        anew = owner == lease.worker and epoch > lease.epoch
        status = LeaseLost.CLAIMED_AGAIN if anew else ""
    return LeaseLost.of_flow(flow_id, why, status=status)
