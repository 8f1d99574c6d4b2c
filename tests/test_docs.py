"""README and docs say what was measured, and lead where they say."""

import json
import re
import shutil

import pytest
import torch
from conftest import ROOT

from Miniproject_1.__main__ import RESULTS
from Miniproject_1.others.study.tables import TABLES, write_tables

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_each_table_says_what_the_committed_results_do(tmp_path):
    copies = [shutil.copy(page, tmp_path / page.name) for page in PAGES]
    write_tables(RESULTS, copies)
    for page, copy in zip(PAGES, copies, strict=True):
        assert copy.read_text() == page.read_text(), f"make report writes {page.name} anew"
    marks = re.findall(r"<!-- table: (\w+) -->\n\|", "".join(page.read_text() for page in PAGES))
    assert set(marks) == set(TABLES)  # each is shown somewhere, and none is empty


def test_a_result_that_changed_changes_the_page_and_nothing_else(tmp_path):
    results, page = tmp_path / "results", tmp_path / "page.md"
    shutil.copytree(RESULTS, results)
    noises = json.loads((results / "noises.json").read_text())
    noises["psnr"]["Gaussian, σ 25"]["denoised"] = 12.345
    (results / "noises.json").write_text(json.dumps(noises))
    page.write_text("before\n<!-- table: noises -->\nold\n<!-- end -->\nafter\n")
    write_tables(results, [page])
    first, *_, last = page.read_text().splitlines()
    assert (first, last) == ("before", "after")
    assert re.search(r"\| Gaussian, σ 25 \| [\d.]+ \| 12.3[45] \|", page.read_text())
    assert "old" not in page.read_text()


def test_a_table_that_is_none_is_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: nonsense -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="nonsense.*noises"):
        write_tables(RESULTS, [page])


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text())
    assert links
    for path, heading in links:
        if path.startswith("http"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), path
        if heading:
            headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]
            assert heading in slugs, (path, heading)


def test_the_hub_gives_the_model(val_data):
    noisy = val_data[0][:2]
    model = torch.hub.load(str(ROOT), "noise2noise", source="local", trust_repo=True)
    assert (model.predict(noisy) - noisy).abs().mean() > 1
    untrained = torch.hub.load(str(ROOT), "noise2noise", source="local", trust_repo=True, pretrained=False)
    assert torch.equal(untrained.predict(noisy), noisy.float())
