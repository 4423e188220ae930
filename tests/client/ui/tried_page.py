"""A page of one field, to try the door with."""

import typer

from client.ui.command import page_command

app = typer.Typer()


@page_command(app)
def ui():
    return build


def build():
    import gradio as gr

    from client.ui.handling import faults_at, whole
    from client.ui.look import said, shown, table

    with gr.Blocks(title="A page", analytics_enabled=False) as page:
        gr.Markdown("# A page")
        place = said()
        patients, found = gr.Number(label="patients", value=4), shown()
        go = gr.Button("Divide")

        @faults_at(place)
        def divide(value):
            return {found: table("Shares", ["of", "share"], [["<one>", f"{1 / whole(value, 'patients', least=0):g}"]])}

        go.click(divide, [patients], [place, found])
    return page


def main() -> None:
    app()
