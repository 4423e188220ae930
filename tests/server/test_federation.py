import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, RecordDict
from flwr.common.constant import ErrorCode

from mumc_model.config import InitConfig
from mumc_model.errors import CheckpointError, ConfigError
from protocol.messages import Refusal
from protocol.records import to_record
from server import federation
from server.checkpoint import load_arrays, saved_round
from server.config import ScreenConfig, SecaggConfig, StrategyConfig
from server.errors import FederationError, OutputError
from server.home import SecaggFile
from server.journal import read_journal
from server.orders import fit_vocabulary, round_seed
from tests.server.conftest import RECIPE, TOKENS
from tests.server.fake_grid import FakeGrid, difference, report, site

NORTH, SOUTH, EAST = site("north", 1.0, 10, 2.0), site("south", 2.0, 30, 4.0), site("east", 3.0, 20, 1.0)


GRID = 6 * 3 * 2**-23
"""What fixed point may take from a mean of three updates whose weighted values reach 6: half a step a site."""


def flat(weights):
    return np.concatenate([weights[name].ravel() for name in sorted(weights)])


def first(config):
    return flat(federation.first_weights(config, fit_vocabulary(config.recipe, len(TOKENS))))


def test_a_round_adopts_the_mean_of_the_sites_weighted_by_examples(configured):
    config, grid = configured(), FakeGrid({11: NORTH, 12: SOUTH, 13: EAST})
    result = federation.run(grid, config)
    order, base = grid.orders[0][1], first(config)
    sites = [base + difference(order, {"float32": base}, shift)["float32"].astype("float64") for shift in (1, 2, 3)]
    merged = flat(load_arrays(result.weights))
    np.testing.assert_allclose(merged, np.average(sites, axis=0, weights=[10, 30, 20]), rtol=1e-6, atol=GRID)
    assert merged.dtype == np.float32


class Enrolled:
    """What a run knows of enrolled sites, without their keys."""

    secagg, names = SecaggFile(), ("east", "north", "south")

    def enrolled(self, nodes):
        return nodes

    def site(self, node):
        return {11: "north", 12: "south", 13: "east"}[node]

    def units(self, node):
        return {11: 10, 12: 15, 13: 100}[node]

    def seal(self, order, node, payload):
        return None

    def check(self, node, content, order):
        return None


def test_no_enrolled_site_weighs_more_than_the_units_that_the_others_know(configured):
    config = dataclasses.replace(configured(), secagg=SecaggConfig(mode="off"))
    grid = FakeGrid({11: NORTH, 12: SOUTH, 13: EAST})
    result = federation.run(grid, config, post=Enrolled())
    order, base = grid.orders[0][1], first(config)
    sites = [base + difference(order, {"float32": base}, shift)["float32"].astype("float64") for shift in (1, 2, 3)]
    merged = np.average(sites, axis=0, weights=[10, 15, 20])
    np.testing.assert_allclose(flat(load_arrays(result.weights)), merged, rtol=1e-6, atol=GRID)
    (record,) = read_journal(result.journal)
    assert record.examples == 45
    assert record.losses == {"total": pytest.approx((10 * 2 + 15 * 4 + 20 * 1) / 45)}


def test_the_journal_says_what_was_merged(configured):
    records = []
    grid = FakeGrid({11: NORTH, 12: SOUTH, 13: EAST})
    result = federation.run(grid, configured(rounds=2), on_round=records.append)
    assert read_journal(result.journal) == records
    assert [(r.round, r.sites_merged, r.sites_expected, r.examples) for r in records] == [(1, 3, 3, 60), (2, 3, 3, 60)]
    assert records[0].losses == {"total": pytest.approx((10 * 2 + 30 * 4 + 20 * 1) / 60)}
    base = first(configured("other"))
    deltas = [difference(grid.orders[0][1], {"float32": base}, shift)["float32"] for shift in (1, 2, 3)]
    expected = np.linalg.norm(np.average(deltas, axis=0, weights=[10, 30, 20]))
    assert records[0].update_norm == pytest.approx(expected, rel=1e-5)
    assert records[0].bytes_up > 3 * base.nbytes
    assert records[0].bytes_down > 3 * base.nbytes
    assert records[0].refused == {}


