"""The page in a real browser: the slider hides, the table sorts, boxes lie where the data says, offline."""

import pytest

from lens_d2.export import HtmlReport

pytest.importorskip("selenium.webdriver", reason="needs selenium")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402


@pytest.fixture(scope="module")
def address(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(HtmlReport().render(report))
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    browser.get("about:blank")
    browser.get(address)
    return browser


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
    header = page.find_element(By.XPATH, f"//table[@id='detections']//th[button[text()='{text}']]")
    header.find_element(By.TAG_NAME, "button").click()
    return header.get_attribute("aria-sort")


def test_loads_without_network_or_complaint(page):
    assert page.title == "CT lesion detections: Scan"
    images = page.find_elements(By.TAG_NAME, "img")
    assert len(images) > 10
    assert all(page.execute_script("return arguments[0].naturalWidth > 0", image) for image in images)
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_slider_hides_rows_cards_and_boxes(page):
    everywhere = ["#detections tbody tr", "article", "a.box"]
    assert [shown(page, each) for each in everywhere] == [[1, 2, 3], [1, 2, 3], [1, 2, 3, 1, 2, 3]]
    set_slider(page, 0.5)
    assert [shown(page, each) for each in everywhere] == [[1, 2], [1, 2], [1, 2, 1, 2]]
    assert page.find_element(By.ID, "count").text == "2 of 3 detections shown"
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


def test_headers_sort_table_and_cards(page):
    assert click_header(page, "Score") == "ascending"
    assert shown(page, "#detections tbody tr") == shown(page, "article") == [3, 2, 1]
    assert click_header(page, "Size (mm)") == "descending"
    assert shown(page, "#detections tbody tr") == shown(page, "article") == [2, 1, 3]
    assert click_header(page, "luna") == "descending"
    assert shown(page, "#detections tbody tr") == [3, 2, 1]
    assert click_header(page, "luna") == "ascending"
    assert shown(page, "#detections tbody tr") == [1, 2, 3]
    sorted_by = page.find_elements(By.CSS_SELECTOR, "th[aria-sort]")
    assert [header.text.strip("↑↓↕ \n") for header in sorted_by] == ["luna"]


def test_sorting_keeps_what_the_slider_hides(page):
    set_slider(page, 0.5)
    click_header(page, "Score")
    assert shown(page, "#detections tbody tr") == [2, 1]


def test_a_row_and_a_box_lead_to_the_card(page):
    page.find_element(By.CSS_SELECTOR, "#detections tr[data-number='3'] td:nth-child(3)").click()
    assert page.current_url.endswith("#detection-3")
    page.execute_script("window.scrollTo(0, 0)")
    page.find_element(By.CSS_SELECTOR, "a.box[data-number='2']").click()
    assert page.current_url.endswith("#detection-2")
    target = page.find_element(By.ID, "detection-2")
    assert 0 <= page.execute_script("return arguments[0].getBoundingClientRect().top", target) < 1000


def test_boxes_can_be_taken_off_the_pictures(page):
    boxes = page.find_elements(By.CSS_SELECTOR, ".box")
    assert all(box.is_displayed() for box in boxes)
    page.find_element(By.ID, "boxes").click()
    assert not any(box.is_displayed() for box in boxes)


def test_boxes_scale_with_their_pictures(page):
    """A box takes the same part of its picture at every width of the window."""
    script = (
        "const box = document.querySelector('article .axial .box').getBoundingClientRect(),"
        " image = document.querySelector('article .axial img').getBoundingClientRect();"
        " return [(box.left - image.left) / image.width, (box.bottom - image.top) / image.height]"
    )
    wide = page.execute_script(script)
    page.set_window_size(440, 900)
    try:
        assert page.execute_script(
            "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
        assert page.execute_script(script) == pytest.approx(wide, abs=0.01)
        strip = page.find_elements(By.CSS_SELECTOR, "article .strip figure")[:7]
        assert len({figure.location["y"] for figure in strip}) == 2  # and not one below the other
    finally:
        page.set_window_size(1440, 1000)
