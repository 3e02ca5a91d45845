"""The arithmetic of resources, and their text form."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.core.resources import (
    NOTHING,
    RANGES_MAX,
    SCALAR_MAX_MILLI,
    Amount,
    Ranges,
    Reservation,
    ResourceKey,
    Resources,
    coalesce,
    milli,
    parse,
    parse_amount,
    to_text,
)

PORTS, CPUS, SHARED = ResourceKey("ports"), ResourceKey("cpus"), ResourceKey("cache", shared=True)
KEYS = [
    CPUS,
    ResourceKey("mem"),
    ResourceKey("cpus", (Reservation("ops"),)),
    ResourceKey("cpus", revocable=True),
    PORTS,
    ResourceKey("gpus"),
    SHARED,
    ResourceKey("cards", shared=True),
]
KINDS = {"ports": "ranges", "gpus": "set", "cards": "set"}

spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=6)
range_lists = spans.map(lambda pairs: [(begin, begin + length) for begin, length in pairs])
item_sets = st.frozensets(st.sampled_from("abcdef"))


def amounts(key: ResourceKey, *, small: bool = True) -> st.SearchStrategy[Amount]:
    match KINDS.get(key.name):
        case "ranges":
            return range_lists.map(coalesce)
        case "set":
            return item_sets
    return st.integers(0, 50 if small else SCALAR_MAX_MILLI)


bags = st.fixed_dictionaries({}, optional={key: amounts(key) for key in KEYS}).map(Resources)


def members(ranges: Ranges | list[tuple[int, int]]) -> set[int]:
    return {number for begin, end in ranges for number in range(begin, end + 1)}


def parts(bag: Resources) -> set[object]:
    """The bag as a plain set: each thousandth, number and item an element of its own."""
    found: set[object] = set()
    for key, amount in bag.items():
        match amount:
            case int():
                found |= {(key, index) for index in range(amount)}
            case tuple():
                found |= {(key, number) for number in members(amount)}
            case frozenset():
                found |= {(key, item) for item in amount}
    return found


# --- addition and subtraction -----------------------------------------------------------------------------------


def apart(left: Resources, right: Resources) -> bool:
    """Whether nothing of `right` is already in `left`; amounts of a scalar are never the same ones."""
    common = [key for key in left if key in right and not isinstance(left[key], int)]
    return not any(parts(Resources({key: left[key]})) & parts(Resources({key: right[key]})) for key in common)


@given(bags, bags)
def test_what_is_added_can_be_taken_back(left: Resources, right: Resources) -> None:
    """a + b - b is a again, for everything that is used up and was not there twice."""
    assume(apart(left, right) and not any(key.shared for key in right))
    assert left + right - right == left


@given(bags, bags)
def test_what_is_taken_can_be_given_back(left: Resources, right: Resources) -> None:
    """Where a covers b, a - b + b is a again."""
    assume(left.covers(right))
    assert left - right + right == left


@given(bags, bags, bags)
def test_addition_knows_no_order(a: Resources, b: Resources, c: Resources) -> None:
    """Addition is commutative and associative, and nothing is its zero."""
    assert a + b == b + a
    assert hash(a + b) == hash(b + a)
    assert (a + b) + c == a + (b + c)
    assert a + NOTHING == NOTHING + a == a


@given(bags, bags)
def test_subtraction_needs_covering(left: Resources, right: Resources) -> None:
    """`-` raises Invalid, naming both sides, exactly where the left side does not cover the right one."""
    if left.covers(right):
        assert left.covers(left - right)
    else:
        with pytest.raises(Invalid, match="is not part of"):
            left - right


@given(bags, bags)
def test_covering_is_being_a_superset(left: Resources, right: Resources) -> None:
    """a covers b exactly if every thousandth, number and item of b is in a."""
    assert left.covers(right) == (parts(left) >= parts(right))


@given(bags, bags, bags)
def test_covering_is_an_order(a: Resources, b: Resources, c: Resources) -> None:
    """Covering is reflexive, antisymmetric and transitive, and a sum covers its parts."""
    assert a.covers(a)
    assert a.covers(NOTHING)
    assert (a + b).covers(a)
    assert not (a.covers(b) and b.covers(a)) or a == b
    assert not (a.covers(b) and b.covers(c)) or a.covers(c)


@given(bags, bags)
def test_less_takes_what_is_there(left: Resources, right: Resources) -> None:
    """`less` leaves what is in a and not in b, never fails, and is `-` where a covers b."""
    rest = left.less(right)
    assert left.covers(rest)
    if left.covers(right):
        assert rest == left - right
    for key in left:
        gone = parts(Resources({key: right[key]})) if key in right and not key.shared else set()
        here = parts(Resources({key: left[key]}))
        kept = parts(Resources({key: rest[key]})) if key in rest else set()
        assert len(kept) == len(here - gone)


@given(bags, bags)
def test_nothing_empty_is_kept(left: Resources, right: Resources) -> None:
    """A zero or empty amount is the same as none, however it came about."""
    for bag in (left + right, left.less(right), left.less(left)):
        assert all(bag.values())
    assert not [key for key in left.less(left) if not key.shared]


# --- keys -------------------------------------------------------------------------------------------------------


@given(bags, bags)
def test_shared_resources_are_not_used_up(left: Resources, right: Resources) -> None:
    """Taking a shared resource away leaves it, adding a scalar one to itself does not double it."""
    for key in (key for key in left if key.shared):
        assert left.less(right)[key] == left[key]
        assert (left + left)[key] == left[key]
        if left.covers(right):
            assert (left - right)[key] == left[key]


def test_a_shared_resource_must_still_be_there() -> None:
    """Though not used up, a shared resource is checked: nothing may ask for more of it than there is."""
    bag = Resources({SHARED: 1000})
    assert bag - bag == bag
    with pytest.raises(Invalid, match="not part of"):
        bag - Resources({SHARED: 1001})


def test_amounts_of_different_keys_never_mix() -> None:
    """A reserved CPU does not stand for an unreserved one, nor the other way round."""
    plain, reserved = Resources({CPUS: 1000}), Resources({ResourceKey("cpus", (Reservation("ops"),)): 1000})
    assert not plain.covers(reserved)
    assert not reserved.covers(plain)
    assert len(plain + reserved) == 2
    assert (plain + reserved).scalar_milli("cpus") == 2000


def test_two_types_under_one_key_are_refused() -> None:
    """Adding a range to a number is Invalid; covering and `less` simply find none of it."""
    number, ranges = Resources({PORTS: 5000}), Resources({PORTS: ((1, 5),)})
    for left, right in ((number, ranges), (ranges, number)):
        with pytest.raises(Invalid, match=r"ports.*two types"):
            left + right
        with pytest.raises(Invalid, match="not part of"):
            left - right
        assert left.less(right) == left


@pytest.mark.parametrize(
    ("role", "seen"),
    [("*", 1), ("ops", 1 + 2), ("ops/line", 1 + 2 + 4), ("opsline", 1), ("ops/line/deep", 1 + 2 + 4), ("dev", 1)],
)
def test_reserved_resources_are_for_their_role_and_below(role: str, seen: int) -> None:
    """A role sees what is unreserved, what is reserved for it, and what is reserved for a role above it."""
    chain = (Reservation("ops"), Reservation("ops/line", dynamic=True))
    bag = Resources({CPUS: 1, ResourceKey("cpus", chain[:1]): 2, ResourceKey("cpus", chain): 4})
    assert bag.for_role(role).scalar_milli("cpus") == seen


# --- ranges -----------------------------------------------------------------------------------------------------


@given(range_lists)
def test_coalesced_ranges_are_canonical(ranges: list[tuple[int, int]]) -> None:
    """Merging keeps the numbers, and leaves ranges sorted, neither overlapping nor touching."""
    merged = coalesce(ranges)
    assert members(merged) == members(ranges)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(merged))
    assert coalesce(reversed(ranges)) == coalesce(merged) == merged


@pytest.mark.parametrize("wrong", [(2, 1), (-1, 3), (-3, -1)])
def test_a_range_that_is_none_is_refused(wrong: tuple[int, int]) -> None:
    """A range that ends before it begins, or is negative, is Invalid and named."""
    with pytest.raises(Invalid, match=f"{wrong[0]}-{wrong[1]}"):
        coalesce([(5, 6), wrong])


def test_the_number_of_ranges_is_bounded_where_they_come_in() -> None:
    """10,001 ranges are refused in what is sent; arithmetic on allowed ones never fails for their number."""
    odd = [(number, number) for number in range(1, 2 * RANGES_MAX, 2)]
    with pytest.raises(Invalid, match="10001 ranges"):
        coalesce([*odd, (10**6, 10**6)])
    odds, more = Resources({PORTS: coalesce(odd)}), Resources({PORTS: ((10**6, 10**6),)})
    assert odds + more - more == odds


# --- scalars ----------------------------------------------------------------------------------------------------


@given(st.floats(0, SCALAR_MAX_MILLI / 1000))
@example(0.0005)
@example(0.00049999999999999999)
@example(0.49999999999999994 / 1000)
def test_a_scalar_is_rounded_to_the_nearest_thousandth(value: float) -> None:
    """Thousandths of a number are the nearest ones, half of one counting up, as exact as a double allows."""
    off = abs(Fraction(value) * 1000 - milli(value))
    assert off <= Fraction(1, 2) + Fraction(value) / 2**52 * 1000


@given(st.integers(0, SCALAR_MAX_MILLI))
@example(SCALAR_MAX_MILLI)
@example(SCALAR_MAX_MILLI - 1)
def test_thousandths_survive_a_double(thousandths: int) -> None:
    """Every allowed amount comes back from a double of whole units as it was."""
    assert milli(thousandths / 1000) == thousandths


@pytest.mark.parametrize(("value", "thousandths"), [(0.0004, 0), (0.0005, 1), (0.0015, 2), (1.2344, 1234), (0.1, 100)])
def test_rounding_is_half_up(value: float, thousandths: int) -> None:
    """Some amounts and their thousandths, worked out by hand."""
    assert milli(value) == thousandths


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.001, -1.0, 1e15, 1e306, 1.7e308])
def test_amounts_that_are_none_are_refused(value: float) -> None:
    """NaN, infinite, negative and huge amounts are Invalid."""
    with pytest.raises(Invalid, match="amount"):
        milli(value)


# --- text -------------------------------------------------------------------------------------------------------

plain_items = st.text("abcxyz019._-", min_size=1, max_size=4)
plain_bags = st.dictionaries(
    st.tuples(st.from_regex(r"[A-Za-z][A-Za-z0-9_.\-/]{0,5}", fullmatch=True), st.booleans()).map(
        lambda pair: ResourceKey(pair[0], shared=pair[1])
    ),
    st.one_of(
        st.integers(0, SCALAR_MAX_MILLI),
        range_lists.map(coalesce),
        st.frozensets(plain_items, max_size=4),
    ),
    max_size=5,
).map(Resources)


@given(plain_bags)
def test_text_comes_back_as_it_was(bag: Resources) -> None:
    """What to_text writes of unreserved resources, shared ones among them, parse reads back exactly."""
    assert parse(to_text(bag)) == bag


def test_a_shared_resource_as_text() -> None:
    """`<SHARED>` stands behind the name, as in Mesos."""
    shared = ResourceKey("picam", shared=True)
    assert parse("picam<SHARED>:{/dev/vchiq}") == Resources({shared: frozenset(["/dev/vchiq"])})
    assert to_text(parse("a:{x};a<SHARED>:{y}")) == "a:{x};a<SHARED>:{y}"


@given(st.one_of(st.text(), st.text("cpus:;[]{}-,. 0123456789ab\t\n")))
def test_parse_gives_resources_or_invalid(text: str) -> None:
    """Whatever the text, parse answers or raises Invalid; what it answers, it reads again."""
    try:
        bag = parse(text)
    except Invalid as error:
        assert "\n" not in str(error)
    else:
        assert parse(to_text(bag)) == bag


def test_the_form_of_the_command_line_is_read() -> None:
    """The example of the documentation gives scalars, ranges and a set."""
    bag = parse("cpus:4; mem:2048.5;ports:[31000-31999, 32000-32000];names:{a, b};")
    assert bag[CPUS] == 4000
    assert bag[ResourceKey("mem")] == 2048500
    assert bag[PORTS] == ((31000, 32000),)
    assert bag[ResourceKey("names")] == frozenset({"a", "b"})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cpus", "'cpus' is not NAME:VALUE"),
        (":4", "':4' is not NAME:VALUE"),
        ("cp us:4", "'cp us:4' is not NAME:VALUE"),
        ("cpus:", "'cpus' has no amount in ''"),
        ("cpus:-4", "'-4'"),
        ("cpus:nan", "'nan'"),
        ("cpus:1e3", "'1e3'"),
        ("cpus:4;cpus:5", "'cpus' is given twice"),
        ("cpus:999999999999999", "too large"),
        ("ports:[1-2", r"'\[1-2'"),
        ("ports:[2-1]", "2-1"),
        ("ports:[1]", r"'\[1\]'"),
        ("names:{a,}", "'{a,}'"),
        ("cpus:٣", "'٣'"),
    ],
)
def test_bad_text_is_refused_with_its_part(text: str, named: str) -> None:
    """The error names the part that is wrong."""
    with pytest.raises(Invalid, match=named):
        parse(text)


def test_items_are_bounded() -> None:
    """A set of 10,001 items is refused."""
    with pytest.raises(Invalid, match="'names'"):
        parse_amount("names", "{" + ",".join(map(str, range(10_001))) + "}")


def test_a_bag_is_a_value() -> None:
    """Equal bags are equal and hash alike whatever their order; a bag equals nothing that is none."""
    bag = parse("mem:64;cpus:1")
    assert bag == Resources.of(cpus=1, mem=64)
    assert len({bag, Resources.of(cpus=1, mem=64)}) == 1
    assert bag != {CPUS: 1000}
    assert repr(bag) == "Resources('cpus:1;mem:64')"