def test_every_site_gets_the_same_order_and_steps_go_on_over_the_rounds(configured):
    grid = FakeGrid({11: NORTH, 12: SOUTH, 13: EAST})
    result = federation.run(grid, configured(rounds=2, final="finetune"))
    by_round = [[order for _, order in grid.orders if order.round == n] for n in (1, 2, 3)]
    assert all(order == orders[0] for orders in by_round for order in orders)
    orders = [orders[0] for orders in by_round]
    assert [(o.first_step, o.steps, o.total_steps) for o in orders] == [(0, 5, 10), (5, 5, 10), (0, 300, 300)]
    assert [o.action for o in orders] == ["train.pretrain", "train.pretrain", "train.finetune"]
    assert len({o.seed for o in orders}) == len({o.base_digest for o in orders}) == 3
    assert {o.run_id for o in orders} == {result.run_id}
    assert orders[0].vocabulary == tuple(TOKENS)
    assert orders[0].recipe["model"]["text"]["vocab_size"] == len(TOKENS)


def test_the_same_seed_and_answers_give_the_same_weights_in_any_order_of_arrival(configured):
    runs = []
    for folder, arrival in (("a", [11, 12, 13]), ("b", [13, 11, 12]), ("c", [12, 13, 11])):
        grid = FakeGrid({11: NORTH, 12: SOUTH, 13: EAST}, arrival)
        strategy = StrategyConfig(optimizer="adam", lr=0.01)
        runs.append(federation.run(grid, configured(folder, strategy, rounds=3, run_id="r")))
    contents = {run.weights.read_bytes() for run in runs}
    assert len(contents) == 1
    assert len({read_journal(run.journal)[-1].losses["total"] for run in runs}) == 1


def test_no_more_than_one_reply_is_held_while_the_next_is_pulled(configured):
    grid = FakeGrid({node: site(f"s{node}", node / 10) for node in range(11, 19)})
    federation.run(grid, configured(sites=8))
    assert grid.most_replies_alive == 1


def faulty(change=lambda flat: flat, arrays=None, **told):
    def answer(order, base):
        update = difference(order, base, 9.0) if arrays is None else arrays(difference(order, base, 9.0)["float32"])
        if arrays is None:
            update["float32"] = change(update["float32"])
        return to_record(report(order, site="west", **told), update)

    return answer


