"""The report: one file, nothing from outside, well-formed whatever the names, and every number where it belongs."""

import base64
import re
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from evlift.errors import InputError, RunError
from evlift.objective import relation_fidelity
from evlift.view import event_picture, write_report
from evlift.view.curves import condense, series
from evlift.view.page import number, table

NASTY = '<script>alert("x")</script> & \'"</style></svg>--> ${7} $x$'
VOID = {"meta", "img", "br", "link", "input", "hr"}
NAN = float("nan")


class Page(HTMLParser):
    """Every tag, attribute and text of a page; fails on a tag that is not closed in its turn."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self):
        return " ".join(data for tag, data in self.texts if tag != "style")


def log(steps=30, offset=0.0):
    rows = [
        {"step": s, "loss": 1 / s + offset, "lr": 1e-3, "losses": {"token": 0.5 / s}, "grad_norm": 1.0, "note": "text"}
        for s in range(1, steps)
    ]
    return [*rows, {"step": steps, "eval": {"relation_fidelity": 0.5, "effective_rank": 12.0, "nested": {"deep": 1}}}]


def write(tmp_path, **changes):
    given = dict(title="a run", lead="what it shows", figures={}, curves={}, panels=[], config={})
    path = write_report(tmp_path / "report.html", **{**given, **changes})
    return path.read_text(encoding="utf-8")


def pictures(page):
    """(alt, decoded RGB) of every picture."""
    out = []
    for k, (name, value) in enumerate(page.attributes):
        if name == "src":
            data = np.frombuffer(base64.b64decode(value.split(",", 1)[1]), np.uint8)
            alt = next(v for n, v in reversed(page.attributes[:k]) if n == "alt")
            out.append((alt, cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]))
    return out


def test_nothing_to_show_does_not_fail(tmp_path):
    page = Page(write(tmp_path))
    assert "a run" in page.text and "what it shows" in page.text
    assert "img" not in page.tags and "svg" not in page.tags and "table" not in page.tags
    Page(write(tmp_path, curves={"empty": [], "rubbish": [{}, {"loss": 1}, {"step": 1, "loss": NAN}]}))


def test_the_whole_report_is_one_file_that_loads_nothing(tmp_path, make_panel):
    source = write(
        tmp_path,
        figures={"mIoU": 25.1, "table": {"a": {"x": 1.0}}},
        curves={"one": log(), "two": log(offset=2)},
        panels=[make_panel("p1"), make_panel("p2", seed=1, extra={"token": np.ones((6, 8, 12))})],
        config={"lr": 1e-3},
        notes=["a small teacher"],
    )
    page = Page(source)
    outside_pictures = re.sub(r"base64,[A-Za-z0-9+/=]*", "", source)
    assert not re.search(r"https?:|//[a-z]|@import|\burl\((?!#)", outside_pictures)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith(("data:image/", "#")), (name, value[:40])
        assert not name.startswith("on")
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert any(name == "content" and "default-src 'none'" in value for name, value in page.attributes)
    identifiers = [value for name, value in page.attributes if name == "id"]
    clips = {value for name, value in page.attributes if name == "clip-path"}
    assert clips and all(clip[5:-1] in identifiers for clip in clips)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_names_cannot_inject(tmp_path, make_panel):
    panel = make_panel(NASTY, extra={NASTY: np.ones((6, 8, 12), np.float32)})
    page = Page(
        write(
            tmp_path,
            title=NASTY,
            lead=NASTY,
            figures={NASTY: NASTY, "n": {NASTY: {NASTY: NASTY}}, "list": [{NASTY: NASTY}], "t": {NASTY: NASTY}},
            curves={NASTY: [{"step": 1, "loss": 1.0, NASTY: 2.0, "losses": {NASTY: 3.0}, "eval": {NASTY: 4.0}}]},
            panels=[panel],
            config={NASTY: {NASTY: NASTY}},
            notes=[NASTY],
        )
    )
    assert "script" not in page.tags
    shown = page.text.replace("\n", " ")
    assert shown.count('<script>alert("x")</script>') >= 15  # shown as text, everywhere it was given
    assert any(name == "alt" and NASTY in value for name, value in page.attributes)


def test_pictures_are_those_of_the_pair(tmp_path, make_panel):
    panel = make_panel("street", patch=16)
    page = Page(write(tmp_path, panels=[panel]))
    shown = pictures(page)
    by_alt = {}
    for alt, picture in shown:
        by_alt.setdefault(alt, []).append(picture)
    names = ["image", "events", "teacher", "student before", "student after"]
    assert [alt for alt, _ in shown[:5]] == [f"{name}: street" for name in names]
    assert np.array_equal(by_alt["events: street"][0], event_picture(panel.grid))  # PNG: exact
    assert len({picture.shape for _, picture in shown}) == 1
    for name in names:  # a row of similarity maps for each of three queries
        assert len(by_alt[f"{name}, ringed: street"]) == 3
    assert f"{panel.mask.mean():.0%} of the patches active" in page.text


def test_given_queries_are_used_and_large_pictures_shrink(tmp_path, make_panel):
    panel = make_panel("p", patch=100, queries=[(0, 0)])
    shown = pictures(Page(write(tmp_path, panels=[panel])))
    assert len(shown) == 5 + 5
    assert {picture.shape for _, picture in shown} == {(360, 480, 3)}


def test_relation_fidelity_stands_beside_the_student(tmp_path, make_panel):
    teacher = make_panel().teacher
    panel = make_panel(after=teacher * 2)  # cosine ignores the scale
    texts = [data for tag, data in Page(write(tmp_path, panels=[panel])).texts if tag == "span"]
    assert "1.000" in texts

    def flat(tokens):
        return torch.from_numpy(tokens.reshape(1, -1, 12))

    mask = torch.from_numpy(panel.mask.reshape(1, -1))
    assert number(float(relation_fidelity(flat(panel.before), flat(panel.teacher), mask)[0])) in texts


def test_a_pair_without_active_patches(tmp_path, make_panel):
    panel = make_panel(mask=np.zeros((6, 8), bool), grid=np.zeros((3, 48, 64), np.float32))
    page = Page(write(tmp_path, panels=[panel]))
    assert "0% of the patches active" in page.text and "nan" not in page.text.lower()


def test_panels_of_different_teachers_are_refused(tmp_path, make_panel):
    with pytest.raises(InputError, match="one teacher"):
        write(tmp_path, panels=[make_panel(), make_panel(dim=4)])
    assert not (tmp_path / "report.html").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_report(tmp_path / "file" / "r.html", title="", lead="", figures={}, curves={}, panels=[], config={})


def test_figures_before_and_after(tmp_path):
    page = Page(write(tmp_path, figures={"relation_fidelity": {"before": 0.0312, "after": 0.8684}, "lost": NAN}))
    assert ("span", "relation fidelity") in page.texts and ("span", "0.868") in page.texts
    assert ("span", "before 0.031") in page.texts and ("span", "–") in page.texts


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (NAN, "–"),
        (float("inf"), "–"),
        (np.float32("nan"), "–"),
        (True, "yes"),
        (0, "0"),
        (1234567, "1\u202f234\u202f567"),
        (np.int64(12), "12"),
        (0.0, "0.000"),
        (0.8684, "0.868"),
        (-0.5, "−0.500"),
        (25.125, "25.12"),
        (1234.56, "1\u202f234.6"),
        (5e-4, "5.00·10<sup>−4</sup>"),
        (2.5e7, "2.50·10<sup>7</sup>"),
        ("<b>", "&lt;b&gt;"),
        ([1, 2.5], "1, 2.500"),
        ([], "–"),
    ],
)
def test_numbers_as_they_are_read(value, shown):
    assert number(value) == shown


def cells(source):
    """Rows of cell texts of the only table."""
    rows = re.findall(r"<tr>(.*?)</tr>", source)
    return [[re.sub(r"<[^>]*>", "", c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def test_tables_by_value():
    nested = {"token": {"val": {"rank": 51.0, "fid": 0.5}}, "ours": {"val": {"rank": 100.26}, "n": 3}}
    assert cells(table("t", nested)) == [
        ["", "val · rank", "val · fid", "n"],
        ["token", "51.0", "0.500", "–"],  # a column has one number of decimals
        ["ours", "100.3", "–", "3"],
    ]
    assert cells(table("t", {"pairs": {"train": 4}, "source": "a.mp4"})) == [
        ["pairs · train", "4"],
        ["source", "a.mp4"],
    ]
    assert cells(table("t", [{"name": "a", "x": 1}, {"x": None}])) == [["name", "x"], ["a", "1"], ["–", "–"]]
    assert cells(table("t", {})) == []


def test_series_of_a_log():
    rows = [
        {"step": 2, "loss": 5.0},
        {"step": 1, "loss": 3.0, "losses": {"token": 1}, "flag": True, "text": "x"},
        {"step": 2, "loss": 4.0},  # written again after the run went on
        {"step": 3, "loss": NAN, "eval": {"effective_rank": 9.0}},
        {"loss": 7.0},
        "rubbish",
    ]
    found = series(rows)
    assert {name: (s.tolist(), v.tolist()) for name, (s, v) in found.items()} == {
        "loss": ([1, 2], [3, 4]),
        "losses/token": ([1], [1]),
        "eval/effective_rank": ([3], [9]),
    }


def test_long_logs_are_averaged_in_bins():
    values = np.random.default_rng(0).normal(size=1003)
    steps, mean, low, high = condense(np.arange(1003.0), values, points=100)
    assert len(steps) == len(mean) == 100
    edges = np.linspace(0, 1003, 101).round().astype(int)
    for k in (0, 37, 99):
        part = values[edges[k] : edges[k + 1]]
        assert mean[k] == pytest.approx(part.mean()) and (low[k], high[k]) == (part.min(), part.max())
    assert np.array_equal(condense(np.arange(5.0), values[:5])[1], values[:5])


def test_curves_say_which_run_and_which_quantity(tmp_path):
    page = Page(write(tmp_path, curves={"ours": log(400), "token": log(400, 1.0)}))
    assert ("span", "ours") in page.texts and ("span", "token") in page.texts
    captions = [data for tag, data in page.texts if tag == "figcaption"]
    measured, machinery = captions[:5], captions[5:]
    assert [c.strip() for c in measured] == [
        "relation fidelity",
        "effective rank",
        "nested/deep",
        "loss",
        "loss: token",
    ]
    assert sorted(machinery) == ["grad norm", "lr"]
    assert page.tags.count("svg") == 7


def test_charts_take_the_colour_of_the_page_and_repeat_exactly(tmp_path):
    first = write(tmp_path, curves={"ours": log()})
    again = write(tmp_path, curves={"ours": log()})
    charts = re.findall(r"<svg.*?</svg>", first, re.DOTALL)
    assert charts and charts == re.findall(r"<svg.*?</svg>", again, re.DOTALL)
    assert all("currentColor" in chart and "#010203" not in chart for chart in charts)


def test_configuration_is_yaml_that_reads_back(tmp_path):
    import yaml

    config = {
        "steps": 3,
        "size": (192, 256),
        "lr": np.float64(5e-4),
        "out": tmp_path,
        "name": "a: b",
        "nested": {"x": None},
    }
    page = Page(write(tmp_path, config=config))
    found = yaml.safe_load("".join(data for tag, data in page.texts if tag == "pre"))
    assert found == {**config, "size": [192, 256], "lr": 5e-4, "out": str(tmp_path)}


def test_pyplot_is_left_alone(tmp_path):
    had = "matplotlib.pyplot" in sys.modules
    write(tmp_path, curves={"ours": log()})
    assert ("matplotlib.pyplot" in sys.modules) == had
