"""What a network takes: figures that can be checked by hand, and errors that name the value."""

from __future__ import annotations

import re

import pytest

from fmirnet_monai.cli import main
from fmirnet_monai.profile import TRAINING, Workload, profile


def test_a_training_step_takes_about_three_times_a_predictions_operations() -> None:
    predicted, learnt = (
        profile(Workload("fmirnet_sliver", (32,), **options), repeats=1) for options in ({}, {"what": TRAINING})
    )
    assert predicted["parameters"] == learnt["parameters"]
    assert 2.5 < learnt["gflop"] / predicted["gflop"] < 3.2
    assert min(*predicted.values(), *learnt.values()) > 0


def test_a_step_that_learns_from_labels_is_measured_too() -> None:
    assert profile(Workload("fmirnet_universal", (32,), what=TRAINING), repeats=1)["seconds"] > 0


def test_command_prints_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "profile",
            "--bundle",
            "fmirnet_chaos",
            "--spatial_size",
            "32,48",
            "--batch_size",
            "2",
            "--device",
            "cpu",
            "--amp",
            "true",
        ]
    )
    rows = capsys.readouterr().out.splitlines()[2:]
    starts = ("| prediction, mixed precision | 32 x 48 | 2 |", "| training step, mixed precision | 32 x 48 | 2 |")
    assert [row.startswith(start) for row, start in zip(rows, starts, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--spatial_size 32,32,32", r"spatial_size must be one or 2 numbers of at least 16, got \[32, 32, 32\]"),
        ("--batch_size 0", "batch_size must be at least 1, got 0"),
        ("--variant quick", "has no variant 'quick'"),
    ],
)
def test_wrong_values_are_named(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["profile", *([] if "--bundle" in words else ["--bundle", "fmirnet_chaos"]), *words.split()])
    assert re.search(message, capsys.readouterr().err)
