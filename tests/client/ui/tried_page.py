"""A page of one field, to try the door with."""

from pathlib import Path

import typer

from client.ui.address import Address
from client.ui.serve import open_page

app = typer.Typer()


@app.command()
def ui(users: Path | None = None, add_user: str = "", certificate: Path | None = None, key: Path | None = None) -> None:
    open_page(build, Address(users=users, certificate=certificate, certificate_key=key), add_user)


def build():
    import gradio as gr

    from client.ui.handling import told, whole
    from client.ui.look import said, shown, table

    with gr.Blocks(title="A page", analytics_enabled=False) as page:
        gr.Markdown("# A page")
        place = said()
        patients, found = gr.Number(label="patients", value=4), shown()
        go = gr.Button("Divide")

        @told(place)
        def divide(value):
            return {found: table("Shares", ["of", "share"], [["<one>", f"{1 / whole(value, 'patients', least=0):g}"]])}

        go.click(divide, [patients], [place, found])
    return page


def main() -> None:
    app()
