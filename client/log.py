"""The site's log, `state/log.jsonl`: what was asked of this site, and for everything that left a receipt.

A receipt names what a reply gives away: tensors by group, bytes, norms, metrics, the privacy spent, and what was held
back. Names, shapes and types of all tensors stand in a line of their own, once for each form that left.
"""

import getpass
import math
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.loader import load
from mumc_model.config import ModelConfig, Recipe
from protocol.chainfile import ChainFile
from protocol.codec import unpack
from protocol.compression import Codec, decode
from protocol.envelope import Statement
from protocol.messages import EPSILON, Order, Refusal, Report, to_json
from protocol.schema import WeightSchema

if TYPE_CHECKING:
    from mumc_model.reply import Reply

LOG_CONTEXT = "site-log"

Arrays = Mapping[str, np.ndarray[Any, Any]]


def site_log_file(root: Path) -> ChainFile:
    """The site's log."""
    return ChainFile(root / "state" / "log.jsonl", LOG_CONTEXT)


def acting_user() -> str:
    """The name of this process's user, or its number where the machine has no name for it, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def order_line(said: Statement, order: Order, arrays: Arrays) -> dict[str, Any]:
    """The line of an order that was accepted."""
    return {
        "kind": "order",
        **place(said),
        "steps": order.steps,
        "bytes": sum(flat.nbytes for flat in arrays.values()),
        "server": vars(said.head),
        **({"remark": order.remark} if order.remark else {}),
    }


def question_line(found: "Reply", *, user: str, image: str, question: str, model: str) -> dict[str, Any]:
    """The line of a question that was asked at the site; `image` and `question` are digests, and tell nobody more."""
    best, probability = found.answers[0]
    return {
        "kind": "question",
        "user": user,
        "image": image,
        "question": question,
        "model": model,
        "outcome": found.outcome,
        "answer": found.answer,
        "best": best,
        "probability": round(probability, 6),
        "shortlist": list(found.shortlist),
        "referral": found.referral,
    }


def turned_away_line(action: str, answer: Refusal, why: str) -> dict[str, Any]:
    """The line of an order that is not the server's, or not new; nothing that it says of itself is believed.

    `why` is for the engineer alone: unlike the answer's text it did not leave.
    """
    return {
        "kind": "turned_away",
        "stage": action,
        "code": answer.code,
        "text": answer.text,
        "why": why,
        **_size(answer),
    }


def receipt(
    answer: Report | Refusal, arrays: Arrays, schema: WeightSchema | None = None, codec: Codec | None = None
) -> dict[str, Any]:
    """What a reply gives away; `schema` and `codec` say which tensors its arrays hold, and how.

    Bytes are those that leave; norms are of what the server reads out of them.
    """
    if isinstance(answer, Refusal):
        return {"answer": "refusal", "code": answer.code, "text": answer.text, "bytes": 0, **_size(answer)}
    codec = codec or Codec()
    read = decode(arrays, schema, codec) if schema and arrays and not codec.plain else arrays
    groups = tensor_groups(read, schema) if schema and arrays else {}
    plain = all(flat.dtype.kind == "f" for flat in read.values())
    return {
        "answer": "report",
        "examples": answer.examples,
        "metrics": {name: value for name, value in answer.metrics.items() if name != EPSILON},
        "epsilon_spent": answer.metrics.get(EPSILON),
        "arrays": {
            name: {"dtype": flat.dtype.name, "shape": list(flat.shape), "bytes": flat.nbytes}
            for name, flat in sorted(arrays.items())
        },
        "codec": codec.to_dict(),
        "schema": schema.digest if groups and schema else "",
        "tensors": groups,
        "bytes": sum(flat.nbytes for flat in arrays.values()),
        "norm": math.sqrt(math.fsum(_squares(flat) for flat in read.values())) if plain else None,
        **_size(answer),
    }


def tensor_groups(arrays: Arrays, schema: WeightSchema) -> dict[str, dict[str, Any]]:
    """How many tensors and values of each part of the model leave, and their norm; under masks nothing has a norm."""
    plain = {name: flat.size for name, flat in arrays.items()} == schema.flat_sizes
    tensors = unpack(arrays, schema) if plain else {}
    found: dict[str, dict[str, Any]] = {}
    for name, shape, _ in schema:
        group = found.setdefault(name.split(".")[0], {"tensors": 0, "values": 0, "squares": []})
        group["tensors"] += 1
        group["values"] += math.prod(shape)
        group["squares"] += [_squares(tensors[name])] if plain else []
    for group in found.values():
        squares = group.pop("squares")
        group["norm"] = math.sqrt(math.fsum(squares)) if plain else None
    return found


def schema_line(schema: WeightSchema) -> dict[str, Any]:
    """The line that names every tensor of a form that leaves."""
    return {
        "kind": "schema",
        "digest": schema.digest,
        "tensors": [[name, list(shape), dtype] for name, shape, dtype in schema],
    }


def order_schema(order: Order) -> WeightSchema:
    """The weights that an order's model shares, worked out here from its shape and not from what came."""
    return model_schema(load(Recipe, order.recipe, "order.recipe").model)


@lru_cache(maxsize=4)
def model_schema(model: ModelConfig) -> WeightSchema:
    """The weights that a model shares, worked out from its shape."""
    # Most messages carry no weights, and torch takes seconds to import.
    from mumc_model.sharing import shared_form

    return WeightSchema.of(shared_form(model))


def place(said: Statement) -> dict[str, Any]:
    """Where a message belongs, as its lines name it."""
    return {
        "federation": said.federation,
        "run": said.run_id,
        "stage": said.stage,
        "round": said.round,
        "attempt": said.attempt,
        "nonce": said.nonce,
        "base_digest": said.base_digest,
    }


def _squares(flat: np.ndarray[Any, Any]) -> float:
    return float(np.sum(np.square(flat, dtype=np.float64)))


def _size(answer: Report | Refusal) -> dict[str, int]:
    return {"message_bytes": len(to_json(answer).encode())}
