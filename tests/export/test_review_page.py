"""Review of a ledger: the page in a browser, keys, memory, the download, and the ledger that it goes into."""

import base64
import json
import re
import time

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from helpers.blocks import register_blocks
from helpers.browser import load

from lens_d2.commands import main
from lens_d2.data.cache import PreprocessParams, VolumeCache
from lens_d2.data.ledger.table import LedgerRow, read_ledger, to_table, write_ledger
from lens_d2.data.ledger.verdicts import proposals_of, read_verdicts
from lens_d2.export.review_page import RowMaker

DATASET = "blocks_deeplesion"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    register_blocks(tmp_path_factory.mktemp("blocks"))
    return DatasetCatalog.get(DATASET)


def rows_of(volume, name, boxes, **columns):
    values = {"strategy": "IntraPatient", "round": 1, "score": np.nan, "distance": np.nan, "annotation": ""}
    values = {**values, "status": "annotation", **columns}
    lesion = f"{volume}/{name}"
    return [LedgerRow(f"{lesion}@{z}", volume, z, *map(float, xyxy), lesion, **values) for z, *xyxy in boxes]


@pytest.fixture(scope="module")
def ledger_path(records, tmp_path_factory):
    """Five proposals: a block on three slices, matched to another block, and four boxes of one slice."""
    first, second = records[0], records[1]
    block, matched = first["lesions"][0], second["lesions"][0]
    found = {"score": 0.9, "distance": 0.07, "annotation": matched["id"]}
    rows = rows_of(first["volume"], "fused-0", block["boxes"], **found)
    for number in range(3):
        name, box = f"luna-<{number}>", [3, 10, 12, 30 + number, 30]
        rows += rows_of(second["volume"], name, [box], score=0.5 - number / 10, status="uncertain")
    rows += rows_of(first["volume"], "old", [[4, 40, 40, 60, 50]], strategy="CrossSlice")
    path = tmp_path_factory.mktemp("ledger") / "ledger.parquet"
    write_ledger(path, [to_table(rows)])
    return path


