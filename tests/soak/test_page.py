"""The page as a person sees it: `segline ui` in a real browser, clicked from the runs to the model card."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.checkout import Project

pytestmark = pytest.mark.soak
PATIENCE = 120  # seconds
MOVING = (ElementClickInterceptedException, StaleElementReferenceException)
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which root has to do without
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have a small one
    "--window-size=1600,1100",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # whatever the page asks of others fails, and is seen
)


@pytest.fixture
def browser() -> Iterator[Chrome]:
    """A browser without memory of earlier visits, or a skip that says what is missing."""
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.skip(f"there is no {' and no '.join(missing)} here (Debian: chromium chromium-driver)")
    options = Options()
    options.binary_location = str(found["chromium"])
    for option in OPTIONS:
        options.add_argument(option)
    driver = Chrome(options, Service(str(found["chromedriver"])))
    yield driver
    driver.quit()


@pytest.fixture
def address(finished: Project) -> Iterator[str]:
    """Where `segline ui` says that its page is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "segline", "ui", "--port", port]
    with subprocess.Popen(command, cwd=finished.folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = (line for line in process.stdout if line.startswith("http://"))
        yield next(lines).split()[0]
        process.terminate()


class Page:
    """What is in the browser's window."""

    def __init__(self, driver: Chrome, pictures: Path) -> None:
        self.driver = driver
        self.pictures = pictures

    def element(self, path: str) -> WebElement:
        """What an XPath leads to, once it can be seen."""
        found = WebDriverWait(self.driver, PATIENCE).until(
            lambda driver: next((each for each in driver.find_elements(By.XPATH, path) if each.is_displayed()), None),
            f"nothing to be seen at {path} of {self.driver.current_url}",
        )
        assert isinstance(found, WebElement)
        return found

    def click(self, path: str) -> None:
        """Click what an XPath leads to, once nothing lies over it."""
        wait = WebDriverWait(self.driver, PATIENCE, ignored_exceptions=MOVING)
        wait.until(lambda _: self.element(path).click() is None)

    def shows(self, *texts: str) -> None:
        """Wait until all of these are there to be read."""
        for text in texts:
            WebDriverWait(self.driver, PATIENCE).until(
                lambda driver, text=text: text in driver.find_element(By.TAG_NAME, "body").text,
                f"{text!r} is not to be read at {self.driver.current_url}",
            )

    def picture(self) -> tuple[int, int]:
        """The size in px of the picture of a file, once it is loaded."""
        image = self.element("//img[contains(@src, 'get-artifact') or starts-with(@src, 'blob:')]")
        size = "return [arguments[0].naturalWidth, arguments[0].naturalHeight]"
        width, height = WebDriverWait(self.driver, PATIENCE).until(
            lambda driver: (found := driver.execute_script(size, image))[0] and found
        )
        return width, height

    def keep(self, name: str) -> None:
        """Keep what is seen now, to be looked at."""
        self.driver.save_screenshot(str(self.pictures / f"{name}.png"))


def test_all_is_found_by_clicking(browser: Chrome, address: str, tmp_path: Path) -> None:
    look(Page(browser, tmp_path), address)
    said = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    # There are no users here, and the second says only that a layout was settled one frame later.
    assert [each for each in said if "users/current" not in each and "ResizeObserver" not in each] == []


def look(page: Page, address: str) -> None:
    """From the runs to their pictures, and to the model with its versions."""
    page.driver.get(address)
    page.shows("4 matching runs")
    page.click("//*[.='Model training' and not(*)]")
    page.shows("Model registry")
    page.click("//a[.='study']/ancestor::*[@role='gridcell']//button")
    page.shows("trial 0", "trial 1")
    page.keep("runs")
    page.click("//a[.='train']")
    page.shows("About this run", "model.md5", "git.commit", "validation_mean_iou")
    page.keep("train")
    page.click("//*[@role='tab'][.='Model metrics']")
    page.shows("Auto-refresh", "learning_rate", "momentum")
    page.keep("metrics")
    page.click("//*[@role='tab'][.='Artifacts']")
    page.click("//*[text()='pictures']")
    page.click("//*[text()='test.png']")
    assert min(page.picture()) >= 64
    page.keep("picture")
    page.click("//*[text()='reports']")
    page.click("//*[text()='model_card.md']")
    page.keep("card")
    page.click("//a[.='Model registry']")
    page.shows("Registered Models", "champion")
    page.click("//button[.='Try it now']")  # MLflow greets whoever comes first
    page.keep("models")
    page.click("//a[@href='#/models/cells']")
    page.shows("Version 1", "@ champion", "@ challenger", "data.md5", "gate")
    page.keep("model")
    page.click("//a[.='Version 1']")
    page.shows("@ champion", "Source Run", "A U-Net that gives each pixel one of 3 classes", "On the test split")
    page.keep("version")
    page.click("//a[.='train']")
    page.shows("About this run")
