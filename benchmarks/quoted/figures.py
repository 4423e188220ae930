"""Which figures of each benchmark's JSON the table quotes, and what is aimed at. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from growth.slopes import TOLERANCE

Found = Mapping[str, Any]
Unit = Literal["", "s", "%", "x", "GFLOP"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table."""

    what: str
    value: float
    unit: Unit = ""
    """`%` is of a share, `x` of a ratio."""
    least: float | None = None
    most: float | None = None
    """What is aimed at, at least or at most; with neither there is no aim."""
    beside: str = ""
    """What else to know of it, shown after it."""

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None without one."""
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def shown(self) -> str:
        """The value with its unit."""
        return written(self.value, self.unit) + (f" ({self.beside})" if self.beside else "")

    @property
    def aim(self) -> str:
        """In words; empty without one."""
        ends = (("at least", self.least), ("at most", self.most))
        return ", ".join(f"{end} {written(value, self.unit)}" for end, value in ends if value is not None)


def written(value: float, unit: Unit) -> str:
    """A number as people read it."""
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "x":
        return f"{value:.2f} x"
    return f"{value:.3g}" + (f" {unit}" if unit else "")


def step(found: Found) -> list[Figure]:
    aims = {"mid": 0.6, "base": 0.8}
    return [
        Figure(
            what=f"pre-training step, {name}, useful operations over a matrix product's",
            value=row["share_of_matmul"],
            unit="%",
            least=aims.get(name),
            beside=f"{row['gflop']:.4g} GFLOP in {row['seconds']:.3g} s, batch {row['batch']}",
        )
        for name, row in found["shapes"].items()
    ]


def answering(found: Found) -> list[Figure]:
    rows = []
    for name, row in found.get("ranking", {}).items():
        said = f"{row['seconds']:.3g} s a question"
        shapes, tokens = name.removesuffix("_whole"), row["answer_tokens"]
        what = f"ranking {row['candidates']} answers of up to {tokens} tokens, {shapes}, over tiled states"
        rows.append(Figure(what=what, value=row["speed_up"], unit="x", least=5.0, beside=said))
    for name, row in found.get("finetuning", {}).items():
        what = f"fine-tuning step at 384 px, {name}, operations over a matrix product's"
        rows.append(Figure(what=what, value=row["share_of_matmul"], unit="%", beside=f"{row['seconds']:.3g} s"))
    for name, row in found.get("evaluating", {}).items():
        rows.append(Figure(what=f"evaluating a split, {name}, a question", value=row["seconds_a_question"], unit="s"))
    for name, row in found.get("asking", {}).items():
        what = f"`mumc-site ask`, {name}, after loading"
        said = f"loading {row['load_seconds']:.2g} s"
        rows.append(Figure(what=what, value=row["ask_seconds"], unit="s", most=1.0, beside=said))
    return rows


def startup(found: Found) -> list[Figure]:
    helps = {name: row for name, row in found.get("help", {}).items() if name != "python"}
    rows = [Figure(what=f"`{name} --help`", value=row["seconds"], unit="s", most=1.0) for name, row in helps.items()]
    for name, row in found["first"].items():
        said = f"{row['values'] / 1e6:.0f} million values"
        what = f"order to first step, {name}, after imports"
        rows.append(Figure(what=what, value=row["first"], unit="s", most=3.0, beside=said))
    return rows


def round_(found: Found) -> list[Figure]:
    return [
        Figure(
            what=f"federated round of {row['steps']} local steps beyond its sites' training, {name}",
            value=row["overhead"],
            unit="%",
            most=0.05,
            beside=f"{row['round_s']:.3g} s for {row['training_s']:.3g} s of training",
        )
        for name, row in found["cases"].items()
    ]


def curves(found: Found) -> list[Figure]:
    """The worse of both slopes, over all sizes and between the last two, beside what is asked of it."""
    rows = []
    for row in found["curves"]:
        pairs = list(zip((row["slope"], row["last_slope"]), row["asked"], strict=True))
        value, asked = max(pairs, key=lambda pair: pair[0] - pair[1])
        said = f"{row['sizes'][0]:,} to {row['sizes'][-1]:,} {row['size']}"
        said += f"; of a useful GFLOP {row['slope_per_gflop']:+.2f}" if "slope_per_gflop" in row else ""
        what = f"slope of {row['curve'].replace('_', ', ')}: {row['cost']}"
        rows.append(Figure(what=what, value=value, most=round(asked + TOLERANCE, 3), beside=said))
    return rows


def merge(found: Found) -> list[Figure]:
    size = f"{found['values'] / 1e6:.0f} million values"
    peaks = [cell for cell in found["cells"] if cell["metric"] == "peak_models"]
    most = max(peaks, key=lambda cell: cell["value"])["factors"]
    model = f"{most['rule']}, {most['sites']} sites, {4e-6 * most['values']:.0f} MB a model"
    return [
        Figure(what="merging, over Flower's mean", value=found["ratio_to_flower"], unit="x", least=4.0, beside=size),
        Figure(
            what="merging, bytes a second over copying memory",
            value=found["share_of_copy_bandwidth"],
            unit="%",
            least=0.6,
        ),
        Figure(what="memory at the peak of a merge, worst rule, in models", value=found["peak_models"], beside=model),
    ]


def secagg(found: Found) -> list[Figure]:
    return [
        Figure(
            what=f"masking over ChaCha20 alone, {cell['factors']['sites']} sites",
            value=cell["value"],
            unit="x",
            most=2.0,
        )
        for cell in found["cells"]
        if cell["metric"] == "masking_ratio"
    ]


def dp_step(found: Found) -> list[Figure]:
    return [
        Figure(what=f"private step over a plain one, {name}, {kind}", value=row[f"{kind}_ratio"], unit="x", most=1.5)
        for name, row in found["shapes"].items()
        for kind in ("time", "memory")
    ]


def codec(found: Found) -> list[Figure]:
    cells = {
        (cell["factors"]["codec"], cell["factors"]["block"], cell["metric"]): cell["value"] for cell in found["cells"]
    }
    kinds = dict.fromkeys((kind, block) for kind, block, _ in cells if kind != "float32")
    return [
        Figure(
            what=f"bytes of an update as {kind}{f', blocks of {block}' if kind == 'int8' else ''}, over float32",
            value=cells[kind, block, "share"],
            unit="%",
            beside=f"{cells[kind, block, 'encoding_s'] / cells[kind, block, 'copy_s']:.1f} times as long as a copy",
        )
        for kind, block in kinds
    ]


def transport(found: Found) -> list[Figure]:
    said = f"{found['seconds']['packed']:.3g} s packed, {found['values'] / 1e6:.0f} million values"
    what = "round over TLS, an array a tensor over packed"
    return [Figure(what=what, value=found["ratio"], unit="x", beside=said)]


def plan(found: Found) -> list[Figure]:
    aims = {"first plan, s": 2.0}
    return [
        Figure(
            what=f"`mumc-privacy plan` of {cell['factors']['given']}, {cell['metric'].removesuffix(', s')}",
            value=cell["value"],
            unit="s",
            most=aims.get(cell["metric"]),
        )
        for cell in found["cells"]
        if cell["metric"].endswith(", s")
    ]


@dataclass(frozen=True)
class Run:
    """One benchmark as the table runs it; all of them together take less than 15 minutes on two quiet cores."""

    arguments: Sequence[str]
    read: Callable[[Found], list[Figure]]


RUNS: Mapping[str, Run] = {
    "step": Run(("--shapes", "golden,mid,base", "--steps", "5"), step),
    "answering": Run(("--runs", "1", "--shapes", "small"), answering),
    "startup": Run(("--runs", "1", "--models", "tiny,base"), startup),
    "round": Run(("--rounds", "2"), round_),
    "curves": Run(("--short",), curves),
    "merge": Run(("--values", "50000000", "--runs", "3", "--peak-values", "10000000", "--peak-sites", "2,8,32"), merge),
    "secagg": Run(("--values", "20000000", "--runs", "3"), secagg),
    "dp_step": Run(("--shapes", "mid", "--batches", "16"), dp_step),
    "codec": Run(("--values", "20000000", "--runs", "3", "--blocks", "256"), codec),
    "transport": Run(("--values", "2000000", "--runs", "1", "--sites", ""), transport),
    "plan": Run(("--runs", "2"), plan),
}
