"""Where rows may lie: laws of the one function that every operation asks."""

from hypothesis import given
from hypothesis import strategies as st

from bedplate.policy.residency import Place, inside, refusal
from bedplate.records import REGIONS
from tests.laws import examples

REGION = st.sampled_from(REGIONS)
RESIDENCY = st.lists(REGION, min_size=1, max_size=4, unique=True).map(tuple)
PLACES = st.lists(
    st.builds(Place, st.sampled_from(["the home", "its storage", "the source of a"]), REGION | st.just(""), REGION),
    max_size=4,
)


@examples()
@given(RESIDENCY, PLACES)
def test_rows_may_lie_where_every_place_says_that_it_is_inside_and_nowhere_else(
    residency: tuple[str, ...], places: list[Place]
) -> None:
    wrong = [place for place in places if place.region not in residency]
    found = refusal(residency, places)
    assert (found is None) == (not wrong)
    if found is not None:
        for place in wrong:
            assert place.name in found.reason
            assert (place.region or "does not say where it is") in found.reason
            assert (place.region or place.setting) in found.reason + found.fix
        assert found.where == wrong[0].setting
        assert all(region in found.reason for region in residency)


@examples()
@given(PLACES)
def test_a_use_case_without_residency_is_never_refused(places: list[Place]) -> None:
    assert refusal((), places) is None


@examples()
@given(RESIDENCY, PLACES, PLACES, REGION)
def test_more_places_never_let_more_in_and_more_regions_never_less(
    residency: tuple[str, ...], places: list[Place], more: list[Place], region: str
) -> None:
    if refusal(residency, places) is not None:
        assert refusal(residency, [*places, *more]) is not None
        assert refusal(residency, [*more, *places]) is not None
    else:
        assert refusal((*residency, region), places) is None


@examples()
@given(RESIDENCY, REGION)
def test_what_says_nothing_is_never_inside(residency: tuple[str, ...], region: str) -> None:
    assert not inside("", residency)
    assert inside(region, residency) == (region in residency)
