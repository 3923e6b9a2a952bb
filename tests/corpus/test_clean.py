"""`minillm data clean`: nothing lost silently, whatever the files hold."""

import gzip
import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures import fixture

from minillm.corpus import clean as clean_module
from minillm.corpus import records
from minillm.corpus.clean import Settings, clean
from minillm.corpus.crawl import crawl, leaked_tales
from minillm.corpus.duplicates import Index
from minillm.corpus.records import read_records, write_warc
from minillm.corpus.signatures import signature
from minillm.data import andersen, read_documents, stream_documents

PAGES = crawl()[:200]
TALES = [tale for tale in andersen() if 2000 < len(tale) < 6000]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def lines_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def warc(tmp_path_factory):
    pytest.importorskip("warcio", reason="the extra curation is not installed")
    path = tmp_path_factory.mktemp("crawl") / "crawl.warc.gz"
    write_warc(PAGES, path)
    return path


def write_tales(folder):
    """A file of each kind but WARC, with a copy, a near copy, and junk."""
    near = TALES[0].replace(" the ", " this ", 1)
    (folder / "a.txt").write_text(
        "\n\n\n".join([*TALES[:3], "short"]), encoding="utf-8"
    )
    lines = [json.dumps({"text": text}) for text in (near, TALES[3], TALES[1])]
    (folder / "b.jsonl").write_text("\n".join([*lines, "{"]), encoding="utf-8")
    page = "<nav><a href=/>Home</a></nav><p>" + TALES[4].replace("\n\n", "<p>")
    (folder / "c.html").write_bytes(page.encode("utf-16"))
    return [folder / name for name in ("a.txt", "b.jsonl", "c.html")]


def test_every_record_is_kept_or_dropped_with_a_reason(tmp_path):
    report = clean(write_tales(tmp_path), tmp_path / "out")
    out = tmp_path / "out"
    kept, gone = lines_of(out / "texts.jsonl"), lines_of(out / "dropped.jsonl")
    assert [k["source"] for k in kept] == [
        "a.txt:1",
        "a.txt:2",
        "a.txt:3",
        "b.jsonl:2",
        "c.html",
    ]
    assert kept[0]["text"] == TALES[0]
    assert {(g["name"], g["reason"], g.get("like")) for g in gone} == {
        ("a.txt:4", "rule: words", None),
        ("b.jsonl:1", "like another", "a.txt:1"),
        ("b.jsonl:3", "the same as another", "a.txt:2"),
        ("b.jsonl:4", "not a JSON object with a text", None),
    }
    assert report["records"] == len(kept) + len(gone) == 9
    assert report["kept"] == 5
    assert Counter(g["reason"] for g in gone) == {
        reason: it["count"] for reason, it in report["dropped"].items()
    }
    assert json.loads((out / "report.json").read_text("utf-8")) == report
    # `minillm data prepare` reads what it wrote.
    assert list(stream_documents(out / "texts.jsonl")) == [k["text"] for k in kept]
    assert not list(tmp_path.glob(".out.parts"))


def test_processes_threads_and_one_alone_write_the_same(tmp_path, warc, monkeypatch):
    paths = [warc, *write_tales(tmp_path)]
    monkeypatch.setattr(clean_module, "BATCH", 1 << 16)
    clean(paths, tmp_path / "one")
    clean(paths, tmp_path / "two", workers=2)
    with ThreadPoolExecutor(3) as pool:
        clean(paths, tmp_path / "three", executor=pool, workers=3)
    one, two, three = (files_of(tmp_path / n) for n in ("one", "two", "three"))
    assert one == two == three
    assert set(one) == {"texts.jsonl", "dropped.jsonl", "report.json"}


