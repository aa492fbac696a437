"""Pages loaded in a browser by the tests."""

LOAD_LIMIT_S = 20
LOAD_ATTEMPTS = 3


def load(browser, address: str) -> None:
    """Load a page anew, without ``about:blank`` between: from there, one load in some hundred stalls Chromium.

    Raises:
        selenium.common.exceptions.TimeoutException: if it stalls each time.
    """
    from selenium.common.exceptions import TimeoutException

    browser.set_page_load_timeout(LOAD_LIMIT_S)
    for attempt in range(1, LOAD_ATTEMPTS + 1):
        try:
            browser.get(address)
            return
        except TimeoutException:
            if attempt == LOAD_ATTEMPTS:
                raise
