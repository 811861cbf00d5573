"""Folders of finished runs, made up: models with answers drawn from a seed, and all figures counted from these."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from orchestrator.config import ExperimentConfig
from orchestrator.reporting.figures import PARTS

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SKILL = {"residual": 4.3, "plain": 4.0, "transformer": 3.6, "alone": 3.3, "student": 3.5}
PARAMETERS = {"residual": 173_842, "plain": 104_042, "transformer": 138_890, "alone": 14_458, "student": 14_458}
ADAM = {"target": "torch.optim:Adam", "kwargs": {"lr": 0.01}}


def document(teachers=("residual", "plain", "transformer"), heard=None, **changes):
    """The plain data of a config."""
    trained = {"slice": "teachers", "epochs": 3, "optimizer": ADAM}
    model = {"target": "actors.models:tiny_cnn"}
    return {
        "name": "sample",
        "data": {
            "train": "torchvision.datasets:FashionMNIST",
            "test": "torchvision.datasets:FashionMNIST",
            "slices": {"teachers": 20000, "student": 2560, "validation": 1000},
        },
        "teachers": {name: {"model": model, "train": trained} for name in teachers},
        "student": {"data": "student", "model": model, "input": {"mean": 0.286}, "epochs": 50, "optimizer": ADAM},
        "losses": {
            "hard": {"loss": "actors.losses:cross_entropy_loss", "on": "labels", "weight": 0.1},
            "soft": {"loss": "actors.losses:kd_loss", "on": "logits", "teachers": heard and list(heard)},
        },
        **changes,
    }


def write_run(folder, *, config=None, samples=400, classes=CLASSES, skill=None, salt="", **changes):
    """A finished run; `changes` replace keys of its result. `salt`: other weights of the teachers."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    experiment = ExperimentConfig.from_document(config or document())
    (folder / "config.yaml").write_text(experiment.to_yaml())
    (folder / "student.safetensors").write_bytes(b"")
    teachers = list(experiment.teachers)
    heard = experiment.losses["soft"].listeners(teachers)
    skills = {**SKILL, **(skill or {})}
    logits, labels = answers(teachers, [experiment.seed, *map(len, heard)], samples, len(classes), skills)
    table = {"label": labels}
    for name, probabilities in logits.items():
        table |= {name: probabilities.argmax(1), f"{name}.probability": probabilities.max(1)}
    parquet.write_table(pa.table(table), folder / "predictions.parquet")
    result = result_of(folder, experiment, teachers, logits, labels, classes, salt)
    for one in result["disagreements"]:
        path = folder / one["image"]
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(one["sample"]).integers(0, 255, (28, 28), dtype=np.uint8)
        Image.fromarray(np.minimum(pixels, np.outer(np.hanning(28), np.hanning(28)) * 255).astype("u1")).save(path)
    (folder / "result.json").write_text(json.dumps({**result, **changes}))
    return folder


def answers(teachers, seed, samples, classes, skill):
    """Each model's probabilities; what is hard is so for all of them."""
    shared = np.random.default_rng(7)
    labels = shared.integers(0, classes, samples)
    noise = shared.normal(0, 1, (samples, classes))
    found = {}
    for number, name in enumerate([*teachers, "alone", "student"]):
        own = np.random.default_rng([number, len(name), *({"student": seed, "alone": seed[:1]}.get(name, ()))])
        logits = 1.1 * noise + own.normal(0, 0.5, (samples, classes))
        logits[np.arange(samples), labels] += skill.get(name, 2.5)
        raised = np.exp(1.6 * logits)
        found[name] = raised / raised.sum(1, keepdims=True)
    mean = np.mean([found[name] for name in teachers], axis=0)
    return {
        **{name: found[name] for name in teachers},
        "ensemble": mean,
        **{n: found[n] for n in ("alone", "student")},
    }, labels


def result_of(folder, experiment, teachers, probabilities, labels, classes, salt):
    right = {name: each.argmax(1) == labels for name, each in probabilities.items()}
    gained, lost = right["student"] & ~right["alone"], right["alone"] & ~right["student"]
    heard = experiment.losses["soft"].listeners(teachers) if "soft" in experiment.losses else ()
    hashes = {name: hashlib.sha256(f"{name}{salt}".encode()).hexdigest() for name in heard}
    answered = {name: each.argmax(1) for name, each in probabilities.items()}
    names = ["student", *teachers, "ensemble"]
    return {
        "name": experiment.name,
        "seed": experiment.seed,
        "folder": str(folder),
        "wall_s": 413.7,
        "test_samples": len(labels),
        "classes": list(classes),
        "models": [model_of(name, teachers, each, labels) for name, each in probabilities.items()],
        "agreement": {
            "names": names,
            "shares": [[float((answered[a] == answered[b]).mean()) for b in names] for a in names],
        },
        "against_alone": {"gained": int(gained.sum()), "lost": int(lost.sum())},
        "contributions": [
            contribution(name, teachers, probabilities, labels, gained, lost) for name in heard if len(heard) > 1
        ],
        "disagreements": disagreements(probabilities, labels),
        "rungs": [
            *(rung_of(name, "teacher", {}, ("hard",), 4) for name in teachers),
            rung_of("alone", "alone", {}, ("hard",), experiment.student.epochs),
            rung_of("student", "student", hashes, tuple(experiment.losses), experiment.student.epochs),
        ],
    }


