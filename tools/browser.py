"""A headless Chromium that asks no network, for whoever looks at pages: tests, benchmarks, screenshots."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

INSTALL = "apt-get install -y chromium chromium-driver && pip install selenium"
"""What installs it."""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def is_installed() -> bool:
    """Tell whether there is a Chromium, and what drives it."""
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextlib.contextmanager
def browser(*, width: int = 1400, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """Yield a driver of a browser with a profile of its own, which is deleted."""
    with tempfile.TemporaryDirectory(prefix="llmgym-chromium-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        colours = ["--blink-settings=preferredColorScheme=0"] if dark else []
        for flag in (*_FLAGS, *colours, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options, Service(str(shutil.which("chromedriver"))))
        try:
            driver.set_page_load_timeout(30)
            yield driver
        finally:
            driver.quit()


def wait(driver: Any, script: str, seconds: float = 10) -> Any:
    """Wait until a JavaScript expression is true, and return it."""
    return WebDriverWait(driver, seconds, poll_frequency=0.02).until(lambda one: one.execute_script(f"return {script}"))


def go(driver: Any, address: str) -> None:
    """Open a page of the viewer, and wait until it is shown."""
    driver.execute_script("performance.clearMarks()") if driver.current_url.startswith(("http", "file")) else None
    driver.get(address)
    wait(driver, "performance.getEntriesByName('shown').length > 0")
