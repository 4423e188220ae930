import pytest
import yaml

from configs.loader import load
from mumc_model.data.tokenizer import vocabulary
from protocol.signing import payload_hash
from server.config import RunConfig
from server.journal import Journal, RoundRecord
from server.orders import Orders, fit_vocabulary


def test_config_prints_a_run_that_loads_again(called):
    code, out, _ = called("config", "federation.rounds=2", "strategy=fedyogi")
    config = load(RunConfig, yaml.safe_load(out))
    assert (code, config.federation.rounds, config.strategy.optimizer) == (0, 2, "yogi")


def test_config_prints_the_digest_by_which_a_site_pins_the_recipe_of_the_orders(called):
    _, out, _ = called("config", "model=small")
    config = load(RunConfig, yaml.safe_load(out))
    tokens = tuple(vocabulary(config.vocabulary).vocab)
    order = Orders(config, "trial", fit_vocabulary(config.recipe, len(tokens)), tokens).pretrain(1, "0" * 64)
    assert out.splitlines()[0] == f"# policy.runs.recipes: [{payload_hash(order.recipe)}]"


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("federation.round=2", "did you mean"),
        ("strategy=fedadm", "fedadam"),
        ("federation.min_sites=9", "choose it from"),
    ],
)
def test_a_bad_override_ends_in_one_line_with_the_remedy(called, override, hint):
    code, _, err = called("config", override)
    assert code == 2
    assert err.startswith("mumc-server: ")
    assert hint in err
    assert "Traceback" not in err


def test_journal_prints_a_row_an_attempt_and_who_was_lost_in_it(called, tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for attempt in (1, 2):
        journal.append(
            RoundRecord(
                run_id="r",
                round=1,
                attempt=attempt,
                sites_expected=3,
                sites_merged=2,
                refused={"west": "not_finite"},
                reasons={"west": "[red]3 values[/red]"},
                examples=40,
                losses={"total": 2.5 / attempt},
                update_norm=0.125,
                bytes_up=1_500_000,
                bytes_down=3_000_000,
                seconds=4.0,
                lr=1.0,
            )
        )
    code, out, _ = called("journal", str(tmp_path))
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["1", "2/3", "40", "2.500", "0.125", "1.50", "3.00", "4.0"],
        ["1.2", "2/3", "40", "1.250", "0.125", "1.50", "3.00", "4.0"],
    ]
    assert out.splitlines()[3:] == [
        "round 1 lost west (not_finite: [red]3 values[/red])",
        "round 1.2 lost west (not_finite: [red]3 values[/red])",
    ]


def test_journal_of_a_folder_without_a_journal_says_so(called, tmp_path):
    code, _, err = called("journal", str(tmp_path))
    assert code == 2
    assert "there is no journal" in err


def test_help_says_who_it_is_for(called):
    code, out, _ = called("--help")
    assert code == 0
    assert "operator of the aggregator" in out