@pytest.fixture(scope="module")
def page_path(records, ledger_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    config = folder / "config.yaml"
    config.write_text(f"INPUT:\n  CACHE_DIR: {folder / 'cache'}\n")
    page = folder / "review.html"
    words = [ledger_path, "--dataset", DATASET, "--config-file", config, "--output", page]
    assert main(["review", *map(str, words)]) == 0
    return page


def test_a_proposal_is_a_lesion_of_the_ledger_best_scores_first(ledger_path, records):
    proposals = proposals_of(read_ledger(ledger_path))
    assert [len(each.slice_boxes) for each in proposals] == [3, 1, 1, 1, 1]
    assert [each.score for each in proposals[:4]] == [0.9, 0.5, 0.4, 0.3] and np.isnan(proposals[4].score)
    assert proposals[0].box3d == tuple(records[0]["lesions"][0]["box3d"])
    assert (proposals[0].distance, proposals[0].status) == (0.07, "annotation")


def test_the_picture_shows_the_lesion_inside_its_box(ledger_path, records, tmp_path):
    """Blocks have 300 HU in 40 HU; in the bone window they are brighter than what is around them."""
    cache = VolumeCache(tmp_path, PreprocessParams(pixel_spacing=1.0))
    (row,) = RowMaker(records, cache).rows(proposals_of(read_ledger(ledger_path))[:1])
    assert set(row.close_ups) == {"lung", "soft tissue", "bone"}
    assert row.annotation.id == records[1]["lesions"][0]["id"]
    for picture in (row.close_ups["bone"], row.annotation.picture):
        data = base64.b64decode(picture.uri.removeprefix("data:image/webp;base64,"))
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        box = picture.frames[0]
        x, y = picture.width / 100, picture.height / 100
        middle = image[round((box.top + box.height / 2) * y), round((box.left + box.width / 2) * x)]
        beside = image[round((box.top + box.height / 2) * y), round((box.left - 3) * x)]
        assert int(middle) > int(beside) + 25
    frames = [[f.number for f in picture.frames] for picture in row.strip]
    assert sum(1 in numbers for numbers in frames) == 3 and any(0 in numbers for numbers in frames)


def test_the_page_is_small_self_contained_and_lazy(page_path):
    text = page_path.read_text()
    rows = re.findall(r'<script type="application/json" id="row-(\d+)">(.*?)</script>', text, re.DOTALL)
    assert sorted(int(number) for number, _ in rows) == [0, 1, 2, 3, 4]
    assert max(len(row) for _, row in rows) < 25_000
    assert not re.search(r"https?://|url\(|@import|fetch\(", text)
    outside = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    assert "data:image" not in outside and "default-src 'none'" in outside
    first = json.loads(dict(rows)["0"])
    for words in ("W 1500", "W 400", "5 cm", "IntraPatient, round 1", "0.070", "key slice"):
        assert words in first, words
    assert "luna-&lt;0&gt;" in json.loads(dict(rows)["1"])


def test_verdicts_go_into_the_ledger(ledger_path, tmp_path, capsys):
    before = read_ledger(ledger_path)
    names = list(dict.fromkeys(before["lesion"]))
    verdicts = tmp_path / "verdicts.json"
    content = {
        names[0]: {"verdict": "accepted"},
        names[1]: {"verdict": "rejected"},
        names[2]: {"verdict": "unsure"},
    }
    verdicts.write_text(json.dumps({"verdicts": content}))
    for name in ("new.parquet", "new.csv"):
        args = [str(ledger_path), "--apply", str(verdicts), "--output", str(tmp_path / name)]
        assert main(["review", *args]) == 0
        assert capsys.readouterr().out == f"{tmp_path / name}: 1 accepted, 1 rejected, 1 unsure\n"
        after = read_ledger(tmp_path / name)
        assert after["status"].tolist() == ["accepted"] * 3 + ["rejected", "unsure", "uncertain", "annotation"]
        assert after.drop(columns="status").equals(before.drop(columns="status"))
    assert [each.id for each in proposals_of(after)] == names[3:]
    assert len(proposals_of(after, judged=True)) == 5


@pytest.mark.parametrize(
    "content, fault",
    [
        ('{"verdicts": {"nobody/7": {"verdict": "accepted"}}}', "the ledger has no proposal 'nobody/7'"),
        ('{"verdicts": {"nobody/7": {"verdict": "yes"}}}', "the verdict on 'nobody/7' is 'yes'"),
        ('{"verdicts": {"nobody/7": "accepted"}}', "the verdict on 'nobody/7' is None"),
        ("[1]", 'no file of verdicts: it has no "verdicts"'),
        ('{"verdicts": ', "not readable as JSON"),
        (
            '{"verdicts": {"a": {"verdict": "accepted"}, "a": {"verdict": "rejected"}}}',
            "the entry a appears twice",
        ),
        (None, "cannot be read: No such file"),
    ],
)
def test_bad_verdicts_are_one_line_and_change_nothing(ledger_path, tmp_path, capsys, content, fault):
    verdicts = tmp_path / "verdicts.json"
    if content is not None:
        verdicts.write_text(content)
    before = ledger_path.read_bytes()
    assert main(["review", str(ledger_path), "--apply", str(verdicts)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{verdicts}: {fault}") and error.count("\n") == 1
    assert ledger_path.read_bytes() == before


def test_a_ledger_of_several_datasets_makes_a_page(ledger_path, tmp_path):
    args = [str(ledger_path), "--dataset", "blocks_luna", DATASET, "--output", str(tmp_path / "page.html")]
    assert main(["review", *args]) == 0 and (tmp_path / "page.html").is_file()


@pytest.fixture
def page(browser, page_path):
    from selenium.webdriver.common.by import By

    load(browser, page_path.as_uri())
    browser.execute_script("localStorage.clear()")
    load(browser, page_path.as_uri())
    browser.get_log("browser")
    press = browser.find_element(By.TAG_NAME, "body").send_keys
    return browser, press


def state(browser):
    script = """const $ = (id) => document.getElementById(id);
        return [Number($('number').value), $('proposal').dataset.verdict, $('count').textContent]"""
    return browser.execute_script(script)


def test_keys_judge_undo_and_move(page):
    from selenium.webdriver.common.keys import Keys

    browser, press = page
    assert state(browser) == [1, "", "0 of 5 judged: 0 accepted, 0 rejected, 0 unsure"]
    images = browser.execute_script("return [...document.images].map((i) => i.complete && i.naturalWidth > 0)")
    assert 10 < len(images) < 20 and all(images)  # of one proposal alone
    press("a")
    press("r")
    press("u")
    assert state(browser) == [4, "", "3 of 5 judged: 1 accepted, 1 rejected, 1 unsure"]
    press("z")
    assert state(browser) == [3, "", "2 of 5 judged: 1 accepted, 1 rejected, 0 unsure"]
    press(Keys.ARROW_LEFT)
    assert state(browser)[:2] == [2, "rejected"]
    press("a")  # a second thought
    assert state(browser) == [3, "", "2 of 5 judged: 2 accepted, 0 rejected, 0 unsure"]
    press(Keys.ARROW_LEFT)
    press(Keys.ARROW_LEFT)
    press(Keys.ARROW_LEFT)
    assert state(browser)[:2] == [1, "accepted"]
    press("n")
    assert state(browser)[0] == 3
    press("b")
    shown = """return [...document.querySelectorAll('.box')].some(
        (box) => getComputedStyle(box).visibility !== 'hidden')"""
    assert not browser.execute_script(shown)
    press("b")
    assert browser.execute_script(shown)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_verdicts_outlive_the_window_and_can_be_filtered(page, page_path):
    browser, press = page
    press("r")
    press("a")
    load(browser, page_path.as_uri())
    assert state(browser) == [3, "", "2 of 5 judged: 1 accepted, 1 rejected, 0 unsure"]
    choose = (
        "const f = document.getElementById('filter'); f.value = arguments[0]; f.dispatchEvent(new Event('change'))"
    )
    browser.execute_script(choose, "accepted")
    assert state(browser)[:2] == [2, "accepted"]
    browser.execute_script(choose, "unsure")
    assert browser.execute_script("return document.getElementById('nothing').innerText") == "No such proposals."


def test_the_download_goes_back_into_the_ledger(page, ledger_path, tmp_path):
    browser, press = page
    press("a")
    press("r")
    press("s")
    path = browser.downloads / "ledger_verdicts.json"
    for _ in range(100):
        if path.exists():
            break
        time.sleep(0.05)
    names = [each.id for each in proposals_of(read_ledger(ledger_path))]
    assert {name: entry["verdict"] for name, entry in read_verdicts(path).items()} == {
        names[0]: "accepted",
        names[1]: "rejected",
    }
    output = tmp_path / "new.parquet"
    assert main(["review", str(ledger_path), "--apply", str(path), "--output", str(output)]) == 0
    assert set(read_ledger(output).set_index("lesion")["status"][names[0]]) == {"accepted"}


def test_everything_is_in_view_at_a_common_size(page):
    """No scrolling at 1440 x 1000: pictures, facts and keys are seen at once."""
    browser, _ = page
    fits = """const page = document.documentElement;
        return [page.scrollHeight - page.clientHeight, page.scrollWidth - page.clientWidth]"""
    assert max(browser.execute_script(fits)) <= 0
