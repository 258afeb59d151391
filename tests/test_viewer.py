"""What the viewer's server answers: to its page, and to those who mean no good; and the report, read as text."""

import base64
import errno
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner, Result
from zarr.storage import LocalStore

import mfg_jax as mfg
from sweeps import cli, figures
from sweeps import store as stores
from sweeps.dataset import loaded, open_store
from sweeps.extending import extend
from sweeps.sampling import design
from sweeps.schema import Spec
from sweeps.sweep import Sweep
from sweeps.viewer import page, report
from sweeps.viewer.gallery import Gallery, Refused
from sweeps.viewer.live import LatestFirst, Live, Superseded
from tests import made_up

MFGSWEEP = Path(sys.executable).with_name("mfgsweep")
SPEC = made_up.make(outputs={"surfaces": True})
PLACE = {"A": 1, "gamma": 0, "crowd_mean": 1}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 12 games; beside it a file that is nobody's business."""
    folder = tmp_path_factory.mktemp("viewer")
    (folder / "secret.txt").write_text("secret")
    made_up.run(SPEC, folder / "store.zarr")
    return folder / "store.zarr"


@pytest.fixture(scope="module")
def address(path: Path) -> Iterator[str]:
    """Of a server of that store, as `mfgsweep view` prints it."""
    command = [MFGSWEEP, "view", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        try:
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=30)
        assert complaints == ""
        assert process.returncode == 0


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def mfgsweep(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)


def z_of(figure: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(figure["data"][0]["z"]["bdata"]), "<f4")


def test_the_page_comes_with_all_that_it_loads(client: httpx.Client) -> None:
    html = client.get("")
    assert html.headers["content-type"].startswith("text/html")
    for name in re.findall(r'(?:src|href)="([\w.]+)"', html.text):
        assert client.get(name).status_code == 200
    assert len(client.get("plotly.min.js").content) > 1_000_000


def test_the_browser_is_told_to_load_nothing_else(client: httpx.Client) -> None:
    for name in ("", "about", "nothing"):
        policy = client.get(name).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "connect-src 'self';" in policy


def test_what_there_is(client: httpx.Client) -> None:
    about = client.get("about").json()
    assert [(dim["name"], dim["values"]) for dim in about["games"]["dims"]] == [
        ("A", [1.0, 3.0, 300.0]),
        ("gamma", [0.02, 0.05]),
        ("crowd_mean", [0.0, 1.0]),
    ]
    assert any(line.startswith("spec hash") for line in about["summary"])
    assert client.get("progress").json()["statuses"] == {"converged": 8, "iteration_limit": 4}


def test_a_game_is_the_one_that_is_stored(client: httpx.Client, path: Path) -> None:
    found = client.get("game", params=PLACE).json()
    with open_store(path) as dataset:
        game = dataset.isel(PLACE).load()
    assert found["figures"] == json.loads(json.dumps(figures.game_figures(game)))
    assert found["metrics"] == json.loads(json.dumps(figures.metrics(game)))
    assert found["parameters"] == {"A": 3.0, "gamma": 0.02, "crowd_mean": 1.0}
    assert (found["status"], found["explanation"]) == ("converged", "")


def test_a_game_that_did_not_converge_says_what_to_try(client: httpx.Client) -> None:
    found = client.get("game", params=PLACE | {"A": 2}).json()
    assert found["status"] == "iteration_limit"
    assert found["explanation"] == mfg.Status.ITERATION_LIMIT.explanation


def test_a_slice_goes_through_the_game(client: httpx.Client, path: Path) -> None:
    found = client.get("slice", params={**PLACE, "of": "peak_variance", "x": "A", "y": "crowd_mean"}).json()
    with open_store(path) as dataset:
        expected = dataset["peak_variance"].isel(gamma=0).transpose("crowd_mean", "A").values
    np.testing.assert_array_equal(z_of(found["figure"]).reshape(2, 3), expected.astype("f4"))
    assert found["places"] == {"crowd_mean": [0, 1], "A": [0, 1, 2]}


