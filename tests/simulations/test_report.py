import json
import re
from collections import namedtuple
from html.parser import HTMLParser
from io import StringIO
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.markers import MarkerStyle
from rich.console import Console

from configs.compose import compose
from mumc_model.evaluate import AnswerRow
from simulations.report import build_report, read_report, write_report
from simulations.report_plots import MARKERS, draw_plots
from simulations.report_study import ArmFacts, ArmResult, ReportError, SiteQuestions, Study, Training
from simulations.report_table import print_report, to_markdown

Asked = namedtuple("Asked", "question answer question_type labels", defaults=({},))
TEST = [Asked("which organ?", ("liver", "lung")[i % 2], "organ") for i in range(6)] + [
    Asked("odd?", "yes", "<b>$x")
] * 2
RIGHT = {"centralised": "11111110", "federated": "11111100", "local": "11100000", "scratch": "00000001"}
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta"}


def answers(arm, seed, site):
    rows = [
        AnswerRow(
            image=f"images/{i}.png",
            question_type=asked.question_type,
            answer_type="CLOSED" if asked.answer == "yes" else "OPEN",
            truth=asked.answer,
            prediction=asked.answer if right == "1" else "x",
            correct=right == "1",
            confidence=0.5,
        )
        for i, (asked, right) in enumerate(zip(TEST, RIGHT[arm], strict=True))
    ]
    return ArmResult(arm=arm, seed=seed, site=site, rows=rows)


def training(arm, seed, up):
    losses = [{"total": 3.0, "itm": 0.7}, {"total": 2.0, "itm": float("nan")}]
    return Training(arm=arm, seed=seed, losses=losses, bytes_up=up, bytes_down=2 * up, wall_s=1.5)


@pytest.fixture(scope="module")
def study():
    places = [(seed, site) for seed in (1, 2) for site in ("north", "south & east")]
    return Study(
        name="trial",
        data="synthetic",
        case="two synthetic hospitals",
        command="mumc-sim run experiment=trial",
        results=[answers(arm, *place) for arm in RIGHT for place in places],
        questions=[SiteQuestions(seed=s, site=n, train=TEST[:4], test=TEST, captions=10) for s, n in places],
        training=[training("federated", seed, 1_000_000) for seed in (1, 2)],
        wall_s=65.0,
        config={"model": {"width": 8}},
        caveats=["weights are selected on the validation split"],
    )


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(study, folder)
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return read_report(folder)


def test_the_json_report_has_the_keys_of_its_schema_for_every_arm(report):
    assert report["schema_version"] == 1
    assert list(report["arms"]) == ["scratch", "local", "federated", "centralised"]
    for scores in report["arms"].values():
        for key in ("overall", "open", "closed", "worst_site"):
            assert {"mean", "ci95", "n"} <= scores[key].keys()
        assert scores["sites"].keys() == {"north", "south & east"}
        assert {"bytes_up", "bytes_down", "wall_s", "losses"} <= scores.keys()
    assert report["seeds"] == [1, 2]
    assert report["baselines"].keys() == {"chance", "majority", "question_only"}


def test_differences_are_those_of_the_arms_means(report):
    arms = {arm: scores["overall"]["mean"] for arm, scores in report["arms"].items()}
    assert report["differences"]["federated-local"]["diff"] == pytest.approx(arms["federated"] - arms["local"])
    assert report["differences"]["centralised-federated"]["diff"] == pytest.approx(1 / 8)


def test_cells_are_flat_numbers_that_other_studies_read_alike(report):
    assert all(cell.keys() == {"factors", "metric", "value", "ci95", "n", "seed"} for cell in report["cells"])
    measured = {name: report["measured"][name] for name in ("protocol", "normaliser", "selection")}
    whole = {"arm": "federated", "site": "all", "answer_type": "all", **measured}
    found = [c for c in report["cells"] if c["factors"] == whole]
    assert [(c["seed"], c["value"]) for c in found] == [(1, 0.75), (2, 0.75)]


