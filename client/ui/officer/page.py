"""The privacy officer's page: plan, ledger, approve, audit."""

from pathlib import Path

import gradio as gr

from client.config import read_site_config
from client.privacy.own_runs import runs_of
from client.ui.officer import audit, ledger
from client.ui.officer.approve import ApproveTab
from client.ui.officer.plan import PlanTab

WITHOUT_SITE = "No site was named. Start the page with `mumc-privacy ui --site SITE` for its ledger and its policy."


def build(site: Path | None, runs: Path | None) -> gr.Blocks:
    """The page, of a site's folder or of none.

    Raises:
        ConfigurationError: the folder is none of a site.
        PlanError: the folder of runs is not there, or none of its reports can be read.
    """
    past = runs_of(runs)
    name = None if site is None else read_site_config(site).name
    page: gr.Blocks
    title = "Privacy budget" + (f" of {name}" if name else "")
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"# {title}", container=False)
        with gr.Tabs():
            with gr.Tab("Plan", id="plan"):
                plan = PlanTab(site, past, runs)
                plan.connect(page)
                planned = plan.planned
            with gr.Tab("Ledger", id="ledger") as tab:
                if site is None:
                    gr.Markdown(WITHOUT_SITE)
                else:
                    ledger.build(page, tab, site, planned)
            with gr.Tab("Approve", id="approve") as tab:
                if site is None:
                    gr.Markdown(WITHOUT_SITE)
                else:
                    ApproveTab(site).connect(page, tab, planned)
            with gr.Tab("Audit", id="audit"):
                audit.build()
    return page