def test_ranges_hold_all_games(client: httpx.Client, path: Path) -> None:
    found = client.get("ranges", params={"of": "mean_spread"}).json()
    with open_store(path) as dataset:
        value = dataset["value"].where(dataset["status"] == 1)
        assert found["figures"]["value"] == [float(value.min()), float(value.max())]
        assert found["scalar"] == [float(dataset["mean_spread"].min()), float(dataset["mean_spread"].max())]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("game", "A: missing; allowed: a whole number from 0 to 2"),
        ("game?A=3&gamma=0&crowd_mean=0", "A: found 3; allowed: a whole number from 0 to 2"),
        ("game?A=-1&gamma=0&crowd_mean=0", "A: found -1; allowed: a whole number from 0 to 2"),
        ("game?A=999999999999&gamma=0&crowd_mean=0", "A: found 999999999999; allowed: a whole number from 0 to 2"),
        ("game?A=1e1&gamma=0&crowd_mean=0", "A: missing; allowed: a whole number from 0 to 2"),
        ("game?A=%D9%A1&gamma=0&crowd_mean=0", "A: missing; allowed: a whole number from 0 to 2"),
        ("slice?of=../status&x=A&A=0&gamma=0&crowd_mean=0", "of: found '../status', a text; allowed: "),
        ("slice?of=mean_spread&x=time&A=0&gamma=0&crowd_mean=0", "x: found 'time', a text; allowed: A, gamma, crowd_mean"),
        ("slice?of=mean_spread&x=A&y=A&A=0&gamma=0&crowd_mean=0", "x and y: found A twice; allowed: two dims"),
        ("ranges?of=", "of: found '', a text; allowed: "),
        ("solve?A=ten", "A: found 'ten'; allowed: a number"),
        ("solve?A=-1&gamma=0.1", "A: found -1.0; allowed: a finite number > 0"),
        ("solve?A=nan&gamma=0.1", "A: found nan; allowed: a finite number > 0"),
        ("solve?A=1", "gamma: missing; allowed: a number"),
        ("solve?x_max=100000", "x_max: unknown; allowed: "),
        ("solve?coupling=__import__", "coupling: "),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(client: httpx.Client, asked: str, said: str) -> None:
    answer = client.get(asked)
    assert answer.status_code == 400
    assert answer.text.startswith(said)
    assert answer.text.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "../../../../../../etc/passwd",
        "/etc/passwd",
        "page.js/../../secret.txt",
        "status/zarr.json",
        "zarr.json",
        "page.py",
        "server.py",
    ],
)
def test_no_other_file_is_readable(address: str, name: str) -> None:
    """The path is sent as it stands, which clients that tidy it would not do."""
    host, port, token = re.fullmatch(r"http://([\d.]+):(\d+)/(.*)/", address).groups()  # pyright: ignore[reportOptionalMemberAccess]
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET /{token}/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.split()[1] in (b"404", b"403")
    assert b"secret" not in answer.split(b"\r\n\r\n", 1)[1]
    assert b"root:" not in answer


def test_a_wrong_token_opens_nothing(address: str) -> None:
    root, token = address.rstrip("/").rsplit("/", 1)
    for wrong in ("", "about", "x/about", f"{token[:-1]}/about", f"{token}x/about", "é/about"):
        answer = httpx.get(f"{root}/{wrong}")
        assert answer.status_code == 403
        assert token not in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost:1@evil.example", "", "[::2]"]
)
def test_another_host_is_refused(client: httpx.Client, host: str) -> None:
    """As DNS rebinding sends them: a page of another site, whose name was made to point here."""
    answer = client.get("about", headers={"Host": host})
    assert answer.status_code in (400, 421)
    assert "games" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "LOCALHOST:80", "[::1]:9000"])
def test_any_forwarded_port_is_welcome(client: httpx.Client, host: str) -> None:
    assert client.get("about", headers={"Host": host}).status_code == 200


def test_large_requests_are_refused(client: httpx.Client) -> None:
    assert client.get("game?" + "A=1&" * 2_000).status_code == 414
    assert client.get("game", headers={"X": "x" * 100_000}).status_code == 400
    endless = (b"0" * 1_000_000 for _ in range(2_000))
    with suppress(httpx.WriteError):  # the server does not wait for the rest
        assert client.post("game", content=endless).status_code == 405
    assert client.delete("game").status_code == 405
    assert client.get("about").status_code == 200


def test_a_report_is_no_larger_where_the_last_games_are_pending(path: Path) -> None:
    games = open_store(path).load()
    most = 3 * report._bytes_per_game(games)
    begun = games.copy(deep=True)
    begun["status"][{dim: -1 for dim in begun["status"].dims}] = 0
    assert report.document(begun, "begun", [], most).what_is_here == report.document(games, "done", [], most).what_is_here


def test_games_that_are_done_when_they_are_read_have_their_numbers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run writes a game's status last, so it is read first."""
    read: list[str] = []
    get = LocalStore.get

    async def watched(local: LocalStore, key: str, *arguments: Any, **options: Any) -> Any:
        read.append(key)
        return await get(local, key, *arguments, **options)

    dataset = open_store(path)
    monkeypatch.setattr(LocalStore, "get", watched)
    loaded(dataset)
    names = [key.split("/")[0] for key in read if "/c/" in key]
    assert len(set(names)) > 10 and set(names[: names.count("status")]) == {"status"}


def test_who_connects_and_says_nothing_keeps_nobody_out(address: str, client: httpx.Client) -> None:
    port = int(httpx.URL(address).port or 0)
    with ExitStack() as silent:
        for _ in range(200):
            silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert client.get("about").status_code == 200


