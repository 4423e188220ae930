"""The Ask tab: choose a study, ask, and see the answer with all its doubt, and where the model looked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import gradio as gr

from client.asking import ask_at
from client.errors import PageError
from client.own_model import folder_of_model, opened
from client.ui.handling import MODEL_LANE, Updates, faults_at, number
from client.ui.look import alert, empty, paragraph, said, shown
from client.ui.workbench.answer import answer_html
from client.ui.workbench.picture import looked_html, study_html
from client.ui.workbench.studies import Study, studies
from mumc_model.conformal import RISK
from mumc_model.errors import MumcError
from mumc_model.explain import Method
from mumc_model.overlay import LABEL

PLAIN = "the study"
LOOKS = [(PLAIN, PLAIN), ("relevance", "relevance"), ("attention", "attention")]
MOST_LETTERS = 500
FIRST = "Choose a study or give a file, type a question, and press Ask."
OPENING = "The model is being opened."


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is needed to say where the model looked: the last question of this visitor."""

    image: Path
    name: str
    question: str
    answer: str


class AskTab:
    """The tab's fields and places, and what happens when they are used.

    Args:
        root: The site's folder.
        model: The answering model; without it, the site's own.
    """

    def __init__(self, root: Path, model: Path | None) -> None:
        self._root, self._model = root, model
        self.last = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                self.study = gr.Dropdown([], value=None, label="Study, by patient or file name")
                with gr.Row(equal_height=True):
                    self.question = gr.Textbox(
                        label="Question", placeholder="is there a fracture", max_lines=1, scale=5, min_width=200
                    )
                    self.go = gr.Button("Ask", variant="primary", scale=1, min_width=80)
                self.said, self.ready, self.answer = said(), said(), shown()
            with gr.Column(scale=6, min_width=320):
                self.picture, self.unseen = shown(empty(FIRST)), said()
                self.look = gr.Radio(LOOKS, value="relevance", label=f"Show ({LABEL})")
                with gr.Accordion("A file instead, and settings", open=False):
                    self.file = gr.File(label="PNG or JPEG file", type="filepath", height=120)
                    self.risk = gr.Number(
                        value=100 * RISK, label="Risk of a short list without the right answer, in percent"
                    )
        self._connect()

    def _connect(self) -> None:
        tell = faults_at(self.said)
        places = [self.said, self.picture, self.answer, self.last]
        # In the model's lane too: what a choice clears is never drawn over by an answer that was still on its way.
        quiet: dict[str, Any] = {"concurrency_id": MODEL_LANE, "show_progress": "hidden"}
        self.study.input(tell(self._choose), [self.study], [*places, self.file], **quiet)
        self.file.upload(tell(self._give), [self.file], [*places, self.study, self.file], **quiet)
        self.file.clear(tell(self._take_away), None, places, **quiet)
        fields = [self.study, self.file, self.question, self.risk]
        self.answered = gr.on(
            [self.go.click, self.question.submit],
            tell(self._ask),
            fields,
            [self.said, self.ready, self.answer, self.last],
            concurrency_id=MODEL_LANE,
            show_progress="full",
            show_progress_on=self.answer,
            trigger_mode="once",
        )
        draw, drawn = faults_at(self.unseen)(self._show), [self.unseen, self.picture]
        for after in (self.answered.then, self.look.input):
            after(draw, [self.last, self.look], drawn, concurrency_id=MODEL_LANE, show_progress="minimal")

    def begin(self) -> Updates:
        """What the tab shows when the page is opened."""
        listed = studies(self._root)
        choices = [(study.name, key) for key, study in listed.items()]
        return {self.study: gr.Dropdown(choices=choices, value=None), self.ready: paragraph(OPENING)}

    def open_model(self) -> Updates:
        """Open the model before the first question, and say what it is; where there is none, say what to run."""
        answerer = opened(folder_of_model(self._root, self._model)).answerer
        answers = f"ranks {len(answerer.texts):,} answers" if answerer.texts else "writes its answers"
        return {self.ready: paragraph(f"The model is open: it {answers}.")}

    def _choose(self, key: str | None) -> Updates:
        if key is None:
            return {self.file: None}
        study = self._study(key)
        return {self.file: None, self.picture: study_html(study.path, study.name), **self._unasked()}

    def _give(self, file: str | None) -> Updates:
        if file is None:
            return {}
        image = Path(file)
        try:
            drawn = study_html(image, image.name)
        except MumcError as error:
            return {self.said: alert(str(error)), self.file: None}
        return {self.study: None, self.picture: drawn, **self._unasked()}

    def _take_away(self) -> Updates:
        return {self.picture: empty(FIRST), **self._unasked()}

    def _unasked(self) -> Updates:
        return {self.answer: "", self.last: None}

    def _ask(
        self, key: str | None, file: str | None, question: str, risk: float | None, request: gr.Request
    ) -> Updates:
        words = " ".join((question or "").split())
        if file is None and key is None:
            raise PageError("no study is chosen; choose one from the list, or give a PNG or JPEG file")
        if not words:
            raise PageError("the question is empty; type one, for instance: is there a fracture")
        if len(words) > MOST_LETTERS:
            raise PageError(f"the question has {len(words)} letters; ask in at most {MOST_LETTERS}")
        share = number(risk, "the risk", least=1, most=50) / 100
        if file is not None:
            image, name = Path(file), Path(file).name
        else:
            image, name = self._study(cast(str, key)).path, self._study(cast(str, key)).name
        found = ask_at(self._root, image, words, model=self._model, risk=share, user=request.username or "")
        look = Look(image=image, name=name, question=words, answer=found.reply.answers[0][0])
        return {self.ready: "", self.answer: answer_html(found), self.last: look}

    def _show(self, last: Look | None, method: str) -> Updates:
        if last is None:
            return {}
        if method not in get_args(Method):
            return {self.picture: study_html(last.image, last.name)}
        drawn = looked_html(
            self._root, self._model, last.image, last.name, last.question, last.answer, cast(Method, method)
        )
        return {self.picture: drawn}

    def _study(self, key: str) -> Study:
        found = studies(self._root).get(key)
        if found is None:
            raise PageError("this study is not in the site's folder any more; reload the page")
        return found
