"""Money and minutes come from the site's own figures alone, and each needs all of its figures."""

import pytest

from client.board.facts import Effort, NotMeasured
from client.board.prices import Prices, costs, prices_file, read_prices
from configs.loader import ConfigurationError

EFFORT = Effort(rounds=2, bytes_up=1, bytes_down=1, hours=2.0, kwh=10.0)
ALL = {
    "currency": "CHF",
    "kwh_price": 0.25,
    "watts": 350,
    "staff_hours": 4,
    "staff_hour_price": 60,
    "readings": 1000,
    "minutes_a_reading": 3,
    "relied_upon": 0.5,
}


def test_costs_are_the_products_of_the_figures():
    found = costs(read_prices(ALL), EFFORT)
    assert (found.electricity, found.staff, found.total, found.minutes_saved) == (2.5, 240.0, 242.5, 1500.0)
    assert (
        found.minutes_by
        == "1,000 readings x 3 min x 50 % relied upon; what a local-only model would save was not entered"
    )


def test_what_the_local_only_model_would_save_is_taken_off_where_it_is_entered():
    found = costs(read_prices(ALL | {"relied_upon_alone": 0.6}), EFFORT)
    assert found.minutes_saved == pytest.approx(-300)
    assert found.minutes_by == "1,000 readings x 3 min x (50 % relied upon less 60 % without joining)"


@pytest.mark.parametrize(
    ("left_out", "unknown"),
    [
        ("kwh_price", {"electricity", "total"}),
        ("staff_hours", {"staff", "total"}),
        ("readings", {"minutes_saved"}),
        ("relied_upon", {"minutes_saved"}),
    ],
)
def test_a_figure_that_is_left_out_leaves_what_needs_it_unmeasured(left_out, unknown):
    found = costs(read_prices({k: v for k, v in ALL.items() if k != left_out}), EFFORT)
    missing = {name for name, value in vars(found).items() if isinstance(value, NotMeasured)}
    assert missing == unknown
    assert any(left_out in getattr(found, name).why for name in unknown)


def test_without_energy_its_price_buys_nothing():
    effort = Effort(rounds=2, bytes_up=1, bytes_down=1, hours=2.0, kwh=NotMeasured("energy", "no counter"))
    assert isinstance(costs(read_prices(ALL), effort).electricity, NotMeasured)


def test_nothing_is_assumed():
    found = costs(read_prices(None), EFFORT)
    assert all(isinstance(v, NotMeasured) for v in (found.electricity, found.staff, found.total, found.minutes_saved))


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"kwh_prise": 1}, "did you mean 'kwh_price'"),
        ({"kwh_price": -1, "currency": "EUR"}, "board.kwh_price is -1; give 0 or more"),
        ({"watts": float("inf")}, "board.watts is inf"),
        ({"watts": float("nan")}, "board.watts is nan"),
        ({"watts": "350 W"}, "board.watts must be float, not str"),
        ({"relied_upon": 40}, "write 40 % as 0.4"),
        ({"kwh_price": 0.3}, "add one beside it, as in currency: EUR"),
        ({"hospital": "a\nb"}, "cannot be printed"),
        ({"hospital": "x" * 121}, "121 characters"),
        (["kwh_price"], "board must be a mapping"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_with_the_remedy(figures, message):
    with pytest.raises(ConfigurationError, match=message):
        read_prices(figures)


def test_a_file_of_prices_is_any_yaml_with_the_part(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("name: north\nboard:\n  currency: EUR\n  kwh_price: 0.3\n")
    assert prices_file(path) == Prices(currency="EUR", kwh_price=0.3)
    for content in ("name: north\n", "board: [", "[]"):
        path.write_text(content)
        with pytest.raises(ConfigurationError, match="board:"):
            prices_file(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        prices_file(tmp_path / "none.yaml")
