"""Print the accuracy of TF-IDF and scikit-learn's linear SVM: `python -m benchmarks.linear posts.csv [pairs] [signs]`.

With `pairs` its vectors are those of log_tfidf, of words and pairs of words; with `signs` each sign is a word, too.
"""

import json
import sys
from typing import Any

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

OPTIONS: dict[str, dict[str, Any]] = {
    "pairs": {"ngram_range": (1, 2), "sublinear_tf": True},
    "signs": {"token_pattern": r"\w+|[^\w\s]"},
}

if __name__ == "__main__":
    data = pd.read_csv(sys.argv[1])
    half = len(data) // 2
    chosen = {name: value for option in sys.argv[2:] for name, value in OPTIONS[option].items()}
    model = make_pipeline(TfidfVectorizer(**chosen), LinearSVC()).fit(data["post"][:half], data["tags"][:half])
    print(json.dumps({"accuracy": model.score(data["post"][half:], data["tags"][half:])}))
