"""The merged encoders of a finished run as a model folder that any hospital can open, also one that took no part."""

import json
from pathlib import Path

from configs.loader import load
from mumc_model.checkpoint import load_weights
from mumc_model.data.tokenizer import vocabulary
from mumc_model.model import build_model
from mumc_model.sharing import is_shared, load_shared
from protocol.score_curve import SCORES_FILE, merged
from server.checkpoint import WEIGHTS, write_whole
from server.config import RunConfig
from server.errors import OutputError
from server.history import History
from server.journal import read_journal
from server.orders import fit_vocabulary
from server.output import JOURNAL, RESULT


def export(run: Path, destination: Path) -> int:
    """Write the folder; returns how many weights it holds.

    The heads that sites keep to themselves are not in it, and no site is named.

    Raises:
        OutputError: the run is not finished, or its result cannot be read.
        CheckpointError: its weights do not fit its configuration.
    """
    config, run_id = _finished(run)
    tokenizer = vocabulary(config.vocabulary)
    model = build_model(fit_vocabulary(config.recipe, len(tokenizer.vocab)).model, config.seed)
    load_shared(model, load_weights(run / WEIGHTS))
    records = read_journal(run / JOURNAL)
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
