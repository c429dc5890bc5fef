"""Faults of the saver: when values are taken, what a thread id bears, whose run a call is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from checkpoint_router.client import encoding, reading, writing
from checkpoint_router.client.arguments import Names
from checkpoint_router.client.saver import RouterSaver
from checkpoint_router.client.sessions import CarriedThreadId, Run, Sessions
from checkpoint_router.core.errors import Stale, TokenInvalid
from checkpoint_router.core.records import Event
from tests.saver import test_bad_input as bad_input
from tests.saver import test_contract_inputs as inputs
from tests.saver import test_contract_rows as rows
from tests.saver import test_tokens as tokens

from . import scenes
from .bench import Fault

Patch = pytest.MonkeyPatch


def values_taken_when_awaited(patch: Patch) -> None:
    drive = RouterSaver._adrive

    async def late(self: RouterSaver, operation: Any) -> Any:
        return await drive(self, operation)

    patch.setattr(RouterSaver, "_adrive", late)


def values_taken_late(patch: Patch) -> None:
    drive = RouterSaver._adrive

    async def late(self: RouterSaver, operation: Any) -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
        return await drive(self, operation)

    patch.setattr(RouterSaver, "_adrive", late)


def _on_events(patch: Patch, change: Any) -> None:
    event = Run.event

    def changed(self: Run, *given: Any) -> Event:
        made: Event = change(event(self, *given))
        return made

    patch.setattr(Run, "event", changed)


def after_not_sent(patch: Patch) -> None:
    _on_events(patch, lambda event: structs.replace(event, after=()))


def header_with_the_first_event_only(patch: Patch) -> None:
    _on_events(
        patch, lambda event: event if event.id.index == 1 else structs.replace(event, header=None)
    )


def carrier_compares_by_identity(patch: Patch) -> None:
    patch.setattr(CarriedThreadId, "__eq__", lambda self, other: self is other)


def carrier_compares_with_its_run(patch: Patch) -> None:
    def strict(self: CarriedThreadId, other: object) -> bool:
        return str.__eq__(self, other) is True and getattr(other, "run", self.run) is self.run

    patch.setattr(CarriedThreadId, "__ne__", lambda self, other: type(other) is str)
    patch.setattr(CarriedThreadId, "__eq__", strict)


def carrier_is_copied(patch: Patch) -> None:
    patch.setattr(CarriedThreadId, "__deepcopy__", lambda self, memo: self, raising=False)


def carrier_survives_pickling(patch: Patch) -> None:
    patch.setattr(CarriedThreadId, "__reduce__", lambda self: (CarriedThreadId, (str(self),)))


def token_in_a_key_of_its_own(patch: Patch) -> None:
    config = encoding.config_of

    def marked(thread_id: str, ns: str, checkpoint_id: str) -> Any:
        made: Any = config(thread_id, ns, checkpoint_id)
        made["configurable"]["checkpoint_token"] = "t"  # noqa: S105  # no secret
        return made

    patch.setattr(encoding, "config_of", marked)


def tuples_shared_between_reads(patch: Patch) -> None:
    decode = encoding.decode_tuple
    kept: dict[Any, Any] = {}

    def once(serde: Any, thread_id: str, found: Any, blobs: Any) -> Any:
        place = str(thread_id), found.ns, found.checkpoint_id
        if place not in kept:
            kept[place] = decode(serde, thread_id, found, blobs)
        return kept[place]

    patch.setattr(encoding, "decode_tuple", once)


def context_not_asked(patch: Patch) -> None:
    patch.setattr(Sessions, "_of_context", lambda self, names: None)


def runs_of_a_thread_are_one(patch: Patch) -> None:
    opened = Sessions.opened

    def shared(self: Sessions, names: Names, *given: Any) -> Run:
        last = self.thread(names.thread).last
        return opened(self, names, *given) if last is None else last

    patch.setattr(Sessions, "opened", shared)


def given_up_calls_forgotten(patch: Patch) -> None:
    patch.setattr(Run, "give_up", lambda self, event: None)


def useless_tokens_kept(patch: Patch) -> None:
    for module in (reading, writing):
        patch.setattr(module, "USELESS", (Stale,))


def process_of_a_run_not_asked(patch: Patch) -> None:
    """Planted by the program that forks, for it is another process."""


CLIENT = (
    Fault(
        name="values are taken when a call is awaited",
        plant=values_taken_when_awaited,
        check=scenes.values_are_those_of_the_call,
    ),
    Fault(
        name="values are taken a few turns of the loop late",
        plant=values_taken_late,
        check=rows.test_a_value_that_changes_while_a_put_is_on_its_way_is_stored_as_it_was,
    ),
    Fault(
        name="calls do not name those before them",
        plant=after_not_sent,
        check=scenes.a_call_is_not_taken_without_the_one_before_it,
    ),
    Fault(
        name="only the first call has the header",
        plant=header_with_the_first_event_only,
        check=scenes.a_run_goes_on_after_its_first_call_was_lost,
        raises=(Stale,),
    ),
    Fault(
        name="a child that was forked goes on with its parent's run",
        plant=process_of_a_run_not_asked,
        check=scenes.a_forked_child_has_no_run_of_its_parent,
        given={"plant": ""},
        given_when_planted={"plant": "blind"},
    ),
    Fault(
        name="a thread id equals itself alone",
        plant=carrier_compares_by_identity,
        check=tokens.test_the_thread_id_of_a_read_is_like_the_plain_text,
    ),
    Fault(
        name="a thread id differs from the plain text",
        plant=carrier_compares_with_its_run,
        check=tokens.test_the_thread_id_of_a_read_is_like_the_plain_text,
    ),
    Fault(
        name="a copied thread id still bears its run",
        plant=carrier_is_copied,
        check=tokens.test_copies_of_a_thread_id_are_plain_text,
    ),
    Fault(
        name="a pickled thread id still bears its run",
        plant=carrier_survives_pickling,
        check=tokens.test_copies_of_a_thread_id_are_plain_text,
    ),
    Fault(
        name="the token is a key of the config",
        plant=token_in_a_key_of_its_own,
        check=inputs.test_configs_have_the_three_keys_and_nothing_of_the_callers,
    ),
    Fault(
        name="two reads share an object",
        plant=tuples_shared_between_reads,
        check=rows.test_what_was_read_belongs_to_the_reader,
    ),
    Fault(
        name="the run's context is not asked",
        plant=context_not_asked,
        check=tokens.test_the_first_run_of_a_thread_is_one_run_in_all_its_graphs,
        given={"durability": "sync"},
    ),
    Fault(
        name="runs that are at work at once are taken for one",
        plant=runs_of_a_thread_are_one,
        check=tokens.test_two_runs_at_once_in_one_process_are_two_rivals_and_neither_is_lost,
        given={"begun": False},
    ),
    Fault(
        name="calls that were given up are not named",
        plant=given_up_calls_forgotten,
        check=scenes.a_call_that_lands_after_it_was_given_up_is_no_rival,
    ),
    Fault(
        name="a token that no router knows is kept",
        plant=useless_tokens_kept,
        check=bad_input.test_a_forged_token_is_refused_and_does_not_stand_in_the_way,
        raises=(TokenInvalid,),
    ),
)
