"""`segline ui` in a real browser: a user clicks from the runs to the model card."""

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
    "--no-sandbox",  # Chromium refuses its sandbox as root
    "--disable-gpu",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--window-size=1600,1100",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # requests to other hosts fail and are logged
)


@pytest.fixture
def browser() -> Iterator[Chrome]:
    """Start a browser with a fresh profile, or skip the test and name the missing programs."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in programs.items() if path is None]:
        pytest.skip(f"{' and '.join(missing)} not installed (Debian: chromium chromium-driver)")
    options = Options()
    options.binary_location = str(programs["chromium"])
    for option in OPTIONS:
        options.add_argument(option)
    driver = Chrome(options, Service(str(programs["chromedriver"])))
    yield driver
    driver.quit()


@pytest.fixture
def address(finished: Project) -> Iterator[str]:
    """Start `segline ui` and return the address that it prints."""
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
    """The page in the browser's window."""

    def __init__(self, driver: Chrome, pictures: Path) -> None:
        self.driver = driver
        self.pictures = pictures

    def element(self, path: str) -> WebElement:
        """Wait for the first visible element of an XPath, and return it."""
        element = WebDriverWait(self.driver, PATIENCE).until(
            lambda driver: next((item for item in driver.find_elements(By.XPATH, path) if item.is_displayed()), None),
            f"no visible element at {path} of {self.driver.current_url}",
        )
        assert isinstance(element, WebElement)
        return element

    def click(self, path: str) -> None:
        """Click the element of an XPath, once no other element covers it."""
        wait = WebDriverWait(self.driver, PATIENCE, ignored_exceptions=MOVING)
        wait.until(lambda _: self.element(path).click() is None)

    def shows(self, *texts: str) -> None:
        """Wait until the page shows all of these texts."""
        for text in texts:
            WebDriverWait(self.driver, PATIENCE).until(
                lambda driver, text=text: text in driver.find_element(By.TAG_NAME, "body").text,
                f"{text!r} is not shown at {self.driver.current_url}",
            )

    def picture(self) -> tuple[int, int]:
        """Wait for the picture of an artifact, and return its width and height in px."""
        image = self.element("//img[contains(@src, 'get-artifact') or starts-with(@src, 'blob:')]")
        size = "return [arguments[0].naturalWidth, arguments[0].naturalHeight]"
        width, height = WebDriverWait(self.driver, PATIENCE).until(
            lambda driver: (sides := driver.execute_script(size, image))[0] and sides
        )
        return width, height

    def keep(self, name: str) -> None:
        """Save a screenshot for a person to look at."""
        self.driver.save_screenshot(str(self.pictures / f"{name}.png"))


def test_runs_pictures_and_versions_are_reached_by_clicking(browser: Chrome, address: str, tmp_path: Path) -> None:
    click_through(Page(browser, tmp_path), address)
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    # This MLflow has no users; ResizeObserver only reports a layout that took one frame more.
    assert [error for error in errors if "users/current" not in error and "ResizeObserver" not in error] == []


def click_through(page: Page, address: str) -> None:
    """Click from the runs to their pictures, and to the model with its versions."""
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
    page.click("//button[.='Try it now']")  # closes MLflow's welcome dialog
    page.keep("models")
    page.click("//a[@href='#/models/cells']")
    page.shows("Version 1", "@ champion", "@ challenger", "data.md5", "gate")
    page.keep("model")
    page.click("//a[.='Version 1']")
    page.shows("@ champion", "Source Run", "A U-Net that assigns each pixel to one of 3 classes", "On the test split")
    page.keep("version")
    page.click("//a[.='train']")
    page.shows("About this run")
