"""A router's address: what is understood, and what is refused with words that help."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint_router.client.target import Endpoint, Target
from checkpoint_router.core.errors import InvalidArgument, LimitExceeded

HOSTS = st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z0-9](\.[a-z]{2,5})?", fullmatch=True)
ADDRESSES = st.one_of(HOSTS, st.ip_addresses().map(str))
ENDPOINTS = st.builds(
    lambda host, port: Endpoint(host=host, port=port), ADDRESSES, st.integers(1, 65535)
)


@pytest.mark.parametrize(
    ("text", "endpoints", "tenant"),
    [
        ("router://127.0.0.1:7070", [("127.0.0.1", 7070)], None),
        ("router://localhost", [("localhost", 7070)], None),
        ("router://a:1,b,c.d.e:3", [("a", 1), ("b", 7070), ("c.d.e", 3)], None),
        ("router://a, b:2", [("a", 7070), ("b", 2)], None),
        ("router://[::1]:80", [("::1", 80)], None),
        ("router://[fe80::1%25eth0]", [("fe80::1%eth0", 7070)], None),
        ("router://a/", [("a", 7070)], None),
        ("ROUTER://a?tenant=acme", [("a", 7070)], "acme"),
        ("  router://a?tenant=a%20b%2Fc ", [("a", 7070)], "a b/c"),
        ("router://service_name.local.:9", [("service_name.local.", 9)], None),
    ],
)
def test_an_address_says_where_the_routers_are(
    text: str, endpoints: list[tuple[str, int]], tenant: str | None
) -> None:
    target = Target.parse(text)
    assert [(each.host, each.port) for each in target.endpoints] == endpoints
    assert target.tenant == tenant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not begin with router://"),
        ("127.0.0.1:7070", "does not begin with router://"),
        ("http://127.0.0.1:7070", "scheme is 'http'"),
        ("postgresql://u:p@h/db", "scheme is 'postgresql'"),
        ("router://", "names no host"),
        ("router://?tenant=a", "names no host"),
        ("router://a,", "'' is not a host name"),
        ("router://a:", "'' is not a port"),
        ("router://a:0", "'0' is not a port"),
        ("router://a:65536", "'65536' is not a port"),
        ("router://a:+1", "is not a port"),
        ("router://a:１", "is not a port"),
        ("router://a:70x", "'70x' is not a port"),
        ("router://::1", "stands in brackets"),
        ("router://[::1", "is not [address]:port"),
        ("router://[::1]7070", "is not [address]:port"),
        ("router://[a]:7070", "is not an IPv6 address"),
        ("router://-a", "is not a host name"),
        ("router://a b", "is not a host name"),
        ("router://user@a", "a user"),
        ("router://a/path", "a path"),
        ("router://a#x", "a fragment"),
        ("router://a,b,a", "one router twice"),
        ("router://a?tenant=x&tenant=y", "sets tenant twice"),
        ("router://a?timeout=3", "sets 'timeout'"),
        ("router://" + ",".join(f"h{n}" for n in range(65)), "the limit is 64"),
    ],
)
def test_a_wrong_address_says_what_is_wrong_and_shows_a_right_one(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Target.parse(text)
    assert why in str(caught.value)
    assert "router://127.0.0.1:7070" in str(caught.value)


@pytest.mark.parametrize("query", ["tenant=", "tenant", "tenant=%00", "tenant=%ff%00x"])
def test_a_tenant_that_cannot_be_is_refused(query: str) -> None:
    with pytest.raises(InvalidArgument, match="tenant"):
        Target.parse(f"router://a?{query}")


def test_a_tenant_that_is_too_long_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="tenant"):
        Target.parse("router://a?tenant=" + "t" * 129)


@pytest.mark.parametrize("text", [None, 7070, b"router://a"])
def test_an_address_that_is_not_text_is_refused(text: object) -> None:
    with pytest.raises(InvalidArgument, match="is text, not"):
        Target.parse(text)  # type: ignore[arg-type]  # that is the fault


@given(st.lists(ENDPOINTS, min_size=1, max_size=8, unique=True))
def test_what_a_target_prints_is_read_back_as_the_same(endpoints: list[Endpoint]) -> None:
    target = Target(endpoints=tuple(endpoints))
    assert Target.parse(str(target)) == target


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_clear_error(text: str) -> None:
    for candidate in (text, f"router://{text}"):
        try:
            target = Target.parse(candidate)
        except (InvalidArgument, LimitExceeded):
            continue
        assert target.endpoints