@pytest.mark.check
def test_a_cluster_writes_the_same(tmp_path, warc, monkeypatch):
    """Dask's workers are processes that share nothing with this one but a socket."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(clean_module, "BATCH", 1 << 18)
    clean([warc], tmp_path / "alone")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        clean([warc], tmp_path / "cluster", executor=executor, workers=2)
    assert files_of(tmp_path / "cluster") == files_of(tmp_path / "alone")


def test_a_stopped_run_continues_and_ends_the_same(tmp_path, monkeypatch):
    paths = write_tales(tmp_path)
    clean(paths, tmp_path / "whole")
    looked, real = [], clean_module.read_records

    def reads(path, **options):
        looked.append(path.name)
        if path.name == "c.html" and looked.count("c.html") == 1:
            raise KeyboardInterrupt
        return real(path, **options)

    monkeypatch.setattr(clean_module, "read_records", reads)
    with pytest.raises(KeyboardInterrupt):
        clean(paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    clean(paths, tmp_path / "out")
    # The first two files were not read again.
    assert looked == ["a.txt", "b.jsonl", "c.html", "c.html"]
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_changed_file_is_read_again(tmp_path, monkeypatch):
    paths = write_tales(tmp_path)
    part = clean_module._part
    monkeypatch.setattr(clean_module, "_compare", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clean(paths, tmp_path / "out")
    parts = set((tmp_path / ".out.parts").iterdir())
    assert len(parts) == 3
    paths[0].write_text(TALES[5], encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        clean(paths, tmp_path / "out")
    assert len(set((tmp_path / ".out.parts").iterdir()) - parts) == 1
    with pytest.raises(ZeroDivisionError):
        clean(paths, tmp_path / "out", settings=Settings(k=4))
    assert len(set((tmp_path / ".out.parts").iterdir()) - parts) == 4
    assert part is clean_module._part


def test_texts_kept_apart(tmp_path):
    (tmp_path / "test.txt").write_text(TALES[1], encoding="utf-8")
    paths = write_tales(tmp_path)
    report = clean(paths, tmp_path / "out", apart=[tmp_path / "test.txt"])
    gone = report["dropped"]["shares words with a text kept apart"]
    assert [it["name"] for it in gone["samples"]] == ["a.txt:2", "b.jsonl:3"]


def test_the_crawl_through_the_command_line(tmp_path, warc):
    """The same pages as in memory; the leaked tales go if the test split is apart."""
    (tmp_path / "test.txt").write_text("\n\n\n".join(leaked_tales()), encoding="utf-8")
    command = [sys.executable, "-m", "minillm", "data", "clean", str(warc), "--out"]
    command += [str(tmp_path / "out"), "--apart", str(tmp_path / "test.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "200 records" in done.stdout
    assert "the same as another" in done.stdout
    kinds = {page.url: page.kind for page in crawl()}
    kept = {line["source"] for line in lines_of(tmp_path / "out" / "texts.jsonl")}
    counts = Counter(kinds[url] for url in kept)
    assert counts["leak"] == counts["part"] == counts["table"] == counts["code"] == 0
    assert counts["bulletin"] > 20
    assert counts["tale"] + counts["mirror"] + counts["near"] > 40
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    # The foreign pages of the site that says UTF-8 and sends Latin-1.
    assert any("windows-1252" in note for note in report["encodings"])
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode
    assert "exists and is not an empty folder" in again.stderr


def test_a_warc_gives_back_what_was_written(warc, tmp_path):
    found = list(read_records(warc))
    pages = PAGES
    assert [(r.name, r.data, r.declared, r.html) for r in found] == [
        (p.url, p.html, p.declared, True) for p in pages
    ]
    write_warc(pages, tmp_path / "again.warc.gz")
    assert (tmp_path / "again.warc.gz").read_bytes() == warc.read_bytes()
    write_warc(pages[:20], tmp_path / "plain.warc")
    plain = list(read_records(tmp_path / "plain.warc"))
    assert [r.data for r in plain] == [p.html for p in pages[:20]]


@pytest.mark.parametrize("name", ["cut.warc.gz", "cut.warc"])
def test_a_truncated_warc_ends_in_a_counted_problem(tmp_path, warc, name):
    data = warc.read_bytes()
    data = data if name.endswith("gz") else gzip.decompress(data)
    whole = list(read_records(warc))
    problems = Counter()
    for cut in (1, 100, 250, *range(500, len(data), len(data) // 9)):
        (tmp_path / name).write_bytes(data[:cut])
        found = list(read_records(tmp_path / name))
        good = [r for r in found if not r.problem]
        # Nothing that was read whole is lost, and nothing half is passed on as whole.
        assert good == whole[: len(good)]
        # Cut between two records it would be a shorter file, and whole.
        assert len(found) == len(good) + 1
        problems[found[-1].problem] += 1
    assert problems["a truncated WARC record"] >= 9
    report = clean([tmp_path / name], tmp_path / "out")
    assert report["records"] == len(found)
    assert report["dropped"][found[-1].problem]["count"] == 1


def test_damaged_bytes_never_crash(tmp_path, warc):
    from random import Random

    random, data = Random(0), warc.read_bytes()[:60_000]
    for _ in range(40):
        broken = bytearray(data)
        for _ in range(random.randrange(1, 9)):
            broken[random.randrange(len(broken))] = random.randrange(256)
        (tmp_path / "broken.warc.gz").write_bytes(bytes(broken))
        found = list(read_records(tmp_path / "broken.warc.gz"))
        assert found
    for content in (b"", b"\0" * 1000, b"no WARC at all\n" * 9, b"WARC/1.0\r\n"):
        for name in ("x.warc", "x.warc.gz"):
            (tmp_path / name).write_bytes(content)
            found = list(read_records(tmp_path / name))
            assert all(record.problem for record in found)
            assert found or not content


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.html", "x.warc", "x.warc.gz"])
def test_an_empty_crawl_gives_a_report_of_zeros(tmp_path, name):
    pytest.importorskip("warcio", reason="the extra curation is not installed")
    (tmp_path / name).write_bytes(b"")
    report = clean([tmp_path / name], tmp_path / "out")
    assert report["kept"] == 0
    assert report["records"] == sum(it["count"] for it in report["dropped"].values())
    assert (tmp_path / "out" / "texts.jsonl").read_bytes() == b""
    assert clean([], tmp_path / "none")["records"] == 0


def test_one_line_without_an_end_takes_bounded_memory(tmp_path):
    """A hundred megabytes on one line, between two records that count."""
    good = json.dumps({"text": TALES[0]}).encode()
    with (tmp_path / "x.jsonl").open("wb") as file:
        file.write(good + b'\n{"text": "')
        for _ in range(100):
            file.write(b"never ending " * 80_000)
        file.write(b'"}\n' + json.dumps({"text": TALES[1]}).encode())
    with (tmp_path / "x.html").open("wb") as file:
        for _ in range(100):
            file.write(b"<p>never ending" * 70_000)
    tracemalloc.start()
    report = clean([tmp_path / "x.jsonl", tmp_path / "x.html"], tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report["kept"] == 2
    assert report["dropped"]["more than 16 MiB"]["count"] == 2
    assert peak < 60 << 20


def test_deep_markup_wrong_bytes_and_half_characters(tmp_path):
    page = "<div>" * 10_000 + "<p>" + TALES[0].replace("\n\n", "<p>")
    (tmp_path / "deep.html").write_text(page, encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(TALES[1].encode() + b"\n\n\n\xff\xfe\xfd")
    half = json.dumps({"text": TALES[2] + " \ud800"})
    deep = '{"text": ' + "[" * 100_000
    (tmp_path / "half.jsonl").write_text(f"{half}\n{deep}\n[1]\n3\n", encoding="utf-8")
    paths = [tmp_path / name for name in ("deep.html", "bad.txt", "half.jsonl")]
    report = clean(paths, tmp_path / "out")
    assert report["kept"] >= 1
    assert report["records"] >= 6
    assert report["dropped"]["not a JSON object with a text"]["count"] >= 3
    assert report["dropped"]["not UTF-8, unread from here"]["count"] == 1
    for text in read_documents(tmp_path / "out" / "texts.jsonl"):
        text.encode()


def test_what_must_be_there(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.txt"):
        clean([tmp_path / "nothing.txt"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    paths = write_tales(tmp_path)
    with pytest.raises(ValueError, match="workers is at least 1"):
        clean(paths, tmp_path / "out", workers=0)
    for module in ("warcio", "warcio.archiveiterator"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "x.warc").write_bytes(b"")
    with pytest.raises(ImportError, match="pip install warcio"):
        clean([tmp_path / "x.warc"], tmp_path / "out")


def test_a_record_of_the_real_web(tmp_path):
    """iana.org as a crawler stored it in 2014; what it says is known from elsewhere."""
    pytest.importorskip("warcio", reason="the extra curation is not installed")
    path = fixture("iana.warc.gz")
    found = list(read_records(path))
    pages = {r.name: r for r in found if not r.problem}
    assert len(found) == 343
    assert len(pages) == 16
    report = clean([path], tmp_path / "out")
    assert report["records"] == 343
    kept = lines_of(tmp_path / "out" / "texts.jsonl")
    texts = {line["source"]: line["text"] for line in kept}
    about = texts["http://www.iana.org/about"]
    assert "The Internet Assigned Numbers Authority (IANA) is a department of" in about
    assert "Skip to" not in about
    assert records.LONGEST == 1 << 24


def test_installed_packages_are_full_of_near_copies():
    """A second source of dirt, without truth: the licences of what is installed."""
    from importlib.metadata import distributions

    texts = [
        file.read_text(encoding="utf-8", errors="replace")
        for installed in distributions()
        for file in [installed.locate_file(f) for f in installed.files or ()]
        if "LICENSE" in Path(str(file)).name.upper() and file.is_file()
    ]
    if len(texts) < 20:
        pytest.skip("few packages are installed here")
    index = Index()
    alike = 0
    for text in texts:
        alike += index.add(signature(text, 5, 128)) is not None
    # More than the exact copies: licences that differ in a name and a year.
    assert alike > len(texts) - len({*texts})


def test_a_test_text_that_cannot_be_read_is_not_passed_over(tmp_path):
    paths = write_tales(tmp_path)
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"story": TALES[1]}) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"test.jsonl:1, to be kept apart, cannot be"):
        clean(paths, tmp_path / "out", apart=[test])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("used", "declared", "same"),
    [
        ("utf-8", "UTF8", True),
        ("utf-8-sig", "utf-8", True),
        ("utf-8-sig", "utf-8-sig", True),
        ("utf-8-sig", "windows-1252", False),
        ("windows-1252", "cp1252", True),
        ("windows-1252", "utf-8", False),
        ("utf-8", "latin-1", False),
        ("utf-8", "no such encoding", False),
    ],
)
def test_an_encoding_has_many_names(used, declared, same):
    assert clean_module._same(used, declared) is same


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be at least 1; got 0"),
        ({"gram": -1}, "gram must be at least 1"),
        ({"n": 128, "bands": 30}, "cannot be cut into bands=30"),
        ({"threshold": 0.0}, r"similarity in \(0, 1\]"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)
