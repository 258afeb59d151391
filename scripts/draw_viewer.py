"""Draw notebooks/pictures/dashboard.png and report.png: the viewer as a browser shows it, for the README.

Takes a store with surfaces, such as that of configs/quickstart.yaml; without one it solves that first.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from sweeps.viewer import report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.browser import MFGSWEEP, Viewer, browser, served

ROOT = Path(__file__).resolve().parent.parent
GRID = ROOT / "configs" / "quickstart.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store with surfaces")
    parser.add_argument("--output", type=Path, default=ROOT / "notebooks" / "pictures", help="folder for the pictures")
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        store = chosen.store or Path(folder) / "quickstart.zarr"
        if not chosen.store:
            subprocess.run([MFGSWEEP, "run", GRID, "--out", store], check=True)
        draw(store, Path(folder), chosen.output)


def draw(store: Path, folder: Path, output: Path) -> None:
    with browser() as launched, served(store) as address:
        viewer = Viewer(launched, address)
        choose_a_game(viewer)
        viewer.page.screenshot(path=output / "dashboard.png")
        report.write(store, folder / "report.html")
        viewer = Viewer(launched, (folder / "report.html").as_uri(), colours="dark", offline=True)
        viewer.click("#pin")
        choose_a_game(viewer)
        viewer.page.screenshot(path=output / "report.png")
        assert viewer.complaints == []


def choose_a_game(viewer: Viewer) -> None:
    """The one with the largest value of each parameter: where there is most to see."""
    for slider in viewer.page.locator('#controls input[type="range"]').all():
        viewer.press(f"#{slider.get_attribute('id')}", "End")


if __name__ == "__main__":
    main()
