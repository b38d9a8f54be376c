"""The command line: help, wrong use in one line, and what each command leaves behind."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from evlift.__main__ import COMMANDS, main

PRETRAIN = ["--data.size=[32,48]", "--student.size=tiny", "--student.depth=1", "--machine.accelerator=cpu"]
SHORT = ["--train.steps=2", "--train.batch=2", "--machine.workers=0", "--objective.mask_threshold=2"]


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "street"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for i in range(6):
        noise = cv2.resize(rng.integers(0, 255, (8, 12, 3), np.uint8), (96, 64), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / f"{i:02}.png"), noise)
        cv2.imwrite(str(folder / "labels" / f"{i:02}.png"), (noise[..., 0] > 128).astype(np.uint8))
    return folder


def refused(capsys, *argv):
    """The one line that a wrong command ends in; the exit status is 2."""
    assert main([str(a) for a in argv]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("evlift: ")]
    assert len(err) == 1
    return err[0]


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert main(["--version"]) == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--debug" in text
    assert name == "info" or "--out" in text


def test_help_imports_no_torch():
    code = "import sys, evlift.__main__ as m\ntry: m.main(['pretrain', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'cv2', 'numba')))"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_wrong_words(capsys, tmp_path, pictures):
    out = tmp_path / "run"
    assert "did you mean pretrain" in refused(capsys, "pretrian")
    assert "did you mean train.steps" in refused(capsys, "pretrain", pictures, "--out", out, "--train.stepz", "4")
    (tmp_path / "c.yaml").write_text("train: {stepz: 4}\n")
    line = refused(capsys, "pretrain", pictures, "--out", out, "--config", tmp_path / "c.yaml")
    assert "train.stepz" in line and "did you mean train.steps" in line
    (tmp_path / "c.yaml").write_text("trian: {steps: 4}\n")
    assert "trian" in refused(capsys, "pretrain", pictures, "--out", out, "--config", tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("train: {steps: 4\n")
    assert "c.yaml" in refused(capsys, "pretrain", pictures, "--out", out, "--config", tmp_path / "c.yaml")
    assert "nowhere.yaml" in refused(capsys, "pretrain", pictures, "--out", out, "--config", tmp_path / "nowhere.yaml")
    assert "train.steps is 0" in refused(capsys, "pretrain", pictures, "--out", out, "--train.steps", "0")
    assert "no data" in refused(capsys, "pretrain", "--out", out)
    assert not out.exists()


def test_wrong_material(capsys, tmp_path, pictures):
    out = tmp_path / "run"
    line = refused(capsys, "pretrain", pictures, "--out", out, "--teacher.name", "dinov9", *PRETRAIN, *SHORT)
    assert "dinov9" in line and "efficientnet-lite0" in line
    assert "does not exist" in refused(capsys, "info", tmp_path / "nothing")
    (tmp_path / "text.mp4").write_text("no video")
    assert "text.mp4" in refused(capsys, "simulate", tmp_path / "text.mp4", "--out", tmp_path / "c1")
    assert "text.mp4" in refused(capsys, "pretrain", tmp_path / "text.mp4", "--out", tmp_path / "r1", *PRETRAIN, *SHORT)
    (tmp_path / "empty").mkdir()
    assert "no pictures" in refused(capsys, "simulate", tmp_path / "empty", "--out", tmp_path / "c2")
    assert "no pictures" in refused(capsys, "pretrain", tmp_path / "empty", "--out", tmp_path / "r2", *PRETRAIN, *SHORT)
    probe = ["probe", "segmentation", "--encoder", tmp_path / "none", "--train", pictures, "--test", pictures]
    assert "none" in refused(capsys, *probe, "--out", tmp_path / "p")


def test_simulate_names_its_sensors_and_previews(capsys, tmp_path, pictures):
    from evlift.simulate import SENSORS

    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ", ".join(SENSORS) in text and ".mp4" in text
    out = tmp_path / "out"
    assert "name it .png" in refused(capsys, "simulate", pictures, "--out", out, "--preview", tmp_path / "p.txt")
    assert "ideal" in refused(capsys, "simulate", pictures, "--out", out, "--sensor", "eye")
    line = refused(capsys, "simulate", pictures, "--out", out, "--motion", '{"speed": 3}')
    assert "motion has no speed" in line
    assert not out.exists()


@pytest.mark.parametrize(
    "words, line",
    [
        (["--seed", "a"], "--seed is a; give a whole number"),
        (["--seed", "-1"], "seed is -1; give a whole number, 0 or more"),
        (["--as", "film"], "--as is film; give one of collection, recording"),
        (["--size", "100"], "--size is 100; give numbers in brackets, such as [1,2]"),
        (["--size", "[1,2,3]"], "--size is [1, 2, 3]; give 2 numbers in brackets"),
        (["--held_out_shots", "1"], "--held_out_shots is 1; give numbers in brackets, such as [1,2]"),
        (["--max_frames", "many"], "--max_frames is many; give a whole number"),
        (
            ["--motion", '{"motion_px": [2'],
            """--motion is {"motion_px": [2; give JSON, such as '{"motion_px": [2, 40]}'""",
        ),
        (["--motion", '{"motion_px": 3}'], "motion motion_px is 3; give two numbers, such as [2, 15]"),
        (["--motion", '{"rotation": "a"}'], "motion rotation is 'a'; give a number"),
        (["--motion", '{"layers": 1.5}'], "motion layers is 1.5; give a whole number"),
        (["--motion.path", "wild"], "there is no path 'wild'; choose one of smooth, saccade, shake, mixed"),
    ],
)
@pytest.mark.parametrize("kind", ["collection", "recording"])
def test_simulate_says_which_word_is_wrong(kind, words, line, capsys, tmp_path, pictures):
    argv = ["simulate", pictures, "--out", tmp_path / "out", "--as", kind, *words]
    assert refused(capsys, *argv) == f"evlift: {line}"
    assert not (tmp_path / "out").exists()


def test_pretrain_says_which_word_is_wrong(capsys, tmp_path, pictures):
    for words, line in (
        (["--data.on_the_fly", "maybe"], "--data.on_the_fly is maybe; give true or false"),
        (["--data.scale", "[3]"], "--data.scale is [3]; give 2 numbers in brackets"),
        (
            ["--objective.preset", "best"],
            "--objective.preset is best; give one of token, scaleevent, scaleevent-released",
        ),
        (["--student.depth", "deep"], "--student.depth is deep; give a whole number"),
    ):
        assert refused(capsys, "pretrain", pictures, "--out", tmp_path / "run", *words) == f"evlift: {line}"


def test_layers_over_depth_are_refused_before_anything_is_made(capsys, tmp_path, pictures):
    (pictures / "depth").mkdir()
    np.save(pictures / "depth" / "04.npy", np.ones((64, 96), np.float32))
    for kind in ("collection", "recording"):
        argv = ["simulate", pictures, "--out", tmp_path / "out", "--as", kind, "--motion.layers", 2]
        assert "layers is 2 with a depth map" in refused(capsys, *argv)
        assert not (tmp_path / "out").exists()


def test_simulate_takes_the_folder_of_pictures_itself(capsys, tmp_path, pictures):
    assert main(["simulate", str(pictures / "images"), "--out", str(tmp_path / "c"), "--size", "[32,48]"]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "c"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == 6  # labels/ lie beside images/


def test_simulate_takes_motion_in_json(capsys, tmp_path, pictures):
    motion = '{"motion_px": [2, 6], "duration_us": 2e4, "layers": 1, "path": "shake"}'
    argv = ["simulate", str(pictures), "--out", str(tmp_path / "c"), "--size", "[32,48]", "--motion", motion]
    assert main(argv) == 0 and main(argv) == 0  # the second time all is there
    assert main(["info", str(tmp_path / "c")]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "c"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["settings"]["motion"]
    assert told == {"motion_px": [2, 6], "duration_us": 20_000, "layers": 1, "path": "shake"}


def test_simulate_writes_recordings_or_a_collection(capsys, tmp_path, pictures):
    video = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    still = cv2.imread(str(pictures / "images" / "00.png"))
    for i in range(12):
        writer.write(np.roll(still, 2 * i, axis=1))
    writer.release()
    for source, name, frames in ((video, "shot-000", 12), (pictures, "03", 1)):
        out = tmp_path / f"of-{source.stem}"
        for _ in range(2):  # the second time all is there
            argv = ["simulate", source, "--out", out, "--as", "recording", "--seed", 3, "--size", "[32,48]"]
            assert main([str(a) for a in [*argv, "--preview", out.with_suffix(".gif")]]) == 0
        assert "recordings" in capsys.readouterr().out
        assert main(["info", str(out / name), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["height"], facts["width"], facts["frames"]) == (32, 48, frames) and facts["events"] > 0
        assert "other settings" in refused(capsys, *argv[:-2])
        assert "folder of recordings" in refused(capsys, "info", out)
        assert out.with_suffix(".gif").stat().st_size > 0
    line = refused(capsys, "simulate", video, "--out", tmp_path / "of-v", "--as", "collection")
    assert "holds no collection" in line
    pairs = tmp_path / "pairs"
    argv = [
        "simulate",
        video,
        "--out",
        pairs,
        "--window_us",
        80_000,
        "--preview",
        tmp_path / "v.mp4",
        "--licence",
        "CC0",
    ]
    assert main([str(a) for a in argv]) == 0
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 11
    capsys.readouterr()
    assert main(["info", str(pairs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["licence"] == "CC0"


def test_the_road_from_pictures_to_figures(capsys, tmp_path, pictures):
    pairs, run, measured = tmp_path / "pairs", tmp_path / "run", tmp_path / "measured"
    preview = tmp_path / "preview.png"
    assert main(["simulate", str(pictures), "--out", str(pairs), "--variants", "2", "--preview", str(preview)]) == 0
    assert cv2.imread(str(preview)) is not None
    assert main(["pretrain", str(pairs), "--out", str(run), *PRETRAIN, *SHORT]) == 0
    page = (run / "report.html").read_text()
    assert "<html" in page and "not a foundation model" in page
    probe = ["probe", "segmentation", "--encoder", str(run), "--train", str(pictures), "--test", str(pictures)]
    assert main([*probe, "--out", str(measured), "--steps", "5", "--workers", "0", "--untrained"]) == 0
    metrics = json.loads((measured / "metrics.json").read_text())
    assert 0 <= metrics["miou"] <= 1 and {row["kind"] for row in metrics["rows"]} == {
        "encoder",
        "untrained",
        "constant",
    }
    capsys.readouterr()
    for path, kind in ((pairs, "evlift-collection"), (run, "evlift-run"), (run / "encoder", "evlift-encoder")):
        assert main(["info", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["format"] == kind
        assert main(["info", str(path)]) == 0
        capsys.readouterr()
    recording = next((pairs / "recordings").iterdir())
    assert main(["info", str(recording), "--json", "--picture", str(tmp_path / "r.png")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["on"] + facts["off"] == facts["events"] > 0
    assert cv2.imread(str(tmp_path / "r.png")) is not None
    assert "other settings" in refused(capsys, "pretrain", pairs, "--out", run, *PRETRAIN, *SHORT, "--train.lr=1e-3")
    before = (run / "metrics.json").read_bytes()
    weights = run / "encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    line = refused(capsys, *probe, "--out", str(tmp_path / "other"))
    assert "encoder" in line
    assert (run / "metrics.json").read_bytes() == before