def test_two_hundred_at_once_are_answered_or_refused(address: str) -> None:
    limits = httpx.Limits(max_connections=200)
    with httpx.Client(base_url=address, limits=limits, timeout=60) as many, ThreadPoolExecutor(200) as pool:
        codes = list(pool.map(lambda i: many.get("game", params=PLACE | {"A": i % 3}).status_code, range(200)))
        assert set(codes) <= {200, 503}
        assert 200 in codes
        assert many.get("game", params=PLACE).status_code == 200


def test_a_store_that_is_filled_meanwhile_is_seen_to_grow(tmp_path: Path) -> None:
    sweep = Sweep(SPEC)
    about = {"spec_hash": SPEC.hash()}
    target = stores.create(tmp_path / "store.zarr", SPEC, design(SPEC), sweep.labels(), (1, 2, 2), about)
    gallery = Gallery(open_store(target.path, remember=False))
    assert gallery.progress() == {"pending": 12}
    assert gallery.game(PLACE)["status"] == "pending"
    assert all(not figure["data"] for figure in gallery.game(PLACE)["figures"].values())
    made_up.run(SPEC, tmp_path / "other.zarr")
    with open_store(tmp_path / "other.zarr") as other:
        results = {str(name): other[name].values.reshape(12, *other[name].shape[3:])[4:8] for name in other.data_vars}
    target.write(list(target.blocks())[1], results)
    assert gallery.progress() == {"pending": 8, "converged": 4}
    assert gallery.game(PLACE)["status"] == "converged"
    assert gallery.game(PLACE | {"A": 0})["status"] == "pending"


def test_a_store_that_is_replaced_is_opened_anew(tmp_path: Path) -> None:
    from sweeps.viewer.server import Watched

    made_up.run(SPEC, tmp_path / "store.zarr")
    watched = Watched(tmp_path / "store.zarr")
    before = watched.version
    with made_up.games_made_up():
        extend(
            made_up.make(outputs={"surfaces": True}, sweep={**made_up.CONTENT["sweep"], "A": [1.0, 2.0, 3.0, 300.0]}), watched.path
        )
    assert watched.current()[0].dims["A"] == 4
    assert watched.version != before


def test_points_are_chosen_by_number(tmp_path: Path) -> None:
    spec = made_up.make(sampling="zip", sweep={"A": [1.0, 2.0, 300.0], "gamma": [0.1, 0.2, 0.3], "quote_min": [0.0, -np.inf, 0.0]})
    made_up.run(spec, tmp_path / "store.zarr")
    gallery = Gallery(open_store(tmp_path / "store.zarr"))
    assert gallery.game({"point": 1})["parameters"] == {"A": 2.0, "gamma": 0.2, "quote_min": "-inf"}
    found = gallery.slice("mean_spread", "A", "gamma", {"point": 0})
    assert found["figure"]["data"][0]["x"] == [1.0, 2.0, 300.0]
    json.dumps(
        [gallery.about(), gallery.game({"point": 1}), gallery.slice("mean_spread", "quote_min", "A", {"point": 0})], allow_nan=False
    )
    with pytest.raises(Refused, match=r"^y: found '', a text; allowed: A, gamma, quote_min"):
        gallery.slice("mean_spread", "A", None, {"point": 0})


def test_a_game_between_the_grid_points_is_that_of_the_library() -> None:
    changes = {"solver": {"select": "cold"}, "initial": {"kind": "uniform"}, "units": {"price": "tick"}}
    spec = Spec.model_validate(made_up.CONTENT | changes)
    given = {"A": "2.5", "gamma": "0.03", "crowd_mean": "0.4", "coupling": "none"}
    live = Live(spec)
    game = live.solve(live.spec_with(given))
    model = mfg.Model("none", x_max=3, n_steps=4, initial="uniform")
    parameters = mfg.Parameters(A=2.5, k=1.5, eta=0.01, gamma=0.03, crowd_mean=0.4)
    equilibrium = mfg.solve(model, parameters, select="cold")
    metrics = mfg.metrics(model, parameters, equilibrium)
    assert int(game["status"]) == int(equilibrium.status) == 1
    assert game["value"].attrs["units"] == "tick"
    for name in ("value", "density", "crowd_ask", "residual", "mass_error"):
        np.testing.assert_allclose(game[name], getattr(equilibrium, name), atol=1e-9)
    for name in ("mean_spread", "peak_variance", "full_spread"):
        np.testing.assert_allclose(game[name], getattr(metrics, name), atol=1e-9)
    np.testing.assert_array_equal(game["inventory"], np.arange(-3.0, 4.0))


