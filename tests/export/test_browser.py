"""The page in a real browser, offline: slices scroll, windows change, tables sort, boxes lie where they should."""

import pytest
from helpers.browser import load

from lens_d2.evaluation.operating_points import OperatingPoints
from lens_d2.export import HtmlReport

pytest.importorskip("selenium.webdriver", reason="needs selenium")
from selenium.common.exceptions import TimeoutException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.actions.pointer_input import PointerInput  # noqa: E402
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

VIEWER, CARD = "#viewer", "#finding-2 .viewer"
POINTS = OperatingPoints({0.5: 0.7, 1.0: 0.4567, 4.0: 0.2}, 1.0, -1.0)


@pytest.fixture(scope="module")
def address(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(HtmlReport().render(report))
    return path.as_uri()


def opened(browser, address):
    load(browser, address)
    wait(browser, "!document.querySelector('#viewer[data-slice]') ? null : true", True)
    return browser


@pytest.fixture
def page(browser, address):
    return opened(browser, address)


def wait(page, expression: str, value) -> None:
    """Waits until an expression of the page has a value; drawing takes a moment."""
    found = []

    def holds(driver):
        found.append(driver.execute_script(f"return {expression}"))
        return found[-1] == value

    try:
        WebDriverWait(page, 5, poll_frequency=0.05).until(holds)
    except TimeoutException:
        pytest.fail(f"{expression} is {found[-1]}, not {value}")


def slice_of(viewer: str) -> str:
    return f"Number(document.querySelector('{viewer}').dataset.slice)"


def text_of(selector: str) -> str:
    return f"document.querySelector('{selector}').textContent"


def frame(page, viewer: str):
    element = page.find_element(By.CSS_SELECTOR, f"{viewer} .frame.whole")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    return element


def press(page, *keys: str) -> None:
    ActionChains(page).send_keys(*keys).perform()


def turn_wheel(page, viewer: str, pixels: int) -> None:
    ActionChains(page).scroll_from_origin(ScrollOrigin.from_element(frame(page, viewer)), 0, pixels).perform()


def drag(page, viewer: str, x: int, y: int, kind: str = "mouse") -> None:
    chain = ActionChains(page, devices=[PointerInput(kind, kind)])
    hand = chain.w3c_actions.pointer_action
    hand.move_to(frame(page, viewer)).pointer_down()
    for step in (1, 2, 3):
        hand.move_to(frame(page, viewer), x * step // 3, y * step // 3)
    hand.pointer_up()
    chain.perform()


def grey(page, viewer: str, kind: str = "whole") -> float:
    """Mean of a canvas where the box is."""
    return page.execute_script(
        "const frame = document.querySelector(arguments[0]), canvas = frame.querySelector('canvas'),"
        " box = frame.querySelector('.box').getBoundingClientRect(), all = frame.getBoundingClientRect(),"
        " scale = canvas.width / all.width, x = (box.left + box.width / 2 - all.left) * scale,"
        " y = (box.top + box.height / 2 - all.top) * scale;"
        " return canvas.getContext('2d').getImageData(x, y, 1, 1).data[0]",
        f"{viewer} .frame.{kind}",
    )


def shown(page, selector) -> list[int]:
    """Numbers of the visible elements, in the page's order."""
    elements = page.find_elements(By.CSS_SELECTOR, selector)
    return [int(element.get_attribute("data-number")) for element in elements if element.is_displayed()]


def set_slider(page, value: float) -> None:
    page.execute_script(
        "const s = document.getElementById('score'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        value,
    )


def click_header(page, text: str) -> str:
    header = page.find_element(By.XPATH, f"//table[@id='findings']//th[button[text()='{text}']]")
    header.find_element(By.TAG_NAME, "button").click()
    return header.get_attribute("aria-sort")


def test_loads_without_network_or_complaint(page):
    assert page.title == "CT lesion detections: Scan"
    images = page.find_elements(By.TAG_NAME, "img")
    assert len(images) == 8  # projections and reformats
    assert all(page.execute_script("return arguments[0].naturalWidth > 0", image) for image in images)
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_slider_hides_rows_cards_and_boxes(page):
    everywhere = ["#findings tbody tr", "article", ".projections a.box"]
    assert [shown(page, each) for each in everywhere] == [[1, 2, 3], [1, 2, 3], [1, 2, 3, 1, 2, 3]]
    set_slider(page, 0.5)
    assert [shown(page, each) for each in everywhere] == [[1, 2], [1, 2], [1, 2, 1, 2]]
    assert page.find_element(By.ID, "count").text == "2 of 3 findings shown"
    assert page.find_element(By.ID, "score-text").text == "0.50"
    set_slider(page, 1)
    assert [shown(page, each) for each in everywhere] == [[], [], []]
    assert page.find_element(By.ID, "none-left").is_displayed()
    set_slider(page, 0)
    assert shown(page, "article") == [1, 2, 3]


def test_slider_works_from_the_keyboard(page):
    slider = page.find_element(By.ID, "score")
    slider.send_keys(Keys.END)
    assert shown(page, "article") == []
    slider.send_keys(Keys.HOME)
    assert shown(page, "article") == [1, 2, 3]


def test_headers_sort_table_and_cards_as_one_expects(page):
    """The first click puts large sizes, high scores, low numbers and slices first; the second reverses."""
    assert click_header(page, "Size (mm)") == "descending"
    assert shown(page, "#findings tbody tr") == shown(page, "article") == [2, 1, 3]
    assert click_header(page, "Size (mm)") == "ascending"
    assert shown(page, "#findings tbody tr") == shown(page, "article") == [3, 1, 2]
    assert click_header(page, "luna") == "descending"
    assert shown(page, "#findings tbody tr") == [3, 2, 1]
    assert click_header(page, "Key slice") == "ascending"
    assert shown(page, "#findings tbody tr") == [3, 1, 2]
    assert click_header(page, "No.") == "ascending"
    assert shown(page, "#findings tbody tr") == [1, 2, 3]
    assert click_header(page, "Score") == "descending"
    assert click_header(page, "Score") == "ascending"
    assert shown(page, "#findings tbody tr") == [3, 2, 1]
    sorted_by = page.find_elements(By.CSS_SELECTOR, "th[aria-sort]")
    assert [header.text.strip("↑↓↕ \n") for header in sorted_by] == ["Score"]


def test_sorting_keeps_what_the_slider_hides(page):
    set_slider(page, 0.5)
    click_header(page, "Score")
    assert shown(page, "#findings tbody tr") == [2, 1]


def test_a_row_and_a_box_show_the_finding_and_its_number_leads_to_the_card(page):
    page.find_element(By.CSS_SELECTOR, "#findings tr[data-number='3'] td:nth-child(3)").click()
    wait(page, slice_of(VIEWER), 3)
    page.find_element(By.CSS_SELECTOR, ".projections a.box[data-number='2']").click()
    wait(page, slice_of(VIEWER), 19)
    wait(page, text_of("tr.selected a"), "2")
    page.find_element(By.CSS_SELECTOR, "#findings tr[data-number='3'] a").click()
    assert page.current_url.endswith("#finding-3")
    target = page.find_element(By.ID, "finding-3")
    assert 0 <= page.execute_script("return arguments[0].getBoundingClientRect().top", target) < 1000
    frame(page, CARD)  # scrolls there
    page.find_element(By.CSS_SELECTOR, "#finding-2 .back").click()
    wait(page, slice_of(VIEWER), 19)


def test_boxes_can_be_taken_off_the_pictures(page):
    boxes = page.find_elements(By.CSS_SELECTOR, ".box")
    assert all(box.is_displayed() for box in boxes)
    page.find_element(By.ID, "boxes").click()
    assert not any(box.is_displayed() for box in boxes)


def test_boxes_scale_with_their_pictures(page):
    """A box takes the same part of its picture at every width of the window."""
    script = (
        "const box = document.querySelector('article .whole .box').getBoundingClientRect(),"
        " image = document.querySelector('article .whole canvas').getBoundingClientRect();"
        " return [(box.left - image.left) / image.width, (box.bottom - image.top) / image.height]"
    )
    wide = page.execute_script(script)
    page.set_window_size(440, 900)
    try:
        assert page.execute_script(
            "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
        assert page.execute_script(script) == pytest.approx(wide, abs=0.01)
    finally:
        page.set_window_size(1440, 1000)


@pytest.mark.parametrize("viewer", [VIEWER, CARD])
def test_slices_scroll_by_wheel_keys_slider_and_touch(page, viewer):
    start = 10 if viewer == VIEWER else 19
    wait(page, slice_of(viewer), start)
    turn_wheel(page, viewer, 120)  # towards the feet
    wait(page, slice_of(viewer), start - 1)
    turn_wheel(page, viewer, -120)
    wait(page, slice_of(viewer), start)
    frame(page, viewer).click()
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    wait(page, slice_of(viewer), start + 2)
    press(page, Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    wait(page, slice_of(viewer), start - 1)
    press(page, Keys.HOME)
    wait(page, slice_of(viewer), 23)
    press(page, Keys.END)
    wait(page, slice_of(viewer), 0)
    wait(page, text_of(f"{viewer} .whole .caption"), "slice 0")
    drag(page, viewer, 60, 0, "touch")
    wait(page, slice_of(viewer), 3)
    slider = page.find_element(By.CSS_SELECTOR, f"{viewer} .slice")
    slider.send_keys(Keys.END)
    wait(page, slice_of(viewer), 23)


def test_a_wheel_that_scrolls_the_page_goes_on_over_pictures(page):
    """Within a quarter of a second; a pause, and it scrolls the slices."""
    page.execute_script(
        "document.body.dispatchEvent(new WheelEvent('wheel', {deltaY: 120, bubbles: true, cancelable: true}));"
        "window.taken = !document.querySelector('#viewer .whole').dispatchEvent("
        "new WheelEvent('wheel', {deltaY: 120, bubbles: true, cancelable: true}))"
    )
    assert page.execute_script("return window.taken") is False
    wait(page, slice_of(VIEWER), 10)


def test_windows_change_by_presets_and_by_the_mouse(page):
    window = text_of(f"{CARD} .whole .window")
    wait(page, slice_of(CARD), 19)
    assert grey(page, CARD) == pytest.approx(230, abs=6)  # 900 HU, bone
    page.find_element(By.CSS_SELECTOR, f"{CARD} [data-preset='soft tissue']").click()
    wait(page, window, "W 400 L 40")
    assert grey(page, CARD) == grey(page, CARD, "close") == 255
    page.find_element(By.CSS_SELECTOR, f"{CARD} [data-preset='lung']").click()
    press(page, "3")
    wait(page, window, "W 1500 L 300")
    drag(page, CARD, 60, -30)
    wait(page, f"document.querySelector('{CARD} [aria-pressed=true]')", None)
    width, level = (int(word) for word in page.execute_script(f"return {window}").split()[1::2])
    assert width > 1600 and level < 250
    press(page, "r")
    wait(page, window, "W 1500 L 300")
    assert page.execute_script(f"return {text_of(VIEWER + ' .whole .window')}") != "W 400 L 40"  # has its own


def test_a_mouse_let_go_outside_changes_nothing_more(page):
    window = text_of(f"{CARD} .whole .window")
    wait(page, slice_of(CARD), 19)
    before = page.execute_script(f"return {window}")
    page.execute_script(
        "const frame = document.querySelector(arguments[0]);"
        "const send = (type, x, buttons) => frame.dispatchEvent(new PointerEvent(type,"
        " { pointerType: 'mouse', clientX: x, clientY: 50, buttons, bubbles: true }));"
        "send('pointerdown', 10, 1); send('pointermove', 90, 0); send('pointermove', 150, 0);",
        f"{CARD} .frame.whole",
    )
    assert page.execute_script(f"return {window}") == before


def test_keys_are_those_of_the_viewer_in_focus(page):
    wait(page, slice_of(CARD), 19)
    frame(page, VIEWER).click()
    page.execute_script(f"document.querySelector('{CARD} .frame.whole').focus()")
    main = page.execute_script(f"return {slice_of(VIEWER)}")
    press(page, Keys.ARROW_RIGHT)
    wait(page, slice_of(CARD), 20)
    assert page.execute_script(f"return {slice_of(VIEWER)}") == main


def test_reformats_follow_the_window(page):
    script = (
        "const canvas = document.querySelector('#finding-2 .over');"
        "return canvas.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[0]"
    )
    wait(page, f"(() => {{ {script} }})() > 200", True)
    frame(page, CARD).click()
    for preset, dark in (("1", False), ("3", True)):  # lung: all of it white
        press(page, preset)
        wait(page, f"(() => {{ {script} }})() < 250", dark)


@pytest.mark.parametrize(("forwards", "backwards"), ["np", "jk"])
def test_keys_go_through_findings(page, forwards, backwards):
    wait(page, slice_of(VIEWER), 10)
    for key, number, place in ((forwards, 2, 19), (forwards, 3, 3), (forwards, 1, 10), (backwards, 3, 3)):
        press(page, key)
        wait(page, slice_of(VIEWER), place)
        assert page.find_element(By.ID, "current").text.startswith(f"Finding {number}, score")
    set_slider(page, 0.5)
    press(page, forwards)
    wait(page, slice_of(VIEWER), 10)  # what the slider hides is passed over
    press(page, forwards, forwards)
    wait(page, slice_of(VIEWER), 10)


def test_keys_go_on_among_the_cards_where_the_scan_is_out_of_sight(page):
    page.execute_script("document.getElementById('finding-1').scrollIntoView()")
    press(page, "n")
    wait(page, "Math.round(document.getElementById('finding-2').getBoundingClientRect().top) < 130", True)


def test_boxes_are_on_the_slices_that_they_span(page):
    def boxes() -> list[str]:
        return [box.get_attribute("data-number") for box in page.find_elements(By.CSS_SELECTOR, f"{VIEWER} a.box")]

    page.find_element(By.ID, "next").click()
    wait(page, slice_of(VIEWER), 19)
    assert boxes() == ["2"] and grey(page, VIEWER) == pytest.approx(230, abs=6)
    frame(page, VIEWER).click()
    press(page, *[Keys.ARROW_DOWN] * 4)
    wait(page, slice_of(VIEWER), 15)
    assert boxes() == ["2"]
    press(page, Keys.ARROW_DOWN)
    wait(page, slice_of(VIEWER), 14)
    assert boxes() == []


def test_the_patients_right_is_on_the_left(page):
    """The first block lies at a low x of the file, which runs to the left."""
    left, right = (page.find_element(By.CSS_SELECTOR, f"{VIEWER} .whole .{side}") for side in ("left", "right"))
    assert (left.text, right.text) == ("R", "L") and left.location["x"] < right.location["x"]
    size = page.find_element(By.CSS_SELECTOR, f"{VIEWER} .whole").size
    assert size["width"] / size["height"] == pytest.approx(60 / 72, abs=0.01)  # mm


@pytest.fixture
def pointed(browser, scan, tmp_path):
    path = tmp_path / "report.html"
    path.write_bytes(HtmlReport().render(scan.report(operating_points=POINTS, score_threshold=0.2)))
    return opened(browser, path.as_uri())


def test_the_page_opens_at_one_false_positive_and_says_what_scores_meant(pointed):
    assert pointed.find_element(By.ID, "count").text == "2 of 3 findings shown"
    meaning = " ".join(pointed.find_element(By.CLASS_NAME, "meaning").text.split())
    assert "Of 100 detections with a score of 0.46, about 24 were lesions on the validation patients." in meaning
    pressed = pointed.find_elements(By.CSS_SELECTOR, ".points [aria-pressed=true]")
    assert [button.text for button in pressed] == ["1 from 0.46"]
    set_slider(pointed, 0.8)
    assert pointed.find_element(By.ID, "meant-share").text == f"about {100 * POINTS.probability([0.8])[0]:.0f}"
    pointed.find_element(By.XPATH, "//button[text()='4 from 0.20']").click()
    assert pointed.find_element(By.ID, "count").text == "3 of 3 findings shown"


@pytest.mark.parametrize("size", [(390, 844), (1000, 900), (1251, 900), (1400, 1000), (2000, 1100)])
def test_nothing_is_cut_at_any_width(pointed, size):
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    pointed.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        wide = pointed.execute_script(
            "return [...document.querySelectorAll('body, .rows, .controls, article, .numbers, .viewer-controls')]"
            ".filter((each) => each.scrollWidth > each.clientWidth + 1).map((each) => each.outerHTML)"
        )
        assert wide == []
        page_width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert pointed.execute_script(f"return {page_width}") == 0
    finally:
        pointed.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
