"""Fixtures of the tests of outputs: scans with detections put in by hand, and a browser."""

import shutil

import pytest
from helpers.handmade_scan import make_scan, report, scan  # noqa: F401

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"] + [
    "--disable-background-networking",
    "--disable-extensions",
    "--window-size=1440,1000",
]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Debian's chromium without a network; it downloads to ``browser.downloads``."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs a browser: chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_network_conditions(offline=True, latency=0, throughput=0)
    opened.downloads = downloads
    yield opened
    opened.quit()