def test_of_the_games_that_wait_only_the_latest_is_solved() -> None:
    solving, began, go_on, done = LatestFirst(), threading.Event(), threading.Event(), []

    def first() -> str:
        began.set()
        assert go_on.wait(10)
        return "first"

    running = solving.submit(first)
    assert began.wait(10)
    waiting = [solving.submit(lambda i=i: done.append(i)) for i in range(5)]
    for future in waiting[:-1]:
        with pytest.raises(Superseded):
            future.result(10)
    go_on.set()
    assert running.result(10) == "first"
    waiting[-1].result(10)
    assert done == [4]


def test_a_game_that_nobody_waits_for_stops_no_other() -> None:
    solving, go_on = LatestFirst(), threading.Event()
    running = solving.submit(lambda: go_on.wait(10))
    while not running.running():
        time.sleep(0.01)
    assert solving.submit(lambda: "given up").cancel()
    latest = solving.submit(lambda: "latest")
    go_on.set()
    assert latest.result(10) == "latest"


def test_a_game_that_fails_stops_no_other() -> None:
    solving = LatestFirst()
    with pytest.raises(ZeroDivisionError):
        solving.submit(lambda: 1 / 0).result(10)
    assert solving.submit(lambda: "next").result(10) == "next"


def test_view_refuses_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for nothing in (tmp_path / "none", tmp_path, tmp_path / "file"):
        result = mfgsweep("view", nothing)
        assert result.exit_code == 2
        assert str(nothing) in result.stderr
        assert result.stderr.count("\n") == 1


def test_commands_say_what_is_missing(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, *command in (("uvicorn", "view", path), ("plotly", "report", path, "-o", tmp_path / "report.html")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            without.delitem(sys.modules, "sweeps.viewer.server", raising=False)
            without.delattr("sweeps.viewer.server", raising=False)
            result = mfgsweep(*command)
        assert result.exit_code == 2
        assert f"{package} is missing; install it with: " in result.stderr
        assert "'mfg-jax[viz]'" in result.stderr


def test_view_says_that_a_port_is_taken(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = mfgsweep("view", path, "--port", port)
    assert result.exit_code == 2
    assert result.stderr == f"mfgsweep: --port {port}: {os.strerror(errno.EADDRINUSE)}\n"


def test_a_report_holds_every_game_once_and_loads_nothing(path: Path, tmp_path: Path) -> None:
    result = mfgsweep("report", path, "-o", tmp_path / "report.html")
    assert result.exit_code == 0
    assert result.stdout.startswith("this file   all 12 games\n")
    assert re.search(r"wrote .*report.html \(\d+ MB\)", result.stdout)
    html = (tmp_path / "report.html").read_text()
    outside = html.replace(page.files()["plotly.min.js"].read_text(), "")
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", outside)
    data = json.loads(re.search(r'id="sweep">(.*?)</script>', html)[1])  # pyright: ignore[reportOptionalSubscript]
    assert len(data["games"]) == 12
    assert data["progress"] == {"converged": 8, "iteration_limit": 4}
    assert any(line.startswith("spec hash") for line in data["about"]["summary"])


def test_a_reports_policy_allows_its_own_scripts_alone(path: Path, tmp_path: Path) -> None:
    mfgsweep("report", path, "-o", tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', html)[1]  # pyright: ignore[reportOptionalSubscript]
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts}
    allowed = re.search(r"script-src ([^;]*);", policy)[1]  # pyright: ignore[reportOptionalSubscript]
    assert set(allowed.split()) == digests
    assert "connect-src 'none'" in policy


def test_a_large_sweep_is_thinned_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "MOST_BYTES", 20_000)
    result = mfgsweep("report", path, "-o", tmp_path / "report.html")
    assert re.match(r"this file   \d of 12 games: .*2 of 3 along A", result.stdout)
    data = json.loads(re.search(r'id="sweep">(.*?)</script>', (tmp_path / "report.html").read_text())[1])  # pyright: ignore[reportOptionalSubscript]
    assert data["about"]["games"]["dims"][0]["values"] == [1.0, 300.0]
    assert data["about"]["summary"][0] == result.stdout.splitlines()[0]


def test_a_report_refuses_another_ending_and_leaves_nothing_behind(path: Path, tmp_path: Path) -> None:
    result = mfgsweep("report", path, "-o", tmp_path / "report.pdf")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert mfgsweep("report", path, "-o", tmp_path / "nowhere" / "report.html").exit_code == 2
    assert mfgsweep("report", tmp_path / "none", "-o", tmp_path / "report.html").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_texts_of_a_store_cannot_leave_the_reports_data(path: Path, tmp_path: Path) -> None:
    """A long name that closes the script would otherwise begin a script of its own."""
    with open_store(path) as dataset:
        hostile = dataset.load()
    hostile["mean_spread"].attrs["long_name"] = "</script><script>alert(1)</script>"
    html = report.document(hostile, "hostile", [], 10**9).html
    assert "alert(1)</script>" not in html
    assert html.count("<script") == 3
