"""The command: answers, JSON, errors that name the picture, and never a traceback."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from faster_smolvlm import __version__, cli
from faster_smolvlm.media import fetch
from PIL import Image, ImageDraw

from tests.helpers.media_sources import served
from tests.helpers.video_clips import write_clip

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def command(*arguments: str | Path, **options: Any) -> list[str]:
    return [sys.executable, "-c", "from faster_smolvlm.cli import main; raise SystemExit(main())", *map(str, arguments)]


@pytest.fixture
def red(tmp_path: Path) -> Path:
    image = Image.new("RGB", (128, 128), "lightgrey")
    ImageDraw.Draw(image).ellipse((30, 30, 90, 90), fill="red")
    image.save(tmp_path / "red.png")
    return tmp_path / "red.png"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = cli.main(["describe", "--model", "demo", "--max-new-tokens", "8", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_one_picture(red: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, red)
    assert status == 0
    assert len(out.splitlines()) == 1
    assert len(out.split()) > 1
    assert err == ""
    _, record, _ = run(capsys, red, "--json")
    assert json.loads(record)["text"] == out.removesuffix("\n")
    _, other, _ = run(capsys, red, "-p", "How many shapes are there?")
    assert other != out


def test_several_pictures_of_which_one_is_bad(red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "b\x1b[31mad.png"
    bad.write_text("not a picture")
    status, out, err = run(capsys, red, bad, tmp_path / "absent.jpg", red)
    assert status == 1
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"{red}: ")
    assert len(err.splitlines()) == 2
    assert "ad.png" in err.splitlines()[0]
    assert "absent.jpg" in err.splitlines()[1]
    assert "\x1b" not in out + err


def test_json_and_timings(red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, red, tmp_path / "absent.jpg", "--json", "--timings")
    assert status == 1
    good, bad = map(json.loads, out.splitlines())
    assert good["picture"] == str(red)
    assert good["finish_reason"] in ("stop", "length")
    assert 0 < good["completion_tokens"] <= 8 < good["prompt_tokens"]
    assert good["timings"]["prefill"] > 0
    assert set(bad) == {"picture", "error"}
    assert "absent.jpg" in bad["error"]
    status, _, err = run(capsys, red, "--timings")
    assert status == 0
    assert all(part in err for part in ("loading", "preprocessing", "vision", "first token", "more tokens"))


def test_a_model_that_is_not_there(red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", str(red), "--model", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("faster-smolvlm: ")
    assert len(captured.err.splitlines()) == 1
    assert str(tmp_path) in captured.err


@pytest.mark.parametrize(
    "arguments", [[], ["describe"], ["describe", "a.png", "--max-new-tokens", "0"], ["describe", "a.png", "--wrong"]]
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: faster-smolvlm" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"faster-smolvlm {__version__}\n"


def test_every_bad_picture_gets_an_answer_or_an_error_that_names_it(data_dir: Path) -> None:
    pictures = sorted(path for path in (data_dir / "bad_images").iterdir() if path.name != "SOURCES.md")
    assert len(pictures) > 50
    done = subprocess.run(
        command("describe", *pictures, "--model", "demo", "--max-new-tokens", "1", "--json"),
        capture_output=True,
        text=True,
        timeout=400,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["picture"] for record in records] == [str(path) for path in pictures]
    for record in records:
        if "error" in record:
            assert Path(record["picture"]).name in record["error"]
            assert "0x" not in record["error"], "no addresses of objects"
        else:
            assert record["completion_tokens"] == 1
    assert sum("error" in record for record in records) > 20


def test_ctrl_c_ends_with_130_and_no_traceback(red: Path) -> None:
    running = subprocess.Popen(
        command("describe", *[red] * 2000, "--model", "demo"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert running.stdout is not None
    running.stdout.readline()  # the first answer is there, so the others are under way
    start = time.monotonic()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert time.monotonic() - start < 20
    assert running.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error_message(red: Path) -> None:
    running = subprocess.Popen(
        command("describe", *[red] * 500, "--model", "demo", "--max-new-tokens", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    err = running.stderr.read()
    assert running.wait(timeout=60) == 1
    assert err == ""


def test_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=30)
    status, out, _ = run(capsys, path)
    assert status == 0
    assert len(out.split()) > 1
    (tmp_path / "bad.mp4").write_text("no")
    status, _, err = run(capsys, tmp_path / "bad.mp4")
    assert status == 1
    assert "bad.mp4" in err


@pytest.mark.parametrize("name", ["clip.mkv", "CLIP.TS", "clip.3gp", "clip", "clip.png"])
def test_content_says_what_a_file_is(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its name, and whatever types the system knows."""
    monkeypatch.setattr(mimetypes, "knownfiles", [])
    monkeypatch.setattr(mimetypes, "_db", None)
    suffix = Path(name).suffix.lower().replace(".png", ".mp4") or ".mp4"
    path = write_clip(tmp_path / f"made{suffix}", frames=10).rename(tmp_path / "named.mp4")
    _, expected, _ = run(capsys, path, "--json")
    path = path.rename(tmp_path / name)
    status, out, _ = run(capsys, path, "--json")
    assert status == 0
    answers = [json.loads(text) for text in (out, expected)]
    assert answers[0]["text"] == answers[1]["text"]
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    status, out, _ = run(capsys, uri, "--json")
    assert json.loads(out)["text"] == answers[0]["text"]


def test_a_picture_named_as_a_clip_and_a_url_that_is_fetched_once(
    red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(fetch, "fetch", lambda url, *rest, get=fetch.fetch: asked.append(url) or get(url, *rest))
    _, expected, _ = run(capsys, red)
    red.replace(tmp_path / "red.mp4")
    assert run(capsys, tmp_path / "red.mp4")[:2] == (0, expected)
    with served(tmp_path) as url:
        assert run(capsys, f"{url}/red.mp4?as=clip")[:2] == (0, expected)
    assert len(asked) == 1
