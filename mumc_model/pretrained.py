"""Models as folders in Hugging Face's manner: config.json, model.safetensors, vocab.txt and a model card.

`model.save_pretrained(folder)` and `Model.from_pretrained(folder)`. Loading is strict: a name that is missing,
unexpected or of another shape is listed and refused, unless the caller, or the folder's own config, expects it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from mumc_model.checkpoint import WEIGHTS_FILE, load_strictly, load_weights, save_weights
from mumc_model.data.files import write_atomically
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import CheckpointError
from mumc_model.model_card import Facts, model_card

CONFIG_FILE, VOCABULARY_FILE, CARD_FILE = "config.json", "vocab.txt", "README.md"
TOKENIZER_FILE = "tokenizer_config.json"
FORMAT_VERSION = 1


class PretrainedModel(nn.Module):
    """A model that can be written to a folder and read back. A kind of model says how it is configured."""

    kind: ClassVar[str]
    """Its name in config.json."""

    def settings(self) -> dict[str, Any]:
        """The plain values that `from_settings` builds an equal model from."""
        raise NotImplementedError

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """A model of these settings, its weights still random.

        Raises:
            ConfigError, ConfigurationError: the settings are not those of such a model.
        """
        raise NotImplementedError

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        tokenizer: Tokenizer | None = None,
        facts: Facts | None = None,
        left_out: Iterable[str] = (),
    ) -> None:
        """Write the folder; tied weights are stored once. `left_out` are beginnings of names that are not stored.

        config.json comes last and holds the weights' digest, so that a folder of which half was replaced is noticed.
        """
        folder, left_out = Path(folder), tuple(left_out)
        weights = {name: weight for name, weight in self.named_parameters() if not name.startswith(left_out or "\0")}
        save_weights(folder / WEIGHTS_FILE, weights)
        if tokenizer is not None:
            save_tokenizer(folder, tokenizer, self.settings()["model"]["text"]["max_positions"])
        facts = dict(facts or {})
        config = {
            "model_type": "mumc",
            "architectures": [self.kind],
            "format_version": FORMAT_VERSION,
            **self.settings(),
            "left_out": list(left_out),
            "weights_sha256": _digest(folder / WEIGHTS_FILE),
            "facts": facts,
        }
        write_atomically(folder / CARD_FILE, model_card(self.kind, weights, config).encode())
        write_atomically(folder / CONFIG_FILE, (json.dumps(config, indent=1) + "\n").encode())

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, missing: Iterable[str] = (), unexpected: Iterable[str] = ()
    ) -> Self:
        """The model in a folder, on the CPU and in evaluation mode.

        Args:
            folder: What `save_pretrained`, `mumc-server export` or `mumc-site import-checkpoint` wrote.
            missing: Beginnings of names that the folder may lack; these weights stay random.
            unexpected: Beginnings of names that the folder may have beyond the model's; they are not read.

        Raises:
            CheckpointError: the folder is of another kind or version, damaged, or does not fit its own config.
        """
        config = read_config(folder)
        if kind_of(config) != cls.kind:
            raise CheckpointError(
                f"{Path(folder).name} holds a {kind_of(config) or 'model of no kind'}, not a {cls.kind}; give the "
                "folder of another model"
            )
        path = Path(folder) / WEIGHTS_FILE
        weights = load_weights(path)
        if "weights_sha256" in config and config["weights_sha256"] != _digest(path):
            raise CheckpointError(
                f"{WEIGHTS_FILE} in {Path(folder).name} is not the one that its {CONFIG_FILE} was written with; fetch "
                "or save the folder again, whole"
            )
        try:
            model = cls.from_settings(config)
        except ValueError as error:
            raise CheckpointError(f"{CONFIG_FILE} of {Path(folder).name} describes no model: {error}") from error
        model.fill(weights, f"the weights of {Path(folder).name}", [*missing, *config.get("left_out", [])], unexpected)
        return model.eval()

    def weights(self) -> dict[str, Tensor]:
        """Copies of all weights on the CPU, by name and in sorted order, tied ones once."""
        return {name: weight.detach().to("cpu", copy=True) for name, weight in sorted(self.named_parameters())}

    def fill(
        self, weights: Mapping[str, Tensor], what: str, missing: Iterable[str] = (), unexpected: Iterable[str] = ()
    ) -> None:
        """Take weights by name. `missing` and `unexpected` are beginnings of names where either is no fault.

        Raises:
            CheckpointError: a name is missing or unexpected, or a shape differs; nothing is loaded then.
        """
        missing, unexpected = tuple(missing), tuple(unexpected)
        state = {name: weight.data for name, weight in self.named_parameters()}
        known = {n: w for n, w in weights.items() if n in state or not n.startswith(unexpected or "\0")}
        load_strictly(state, known, what, optional=[name for name in state if name.startswith(missing or "\0")])


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config.json of a model's folder.

    Raises:
        CheckpointError: there is none, it is not JSON, or it is of another version or model.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(
            f"{Path(folder).name or folder} is no model folder, as it has no readable {CONFIG_FILE}; "
            "`mumc-server export` and `mumc-site import-checkpoint` write such folders"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{CONFIG_FILE} of {Path(folder).name} is not JSON; fetch the folder again") from error
    if not isinstance(config, dict) or config.get("model_type") != "mumc":
        raise CheckpointError(f"{Path(folder).name} is a folder of another kind of model; this program reads MUMC's")
    if config.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{Path(folder).name} is of format {config.get('format_version')}, this program reads {FORMAT_VERSION}; "
            "save it again with this version"
        )
    return config


def kind_of(config: Mapping[str, Any]) -> str:
    """Which model a config.json describes: MumcModel, VqaModel, or nothing known."""
    return ", ".join(map(str, config.get("architectures") or []))


def save_tokenizer(folder: Path, tokenizer: Tokenizer, max_positions: int) -> None:
    """Write the vocabulary, and what transformers' BERT tokenizer needs to open it."""
    write_atomically(folder / VOCABULARY_FILE, "".join(f"{token}\n" for token in tokenizer.vocab).encode())
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": max_positions}
    write_atomically(folder / TOKENIZER_FILE, (json.dumps(settings, indent=1) + "\n").encode())


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a model's folder.

    Raises:
        CheckpointError: the folder has no vocabulary, or one of another size than its model's.
    """
    path, config = Path(folder) / VOCABULARY_FILE, read_config(folder)
    size = config["model"]["text"]["vocab_size"]
    if not path.is_file():
        raise CheckpointError(
            f"{Path(folder).name} has no {VOCABULARY_FILE}; put the vocabulary of {size:,} tokens there that the model "
            "was trained with, one token a line"
        )
    tokenizer = Tokenizer.from_file(path)
    if len(tokenizer.vocab) != size:
        raise CheckpointError(
            f"{VOCABULARY_FILE} of {Path(folder).name} has {len(tokenizer.vocab):,} tokens and the model {size:,}; put "
            "the vocabulary there that the model was trained with"
        )
    return tokenizer


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
