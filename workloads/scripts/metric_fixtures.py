"""Writes src/metric/fixtures.json: random answers, and what scikit-learn makes of them.

    python3 workloads/scripts/metric_fixtures.py     # needs scikit-learn
"""

import json
import pathlib
import random

from sklearn import metrics

random.seed(7)
# Apart, so that what is drawn above stays as it is.
apart = random.Random(8)


def shares(classes, label):
    """Probabilities of all classes, in binary32 exactly, whose sum is 1 exactly."""
    likely = [apart.random() + (0.5 if of == label else 0.0) for of in range(classes)]
    scores = [int(share / sum(likely) * 1024) for share in likely]
    scores[label] += 1024 - sum(scores)
    return [score / 1024 for score in scores]


def area(classes, labels, scores):
    """The mean over classes that occur; where all do, scikit-learn's own."""
    rows = [scores[at:at + classes] for at in range(0, len(scores), classes)]
    areas = [
        metrics.roc_auc_score([label == of for label in labels], [row[of] for row in rows])
        for of in sorted(set(labels))
    ]
    mean = sum(areas) / len(areas)
    if len(areas) == classes:
        theirs = metrics.roc_auc_score(labels, rows, multi_class="ovr", average="macro")
        assert abs(mean - theirs) < 1e-12
    return mean


cases = []
for classes, count, ties in [(2, 60, False), (2, 60, True), (2, 7, False), (5, 80, False), (12, 30, False)]:
    labels = [random.randrange(classes) for _ in range(count)]
    if classes == 2:
        # What a model says, right more often than not; in binary32 exactly.
        scores = [min(1.0, max(0.0, random.gauss(0.35 + 0.3 * label, 0.25))) for label in labels]
        steps = 8 if ties else 1 << 20
        scores = [round(score * steps) / steps for score in scores]
        seen = [int(score > 0.5) for score in scores]
    else:
        scores = [score for label in labels for score in shares(classes, label)]
        seen = [label if random.random() < 0.6 else random.randrange(classes) for label in labels]
    average = "binary" if classes == 2 else "macro"
    kind = dict(average=average, zero_division=0)
    cases.append({
        "classes": classes,
        "labels": labels,
        "seen": seen,
        "scores": scores,
        "accuracy": metrics.accuracy_score(labels, seen),
        "precision": metrics.precision_score(labels, seen, **kind),
        "recall": metrics.recall_score(labels, seen, **kind),
        "f1": metrics.f1_score(labels, seen, **kind),
        "macro_f1": metrics.f1_score(labels, seen, average="macro", zero_division=0),
        "roc_auc": metrics.roc_auc_score(labels, scores) if classes == 2 else area(classes, labels, scores),
        "confusion": metrics.confusion_matrix(labels, seen, labels=range(classes)).tolist(),
    })
path = pathlib.Path(__file__).parent.parent / "src/metric/fixtures.json"
path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