def cross_entropy(probabilities, labels):
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def model_of(name, teachers, probabilities, labels):
    right, confidence = probabilities.argmax(1) == labels, probabilities.max(1)
    bins = np.minimum((confidence * 15).astype(int), 14)
    filled = [(confidence[bins == b].mean(), right[bins == b].mean(), int((bins == b).sum())) for b in np.unique(bins)]
    together = teachers if name == "ensemble" else [name]
    size = sum(PARAMETERS.get(one, 90_000) for one in together)
    return {
        "name": name,
        "role": name if name in ("ensemble", "alone", "student") else "teacher",
        "accuracy": float(right.mean()),
        "cross_entropy": cross_entropy(probabilities, labels),
        "parameters": size,
        "samples": len(labels),
        "weights": None if name == "ensemble" else f"rungs/{name}/weights.safetensors",
        "ece": float(sum(count * abs(c - a) for c, a, count in filled) / len(labels)),
        "bytes_on_disk": size * 4 + 900,
        "flops": size * 41,
        "latency_ms": {"1": 0.4 + size / 50_000, "64": 9 + size / 3_000},
        "per_class": [
            float(right[labels == c].mean()) if (labels == c).any() else None for c in range(len(probabilities[0]))
        ],
        "reliability": [{"confidence": float(c), "accuracy": float(a), "count": n} for c, a, n in filled],
    }


def contribution(name, teachers, probabilities, labels, gained, lost):
    rest = np.mean([probabilities[one] for one in teachers if one != name], axis=0)
    right = probabilities[name].argmax(1) == labels
    return {
        "teacher": name,
        "weight": 1 / len(teachers),
        "accuracy_without": float((rest.argmax(1) == labels).mean()),
        "cross_entropy_without": cross_entropy(rest, labels),
        "gained_right": int((gained & right).sum()),
        "lost_wrong": int((lost & ~right).sum()),
    }


def disagreements(probabilities, labels):
    ensemble, student = probabilities["ensemble"], probabilities["student"]
    divergence = (ensemble * np.log(ensemble / student)).sum(1)
    differing = [n for n in np.argsort(-divergence) if ensemble[n].argmax() != student[n].argmax()][:12]
    return [
        {
            "sample": int(n),
            "label": int(labels[n]),
            "student": int(student[n].argmax()),
            "ensemble": int(ensemble[n].argmax()),
            "student_probability": float(student[n].max()),
            "ensemble_probability": float(ensemble[n].max()),
            "divergence": float(divergence[n]),
            "image": f"disagreements/{n}.png",
        }
        for n in differing
    ]


def rung_of(name, role, hashes, losses, epochs):
    dice = np.random.default_rng([len(name), len(hashes)])
    seconds = dict(
        zip(PARTS, (23.8, 2.1 if hashes else 0.1, 31.2 if hashes else 0.2, 43.1, 45.4, 9.8, 0.5), strict=True)
    )
    shares = {part: one / sum(seconds.values()) for part, one in seconds.items()}
    history = []
    for epoch in range(epochs):
        done = (epoch + 1) / epochs
        tilt = 0.25 * np.sin(3 * done)
        by = (
            dict(zip(hashes, np.array([1 + tilt, 1, 1 - tilt, 1, 1, 1, 1, 1]) / len(hashes), strict=False))
            if hashes
            else {}
        )
        history.append({
            "epoch": epoch,
            "terms": {term: (6 if term == "soft" else 2.3) * float(np.exp(-4 * done)) + 0.08 for term in losses},
            "accuracy": float(0.87 - 0.6 * np.exp(-7 * done) + dice.normal(0, 0.006)),
            "cross_entropy": 0.36 + float(2 * np.exp(-6 * done)),
            "seconds": 2.5 * (epoch + 1),
            "shares": shares,
            "images_per_s": 999.0,
            "weights": {"soft": by} if hashes else {},
        })  # fmt: skip
    return {
        "name": name, "role": role, "seconds": seconds, "shares": shares, "images_per_s": 999.0,
        "bytes_per_sample": 120.0 if hashes else 0.0, "teachers": hashes, "history": history, "reused": False,
    }  # fmt: skip