def with_value(value):
    def change(flat):
        flat[len(flat) // 2] = value
        return flat

    return change


def forged(order, base):
    record = to_record(report(order, site="west"), difference(order, base, 9.0))
    values = json.loads(record["message"]["json"])
    record["message"]["json"] = json.dumps({**values, "examples": 1e12})
    return record


FAULTS = {
    "a NaN": (faulty(with_value(np.nan)), "not_finite"),
    "an infinity": (faulty(with_value(-np.inf)), "not_finite"),
    "one number too few": (faulty(lambda flat: flat[:-1]), "wrong_shape"),
    "doubles": (faulty(lambda flat: flat.astype("float64")), "wrong_dtype"),
    "no weights": (faulty(arrays=lambda flat: {}), "missing_weights"),
    "a missing key": (faulty(arrays=lambda flat: {"float16": flat.astype("float16")}), "missing_weights"),
    "an extra key": (faulty(arrays=lambda flat: {"float32": flat, "float64": np.zeros(1)}), "unexpected_weights"),
    "1e12 examples": (faulty(examples=10**12), "bad_examples"),
    "-50 examples": (faulty(examples=-50), "bad_examples"),
    "no examples": (faulty(examples=0), "bad_examples"),
    "examples as a float": (forged, "bad_message"),
    "a report of another round": (faulty(round=9), "stale"),
    "a report of another run": (faulty(run_id="other"), "stale"),
    "another base": (faulty(base_digest="0" * 64), "stale"),
    "a refusal": (lambda order, base: to_record(Refusal(code="data", text="no captions")), "data"),
    "an error of Flower's": (lambda order, base: Error(3, "Traceback: /home/doctor"), "flower_3"),
    "nothing": (lambda order, base: RecordDict(), "bad_message"),
    "its order": (lambda order, base: to_record(order, base), "bad_message"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_site_that_answers_with_a_fault_is_refused_by_code_and_moves_nothing(configured, fault):
    answer, code = FAULTS[fault]
    honest = federation.run(FakeGrid({11: NORTH, 12: SOUTH}), configured("honest", sites=2, run_id="r"))
    result = federation.run(FakeGrid({10: answer, 11: NORTH, 12: SOUTH}), configured(run_id="r"))
    (record,) = read_journal(result.journal)
    assert list(record.refused.values()) == [code]
    assert set(record.refused) <= {"west", "000000000000000a"}
    assert record.sites_merged == 2
    assert result.weights.read_bytes() == honest.weights.read_bytes()
    assert "doctor" not in result.journal.read_text()


def test_a_site_s_reason_is_shown_as_one_short_line_whatever_it_sent(configured):
    def refuses(order, base):
        record = to_record(Refusal(code="policy_steps", text=""))
        told = json.loads(record["message"]["json"]) | {"text": "at most\x1b[2J\n1 \u202estep, [red]" + "x" * 10**5}
        record["message"]["json"] = json.dumps(told)
        return record

    result = federation.run(FakeGrid({10: refuses, 11: NORTH, 12: SOUTH}), configured(final="finetune"))
    (record,) = read_journal(result.journal)
    shown = '"at most [2J 1 step, [red]' + "x" * 273 + '"'
    assert record.reasons == {"000000000000000a": shown} == result.reasons
    assert json.loads(result.result.read_text())["vqa"]["reasons"] == record.reasons
    assert str(record).endswith(f"lost 000000000000000a (policy_steps: {shown})")


def test_a_reason_that_imitates_another_site_s_loss_stays_within_its_quotes(configured):
    def lies(order, base):
        return to_record(Refusal(code="policy_steps", text='at most 1"), south (not_finite: 7 values | sites 0/3'))

    result = federation.run(FakeGrid({10: lies, 11: NORTH, 12: SOUTH}), configured())
    (record,) = read_journal(result.journal)
    assert str(record).endswith(
        """lost 000000000000000a (policy_steps: "at most 1'), south (not_finite: 7 values | sites 0/3")"""
    )


def test_a_node_that_calls_itself_as_another_does_is_refused(configured):
    result = federation.run(FakeGrid({11: NORTH, 12: SOUTH, 13: site("north", 5.0)}), configured())
    assert read_journal(result.journal)[0].refused == {"000000000000000d": "duplicate_site"}


def test_a_refused_site_is_back_in_the_mean_in_the_next_round(configured):
    def ill_at_first(order, base):
        return faulty(with_value(np.nan))(order, base) if order.round == 1 else faulty()(order, base)

    result = federation.run(FakeGrid({10: ill_at_first, 11: NORTH, 12: SOUTH}), configured(rounds=2))
    assert [record.refused for record in read_journal(result.journal)] == [{"west": "not_finite"}, {}]


def test_a_site_that_does_not_answer_before_the_deadline_loses_the_round_and_is_named(configured):
    def falls_silent(order, base):
        return NORTH(order, base) if order.round == 1 else None

    grid = FakeGrid({11: falls_silent, 12: SOUTH, 13: EAST})
    result = federation.run(grid, configured(rounds=2, round_timeout_s=0.2))
    records = read_journal(result.journal)
    assert [record.refused for record in records] == [{}, {"north": "no_answer"}]
    assert 0.2 <= records[1].seconds < 2.0


@pytest.mark.parametrize("code", [ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED])
def test_a_site_that_went_away_and_is_back_is_asked_once_more_in_the_same_attempt(configured, code):
    asked = []

    def goes_away_once(order, base):
        asked.append((order.round, order.attempt))
        return Error(code, "gone") if len(asked) == 1 else EAST(order, base)

    result = federation.run(FakeGrid({11: NORTH, 12: SOUTH, 13: goes_away_once}), configured())
    (record,) = read_journal(result.journal)
    assert (record.merged, record.refused, record.examples) == (["east", "north", "south"], {}, 60)
    assert asked == [(1, 1), (1, 1)]


def test_a_site_is_told_in_its_next_order_why_its_update_was_not_merged(configured):
    def ill_at_first(order, base):
        return faulty(with_value(np.nan))(order, base) if order.round == 1 else faulty()(order, base)

    grid = FakeGrid({10: ill_at_first, 11: NORTH, 12: SOUTH})
    federation.run(grid, configured(rounds=3))
    told = {(order.round, node): order.remark for node, order in grid.orders if order.remark}
    assert told.keys() == {(2, 10)}
    assert told[2, 10].startswith("not in round 1, attempt 1: not_finite: 1 values of the update are NaN")


def test_a_site_that_stays_away_is_named_as_before(configured):
    result = federation.run(
        FakeGrid({11: NORTH, 12: SOUTH, 13: lambda order, base: Error(ErrorCode.NODE_UNAVAILABLE, "gone")}),
        configured(),
    )
    (record,) = read_journal(result.journal)
    assert record.refused == {"000000000000000d": "flower_5"}
    assert record.merged == ["north", "south"]


def test_a_site_that_cannot_be_reached_is_named(configured):
    result = federation.run(FakeGrid({11: NORTH, 12: SOUTH, 13: EAST}, refused=[13]), configured())
    assert read_journal(result.journal)[0].refused == {"000000000000000d": "not_sent"}


def test_a_round_that_loses_too_many_sites_is_void_and_its_error_names_them(configured):
    config = configured()
    ill = {10: FAULTS["a NaN"][0], 11: FAULTS["a refusal"][0], 12: FAULTS["nothing"][0]}
    with pytest.raises(
        FederationError, match=r"round 1, attempt 3 is void: 0 updates could be merged, but federation\.min_sites is 2"
    ) as raised:
        federation.run(FakeGrid(ill), config)
    for lost in ("west (not_finite: 1 ", '000000000000000b (data: "no captions")', "000000000000000c (bad_message: "):
        assert lost in str(raised.value)
    records = read_journal(Path(config.output_dir) / "journal.jsonl")
    assert [(r.attempt, r.sites_merged, r.update_norm, len(r.refused)) for r in records] == [
        (1, 0, 0.0, 3),
        (2, 0, 0.0, 3),
        (3, 0, 0.0, 3),
    ]
    assert saved_round(Path(config.output_dir))[1] == 0


def test_a_void_round_leaves_the_weights_of_the_round_before(configured):
    def only_once(name, shift):
        return lambda order, base: site(name, shift)(order, base) if order.round == 1 else RecordDict()

    honest = federation.run(FakeGrid({11: site("a", 1.0), 12: site("b", 2.0)}), configured("honest", sites=2))
    config = configured(sites=2, rounds=2)
    with pytest.raises(FederationError, match="round 2, attempt 3 is void"):
        federation.run(FakeGrid({11: only_once("a", 1.0), 12: only_once("b", 2.0)}), config)
    kept = load_arrays(Path(config.output_dir) / "weights.safetensors")
    assert flat(kept).tobytes() == flat(load_arrays(honest.weights)).tobytes()


def test_an_optimiser_step_that_overflows_changes_nothing(configured):
    huge = faulty(with_value(1e30))
    grid = FakeGrid({10: huge, 11: NORTH, 12: SOUTH})
    config = configured(strategy=StrategyConfig(optimizer="adam"), screen=ScreenConfig(norm_factor=0))
    with pytest.raises(FederationError, match="adam step is not finite"):
        federation.run(grid, config)
    assert saved_round(Path(config.output_dir))[1] == 0


def test_too_few_sites_online_is_an_error_with_the_numbers(configured):
    with pytest.raises(FederationError, match=r"1 sites came online within 0.05 s, but at least 2 are needed"):
        federation.run(FakeGrid({11: NORTH}), configured())


def test_a_run_goes_on_with_fewer_sites_than_expected(configured):
    result = federation.run(FakeGrid({11: NORTH, 12: SOUTH}), configured())
    assert str(read_journal(result.journal)[0]).startswith("round   1 | sites 2/3 | loss 3.500 | ")


def test_fine_tuning_gathers_the_metrics_of_each_site(configured):
    def fails_to_finetune(order, base):
        return EAST(order, base) if order.action == "train.pretrain" else to_record(Refusal(code="data", text=""))

    grid = FakeGrid({11: NORTH, 12: SOUTH, 13: fails_to_finetune})
    result = federation.run(grid, configured(final="finetune"))
    assert result.vqa == {"north": {"overall.accuracy": 0.1}, "south": {"overall.accuracy": 0.2}}
    assert result.refused == {"east": "data"}
    written = json.loads(result.result.read_text())
    assert (written["schema_version"], written["run_id"], written["rounds"]) == (4, result.run_id, 1)
    assert written["vqa"]["sites"]["south"] == {"examples": 30, "metrics": {"overall.accuracy": 0.2}}
    assert (written["vqa"]["refused"], written["vqa"]["reasons"]) == ({"east": "data"}, {})
    assert {c["metric"] for c in written["cells"]} == {"loss.total", "overall.accuracy"}
    assert all(set(c) == {"factors", "metric", "value", "ci95", "n", "seed"} for c in written["cells"])


def test_fine_tuning_orders_carry_the_merged_weights(configured):
    seen = []

    def keeps_base(order, base):
        seen.append(base["float32"].copy())
        return NORTH(order, base)

    result = federation.run(FakeGrid({11: keeps_base, 12: SOUTH}), configured(final="finetune"))
    merged = flat(load_arrays(result.weights))
    assert seen[-1].tobytes() == merged.tobytes() != seen[0].tobytes()


def test_weights_that_come_back_from_fine_tuning_are_refused(configured):
    def sends_weights(order, base):
        return to_record(report(order, site="west"), difference(order, base, 1.0))

    result = federation.run(FakeGrid({10: sends_weights, 11: NORTH, 12: SOUTH}), configured(rounds=0, final="finetune"))
    assert result.refused == {"west": "unexpected_weights"}


def test_fine_tuning_that_nobody_finishes_is_an_error_that_names_the_sites(configured):
    refuses = FAULTS["a refusal"][0]
    with pytest.raises(FederationError, match=r'no site reports .*0b.*0c \(data: "no captions"\)'):
        federation.run(FakeGrid({11: refuses, 12: refuses}), configured(rounds=0, final="finetune"))


def test_a_run_without_rounds_fine_tunes_from_the_weights_of_an_earlier_one(configured):
    nodes = {11: NORTH, 12: SOUTH, 13: EAST}
    earlier = federation.run(FakeGrid(nodes), configured("earlier"))
    grid = FakeGrid(nodes)
    later = federation.run(grid, configured("later", rounds=0, final="finetune", initial_weights=str(earlier.weights)))
    assert flat(load_arrays(later.weights)).tobytes() == flat(load_arrays(earlier.weights)).tobytes()
    assert {order.action for _, order in grid.orders} == {"train.finetune"}
    assert not later.journal.exists()
    assert len(later.vqa) == 3


def test_weights_of_another_model_are_refused_before_any_site_is_asked(configured):
    nodes = {11: NORTH, 12: SOUTH}
    earlier = federation.run(FakeGrid(nodes), configured("earlier"))
    wider = dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, projection=8))
    grid = FakeGrid(nodes)
    with pytest.raises(CheckpointError, match="vision_proj"):
        federation.run(grid, configured("later", recipe=wider, initial_weights=str(earlier.weights)))
    assert grid.orders == []


def test_a_finished_run_is_not_written_over(configured):
    nodes = {11: NORTH, 12: SOUTH}
    federation.run(FakeGrid(nodes), configured(run_id="r"))
    with pytest.raises(OutputError, match="already holds a finished run; choose another output_dir"):
        federation.run(FakeGrid(nodes), configured(run_id="r"))


def test_an_unfinished_run_is_not_written_over(configured):
    with pytest.raises(FederationError):
        federation.run(FakeGrid({11: FAULTS["nothing"][0], 12: SOUTH}), configured())
    with pytest.raises(OutputError, match="did not finish"):
        federation.run(FakeGrid({11: NORTH, 12: SOUTH}), configured())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rounds": 0}, "nothing to do"),
        ({"rounds": -1}, "rounds is -1"),
        ({"min_sites": 4}, "min_sites is 4; choose it from 1 to federation.sites, 3"),
        ({"min_sites": 0}, "min_sites is 0"),
        ({"local_steps": 0}, "local_steps is 0"),
        ({"round_timeout_s": 0.0}, "round_timeout_s is 0"),
        ({"run_id": "../up"}, "run_id is '../up'"),
        ({"initial_weights": "w", "init": InitConfig(text="bert")}, "leave one empty"),
        ({"strategy": {"lr": 0.0}}, "strategy.lr"),
        ({"strategy": {"betas": (0.9, 1.0)}}, "strategy.betas"),
        ({"strategy": {"tau": 0.0}}, "strategy.tau"),
        ({"strategy": {"max_examples": 0}}, "strategy.max_examples"),
    ],
)
def test_a_run_that_cannot_be_is_refused_at_the_door(configured, changes, text):
    with pytest.raises(ConfigError, match=text):
        configured(
            **{**changes, **({"strategy": StrategyConfig(**changes["strategy"])} if "strategy" in changes else {})}
        )


