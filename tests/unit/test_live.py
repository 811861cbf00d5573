"""What a person sees of a run: plain lines where there is no terminal, tables, and durations for people."""

from io import StringIO

import pytest
from rich.console import Console

from actors.progress import Pace, Progress, ProgressBoard, Stopwatch
from orchestrator.live import LiveView, duration, plain_line, waiting_text
from orchestrator.printing import amounts_text, bytes_text


def progress(rung="student", epoch=1, step=5, accuracy=0.91234, **more) -> Progress:
    given = {"terms": {"hard": 0.5, "soft": 1.23456}, "images_per_s": 12345.6, "left_s": 187.2, **more}
    return Progress(rung, epoch, 8, step, 5, accuracy=accuracy, **given)


def shown(*news, say=(), width=None, terminal=False) -> str:
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal)
    with LiveView(console) as view:
        for one in news:
            view.update(one)
        for text in say:
            view.say(text)
    return stream.getvalue()


LINE = "student  epoch 2/8  hard 0.5  soft 1.23  accuracy 91.23%  12,346 images/s  waiting 0%  3 min 07 s left"


def test_a_finished_epoch_is_one_line():
    assert plain_line(progress()) == LINE
    assert plain_line(progress(accuracy=None, left_s=0.0)).endswith("soft 1.23  12,346 images/s  waiting 0%")


def test_it_says_for_whom_the_student_waits_most():
    waited = {"wide": 0.05, "resnet": 0.2}
    assert waiting_text(progress(waited=waited)) == "25% (resnet)"
    assert "waiting 25% (resnet)  3 min" in plain_line(progress(waited=waited))
    assert "25% (resnet)" in shown(progress(step=3, waited=waited), width=200, terminal=True)
    hardly = Progress("student", 0, 8, 1, 5, waited={"wide": 0.004})
    assert waiting_text(hardly) == "0%"


def test_without_a_terminal_every_finished_epoch_is_a_plain_line_and_nothing_else():
    unfinished = progress(step=3, accuracy=None)
    text = shown(unfinished, progress(), unfinished, progress("wide", 7), width=200)
    assert text.splitlines() == [LINE, LINE.replace("student  epoch 2", "wide  epoch 8")]
    assert "\x1b" not in text


def test_a_plain_line_is_not_broken_in_a_pipe():
    assert shown(progress()).splitlines() == [LINE], "a pipe counts as 80 columns"


def test_a_path_with_brackets_is_shown_as_it_is():
    assert shown(say=["run /runs/[red]/x"], width=200) == "run /runs/[red]/x\n"


def test_in_a_terminal_there_is_a_table_while_a_rung_trains_and_a_line_when_it_is_done():
    text = shown(progress(step=3), progress(epoch=7), width=200, terminal=True)
    assert "images/s" in text and "8/8" in text and "91.23%" in text


SUMMARY = {
    "seconds": 2.0,
    "rows": 500,
    "images_per_s": 250.0,
    "service_ms": {"median": 12.3, "p99": 1500.0},
    "queue_ms": {"median": 0.5, "p99": 2.0},
    "waited_s": 0.1,
    "waited_share": 0.05,
    "bytes_per_sample": 40.0,
    "retries": 1,
    "replicas": 2,
}


def test_a_rung_that_is_done_says_how_it_was_served_over_all_epochs_by_teacher_and_worker():
    two_workers = {"serving": [{"wide": SUMMARY}, {"wide": {**SUMMARY, "replicas": 3}}]}
    earlier = progress(epoch=6, record=two_workers)
    lines = shown(
        earlier, progress(epoch=7, record=two_workers), progress("alone", 7, record={"serving": []}), width=140
    )
    served = [" ".join(line.split()) for line in lines.splitlines()]
    assert served[2:-1] == [
        "taught by replicas images/s answer (p99) queue (p99) waited a sample asked again",
        "student wide 3 500 12.3 ms (1.5 s) 0.5 ms (2 ms) 5.0 % 40 B 4",
        "worker 0 2 250 12.3 ms (1.5 s) 0.5 ms (2 ms) 5.0 % 40 B 2",
        "worker 1 3 250 12.3 ms (1.5 s) 0.5 ms (2 ms) 5.0 % 40 B 2",
    ]


def test_in_a_terminal_the_latest_epoch_says_so_while_the_rung_trains():
    text = shown(progress(record={"serving": [{"wide": SUMMARY}]}), progress(epoch=2, step=3), width=200, terminal=True)
    assert "asked again" in text and "12.3 ms (1.5 s)" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (60, "1 min 00 s"),
        (187, "3 min 07 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (360000, "100 h 00 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_amounts():
    assert amounts_text({"GPU": 0.5, "CPU": 4.0}) == "4 CPU, 0.5 GPU" and amounts_text({}) == "nothing"
    assert [bytes_text(count) for count in (0, 512, 2880, 1_500_000, 2.5e9)] == [
        "0 B",
        "512 B",
        "2.88 kB",
        "1.5 MB",
        "2.5 GB",
    ]


def test_the_board_gives_every_finished_epoch_once_and_of_the_rest_the_newest():
    board = ProgressBoard()
    early, late, other = progress(step=1), progress(step=2), progress("wide", step=1)
    for news in (early, progress(epoch=0), late, other, progress(epoch=1), progress(epoch=2, step=3)):
        board.post(news)
    taken = board.take()
    assert [(one.rung, one.epoch, one.step) for one in taken] == [
        ("student", 0, 5),
        ("wide", 1, 1),
        ("student", 1, 5),
        ("student", 2, 3),
    ]
    assert board.take() == []


def test_a_stopwatch_adds_up_and_goes_on():
    watch = Stopwatch({"wait": 3.0})
    with watch("wait"):
        pass
    with pytest.raises(KeyError), watch("data"):
        raise KeyError
    assert watch.seconds["wait"] >= 3 and list(watch.seconds) == ["wait", "data"]
    assert watch.total == pytest.approx(sum(watch.seconds.values())) and sum(watch.shares.values()) == pytest.approx(1)
    assert Stopwatch().shares == {}


def test_a_pace_leaves_the_start_out():
    pace = Pace()
    assert pace(seconds=20.0, steps=1) is None
    assert pace(seconds=22.0, steps=1) is None
    assert pace(seconds=23.0, steps=7) == 0.5
