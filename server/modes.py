"""Plain and masked rounds: which of them a run has, decided before it starts, and what goes with which."""

from dataclasses import dataclass

from mumc_model.errors import ConfigError
from protocol.secagg.errors import SecaggError
from protocol.secagg.fixed_point import choose
from server.config import RunConfig
from server.seal import Post
from server.secagg import Terms


@dataclass(frozen=True)
class Row:
    """What one kind of handling can do in a plain and in a masked round."""

    what: str
    plain: str
    masked: str


TABLE = (
    Row(
        "shape, type, size, schema, base",
        "screened at the server",
        "checked by the site, bound by the session, and at the server for words",
    ),
    Row("NaN, Inf", "screened at the server", "refused at the site"),
    Row(
        "norms, free riders, flipped updates (`screen.*`)",
        "compared at the round's deadline, and refused with a reason",
        "no: nothing to look at. The step must be finite",
    ),
    Row(
        "robust merging (`merge.rule`)",
        "single updates are there",
        "no, a run that names another rule than the mean is refused: they need single updates",
    ),
    Row("weighted mean, server optimisers", "yes", "yes"),
    Row(
        "weights (`strategy.max_examples`)",
        "reported after training, up to the enrolled units",
        "public and agreed before training; a run is refused where an enrolled weight is above the limit",
    ),
    Row(
        "lossy codecs (`codec.kind`)",
        "bfloat16, int8",
        "no, a run that names one is refused: words must add. 32-bit words are as large as float32, and random words "
        "do not compress",
    ),
    Row(
        "late updates (`federation.late`)",
        "refused, or used in the next round with less weight",
        "refused: a vector fits one session only",
    ),
    Row(
        "a lost reply",
        "asked for in the next round or attempt; resent as stored",
        "asked for once more where the site is there; resent as stored, never masked anew",
    ),
    Row(
        "too few sites in a round",
        "the attempt is void, and the next asks those that are missing",
        "the attempt is void, and the next begins anew when sites are there",
    ),
    Row(
        "a server that was killed",
        "goes on with `--resume`: who is in the spool is not asked again",
        "goes on with `--resume` in the stage that it was in: sites answer it with the bytes that they have kept",
    ),
    Row("retry after the sum was opened", "no", "no: the round is over, the next begins"),
    Row("losses and counts in reports", "as the policy says", "losses as the policy says; counts are the weights"),
    Row("sites", "`federation.min_sites`", "at least 3 enrolled, and 2 that do not collude"),
    Row("status, journal", "who was merged", "that, the threshold, and the stage that an absent site missed"),
    Row(
        "differential privacy",
        "yes",
        "yes: noise before masking; rounding and clipping come after it and cost nothing",
    ),
)


def table() -> str:
    """The table in Markdown, as docs/secagg.md shows it."""
    lines = ["| | plain | masked |", "|---|---|---|"]
    return "\n".join(lines + [f"| {row.what} | {row.plain} | {row.masked} |" for row in TABLE])


def masked_terms(config: RunConfig, post: Post | None) -> Terms | None:
    """What the sessions of a run have in common; None where its rounds are plain.

    Raises:
        ConfigError: the run, the federation and secure aggregation do not go together.
    """
    mode, needed = config.secagg.mode, post is not None and post.secagg.required
    if mode == "off" and needed:
        raise ConfigError(
            "secagg.mode is off, and federation.yaml requires secure aggregation (secagg.required); set it to auto"
        )
    if mode == "off" or not config.federation.rounds:
        return None
    if post is None:
        if mode == "required":
            raise ConfigError(
                "secagg.mode is required, and this run has no federation with enrolled sites whose keys could be "
                "checked; set it to auto, or run it with mumc-server run"
            )
        return None
    terms = Terms.of(config, post)
    if len(terms.keys) < terms.fewest:
        if mode == "auto" and not needed:
            return None
        raise ConfigError(
            f"secure aggregation is required, and {len(terms.keys)} sites take part, of which {terms.colluding} may "
            f"collude; it takes at least {terms.fewest}; enrol more, or lower secagg.colluding in federation.yaml"
        )
    check_terms(terms, config)
    return terms


def check_terms(terms: Terms, config: RunConfig) -> None:
    """Return only if masked rounds can be had with these settings.

    Raises:
        ConfigError: they cannot.
    """
    heavy = sorted(name for name, weight in terms.weights.items() if weight > config.strategy.max_examples)
    if heavy:
        raise ConfigError(
            f"{heavy[0]} is enrolled with {terms.weights[heavy[0]]} units, above strategy.max_examples, "
            f"{config.strategy.max_examples}; raise it, since enrolled units are the weights of masked rounds"
        )
    if config.codec.kind not in ("auto", "float32"):
        raise ConfigError(
            f"codec.kind is {config.codec.kind}, and this run's rounds go under masks, whose words must add; set it to "
            "auto, or secagg.mode to off"
        )
    if config.merge.rule != "mean":
        raise ConfigError(
            f"merge.rule is {config.merge.rule}, which compares single updates, and this run's rounds go under masks; "
            "set it to mean, or secagg.mode to off"
        )
    try:
        choose(
            clip=terms.settings.clip,
            tolerance=terms.settings.tolerance,
            weights=terms.weights.values(),
            threshold=terms.threshold(len(terms.weights)),
            rounding=terms.settings.rounding,
        )
    except SecaggError as error:
        raise ConfigError(f"secagg.clip and secagg.tolerance do not go together: {error}") from None
