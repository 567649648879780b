"""The report in a browser: opened, sorted, asked for provenance, at phone width and on paper."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from attention_ablation.cli.main import main
from attention_ablation.evidence.ledger import ledger
from attention_ablation.report.collect import collect
from attention_ablation.report.html import write_report
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from tests.run_folders import finished, write_metrics

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
browser_only = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"
)
QUIET = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
    "disable-background-networking", "disable-component-update", "disable-sync",
)  # fmt: skip
FACTS = {"git_commit": "0123abcd", "git_dirty": True, "device": "a CPU", "seconds": 12.5}


@pytest.fixture
def report(tiny: Plan) -> Path:
    """A report of three rows, the last of which has a text that could break the page."""
    write_metrics(tiny, "resnet50+se", [25, 26, 27], **FACTS)
    write_metrics(tiny, "resnet50+cbam", [9, 10, 11], **FACTS)
    write_metrics(tiny, "resnet50+spatial+channel", [100, 100, 99], **FACTS)
    folder = tiny.runs_folder / tiny.row_runs("table3", "resnet50+parallel")[0].path
    folder.mkdir(parents=True)
    failure = {"status": "failed", "reason": "</script><b>out of memory"}
    (folder / "failure.json").write_text(json.dumps(failure))
    write_report(tiny, collect(tiny))
    return (tiny.folder / "report.html").resolve()


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for option in QUIET:
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as browser:
        yield browser


def column(browser: webdriver.Chrome, number: int) -> list[str]:
    cells = browser.find_elements(By.CSS_SELECTOR, f"#table3 tbody tr > :nth-child({number})")
    return [cell.text for cell in cells]


def test_the_page_needs_nothing_but_itself(report: Path) -> None:
    text = report.read_text()
    for mark in ("http:", "https:", "src=\"/", "<link rel=\"stylesheet", "@import"):  # fmt: skip
        assert mark not in text.replace("http://www.w3.org", "")
    assert "</script><b>" not in text


def test_every_link_stays_in_the_page(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert main(["render", "figure4", "figure5", "report", "--set", "tables=all"]) == 0
    page = (project / "results/tiny/cbam/report.html").read_text()
    images = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    assert len(images) == 2
    for text in (page, *(base64.b64decode(image).decode() for image in images)):
        links = re.findall(r"""\b(?:src|href|srcset|poster|action)\s*=\s*["']?([^"'\s>]*)""", text)
        assert {link[:5] for link in links if not link.startswith("#")} <= {"data:"}
        targets = {link[1:] for link in links if link.startswith("#")}
        assert targets
        assert targets <= set(re.findall(r'\bid="([^"]*)"', text))
        assert set(re.findall(r"url\((.)", text)) <= {"#"}


@browser_only
def test_it_sorts_and_a_cell_opens_its_runs(report: Path, browser: webdriver.Chrome) -> None:
    browser.get(report.as_uri())
    assert column(browser, 2)[3] == "-"  # no run of the parallel row is there
    heading = browser.find_element(By.CSS_SELECTOR, "#table3 thead th:nth-child(2) button")
    heading.send_keys(Keys.ENTER)  # by keyboard
    ours = column(browser, 2)
    assert ours == ["10.0 ± 1.0", "26.0 ± 1.0", "99.7 ± 0.6", "-"]  # not as text: 10, 26, 99.7
    assert column(browser, 3)[0] == "22.66"
    assert column(browser, 5)[0] == "6.31"  # no difference to another protocol's numbers
    heading.send_keys(Keys.ENTER)
    assert column(browser, 2) == ["99.7 ± 0.6", "26.0 ± 1.0", "10.0 ± 1.0", "-"]
    names = browser.find_element(By.CSS_SELECTOR, "#table3 thead th:nth-child(1) button")
    names.click()
    assert column(browser, 1)[-1] == "ResNet50 + spatial + channel"
    names.click()
    assert column(browser, 1)[0] == "ResNet50 + spatial + channel"

    cell = next(
        c for c in browser.find_elements(By.CSS_SELECTOR, "#table3 .cell") if "10.0" in c.text
    )
    cell.send_keys(Keys.SPACE)
    dialog = browser.find_element(By.ID, "provenance")
    assert dialog.is_displayed()
    assert "ResNet50 + channel + spatial: Top-1 error (%)" in dialog.text
    for fact in ("seed-0", "seed-2", "0123abcd", "a CPU", "12.5 s", "train.log"):
        assert fact in dialog.text
    dialog.find_element(By.TAG_NAME, "summary").click()
    assert '"reduction": 4' in dialog.text
    dialog.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert (
        "</script><b>out of memory" in browser.find_element(By.CSS_SELECTOR, "#table3 .note").text
    )
    assert browser.get_log("browser") == []


@browser_only
def test_it_fits_a_phone_and_changes_with_dark_mode(
    report: Path, browser: webdriver.Chrome
) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(report.as_uri())
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 390  # tables scroll in their own boxes, the page does not
    light = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(13, 17, 23)")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not browser.find_element(By.TAG_NAME, "nav").is_displayed()


@browser_only
def test_axe_finds_nothing_in_either_mode_nor_in_the_dialog(
    report: Path, browser: webdriver.Chrome
) -> None:
    browser.set_script_timeout(120)
    for mode in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": mode}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(report.as_uri())
        browser.execute_script(
            "for (const d of document.querySelectorAll('details')) d.open = true"
        )
        for then in ("", "document.querySelector('.cell').click()"):
            browser.execute_script(then)
            found = Axe().run(browser)
            assert found["passes"]  # contrast by WCAG AA among them
            assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []


def test_rows_that_were_not_trained_alike_have_no_numbers(tiny: Plan) -> None:
    write_metrics(tiny, "resnet50+se", [25, 26, 27], processes=1)
    write_metrics(tiny, "resnet50+cbam", [9, 10, 11], processes=2)
    runs = collect(tiny)
    write_report(tiny, runs)
    text = (tiny.folder / "report.html").read_text()
    assert "<li class=doubt>Not shown: rows that are compared here were not trained alike" in text
    assert "10.0 ± 1.0" not in text
    judged = {claim.key: claim for claim in ledger(tiny, runs).claims}
    pairs = [pair for pair in judged["T3c"].pairs if pair.pair.second == ("table3", "resnet50+se")]
    cbam = [pair for pair in pairs if pair.pair.first[1] == "resnet50+cbam"]
    assert cbam
    assert {pair.verdict for pair in cbam} == {"not run"}
    assert cbam[0].reason == "not trained alike: processes"


def test_only_numbers_have_minus_signs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table4"]))
    for key, error in (("resnet18", 20.0), ("resnet18+cbam", 10.0)):
        finished(plan, plan.row_runs("table4", key)[0], error)
    write_report(plan, collect(plan))
    page = (plan.folder / "report.html").read_text()
    assert ": \N{MINUS SIGN}10.00 points, n = 1; one seed" in page
    assert "wide-resnet18-1.5+cbam of table4 is not counted yet" in page
    assert re.findall(r"[a-z]\N{MINUS SIGN}", page) == []


def test_differences_are_of_counts_and_of_the_papers_protocol(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    path = Path("workflow/tiers/tiny.yaml")
    for protocol, shown in (("", 2), ("cbam", 4)):
        path.write_text(path.read_text() + f"protocol_of: [{protocol}]\n" * bool(protocol))
        plan = load_plan(Config(study="cbam", tier="tiny", tables=["table4"], seeds=[0, 1]))
        for run, error in zip(plan.row_runs("table4", "resnet50"), (25.0, 25.01), strict=True):
            finished(plan, run, error)
        write_report(plan, collect(plan))
        page = (plan.folder / "report.html").read_text()
        section = page.partition('<section id="table4">')[2].partition("</section>")[0]
        headings = re.findall(r"<th[^>]*>([^<]*)</th>", section.partition("</thead>")[0])
        assert headings.count("ours \N{MINUS SIGN} paper") == shown
        rows = section.partition("<tbody>")[2].split("<tr>")[1:]
        assert {row.count("<td") for row in rows} == {len(headings) - 1}
        assert ("+0.4</td>" in section) == bool(protocol)  # 25.0 less 24.56
        data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
        says = data["cells"]["table4 resnet50 top1_error"]["text"]
        # 25.005 and 12.706 x 0.00707 x sqrt(3/2) = 0.110.
        inside = ", outside our 95 % prediction interval for one further run, 24.89 to 25.12"
        assert f"The paper prints 24.56{inside * bool(protocol)}. The runs:" in says


def test_what_a_cell_says_is_true_of_it(tiny: Plan) -> None:
    write_metrics(tiny, "resnet50+se", [25, 27])  # the third seed is missing
    write_metrics(tiny, "resnet50+cbam", [99], status="diverged", validation_top1_error=None)
    write_report(tiny, collect(tiny))
    page = (tiny.folder / "report.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    says = {name: cell["text"] for name, cell in data["cells"].items()}
    assert (
        "Ours: 26.0 ± 1.4 %, mean and standard deviation of 2 seeds"
        in says["table3 resnet50+se top1_error"]
    )
    assert says["table3 resnet50+cbam top1_error"].startswith(
        "Ours: diverged 1/3 runs, so there is no mean."
    )
    assert says["table3 resnet50+parallel top1_error"].startswith("Ours: not there yet.")


def test_a_study_without_printed_values_speaks_of_no_paper(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="controls", tier="tiny", tables=["gain"]))
    choice = ["--set", "study=controls", "--set", "tables=[gain]"]
    for run, error in zip(plan.table_runs("gain"), (20.0, 21.0), strict=False):
        finished(plan, run, error)
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / "complexity.csv").write_text(
        "table,row,params,gflops,verdict\ngain,resnet18,11689512,1.814073,not printed\n"
    )
    assert main(["render", "gain", "claims", "report", *choice]) == 0
    page = (plan.folder / "report.html").read_text()
    shown = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.S)
    markdown = (plan.folder / "tables/gain.md").read_text()
    latex = (plan.folder / "tables/gain.tex").read_text()
    ledger_text = (plan.folder / "claims.md").read_text()
    capsys.readouterr()
    for metric in ("top1_error", "params_m"):
        assert main(["where", "gain", "resnet18", metric, *choice]) == 0
    cells_text = capsys.readouterr().out
    assert "not printed" not in cells_text
    for text in (shown, markdown, latex, ledger_text, cells_text):
        assert "paper" not in text
    assert "<h2>Which claims hold here</h2>" in shown
    assert "<th>What it says</th><th>Our runs</th></tr>" in shown
    assert ledger_text.startswith("**Claims**\n")
    heading = "Architecture & Params (M) & Top-1 error (\\%) & Top-5 error (\\%) \\\\\n\\midrule"
    assert r"\begin{tabular}{lrrr}" in latex
    assert heading in latex
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {5}
    cells = shown.partition('<section id="gain">')[2].partition("</tr>")[0]
    assert cells.count("<th") - cells.count("<thead") == 4
