"""Claims as people write them: short texts, mappings, files."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.claims import Claim, check_all, expression
from edgerm.core.errors import Invalid
from edgerm.sdk.claimfile import read_claims
from edgerm.sdk.claims import claims_from, parse_claim

CORE, GPU = "siemens.com/isolated_core", "nvidia.com/gpu"
FILE = """
x-resources:
  definitions:
    fast_core:
      type: siemens.com/isolated_core
      matchExpressions:
        - {key: "lscpu.Architecture", operator: "In", values: ["x86_64", "i386"]}
      shared: false
      optional: true
      config: {ksoftirqd_sched: "f51", deep: {"true": [1, 2.5, true, "no"]}}
    unused: {type: nvidia.com/gpu}
  limits:
    nvidia.com/gpu: 1
    fast_core: 2
"""
FAST = Claim(
    "fast_core",
    CORE,
    2,
    (expression("lscpu.Architecture", "In", ["x86_64", "i386"]),),
    shared=False,
    optional=True,
    config='{"deep":{"true":[1,2.5,true,"no"]},"ksoftirqd_sched":"f51"}',
)


def test_a_file() -> None:
    """A claim for each limit, in their order, by definition or by class; a definition alone claims nothing."""
    assert read_claims(FILE) == (Claim(GPU, GPU), FAST)
    bare = "\n".join(line[2:] for line in FILE.splitlines() if "x-resources" not in line)
    assert read_claims(bare) == (Claim(GPU, GPU), FAST)


def test_further_limits() -> None:
    """Those of the command line count where both name the same, and may name a definition of the file."""
    assert [(claim.name, claim.count) for claim in read_claims(FILE, {"unused": 3, GPU: 0})] == [
        (GPU, 0),
        ("fast_core", 2),
        ("unused", 3),
    ]


def test_of_what_stands_twice_the_last_counts() -> None:
    """In limits and in definitions."""
    text = "limits: {a: 1, b: 5, a: 2}\ndefinitions: {a: {type: x/y}, a: {type: y/z}}"
    assert read_claims(text) == (Claim("a", "y/z", 2), Claim("b", "b", 5))


@pytest.mark.parametrize("text", ["x-resources:", "{}", "limits:", "definitions: {a: {type: b}}"])
def test_files_without_claims(text: str) -> None:
    """Nothing is claimed, and nothing is wrong."""
    assert read_claims(text) == ()


WRONG = [
    ("", "None is no mapping"),
    ("- a", "a list of 1 is no mapping"),
    ("limits: {a: -1}", "limits.a: -1 is no whole number"),
    ("limits: {a: 1.0}", "limits.a: 1.0 is no whole number"),
    ("limits: {a: one}", "limits.a: 'one' is no whole number"),
    ("limits: {a: true}", "limits.a: True is no whole number"),
    ("limits: {a: }", "limits.a: None is no whole number"),
    ("limits: {a: 1001}", "limits.a: 1001 is no whole number from 0 to 1000"),
    ("limits: [a]", "limits: a list of 1 is no mapping"),
    ("limits: {1: 1}", "limits: 1 is no name"),
    ("limit: {a: 1}", "there is no 'limit'; is 'limits' meant?"),
    ("x-resources: {limits: {a: 1}}\nversion: '2.4'", "beside x-resources there is 'version'"),
    ("services: {cam: {}}", "this is a compose file"),
    ("definitions: {a: {}}", "definitions.a.type: None is no class"),
    ("definitions: {a: {type: b, match: []}}", "definitions.a: there is no 'match'"),
    ("definitions: {a: {type: b, shared: 'yes'}}", "definitions.a.shared: 'yes' is neither true nor false"),
    ("definitions: {a: {type: b, config: [1]}}", "definitions.a.config: a list of 1 is no mapping"),
    ("definitions: {a: {type: b, config: {c: 2020-01-01}}}", "definitions.a.config.c: datetime.date(2020, 1, 1) is no"),
    ("definitions: {a: {type: b, matchExpressions: {}}}", "matchExpressions: a mapping of 0 is no list"),
    (
        "definitions: {a: {type: b, matchExpressions: [{key: k, operator: in, values: []}]}}",
        "definitions.a.matchExpressions[0]: operator 'in' is none of",
    ),
    ("definitions: {a: {type: b, matchExpressions: [{key: k, operator: In}]}}", "[0]: values None are no list"),
    ("definitions: {a: {type: b, matchExpressions: [{operator: In, values: []}]}}", "[0]: key None is no text"),
    ("limits: {a: 1", "line 1, column 14: "),
    ("a: !!python/object:os.system {}", "could not determine a constructor"),
    ("? [a]\n: b", "found unhashable key"),
    ("a: !!int ''", "that is no YAML"),
    ("[" * 5000, "nested too deeply"),
    ("definitions: {a: {type: b, config: &c {d: *c}}}", "nested deeper"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_what_is_wrong_is_named_with_its_place(text: str, words: str) -> None:
    """And nothing else comes out of a file."""
    with pytest.raises(Invalid) as caught:
        read_claims(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bomb_of_aliases_is_refused() -> None:
    """A small text that stands for a huge value takes no time."""
    lines = ["x0: &x0 [lol, lol]", *(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]" for n in range(1, 15))]
    text = "definitions:\n  a:\n    type: b\n    config:\n" + "\n".join(f"      {line}" for line in lines)
    with pytest.raises(Invalid, match=r"definitions\.a\.config"):
        read_claims(text)


SCALARS = st.none() | st.booleans() | st.integers(-3, 2000) | st.floats() | st.sampled_from(["In", "a", "", CORE])
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "x-resources",
                    "definitions",
                    "limits",
                    "type",
                    "matchExpressions",
                    "key",
                    "operator",
                    "values",
                    "config",
                    "a",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(TREES | st.fixed_dictionaries({"definitions": TREES, "limits": TREES}))
def test_any_tree_gives_claims_or_words(tree: Any) -> None:
    """Whatever stands in a file: well-formed claims, or one line that says what is wrong."""
    try:
        found = read_claims(yaml.safe_dump(tree))
    except Invalid as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert check_all(found) == found


@given(st.text(st.characters(codec="utf-8"), max_size=60) | st.text(alphabet="{}[]&*:!-?#'\" ab12\n\t", max_size=40))
def test_any_text_gives_claims_or_words(text: str) -> None:
    """Also where it is no YAML."""
    try:
        check_all(read_claims(text))
    except Invalid as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "meant"), [(f"{CORE}=2", (CORE, 2)), (CORE, (CORE, 1)), ("a=0", ("a", 0)), ("a=b=007", ("a=b", 7))]
)
def test_a_claim_as_text(text: str, meant: tuple[str, int]) -> None:
    """`CLASS`, or `CLASS=COUNT`."""
    assert parse_claim(text) == meant


@pytest.mark.parametrize("text", ["", "=1", "a=", "a=-1", "a=+1", "a=1_0", "a= 1", "a=1.0", "a=two", "a=٣", "a=1\n"])
def test_what_is_no_claim(text: str) -> None:
    """Anything else is refused, with the form."""
    with pytest.raises(Invalid, match="write CLASS=COUNT"):
        parse_claim(text)


def test_claims_of_the_library() -> None:
    """Texts, values, definitions with a count, or a whole mapping."""
    known = {"type": CORE, "count": 2, "name": "fast", "config": {"ksoftirqd_sched": "f51"}, "optional": True}
    assert claims_from([f"{GPU}=2", Claim("m", "x"), known]) == (
        Claim(GPU, GPU, 2),
        Claim("m", "x"),
        Claim("fast", CORE, 2, optional=True, config='{"ksoftirqd_sched":"f51"}'),
    )
    assert claims_from({"limits": {GPU: 1}}) == (Claim(GPU, GPU),)


@pytest.mark.parametrize("claims", ["a", b"a", 5, [5], [{"type": 5}], [{}], ["a", "a"], [{"type": "a", "count": "2"}]])
def test_what_the_library_refuses(claims: Any) -> None:
    """Anything else, and two claims of one name."""
    with pytest.raises(Invalid):
        claims_from(claims)
