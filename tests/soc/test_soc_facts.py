"""chips.yaml and versions.yaml: every fact has a source, and the judge reads them right."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.errors import RkzooError
from rkzoo.soc.chips import chips, find, resolve, same_family, sources, supported
from rkzoo.soc.versions import Rule, Version, judge, matrix, parse, upgrade

_BOOKKEEPING = {"generation", "aliases", "sources"}


@pytest.mark.parametrize("name", chips())
def test_every_fact_has_a_source_and_every_source_a_fact(name: str) -> None:
    chip = chips()[name]
    empty = type(chip)(generation=2, dtypes=())
    told = {
        field
        for field in chip.__struct_fields__
        if field not in _BOOKKEEPING and getattr(chip, field) != getattr(empty, field)
    }
    assert told == set(chip.sources)
    assert set(chip.sources.values()) <= set(sources())


def test_every_source_is_cited() -> None:
    cited = {key for chip in chips().values() for key in chip.sources.values()}
    cited |= {key for rule in matrix().rules for key in rule.source}
    cited |= {component.source for component in matrix().components.values()}
    variants = (v for chip in chips().values() for v in chip.variants.values())
    cited |= {key for variant in variants for key in variant.sources}
    # Cited by doctor's own findings.
    cited |= {"old2-44", "rocket", "tk2-534", "old2-260", "tk2-33", "driver-load", "monitor-log"}
    assert cited == set(sources())


def test_the_clusters_are_the_cores_without_gap() -> None:
    for chip in chips().values():
        cores = [core for cluster in chip.clusters for core in cluster.cores]
        assert cores == list(range(len(cores)))
        assert all(cluster.policy == cluster.cores[0] for cluster in chip.clusters)


def test_device_tree_names_are_whole() -> None:
    for chip in chips().values():
        assert all(re.fullmatch(r"rockchip,[\w-]*rknpu", name) for name in chip.compatible)


def test_the_big_cores() -> None:
    assert chips()["rk3588"].big_cores == (4, 5, 6, 7)
    assert chips()["rk3568"].big_cores == ()


def test_the_script_s_faults_are_not_taken_over() -> None:
    assert chips()["rk3576"].npu_max_hz == 950_000_000
    assert chips()["rv1126b"].ddr_max_hz is None


@pytest.mark.parametrize(
    ("name", "word"), [("rk1820", "RKNN3"), ("RK182X", "RKNN3"), ("rk1808", "1.7.5")]
)
def test_other_generations_are_refused_by_name(name: str, word: str) -> None:
    with pytest.raises(RkzooError) as refused:
        resolve(name)
    assert word in refused.value.fix
    assert find(name) not in supported()


def test_an_unknown_chip_names_the_nearest() -> None:
    with pytest.raises(RkzooError, match="Did you mean rk3588"):
        find("rk3558")


def test_families() -> None:
    assert same_family("rk3566", "rk3568")
    assert same_family("rv1103", "rv1106")
    assert not same_family("rk3588", "rk3576")
    assert not same_family("rv1106", "rv1106b")
    assert not same_family("nothing", "rk3588")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("RKNPU driver: v0.9.8", "0.9.8"),
        ("librknnrt version: 2.0.0b0 (35a6907d79@2024-03-24T10:31:14)", "2.0.0b0"),
        ("2.5.0(compiler version: 2.5.0 (74ea630ce@2026-09-29))", "2.5.0"),
        ("1.6", "1.6.0"),
        ("2.0.0-beta0", "2.0.0b0"),
    ],
)
def test_versions_are_read(text: str, wanted: str) -> None:
    assert str(parse(text)) == wanted


@pytest.mark.parametrize("text", [None, "", "nonsense", "v", "2", "."])
def test_what_is_no_version(text: str | None) -> None:
    assert parse(text) is None


_NUMBERS = st.tuples(*[st.integers(0, 99)] * 3)
_VERSIONS = st.builds(Version, _NUMBERS, st.none() | st.integers(0, 9))


@given(_VERSIONS, _VERSIONS)
def test_the_order_of_versions(one: Version, other: Version) -> None:
    assert parse(str(one)) == one
    assert (one < other) + (one > other) + (one == other) == 1
    if one.numbers != other.numbers:
        assert (one < other) == (one.numbers < other.numbers)
    elif one.beta is not None and other.beta is None:
        assert one < other


@given(st.text(max_size=40))
def test_any_text_is_read_or_not(text: str) -> None:
    found = parse(text)
    assert found is None or all(number >= 0 for number in found.numbers)


def rules(**known: str) -> list[str]:
    chip = known.pop("chip", "rk3588")
    versions = {part: parse(version) for part, version in known.items()}
    return [rule.id for rule in judge(versions, chip=chip, library="librknnrt.so")]  # type: ignore[arg-type]


# Pairs that users met, with what happened.
def test_pairs_that_users_met() -> None:
    # rknn-toolkit2#281, #254 and rockchip-linux/rknn-toolkit2#316: refused.
    for runtime, driver in (("1.4.0", "0.9.8"), ("1.3.0", "0.7.2"), ("1.5.0", "0.9.0")):
        assert "model-format" in rules(model="2.3.0", runtime=runtime, driver=driver)
    # Logs of librknnrt 1.5.2 and 1.6.0 with driver 0.8.2: runs, with the library's warning.
    for version in ("1.5.2", "1.6.0"):
        assert rules(model=version, runtime=version, driver="0.8.2") == ["driver-old"]
    # A log of librknnrt 2.3.2 with driver 0.9.8: runs.
    assert rules(model="2.3.2", runtime="2.3.2", driver="0.9.8") == []
    # radxa/kernel#312: 0.9.3 fails, 0.9.6 mends it.
    assert rules(driver="0.9.3") == ["driver-broken"]
    assert rules(driver="0.9.6") == []


def test_a_beta_is_older_than_its_release() -> None:
    assert "runtime-rk3576" not in rules(chip="rk3576", runtime="2.0.0b0")
    assert "runtime-rk3576" in rules(chip="rk3576", runtime="1.6.0")


def test_what_is_unknown_is_not_judged() -> None:
    assert judge({}) == ()
    assert judge({"model": parse("9.9.9"), "runtime": None}, chip="rk3588") == ()


def test_failures_come_first() -> None:
    found = judge(
        {"model": parse("2.5.0"), "runtime": parse("1.4.0"), "driver": parse("0.4.2")},
        chip="rk3588",
    )
    assert [rule.level for rule in found] == sorted(rule.level for rule in found)
    assert found[0].level == "fail"


def test_every_rule_can_speak_and_has_its_step() -> None:
    """For each rule there are versions that break it: none is dead."""
    candidates = ["0.4.2", "0.8.2", "0.9.3", "1.1.0", "1.4.0", "1.5.0", "1.6.0", "2.0.0"]
    candidates += ["2.2.0", "2.3.2"]
    for rule in matrix().rules:
        parts = list(rule.when)
        choices = [{parts[0]: parse(version)} for version in candidates]
        for part in parts[1:] + [
            p
            for p in ("runtime", "model")
            if f">{p}" in str(rule.when) or f"<{p}" in str(rule.when)
        ]:
            choices = [c | {part: parse(version)} for c in choices for version in candidates]
        assert any(rule.holds(known) for known in choices), rule.id  # type: ignore[arg-type]
        assert upgrade(rule.mend)
        assert set(rule.chips) <= set(chips())


@pytest.mark.parametrize("condition", ["2.0", "=2.0", "<nothing", "<", ">=2.0;<3"])
def test_a_bad_condition_is_refused_when_read(condition: str) -> None:
    document = {"id": "x", "when": {"model": condition}, "level": "warn", "why": "w"}
    document |= {"mend": "model", "source": []}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, Rule)
