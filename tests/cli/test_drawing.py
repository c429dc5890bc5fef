"""Trees of checkpoints, drawn from threads made up by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint_router.cli.drawing import BRANCHES_KEPT, DEPTH_MAX, Look, draw
from checkpoint_router.cli.forest import Stop, forest, under
from checkpoint_router.v1.admin_service_pb2 import GetThreadResponse, ThreadNode

from .drawn import chain, node, plain, tree, write


def drawn(thread: GetThreadResponse, look: Look | None = None, width: int = 10_000) -> list[str]:
    return plain(draw(thread, "thread t", look or Look()), width)


SIZES = "record 100 B, values 2.0 KiB, new 10 B"
AT = f"2026-11-18 11:06:40.000Z  {SIZES}"


def test_a_conversation_is_one_flat_line_with_its_head_last() -> None:
    assert drawn(tree(chain(3))) == [
        "thread t",
        "├── 3 checkpoints in 1 namespace, 0 writes, records 300 B, values 30 B, generation 1",
        "└── root graph: 3 checkpoints",
        f"    ├── ○ step -1 input  c0  {AT}",
        f"    ├── ○ step 0 loop  c1  {AT}",
        f"    └── ● step 1 loop  c2  {AT}  head",
    ]


def test_a_fork_stands_below_the_checkpoint_where_it_leaves() -> None:
    nodes = [
        *chain(3),
        node("f0", "c1", step=1, source="fork", winner=False),
        node("f1", "f0", step=2, winner=False),
    ]
    assert drawn(tree(nodes))[2:] == [
        "└── root graph: 3 checkpoints",
        f"    ├── ○ step -1 input  c0  {AT}",
        f"    ├── ○ step 0 loop  c1  {AT}",
        "    │   └── fork, left behind: 2 checkpoints",
        f"    │       ├── ○ step 1 fork  f0  {AT}",
        f"    │       └── ○ step 2 loop  f1  {AT}",
        f"    └── ● step 1 loop  c2  {AT}  head",
    ]


def test_the_line_goes_on_to_the_head_even_if_another_branch_is_newer() -> None:
    """Also one that the winner left behind itself: going back in time is no conflict."""
    nodes = [*chain(4), node("z9", "c1", step=1, winner=True, after_ms=5000)]
    assert [s.node.checkpoint_id for s in forest(nodes)[0].stops] == ["c0", "c1", "c2", "c3"]


def test_losers_of_a_conflict_are_marked_in_words() -> None:
    nodes = [*chain(2), node("l0", "c0", step=0, loser=True)]
    lines = drawn(tree(nodes, open_conflicts=1))
    assert ", 1 open conflict" in lines[1]
    assert lines[4:6] == [
        "    │   └── fork, lost an open conflict: 1 checkpoint",
        f"    │       └── ✗ step 0 loop  l0  {AT}  conflict loser",
    ]


def test_a_subgraph_hangs_below_the_checkpoint_that_it_ran_in_and_nests() -> None:
    outer, inner = "plan:aaaabbbb-cc", "plan:aaaabbbb-cc|ask:ddddeeee-ff"
    nodes = [
        *chain(2),
        node("o0", ns=outer, step=-1, inside={"": "c1"}),
        node("i0", ns=inner, step=-1, inside={"": "c1", outer: "o0"}, head=True),
    ]
    assert drawn(tree(nodes))[2:] == [
        "└── root graph: 2 checkpoints",
        f"    ├── ○ step -1 input  c0  {AT}",
        f"    └── ● step 0 loop  c1  {AT}  head",
        "        └── subgraph plan:aaaabbbb-cc: 1 checkpoint",
        f"            └── ○ step -1 loop  o0  {AT}",
        "                └── subgraph plan:aaaabbbb-cc|ask:ddddeeee-ff: 1 checkpoint",
        f"                    └── ● step -1 loop  i0  {AT}  head",
    ]


def test_a_subgraph_that_keeps_its_state_goes_on_below_each_checkpoint_it_ran_in() -> None:
    nodes = [
        *chain(2),
        node("k0", ns="kept", step=-1, inside={"": "c0"}),
        node("k1", "k0", ns="kept", step=0, inside={"": "c1"}, head=True),
    ]
    lines = drawn(tree(nodes))
    assert "    │   └── subgraph kept: 1 checkpoint" in lines
    assert "        └── subgraph kept: 1 checkpoint, after k0" in lines


def test_a_subgraph_whose_enclosing_checkpoint_is_gone_stands_by_itself() -> None:
    nodes = [*chain(1), node("o0", ns="plan:1", step=-1, inside={"": "pruned"})]
    assert "└── subgraph plan:1: 1 checkpoint" in drawn(tree(nodes))


def test_a_line_whose_beginning_was_pruned_says_so() -> None:
    assert "└── root graph: 1 checkpoint, after c7, which is not stored" in drawn(
        tree([node("c8", "c7", head=True)])
    )


def test_pending_writes_are_shown_by_task_and_channel() -> None:
    nodes = chain(2)
    writes = [
        write("tools", "messages", 2000),
        write("tools", "messages", 48),
        write("tools", "log", 5),
        write("ask", "__interrupt__", 120, task_id="99998888-7777"),
    ]
    nodes[1] = node("c1", "c0", writes=writes, head=True)
    assert drawn(tree(nodes))[4:] == [
        f"    └── ● step 0 loop  c1  {AT}  head  interrupted in ask",
        "        └── pending writes",
        "            ├── tools (task 11112222): messages ×2 2.0 KiB, log 5 B",
        "            └── ask (task 99998888): __interrupt__ 120 B",
    ]


def test_many_tasks_and_channels_are_folded_and_counted() -> None:
    one = [write("a", f"c{i}") for i in range(BRANCHES_KEPT + 1)]
    many = [write(f"t{i}", "x", task_id=str(i)) for i in range(BRANCHES_KEPT)]
    nodes = [node("c0", writes=[*one, *many], head=True)]
    lines, whole = drawn(tree(nodes)), drawn(tree(nodes), Look(everything=True))
    assert [line for line in lines if line.endswith("c5 7 B, and 1 more channel")]
    assert lines[-1].endswith("… 1 task folded (--all)")
    assert [line for line in whole if line.endswith("c5 7 B, c6 7 B")]
    assert whole[-1].endswith(f"t{BRANCHES_KEPT - 1} (task {BRANCHES_KEPT - 1}): x 7 B")


def test_writes_that_led_on_are_shown_on_demand_but_an_answer_always() -> None:
    nodes = chain(2)
    nodes[0] = node("c0", step=-1, writes=[write("ask", "__resume__"), write("ask", "x")])
    folded, whole = drawn(tree(nodes)), drawn(tree(nodes), Look(writes=True))
    assert folded[3].endswith("  answered by ask")
    assert not [line for line in folded if "(task" in line]
    assert [line for line in whole if "ask (task 11112222): __resume__ 7 B, x 7 B" in line]


def test_writes_without_their_checkpoint_are_shown_apart() -> None:
    lines = drawn(tree([], orphans=[write("tools", "messages")]))
    assert lines[-2:] == [
        "└── writes whose checkpoint has not arrived",
        "    └── tools (task 11112222): messages 7 B",
    ]


def test_a_long_conversation_is_folded_and_the_fold_says_what_it_hides() -> None:
    nodes = [*chain(100), node("n0", ns="sub:1", inside={"": "c50"})]
    lines = drawn(tree(nodes))
    assert [line.split()[3] for line in lines[3:] if "step" in line and "from" not in line] == [
        *("-1", "0"),
        *(str(step) for step in range(91, 99)),
    ]
    (fold,) = [line for line in lines if "folded" in line]
    assert fold == (
        "    ├── … 90 checkpoints from step 1 to 90 and 1 below them folded (--all), "
        "records 8.9 KiB, values 910 B"
    )


def test_forks_of_a_long_conversation_stay_in_sight() -> None:
    nodes = [*chain(100), node("f0", "c50", step=50, winner=False)]
    lines = drawn(tree(nodes))
    assert [line for line in lines if "f0" in line]
    assert sum("folded" in line for line in lines) == 2


def test_all_unfolds_everything() -> None:
    nodes = [*chain(100), *(node(f"n{i}", ns=f"sub:{i}", inside={"": "c50"}) for i in range(20))]
    lines = drawn(tree(nodes), Look(everything=True))
    assert sum(" step " in line for line in lines) == 120
    assert not [line for line in lines if "folded" in line]


def test_many_branches_of_one_checkpoint_are_folded_and_counted() -> None:
    nodes = [*chain(1), *(node(f"n{i}", ns=f"sub:{i:02}", inside={"": "c0"}) for i in range(20))]
    lines = drawn(tree(nodes))
    assert sum("subgraph" in line for line in lines) == BRANCHES_KEPT
    assert [line for line in lines if f"… {20 - BRANCHES_KEPT} lines before these folded" in line]


def test_forks_of_forks_end_at_a_depth_and_say_how_many_are_below() -> None:
    nodes = [node("r"), node("r-", "r", head=True)]
    for depth in range(30):
        above = f"d{depth - 1:02}" if depth else "r"
        nodes.append(node(f"d{depth:02}", above, winner=False))
        nodes.append(node(f"d{depth:02}+", f"d{depth:02}", winner=False, after_ms=9))
    lines = drawn(tree(nodes))
    assert [line for line in lines if "deeper folded (--all)" in line]
    assert max(line.count("    ") + line.count("│   ") for line in lines) <= 2 * DEPTH_MAX + 2
    assert sum(" step " in line for line in drawn(tree(nodes), Look(everything=True))) == 62


def test_a_second_record_of_an_id_is_counted_and_the_one_that_readers_get_is_shown() -> None:
    nodes = [*chain(1), node("c0", step=99, loser=True)]
    assert drawn(tree(nodes))[1].startswith("├── 1 checkpoint in 1 namespace")
    assert drawn(tree(nodes))[3] == (
        f"    └── ● step -1 input  c0  {AT}  head  1 other record of this id"
    )


def test_a_narrow_terminal_gets_short_ids_and_a_wide_one_whole_ones() -> None:
    long = "1f1e5973-0506-6d8d-8003-05fda87b76b3"
    thread = tree([node(long, head=True)])
    assert drawn(thread, Look(short_ids=True))[3] == (
        "    └── ● step 0 loop  1f1e5973…7b76b3  11:06:40.000Z  100 B + 2.0 KiB (new 10 B)  head"
    )
    assert long in drawn(thread)[3]


def test_odd_metadata_and_ids_are_drawn_as_what_they_are() -> None:
    one = node("evil\x1b[2J", step=None, source="\x07", head=True)
    assert drawn(tree([one]))[3].startswith(r"    └── ● step ? \x07  evil\x1b[2J  ")


def test_parents_in_a_circle_are_drawn_once_each() -> None:
    nodes = [node("a", "c"), node("b", "a"), node("c", "b"), node("self", "self", head=True)]
    lines = drawn(tree(nodes))
    assert sum(" step " in line for line in lines) == 4


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "p:1", "p:1|q:2", "kept"]),
            st.integers(0, 8),
            st.none() | st.integers(0, 8),
            st.dictionaries(st.sampled_from(["", "p:1", "kept"]), st.integers(0, 8).map(str)),
            st.booleans(),
        ),
        unique_by=lambda t: t[:2],
        max_size=30,
    )
)
def test_every_checkpoint_stands_in_exactly_one_line(
    made: list[tuple[str, int, int | None, dict[str, str], bool]],
) -> None:
    nodes = [
        node(str(i), None if p is None else str(p), ns=ns, inside=inside, head=head)
        for ns, i, p, inside, head in made
    ]
    found = sorted(_name(s.node) for s in under(forest(nodes)))
    assert found == sorted(_name(n) for n in nodes)
    lines = drawn(tree(nodes), Look(everything=True))
    assert sum(" step " in line for line in lines) == len(nodes)


def test_a_stop_is_the_last_only_if_nobody_names_it_as_parent() -> None:
    stops: list[Stop] = list(under(forest([*chain(3), node("f", "c0", winner=False)])))
    assert {s.node.checkpoint_id for s in stops if s.last} == {"c2", "f"}


@pytest.mark.timeout(60)
def test_a_thread_of_many_forks_in_forks_is_drawn_without_recursion() -> None:
    nodes = []
    for depth in range(1500):
        above = f"d{depth - 1:05}" if depth else None
        nodes.append(node(f"d{depth:05}", above, winner=False))
        nodes.append(node(f"d{depth:05}+", f"d{depth:05}", winner=False, after_ms=9))
    assert len(drawn(tree(nodes))) < 60


def _name(one: ThreadNode) -> tuple[str, str]:
    return one.checkpoint_ns, one.checkpoint_id
