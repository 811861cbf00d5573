"""Makes the README's pictures from a real run: the terminal, the report and MLflow's own pages.

`python -m scripts.make_screenshots RECIPE [KEY.PATH=VALUE ...]` runs the recipe into a storage folder of its own unless
`storage=` says another, and writes docs/images/. Wants Chromium on the path (Debian: apt-get install chromium).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from actors.progress import Progress
from actors.storage import Folder
from orchestrator.experiment import Experiment
from orchestrator.live import LiveView
from orchestrator.printing import print_plan, print_result
from orchestrator.result import ExperimentResult
from orchestrator.tracking.journal import Journal

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLUMNS = 112
WAIT_S = 60
PAGE_LOADS_MS = 15_000
DESKTOP, PHONE = 1280, 390
MLFLOW_PAGE = (1750, 980)
SCHEMES = {"light": 1, "dark": 0}


class Watching(LiveView):
    """Shows the live table once, in the middle of the student's training, where a picture of it is taken."""

    def update(self, progress: Progress) -> None:
        is_new = progress.rung == "student" and progress.epoch_done and progress.epoch + 1 == progress.epochs // 2
        super().update(progress)
        if is_new:
            self.console.print(self.table())

    def say(self, text: str) -> None:
        if "  epoch " not in text:
            super().say(text)


def main(recipe: str, overrides: Sequence[str]) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("make_screenshots: expected Chromium on the path, found none; apt-get install chromium")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as storage:
        result = in_the_terminal(recipe, [f"storage={storage}", *overrides])
        report = Path(result.report_file)
        for scheme in SCHEMES:
            photograph(chromium, report.as_uri(), IMAGES / f"report-{scheme}.png", (DESKTOP, 1500), scheme)
            with on_a_phone(report) as page:
                photograph(chromium, page, IMAGES / f"report-phone-{scheme}.png", (PHONE + 20, 1700), scheme)
        database = Path(result.folder).parents[1] / "mlflow.db"
        with mlflow_pages(database) as address:
            curves = f"{address}/#/experiments/{'/runs/'.join(student_of(result, address))}/model-metrics"
            photograph(chromium, curves, IMAGES / "mlflow.png", MLFLOW_PAGE, "light")


def in_the_terminal(recipe: str, overrides: Sequence[str]) -> ExperimentResult:
    """Runs it as the command does; the picture shows what the command prints."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        experiment = Experiment.from_yaml(recipe, overrides)
        print_plan(experiment.check(), console)
        result = experiment.run(view=Watching(console))
        print_result(result, console, experiment.tracking_uri)
    picture = console.export_svg(title=f"collegium run {Path(recipe).name}")
    (IMAGES / "terminal.svg").write_text(picture.replace(str(Path.cwd()), "~/here"))
    return result


def student_of(result: ExperimentResult, address: str) -> tuple[str, str]:
    """The ids of the experiment and of the student's run."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name(result.name)
    assert experiment is not None
    tags = f"tags.`collegium.run` = '{Journal(Folder(result.folder)).record.id}' AND tags.`collegium.rung` = 'student'"
    [run] = client.search_runs([experiment.experiment_id], tags)
    return experiment.experiment_id, run.info.run_id


def photograph(chromium: str, address: str, file: Path, size: tuple[int, int], scheme: str) -> None:
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--allow-file-access-from-files",
            f"--user-data-dir={profile}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
            f"--virtual-time-budget={PAGE_LOADS_MS}",
            f"--window-size={size[0]},{size[1]}",
            f"--screenshot={file}",
            address,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    print(f"{file}  {file.stat().st_size:,} bytes")


@contextmanager
def on_a_phone(report: Path) -> Iterator[str]:
    """A page that shows the report as wide as a phone: Chromium's own windows are no narrower than 500."""
    page = report.with_name(".phone.html")
    page.write_text(
        f'<body style="margin:0"><iframe src="{report.name}" width="{PHONE}" height="1700" style="border:0"></iframe>'
    )
    try:
        yield page.as_uri()
    finally:
        page.unlink()


@contextmanager
def mlflow_pages(database: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        env=environment,
        cwd=database.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/health")
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def wait_for(address: str) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"make_screenshots: no answer from {address} within {WAIT_S} s")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
