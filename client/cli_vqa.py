"""The part of `mumc-site` that is about models and answers: import-checkpoint, finetune, evaluate."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

app = typer.Typer(rich_markup_mode=None)

Scoring = Literal["mean", "sum", "compat"]

ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Model folder; without it, what this site's own finetune left.")
]


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A .pth file of the MUMC authors' pre-training or fine-tuning.")],
    destination: Annotated[Path, typer.Argument(help="Model folder to write.")],
    vocabulary: Annotated[
        Path | None, typer.Option(help="BERT's vocab.txt; without it, the one beside the file if there is one.")
    ] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads, where a head is not 64 wide.")] = None,
) -> None:
    """Turn the authors' checkpoint into a model folder. Nothing in the file is run."""
    from mumc_model.data.tokenizer import Tokenizer
    from mumc_model.errors import CheckpointError
    from mumc_model.pretrained import VOCABULARY_FILE
    from mumc_model.reference import import_reference

    model = import_reference(file, heads=heads)
    beside = file.with_name(VOCABULARY_FILE)
    source = vocabulary or (beside if beside.is_file() else None)
    tokenizer = Tokenizer.from_file(source) if source else None
    size = model.config.text.vocab_size
    if tokenizer is not None and len(tokenizer.vocab) != size:
        raise CheckpointError(
            f"the vocabulary has {len(tokenizer.vocab):,} tokens and the checkpoint {size:,}; give the vocabulary that "
            "it was trained with"
        )
    model.save_pretrained(destination, tokenizer=tokenizer, facts={"imported from": "the authors' checkpoint"})
    count = sum(weight.numel() for weight in model.parameters())
    typer.echo(f"{model.kind} with {count:,} weights in {destination}")
    if tokenizer is None:
        typer.echo(
            f"it has no vocabulary yet: put BERT's vocab.txt ({size:,} tokens) there before fine-tuning, or import "
            "again with --vocabulary"
        )


@app.command()
def finetune(
    site: Annotated[Path, typer.Argument(help="Site folder with questions.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Hydra overrides: finetune=mumc finetune.steps=500 ...")
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Model folder with encoders; repeatable, and then an ensemble of one model from each."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the answering model goes, if not into the site.")] = None,
    seed: Annotated[int, typer.Option(help="Of batches and dropout; without meaning under --private.")] = 0,
    private: Annotated[
        bool, typer.Option("--private", help="With noise, charged to the site's privacy budget; the model may leave.")
    ] = False,
    answers: Annotated[
        Path | None, typer.Option(help="Under --private: a public list of answers to rank, one a line.")
    ] = None,
) -> None:
    """Teach encoders to answer this site's questions. The model stays at the site, unless it is trained --private."""
    models = model or [Path()]
    _check_private(private, out, models, answers)
    if private and out is not None:
        _finetune_to_leave(Console(), site, models[0], out, overrides or [], answers)
    else:
        _finetune_here(Console(), site, models, out, overrides or [], seed)


def _check_private(private: bool, out: Path | None, models: list[Path], answers: Path | None) -> None:
    """Refuse words that do not go together, before anything is charged."""
    if answers and not private:
        raise typer.BadParameter("--answers is for --private; without it the site's training answers are the list")
    if private and out is None:
        raise typer.BadParameter("--private makes a model that may leave; say where it goes with --out")
    if private and len(models) > 1:
        raise typer.BadParameter("--private trains one model, and each more would be charged; give one --model")


def _finetune_here(
    console: Console, site: Path, models: list[Path], out: Path | None, overrides: list[str], seed: int
) -> None:
    """The part of `finetune` whose model stays."""
    from client.own_model import OWN_MODEL
    from client.site import open_folder
    from client.vqa.finetune import finetune_members

    opened, out = open_folder(site), out or site / OWN_MODEL
    with _progress(console) as progress:
        task = progress.add_task("fine-tuning", total=None)

        def on_step(done: int, loss: float) -> None:
            progress.update(task, completed=done, description=f"fine-tuning, loss {loss:.2f}")

        def on_start(steps: int) -> None:
            progress.update(task, total=steps)

        results = finetune_members(opened, models, out, overrides, seed, on_step=on_step, on_start=on_start)
    for place, result in enumerate(results, 1):
        accuracy = result.validation_accuracy
        found = "unknown" if accuracy is None else f"{100 * accuracy:.1f} %"
        member = f"member {place}: " if len(results) > 1 else ""
        console.print(
            f"{member}right on validation: {found}; kept step {result.best_step}: {result.selection}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"answering model in {out}; next: mumc-site evaluate {site}", highlight=False, soft_wrap=True)


def _finetune_to_leave(
    console: Console, site: Path, model: Path, out: Path, overrides: list[str], answers: Path | None
) -> None:
    """The part of `finetune` that is charged."""
    # Opacus takes seconds to import, and plain fine-tuning does without.
    from client.privacy.decoder import finetune_to_leave
    from client.site import open_folder

    opened = open_folder(site)
    with _progress(console) as progress:
        task = progress.add_task("fine-tuning with noise", total=None)
        facts = finetune_to_leave(
            opened,
            model,
            out,
            overrides,
            answers,
            on_start=lambda steps: progress.update(task, total=steps),
            on_step=lambda done, _: progress.update(task, completed=done),
        )
    console.print(
        f"each {facts['privacy unit']} of this site has spent epsilon {facts['epsilon']:.3f} at delta "
        f"{facts['delta']:g} so far; kept the last step",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"answering model that may leave the site in {out}", highlight=False, soft_wrap=True)


@app.command()
def evaluate(
    site: Annotated[Path, typer.Argument(help="Site folder with questions, and captions for retrieval.")],
    model: ModelOption = None,
    method: Annotated[str, typer.Option(help="rank, generate or zero-shot; by default what the model can do.")] = "",
    normaliser: Annotated[str, typer.Option(help="mumc, vqa_v2 or clinical.")] = "mumc",
    scoring: Annotated[
        Scoring, typer.Option(help="mean (a token), sum, or compat (the paper's code) for ranking.")
    ] = "mean",
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Where the evaluation goes; inside the site by default.")] = None,
) -> None:
    """Answer a split once and say how well: with intervals, baselines, calibration, and without the image.

    Encoders that were not fine-tuned are asked zero-shot, and for retrieval between images and captions.
    """
    from client.own_model import OWN_MODEL
    from client.site import open_folder
    from client.vqa.evaluate import evaluate_here, keep_answers, retrieve_here, write_evaluation
    from mumc_model.scorecard_text import to_console

    console, folder = Console(), model or site / OWN_MODEL
    opened = open_folder(site)
    found = retrieve_here(opened, folder)
    if found is not None:
        console.print(found, highlight=False)
    if not any(row.split == split for row in opened.data.vqa) and found is not None:
        return
    out = out or site / "state" / "evaluation"
    with _progress(console) as progress:
        task = progress.add_task("answering", total=None)
        card = evaluate_here(
            opened,
            folder,
            method=method,
            normaliser=normaliser,
            scoring=scoring,
            split=split,
            on_start=lambda answers: progress.update(task, total=answers),
            on_answered=lambda answers: progress.advance(task, answers),
            on_rows=lambda rows: keep_answers(rows, out),
        )
    write_evaluation(card, out, f"Evaluation at {opened.config.name}")
    to_console(card, console)
    console.print(f"report: {out / 'evaluation.md'}", highlight=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
