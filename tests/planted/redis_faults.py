"""Faults of the storage in Redis: most of them in the text of a script, planted word by word."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router.backends.redis.link import APPEND, DELETE, ERASE, IMAGE, Link, Script
from checkpoint_router.backends.redis.writer import Writer
from checkpoint_router.core.errors import DataLoss, Unavailable
from scripts.redis_server import Server
from tests.contract import servers
from tests.contract import test_appends as appends
from tests.contract import test_listings as listings
from tests.contract import test_removals as removals
from tests.unit import test_redis_faults as faults
from tests.unit import test_redis_losses as losses

from .bench import Fault
from .scenes import on_shard

Patch = pytest.MonkeyPatch
on_redis = partial(on_shard, backend="redis")

VERSIONS_OUTLIVE = (
    removals.TestErase().test_versions_of_a_growing_value_outlive_the_ones_that_are_dropped
)


def on_server(check: Callable[..., Any], **given: Any) -> Any:
    """A test of a real Redis, on one of its own."""

    async def run(tmp_path: Path) -> None:
        servers.need_redis()
        server = Server(tmp_path / "redis")
        server.start()
        try:
            await check(server=server, **given)
        finally:
            server.stop(signal.SIGKILL)

    return run


def other_words(script: Script, right: str, wrong: str) -> Callable[[Patch], None]:
    """Plants `wrong` where the script says `right`."""
    assert script.text.count(right) == 1, (
        f"the script says {script.text.count(right)} times {right}"
    )
    text = script.text.replace(right, wrong)

    def plant(patch: Patch) -> None:
        patch.setattr(script, "text", text)
        patch.setattr(script, "sha", sha1(text.encode()).hexdigest())  # noqa: S324 - its name

    return plant


def actor_kept_after_a_doubt(patch: Patch) -> None:
    patch.setattr(Writer, "new_actor", lambda self: None)
    draw = Writer.__init__

    def once(self: Writer, *args: Any) -> None:
        draw(self, *args)
        self.actor, self.incarnation = id(self), b"first"

    patch.setattr(Writer, "__init__", once)


def losses_not_compared(patch: Patch) -> None:
    patch.setattr(Link, "_compare", lambda self, *seen: False)


def incarnation_not_begun_anew(patch: Patch) -> None:
    do = Link.do

    async def but_that(self: Link, method: str, *args: Any) -> Any:
        return None if method == "hset" else await do(self, method, *args)

    patch.setattr(Link, "do", but_that)


REDIS = (
    Fault(
        name="redis: a script stores values before it has looked at all",
        plant=other_words(
            APPEND,
            "    local missing = missing_blobs(step)\n",
            "    local missing = missing_blobs(step)\n    store(step.blobs)\n",
        ),
        check=on_redis(appends.test_missing_blobs_of_the_first_event_ever_leave_no_trace),
    ),
    Fault(
        name="redis: a step does not see the events of those before it in its script",
        plant=other_words(APPEND, "  events[field] = value\n", ""),
        check=on_redis(appends.test_concurrent_appends_of_one_event_make_one_event_and_one_dot),
    ),
    Fault(
        name="redis: a script meets a foreign key half way",
        plant=other_words(APPEND, "if live == 0 then call('ZCARD', NAMES) end\n", ""),
        check=on_server(
            faults.test_a_foreign_key_is_a_typed_error_before_anything_is_changed, kind="t"
        ),
    ),
    Fault(
        name="redis: a script does not look for what an event needs",
        plant=other_words(APPEND, "if not has(need[1], need[2], need[3]) then", "if false then"),
        check=on_redis(
            partial(
                appends.test_an_event_waits_until_all_that_it_needs_is_stored,
                ranges=((1, 5),),
                ok=False,
            )
        ),
    ),
    Fault(
        name="redis: a script takes what was sent for another generation",
        plant=other_words(APPEND, "  if gen ~= q.gen then return {'gen', gen} end\n", ""),
        check=on_redis(
            appends.test_an_event_of_a_deleted_generation_is_refused_also_if_it_had_been_stored
        ),
        raises=(Unavailable,),  # nothing is stored: its dot is not the next one
    ),
    Fault(
        name="redis: a server that has less than it gave dots for is not noticed by its writer",
        plant=other_words(APPEND, "q.first > before + 1", "false"),
        check=on_server(losses.test_an_emptied_server_is_noticed_by_writers_and_readers),
    ),
    Fault(
        name="redis: an actor goes on after an outcome that is not known",
        plant=actor_kept_after_a_doubt,
        check=on_server(faults.test_a_put_whose_answer_was_lost_is_one_event_with_one_dot),
        raises=(Unavailable,),  # the script refuses a dot that was given
    ),
    Fault(
        name="redis: counts of writes are not compared",
        plant=losses_not_compared,
        check=on_server(losses.test_a_reader_notices_an_older_copy),
    ),
    Fault(
        name="redis: no new incarnation begins when a loss was noticed",
        plant=incarnation_not_begun_anew,
        check=on_server(losses.test_a_loss_is_noticed_too_when_others_have_written_as_much_again),
    ),
    Fault(
        name="redis: a value is appended to a log that somebody else has lengthened",
        plant=other_words(APPEND, "if not fit(step.blobs) then", "if false then"),
        check=on_server(faults.test_two_routers_that_grow_one_value_at_once_keep_every_version),
        raises=(DataLoss,),
    ),
    Fault(
        name="redis: a checkpoint is not in the list of the newest",
        plant=other_words(
            APPEND,
            "    pair(by_id, 0, step.cid .. '\\0' .. q.thread .. '\\0' .. id)\n",
            "",
        ),
        check=on_redis(listings.test_the_newest_checkpoints_of_a_tenant_come_greatest_first),
    ),
    Fault(
        name="redis: a delete leaves the runs of a thread in the list",
        plant=other_words(
            DELETE,
            "    if run ~= '' then call('ZREM', BY_RUN, run .. q.thread .. '\\0' .. id) end\n",
            "",
        ),
        check=on_redis(
            removals.TestDelete().test_everything_of_the_generation_is_gone_and_the_next_one_is_live
        ),
    ),
    Fault(
        name="redis: a prune cuts a log in front of its longest reader",
        plant=other_words(
            ERASE, "math.max(0, keep[id] - start)", "math.max(0, keep[id] - start - 1)"
        ),
        check=on_redis(partial(VERSIONS_OUTLIVE, dropped=(5,))),
        raises=(DataLoss,),
    ),
    Fault(
        name="redis: a second look does not ask whether something was pruned",
        plant=other_words(IMAGE, "q.gen == gen and q.erased == erasures", "q.gen == gen"),
        check=on_redis(appends.test_a_second_look_is_a_full_one_after_a_delete_or_a_prune),
    ),
)