def test_the_same_study_gives_the_same_bytes(study, folder, tmp_path):
    write_report(study, tmp_path)
    for name in ("report.json", "report.md", "report.html"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_bytes_add_up_over_seeds_and_a_diverged_loss_is_null(report):
    assert (report["bytes_up"], report["bytes_down"]) == (2_000_000, 4_000_000)
    rounds = report["arms"]["federated"]["losses"][0]["rounds"]
    assert rounds == [{"itm": 0.7, "total": 3.0}, {"itm": None, "total": 2.0}]


def test_the_share_of_test_answers_that_no_candidate_gives_is_reported(report):
    assert report["out_of_list"] == pytest.approx(2 / 8)
    assert "no arm could exceed 75.0 %" in to_markdown(report)


class _Tags(HTMLParser):
    """Collects addresses, and refuses tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.seen = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    parser = _Tags()
    parser.feed(page)
    assert parser.open == []
    assert all(link.startswith("#") for link in parser.links)
    assert not parser.seen & {"script", "link", "iframe", "img"}
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_page_shows_names_as_text_whatever_they_hold(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<b>$x" not in page
    assert "&lt;b&gt;$x" in page
    assert "south &amp; east" in page


def test_the_page_states_its_case_data_seeds_and_selection(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in (
        "Synthetic images",
        "two synthetic hospitals",
        "over the seeds 1, 2",
        "selected on the validation split",
    ):
        assert text in page
    assert "width: 8" in page


def test_plots_are_svg_that_parses_with_identifiers_of_their_own(report):
    plots = draw_plots(report)
    assert plots.keys() == {"differences", "sites", "by_question_type", "losses", "bytes"}
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in plots.values()]
    assert len({i for own in ids for i in own}) == sum(len(set(own)) for own in ids)
    for svg, own in zip(plots.values(), ids, strict=True):
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {(i, "") for i in own} | {
            ("", i) for i in own
        }
        assert ElementTree.fromstring(svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)).tag.endswith(
            "svg"
        )


def test_a_study_without_pre_training_has_no_plot_of_losses_or_bytes(study):
    bare = Study(name="b", data="real", case="c", command="x", results=study.results[:4], questions=[])
    report = build_report(bare, np.random.default_rng(0))
    assert draw_plots(report).keys() == {"sites", "by_question_type"}
    assert report["baselines"] == {}
    assert report["differences"] == {}


def test_every_arm_of_the_largest_experiment_has_a_marker_of_its_own():
    arms = compose("simulation", ["experiment=privacy"])["arms"]
    assert len(arms) <= len(MARKERS)
    shapes = {
        (marker.get_path().vertices.tobytes(), marker.get_transform().get_matrix().tobytes())
        for marker in map(MarkerStyle, MARKERS)
    }
    assert len(shapes) == len(MARKERS)


def test_the_terminal_shows_every_arm_and_claims_no_difference_where_zero_is_inside(study):
    same = Study(
        name="null",
        data="synthetic",
        case="c",
        command="x",
        results=[answers("local", 0, "north"), _as_arm("federated", answers("local", 0, "north"))],
        questions=[],
    )
    console = Console(record=True, width=90, file=StringIO())
    print_report(build_report(same, np.random.default_rng(0)), console)
    text = console.export_text()
    assert "No difference between federated and local is shown: 0.0 (0.0 to 0.0) points." in text
    assert "With one seed" in text


def _as_arm(arm, result):
    return ArmResult(arm=arm, seed=result.seed, site=result.site, rows=result.rows)


@pytest.fixture(scope="module")
def private_report():
    arms = {"warm-8": "federated", "public": "local"}
    study = Study(
        name="private",
        data="synthetic",
        case="c",
        command="x",
        results=[_as_arm(arm, answers(like, seed, "north")) for arm, like in arms.items() for seed in (1, 2)],
        questions=[],
        facts=[
            ArmFacts(arm=arm, seed=seed, values={"retrieval_at_5": found})
            for arm, by_seed in {"warm-8": (0.2, 0.3), "public": (0.25, 0.25)}.items()
            for seed, found in zip((1, 2), by_seed, strict=True)
        ],
        pairs=[("warm-8", "public"), ("warm-8", "absent")],
    )
    return build_report(study, np.random.default_rng(0))


def test_arms_with_a_hyphen_are_compared_under_their_whole_names(private_report):
    assert private_report["differences"].keys() == {"warm-8-public"}
    text = to_markdown(private_report)
    assert "- Warm-8 is 37.5 points above public (" in text
    assert "| warm-8 − public | +37.5 (" in text  # noqa: RUF001
    assert "warm-8 − public" in draw_plots(private_report)["differences"]  # noqa: RUF001


def test_retrieval_shows_its_mean_and_its_lowest_and_highest_seed_where_they_differ(private_report):
    text = to_markdown(private_report)
    assert "| warm-8 | - | - | - | - | 25.0% (seeds 20.0% to 30.0%) | - |" in text
    assert "| public | - | - | - | - | 25.0% | - |" in text


def test_a_report_from_before_pairs_named_their_arms_is_shown_alike(report):
    old = json.loads(json.dumps(report))
    for difference in old["differences"].values():
        del difference["arms"]
    assert to_markdown(old) == to_markdown(report)


def test_a_report_of_another_version_is_refused_with_both_versions(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(ReportError, match=r"version 99, this program reads 1"):
        read_report(tmp_path)


def test_a_missing_report_says_what_writes_it(tmp_path):
    with pytest.raises(ReportError, match="a run writes it at its end"):
        read_report(tmp_path)
