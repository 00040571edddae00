"""Writes src/metric/fixtures.json: random answers, and what scikit-learn makes of them.

    python3 workloads/scripts/metric_fixtures.py     # needs scikit-learn
"""

import json
import pathlib
import random

from sklearn import metrics

random.seed(7)
cases = []
for classes, count, ties in [(2, 60, False), (2, 60, True), (2, 7, False), (5, 80, False), (12, 30, False)]:
    labels = [random.randrange(classes) for _ in range(count)]
    if classes == 2:
        # What a model says, right more often than not; in binary32 exactly.
        positive = [min(1.0, max(0.0, random.gauss(0.35 + 0.3 * label, 0.25))) for label in labels]
        steps = 8 if ties else 1 << 20
        positive = [round(score * steps) / steps for score in positive]
        seen = [int(score > 0.5) for score in positive]
    else:
        positive = []
        seen = [label if random.random() < 0.6 else random.randrange(classes) for label in labels]
    average = "binary" if classes == 2 else "macro"
    kind = dict(average=average, zero_division=0)
    cases.append({
        "classes": classes,
        "labels": labels,
        "seen": seen,
        "positive": positive,
        "accuracy": metrics.accuracy_score(labels, seen),
        "precision": metrics.precision_score(labels, seen, **kind),
        "recall": metrics.recall_score(labels, seen, **kind),
        "f1": metrics.f1_score(labels, seen, **kind),
        "macro_f1": metrics.f1_score(labels, seen, average="macro", zero_division=0),
        "roc_auc": metrics.roc_auc_score(labels, positive) if classes == 2 else None,
        "confusion": metrics.confusion_matrix(labels, seen, labels=range(classes)).tolist(),
    })
path = pathlib.Path(__file__).parent.parent / "src/metric/fixtures.json"
path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