def test_a_model_with_fewer_embeddings_than_tokens_is_refused(configured):
    text = dataclasses.replace(RECIPE.model.text, vocab_size=3)
    small = dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, text=text))
    with pytest.raises(ConfigError, match="vocab_size is 3, but the vocabulary has 6 tokens"):
        federation.run(FakeGrid({}), configured(recipe=small))


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "yogi"])
def test_the_optimisers_moments_lie_beside_the_weights(configured, optimizer):
    config = configured(strategy=StrategyConfig(optimizer=optimizer, lr=0.01), rounds=2)
    result = federation.run(FakeGrid({11: NORTH, 12: SOUTH}), config)
    moments = load_arrays(result.weights.parent / "optimizer-0002.safetensors")
    assert set(moments) == {"first.float32"} | ({"second.float32"} if optimizer != "momentum" else set())


def test_the_rounds_seed_depends_on_the_runs_seed_and_the_round_alone():
    seeds = {(seed, round): round_seed(seed, round) for seed in (0, 1, -1) for round in (1, 2, 11, 12)}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= value < 2**63 for value in seeds.values())
    assert round_seed(3, 1) == 2336799598420535308


def test_a_run_that_evaluates_sends_no_weights_and_writes_none(configured):
    sent = []

    def looks(order, base):
        sent.append(base)
        return NORTH(order, base)

    grid = FakeGrid({11: looks, 12: SOUTH})
    result = federation.run(grid, configured(rounds=0, final="evaluate", run_id="earlier"))
    assert [order.action for _, order in grid.orders] == ["evaluate.vqa"] * 2
    assert {order.run_id for _, order in grid.orders} == {"earlier"}
    assert sent == [{}]
    assert result.vqa == {"north": {"overall.accuracy": 0.1}, "south": {"overall.accuracy": 0.2}}
    assert result.result.exists()
    assert not result.weights.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 1, "run_id": "earlier"}, "federation.rounds is 1; set it to 0"),
        ({"rounds": 0}, "no run is named; set run_id"),
    ],
)
def test_an_evaluation_names_the_run_and_trains_nothing(configured, changes, message):
    with pytest.raises(ConfigError, match=message):
        configured(final="evaluate", **changes)
