"""clcr fetch against a loopback server that cuts, stalls, lies about length, ignores ranges and sends wrong files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import BENCHMARKS, cli, fetch, sources
from benchmarks.errors import InputError
from benchmarks.fetch import Policy, Progress
from benchmarks.sources import SOURCES, ByHand, File, Sources

CONTENT = bytes(range(256)) * 1000
OTHER = CONTENT[::-1]
HASTY = Policy(stall_s=0.3, tries=3, pause_s=0.01)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Reply:
    """What the server does with one request; ``cut`` and ``stall`` say after how many bytes."""

    def __init__(
        self,
        content: bytes = CONTENT,
        *,
        ranges: bool = True,
        cut: int | None = None,
        stall: int | None = None,
        status: int = 200,
        headers: dict[str, str] | None = None,
        length: int | None = -1,
    ) -> None:
        self.content, self.ranges, self.cut, self.stall = content, ranges, cut, stall
        self.status, self.headers, self.length = status, headers or {}, length

    def send(self, handler: BaseHTTPRequestHandler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.ranges else 0
        if self.status != 200 or start > len(self.content):
            self._refuse(handler, 416 if start > len(self.content) else self.status)
            return
        body = self.content[start:]
        handler.send_response(206 if asked and self.ranges else 200)
        headers = {"Content-Length": str(len(body) if self.length == -1 else self.length)}
        if asked and self.ranges:
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        for name, value in {**headers, **self.headers}.items():
            if value != "None":
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: min(n for n in (self.cut, self.stall, len(body)) if n is not None)])
        if self.stall is not None:
            handler.wfile.flush()
            threading.Event().wait(1.0)

    def _refuse(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": "0", **self.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()


class Server:
    """Answers with ``replies`` in turn, the last one for ever; notes the range that each request asked for."""

    def __init__(self) -> None:
        self.replies = [Reply()]
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.headers.get("Range", ""))
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has seen enough
                    reply.send(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def file(self, content: bytes = CONTENT, *, size: bool = True, sha256: bool = True, path: str = "list.txt") -> File:
        url = f"http://127.0.0.1:{self.http.server_port}/{path}"
        return File(path, url, "MIT", digest(content) if sha256 else "", len(content) if size else 0)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds, real=time.sleep: real(min(seconds, 0.05)))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


class Heard(list[Progress]):
    def notes(self) -> str:
        return " | ".join(progress.note for progress in self if progress.note)

    def __call__(self, progress: Progress) -> None:
        self.append(progress)


def get(file: File, folder: Path, policy: Policy = HASTY) -> tuple[fetch.Fetched, Heard]:
    heard = Heard()
    return fetch.download(file, folder, policy, heard), heard


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_arrives_whole_with_honest_progress(server: Server, tmp_path: Path) -> None:
    ended, heard = get(server.file(), tmp_path / "new")
    assert ended == fetch.Fetched("list.txt", "fetched", len(CONTENT), digest(CONTENT))
    assert (tmp_path / "new" / "list.txt").read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["list.txt"]
    assert [p.done for p in heard] == sorted(p.done for p in heard)
    assert (heard[-1].done, heard[-1].total) == (len(CONTENT), len(CONTENT))


def test_what_is_there_is_kept_and_nothing_is_asked(server: Server, tmp_path: Path) -> None:
    get(server.file(), tmp_path)
    assert get(server.file(), tmp_path)[0].state == "kept"
    assert len(server.asked) == 1


def test_a_different_file_of_the_user_is_refused_and_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"list\.txt: sha256 is .* move it away"):
        get(server.file(), tmp_path)
    assert (tmp_path / "list.txt").read_bytes() == b"mine"
    assert not server.asked


def test_a_cut_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.replies = [Reply(cut=100_000), Reply(cut=50_000), Reply()]
    _, heard = get(server.file(), tmp_path)
    assert server.asked == ["", "bytes=100000-", "bytes=150000-"]
    assert (tmp_path / "list.txt").read_bytes() == CONTENT
    assert "ended after 100000 of 256000 bytes; trying again" in heard.notes()


def test_a_later_call_goes_on_with_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.replies = [Reply(cut=70_000), Reply(status=503)]
    with pytest.raises(InputError, match="the server answers 503, 3 times in a row; try again later"):
        get(server.file(), tmp_path)
    assert names(tmp_path) == [".list.txt.part"]
    server.replies = [Reply()]
    get(server.file(), tmp_path)
    assert server.asked[-1] == "bytes=70000-"
    assert names(tmp_path) == ["list.txt"]


def test_a_part_without_a_known_checksum_is_not_trusted(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".list.txt.part").write_bytes(OTHER[:1000])
    ended, _ = get(server.file(sha256=False, size=False), tmp_path)
    assert server.asked == [""]
    assert ended.sha256 == digest(CONTENT)


@pytest.mark.parametrize("left", [OTHER[:5000], OTHER, OTHER + b"more"])
def test_a_foreign_part_costs_a_new_start_and_no_more(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / ".list.txt.part").write_bytes(left)
    get(server.file(), tmp_path)
    assert (tmp_path / "list.txt").read_bytes() == CONTENT
    assert server.asked[-1] == ""


def test_a_part_that_is_whole_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".list.txt.part").write_bytes(CONTENT)
    get(server.file(), tmp_path)
    assert not server.asked
    assert names(tmp_path) == ["list.txt"]


def test_a_server_that_ignores_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.replies = [Reply(cut=100_000), Reply(ranges=False)]
    get(server.file(), tmp_path)
    assert (tmp_path / "list.txt").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_and_always_cuts_is_given_up(server: Server, tmp_path: Path) -> None:
    server.replies = [Reply(cut=100_000, ranges=False)]
    with pytest.raises(InputError, match="3 times in a row"):
        get(server.file(), tmp_path)
    assert "list.txt" not in names(tmp_path)


def test_a_server_that_sends_another_range_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.replies = [Reply(cut=1000), Reply(headers={"Content-Range": "bytes 0-99/100"}), Reply()]
    get(server.file(), tmp_path)
    assert server.asked == ["", "bytes=1000-", ""]
    assert (tmp_path / "list.txt").read_bytes() == CONTENT


def test_a_stall_is_noticed_and_resumed(server: Server, tmp_path: Path) -> None:
    server.replies = [Reply(stall=30_000), Reply()]
    began = time.monotonic()
    _, heard = get(server.file(), tmp_path)
    assert time.monotonic() - began < 0.9
    assert "no byte for 0.3 s" in heard.notes()
    assert server.asked == ["", "bytes=30000-"]


def test_a_silent_server_is_given_up(server: Server, tmp_path: Path) -> None:
    server.replies = [Reply(stall=0)]
    with pytest.raises(InputError, match=r"no byte for 0\.3 s, 2 times in a row"):
        get(server.file(), tmp_path, replace(HASTY, tries=2))
    assert names(tmp_path) == []


def test_a_length_stated_too_small_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.replies = [Reply(length=1000), Reply()]
    get(server.file(), tmp_path)
    assert server.asked == ["", "bytes=1000-"]
    assert (tmp_path / "list.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("sized", [True, False])
def test_a_length_stated_too_large_never_ends_as_a_short_file(server: Server, tmp_path: Path, sized: bool) -> None:
    server.replies = [Reply(CONTENT[:-10], ranges=False, length=len(CONTENT))]
    with pytest.raises(InputError, match=f"ended after {len(CONTENT) - 10} of {len(CONTENT)} bytes"):
        get(server.file(size=sized), tmp_path)
    assert "list.txt" not in names(tmp_path)


def test_no_length_at_all(server: Server, tmp_path: Path) -> None:
    server.replies = [Reply(length=None)]
    _, heard = get(server.file(size=False), tmp_path)
    assert heard[-1].total is None
    assert (tmp_path / "list.txt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (OTHER, "sha256 is .*, expected .*: the server sends another file"),
        (CONTENT + b"!", "the server sends more than 256000 bytes"),
        (b"<html>sign in</html>", "ended after 20 of 256000 bytes"),
        (b"", "ended after 0 of 256000 bytes"),
    ],
)
def test_a_wrong_file_never_gets_the_name(server: Server, tmp_path: Path, sent: bytes, message: str) -> None:
    server.replies = [Reply(sent, ranges=False)]
    with pytest.raises(InputError, match=message):
        get(server.file(), tmp_path)
    assert "list.txt" not in names(tmp_path)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_dead_address_is_told_at_once(server: Server, tmp_path: Path, status: int) -> None:
    server.replies = [Reply(status=status)]
    with pytest.raises(InputError, match=f"/list.txt: the server answers {status} .*by hand"):
        get(server.file(), tmp_path)
    assert len(server.asked) == 1
    assert names(tmp_path) == []


def test_a_busy_server_is_asked_again_when_it_says(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", waited.append)
    server.replies = [Reply(status=429, headers={"Retry-After": "7"}), Reply(status=503), Reply(status=500), Reply()]
    get(server.file(), tmp_path, replace(HASTY, tries=5))
    assert waited == [7.0, pytest.approx(0.02), pytest.approx(0.04)]


def test_a_redirection_to_a_local_file_is_refused(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    server.replies = [Reply(status=302, headers={"Location": secret.as_uri()})]
    with pytest.raises(InputError, match="the server answers 302"):
        get(server.file(size=False, sha256=False), tmp_path)
    with pytest.raises(InputError, match="not an http address"):
        get(File("a", secret.as_uri(), ""), tmp_path)
    assert names(tmp_path) == ["secret"]


def test_nobody_listens(server: Server, tmp_path: Path) -> None:
    file = server.file()
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(InputError, match=r"the connection broke \(.*refused\), 3 times in a row"):
        get(file, tmp_path)


def test_two_at_once_do_not_mix(server: Server, tmp_path: Path) -> None:
    with (tmp_path / ".list.txt.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is fetching it"):
            get(server.file(), tmp_path)
    assert not server.asked


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EIO, "cannot be written")])
def test_a_disk_that_takes_no_more(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def fails(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fetch.os, "fsync", fails)
    with pytest.raises(InputError, match=words):
        get(server.file(), tmp_path)
    assert names(tmp_path) == [".list.txt.part"]


def test_a_folder_in_the_way(server: Server, tmp_path: Path) -> None:
    (tmp_path / "list.txt").mkdir()
    with pytest.raises(InputError, match="not a file; move it away"):
        get(server.file(), tmp_path)
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        get(server.file(path="a/list.txt"), tmp_path)


# -------------------------------------------------------------------------------------------- the table and the command


def by_hand(archive: str = "") -> ByHand:
    return ByHand(
        "clips", "https://example.org", "CC BY 4.0", "none", ("go to DIR",), ("DIR/a.avi",), "*.avi", 3, archive
    )


@pytest.fixture
def small(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def table(*files: File, archive: str = "") -> None:
        monkeypatch.setitem(SOURCES, "ave", Sources(files, (by_hand(archive),)))

    return table


def test_one_dead_file_does_not_keep_the_others_away(
    server: Server, tmp_path: Path, small: Callable[..., None]
) -> None:
    server.replies = [Reply(status=404), Reply()]
    small(server.file(path="dead.txt"), server.file(), replace(server.file(path="big.csd"), large=True))
    ended = fetch.fetch("ave", tmp_path, False, HASTY, Heard())
    assert [(end.path, end.state) for end in ended] == [
        ("dead.txt", "failed"),
        ("list.txt", "fetched"),
        ("big.csd", "skipped"),
    ]
    assert "404" in ended[0].error
    assert names(tmp_path) == ["list.txt"]


def test_the_owners_archive_is_unpacked_where_it_lies(tmp_path: Path, small: Callable[..., None]) -> None:
    small(archive="Videos.zip")
    with zipfile.ZipFile(tmp_path / "Videos.zip", "w") as packed:
        packed.writestr("AVE/one.mp4", b"film")
    assert [end.state for end in fetch.fetch("ave", tmp_path, False, HASTY, Heard())] == ["unpacked"]
    assert (tmp_path / "Videos" / "AVE" / "one.mp4").read_bytes() == b"film"
    assert [end.state for end in fetch.fetch("ave", tmp_path, False, HASTY, Heard())] == ["kept"]


def test_the_command(
    server: Server,
    tmp_path: Path,
    small: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLCR_DATA", raising=False)
    small(server.file())
    assert cli.main(["fetch", "ave", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["benchmarks"][0]
    assert (told["files"][0]["state"], told["by_hand"][0]["found"], told["by_hand"][0]["count"]) == ("missing", 0, 3)
    assert not (tmp_path / "cache").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "list.txt").write_text("mine")
    assert cli.main(["fetch", "ave", "--dry-run", "--to", str(tmp_path / "other")]) == 1
    assert "move it away" in capsys.readouterr().out
    assert cli.main(["fetch", "ave"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "cache" / "sources" / "ave"
    assert names(folder) == ["list.txt"]
    for words in ("fetched", digest(CONTENT)[:12], f"1. go to {folder}", f"{folder}/a.avi", "here: 0 of 3"):
        assert words in out
    assert f"Then: clcr prepare ave --source {folder}" in out
    assert cli.main(["fetch", "ave", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_command_says_what_failed(
    server: Server, tmp_path: Path, small: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    server.replies = [Reply(status=404)]
    small(server.file())
    assert cli.main(["fetch", "ave", "--to", str(tmp_path), "--json"]) == 1
    (file,) = json.loads(capsys.readouterr().out)["benchmarks"][0]["files"]
    assert (file["state"], file["licence"]) == ("failed", "MIT")
    assert "404" in file["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["crema-d"], "did you mean 'crema_d'"),
        (["ave", "--to", "DATA/ave"], "lies in CLCR_DATA, which is only read"),
        (["ave", "--to", "FILE"], "not a folder"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLCR_DATA", str(tmp_path / "data"))
    (tmp_path / "file").write_text("")
    places = {"DATA": str(tmp_path / "data"), "FILE": str(tmp_path / "file")}
    filled = [re.sub("DATA|FILE", lambda found: places[found[0]], argument) for argument in arguments]
    assert cli.main(["fetch", *filled]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_pinned_sources_and_steps(name: str) -> None:
    found = fetch.sources(name)
    assert found.by_hand
    for file in found.files:
        assert file.large or re.search(r"/[0-9a-f]{40}/", file.url)
        assert file.large or (re.fullmatch("[0-9a-f]{64}", file.sha256) and file.size > 0)
        assert file.licence
        assert not Path(file.path).is_absolute()
    for part in found.by_hand:
        assert all((part.what, part.licence, part.terms, part.steps, part.layout, part.pattern, part.count))
        assert all(line.startswith("DIR/") for line in part.layout)


def test_the_pinned_digests_are_those_of_the_originals() -> None:
    sums = Path(os.environ.get("CLCR_DATA", "nowhere")) / "splits" / "originals" / "SHA256SUMS"
    if not sums.is_file():
        pytest.skip("CLCR_DATA names no folder with splits/originals")
    prefix = {"crema_d": "cremad", "kinetics_sounds": "ks", "ave": "ave"}
    known = {line.split()[1].removeprefix("./"): line.split()[0] for line in sums.read_text().splitlines()}
    pinned = {f"{prefix[name]}_{file.path}": file.sha256 for name in prefix for file in sources.SOURCES[name].files}
    shared = {name for name in known if not name.startswith("ucf")}
    assert shared == set(pinned) - {"cremad_VideoDemographics.csv"}
    assert {name: known[name] for name in shared} == {name: pinned[name] for name in shared}


@pytest.mark.parametrize("name", ["crema_d", "kinetics_sounds", "ave"])
def test_the_true_lists_pass_their_checks(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(os.environ.get("CLCR_DATA", "nowhere")) / "splits" / "originals"
    if not folder.is_dir():
        pytest.skip("CLCR_DATA names no folder with splits/originals")
    prefix = {"crema_d": "cremad", "kinetics_sounds": "ks", "ave": "ave"}[name]
    files = [file for file in SOURCES[name].files if (folder / f"{prefix}_{file.path}").is_file()]
    server.replies = [
        reply
        for content in ((folder / f"{prefix}_{file.path}").read_bytes() for file in files)
        for reply in (Reply(content, cut=5000), Reply(content))
    ]
    here = tuple(replace(file, url=server.file(path=file.path).url) for file in files)
    monkeypatch.setitem(SOURCES, name, Sources(here, SOURCES[name].by_hand))
    ended = fetch.fetch(name, tmp_path, False, HASTY, Heard())
    assert {end.path: (end.state, end.sha256) for end in ended} == {f.path: ("fetched", f.sha256) for f in here}
