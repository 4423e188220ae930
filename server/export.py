"""The merged encoders of a finished run as a model folder that any hospital can open, also one that took no part."""

import json
from collections.abc import Sequence
from pathlib import Path

from configs.loader import load
from mumc_model.checkpoint import load_weights
from mumc_model.data.tokenizer import vocabulary
from mumc_model.model import build_model
from mumc_model.sharing import is_shared, load_shared
from protocol.score_curve import SCORES_FILE, merged
from server.checkpoint import WEIGHTS, kept_weights, write_whole
from server.config import RunConfig
from server.errors import OutputError
from server.history import History
from server.journal import read_journal
from server.orders import fit_vocabulary
from server.output import JOURNAL, RESULT


def export(run: Path, destination: Path, round: int | None = None) -> int:
    """Write the folder; returns how many weights it holds.

    The heads that sites keep to themselves are not in it, and no site is named.

    Args:
        run: The output folder of a finished run.
        destination: The model folder to write.
        round: Whose weights are written, where the run has kept several; the last without it.

    Raises:
        OutputError: the run is not finished, its result cannot be read, or it has no weights of this round.
        CheckpointError: its weights do not fit its configuration.
    """
    config, run_id = _finished(run)
    weights = run / WEIGHTS if round is None else _weights(run, round)
    tokenizer = vocabulary(config.vocabulary)
    model = build_model(fit_vocabulary(config.recipe, len(tokenizer.vocab)).model, config.seed)
    load_shared(model, load_weights(weights))
    # A run without a round of training, which fine-tunes its first weights, has no journal.
    noted = read_journal(run / JOURNAL) if (run / JOURNAL).is_file() else []
    records = [record for record in noted if round is None or record.round <= round]
    kept = sorted({".".join(name.split(".")[:2]) + "." for name in model.weights() if not is_shared(name)})
    facts = {
        "run": run_id,
        "rounds": len(records),
        "sites": config.federation.sites,
        "local steps a round": config.federation.local_steps,
        "records a step": config.recipe.pretrain.batch_size,
        "server optimiser": config.strategy.optimizer,
        "seed": config.seed,
    }
    if records:
        facts["loss of the last round"] = f"{records[-1].losses.get('total', float('nan')):.3f}"
    model.save_pretrained(destination, tokenizer=tokenizer, facts=facts, left_out=kept)
    curve = merged(History.read(run).metrics.values())
    if curve:
        write_whole(destination / SCORES_FILE, json.dumps(curve.to_dict()).encode())
    return sum(is_shared(name) for name in model.weights())


def export_last(run: Path, destination: Path, count: int) -> list[Path]:
    """Write one folder `round-N` for each of the last rounds' weights; returns them, the last round first.

    Raises:
        OutputError: the run has not kept so many, or as `export` says.
        CheckpointError: as `export` says.
    """
    _finished(run)
    kept = list(kept_weights(run))
    if not 1 <= count <= len(kept):
        raise OutputError(
            f"{run} holds the weights of {len(kept)} rounds ({_listed(kept)}), not of {count}; ask for fewer, or let "
            "the next run keep more with federation.keep_weights"
        )
    folders = [destination / f"round-{round}" for round in reversed(kept[-count:])]
    for folder, round in zip(folders, reversed(kept[-count:]), strict=True):
        export(run, folder, round)
    return folders


def _weights(run: Path, round: int) -> Path:
    kept = kept_weights(run)
    if round not in kept:
        raise OutputError(
            f"{run} holds no weights of round {round}, but those of {_listed(list(kept))}; choose one of these, or let "
            "the next run keep more with federation.keep_weights"
        )
    return kept[round]


def _listed(rounds: Sequence[int]) -> str:
    return ", ".join(map(str, rounds))


def _finished(run: Path) -> tuple[RunConfig, str]:
    try:
        result = json.loads((run / RESULT).read_text(encoding="utf-8"))
        return load(RunConfig, result["config"]), str(result["run_id"])
    except OSError:
        raise OutputError(
            f"{run} holds no {RESULT}, so it is not the folder of a finished run; give the output_dir of one"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{run / RESULT} cannot be read ({error}); it is damaged or of another version") from error
